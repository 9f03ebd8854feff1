"""The memorization task: rows that cannot be guessed, and recall that means what it says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mora_peft.errors import UserError
from mora_peft.recipes.measures import recall
from mora_peft.recipes.measures.recall import character_accuracy
from mora_peft.recipes.tasks import memorization
from mora_peft.recipes.tasks.memorization import Options, facts, pairs, rows


@pytest.mark.parametrize("make", [facts, lambda count, seed: pairs(count, 32, seed)])
def test_rows_are_seeded_and_their_keys_differ(make):
    made = make(500, 1)
    assert len({row["prompt"] for row in made}) == 500
    assert made == make(500, 1) and made != make(500, 2)
    assert all(row["completion"].startswith(" ") and row["completion"].strip() for row in made)
    # A longer list begins with the shorter one, so that studies over sizes share their rows.
    assert make(20, 1) == made[:20]


def test_pairs_of_32_digits_are_uuids():
    from uuid import UUID

    for row in pairs(10, 32, 0):
        assert str(UUID(row["prompt"])) == row["prompt"]
        assert str(UUID(row["completion"].strip())) == row["completion"].strip()


def test_facts_cannot_be_guessed():
    """No answer stands in its question, and the commonest answer is rare."""
    made = facts(400, 0)
    answers = [row["completion"].strip() for row in made]
    assert not any(answer in row["prompt"] for row, answer in zip(made, answers, strict=True))
    assert max(answers.count(answer) for answer in answers) < 0.03 * len(answers)


@given(st.text(min_size=1), st.text())
def test_character_accuracy_is_a_share(expected, answer):
    assert 0 <= character_accuracy(answer, expected) <= 1
    assert character_accuracy(expected, expected) == 1
    assert character_accuracy(expected + answer, expected) == 1
    assert character_accuracy("", expected) == 0


@pytest.mark.parametrize("right", [0, 3, 12])
def test_recall_counts_right_answers(right, monkeypatch):
    data = rows(Options(facts=8, pairs=4, digits=8))
    expected = [completion.strip() for completion in data["completion"]]
    given_answers = expected[:right] + ["?"] * (12 - right)
    monkeypatch.setattr(recall, "greedy", lambda *_: given_answers)
    metrics, answers = recall.recall(None, lambda texts, **_: {"input_ids": [[0]] * len(texts)}, data)
    assert answers == given_answers
    assert metrics["exact_match"] == metrics["character_accuracy"] == right / 12
    assert metrics["exact_match"] * 12 == pytest.approx(
        metrics["exact_match_facts"] * 8 + metrics["exact_match_pairs"] * 4
    )


@pytest.mark.parametrize("given_options", [{"facts": -1}, {"facts": 0, "pairs": 0}, {"digits": 40}, {"facts": 10**6}])
def test_impossible_options_are_refused(given_options):
    with pytest.raises(UserError):
        Options(**given_options)


@pytest.mark.parametrize("group", [True, False])
def test_tuning_sees_no_row_that_is_tested(group):
    options = Options(facts=20, pairs=20, digits=8)
    learned = rows(options)
    learned = learned if group else learned.select_columns(["prompt", "completion"])
    [test] = memorization.tests(options, learned)
    other, [trial] = memorization.tuning(options, learned)
    assert test.rows is learned and len(other) == len(learned) and trial.rows is other
    assert not set(other["prompt"]) & set(learned["prompt"])
