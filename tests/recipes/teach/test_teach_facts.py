"""Facts and their wordings: found in three languages, asked for in words that are never taught."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mora_peft.recipes.teach.cleaning import cleaned
from mora_peft.recipes.teach.documents import Block, Document, Summary
from mora_peft.recipes.teach.facts import Fact, facts_of, questions_of, spans
from mora_peft.recipes.teach.language import language_of, sentences
from mora_peft.recipes.teach.proof import token_f1
from mora_peft.recipes.teach.questions import askable, nearness, options, teachable
from mora_peft.recipes.teach.reading import read_folder
from mora_peft.recipes.teach.rows import scheduled
from mora_peft.recipes.teach.settings import TeachConfig
from mora_peft.recipes.teach.wordings import key, questioned, taught

FOUND = [
    ("en", "The Harwick kettle costs 129 euros in every shop.", {"129 euros": "money"}),
    (
        "en",
        "Tolva was founded on 14 March 2011 by Ansel Coriband.",
        {"14 March 2011": "date", "Ansel Coriband": "name"},
    ),
    ("en", "Employees may carry over 7 days of leave until 31 March.", {"7 days": "quantity", "31 March": "date"}),
    ("en", "The shop opens at 08:30 and gives 15 percent off.", {"08:30": "time", "15 percent": "percent"}),
    ("en", "The article number of the kettle is HK-204.", {"HK-204": "code"}),
    ("ru", "Компания основана 14 марта 2011 года в городе Тарнов.", {"14 марта 2011 года": "date", "Тарнов": "name"}),
    ("ru", "Гарантия на чайник составляет 27 месяцев.", {"27 месяцев": "quantity"}),
    ("ru", "Чайник «Северный» стоит 4 500 рублей.", {"Северный": "term", "4 500 рублей": "money"}),
    ("zh", "公司于2011年3月14日在青湾市成立。", {"2011年3月14日": "date"}),
    ("zh", "水壶的价格是299元，保修期为27个月。", {"299元": "money", "27个月": "quantity"}),
    ("zh", "销售部由李文静负责。", {"李文静": "name"}),
]


@pytest.mark.parametrize("language, sentence, expected", FOUND)
def test_what_can_be_asked_for_is_found(language, sentence, expected):
    assert language_of(sentence) == language
    found = {sentence[start:end]: kind for start, end, kind in spans(sentence, language)}
    assert found.items() >= expected.items()


@pytest.mark.parametrize("language, sentence, expected", FOUND)
def test_the_question_is_in_no_taught_wording_and_hides_its_answer(language, sentence, expected):
    document = Document("a.txt", "Title", (Block("text", sentence),), language)
    found = facts_of(document)
    assert found
    for fact in askable(found):
        assert key(questioned(fact)) not in {key(row.prompt) for row in taught(fact)}
        assert key(fact.answer) not in key(questioned(fact))
        assert all(row.completion.startswith(fact.answer) or row.prompt.endswith(":") for row in taught(fact))
        assert len({row.prompt for row in taught(fact)}) == len(taught(fact)) >= 2


def test_wordings_of_the_whole_handbook_never_meet(root):
    documents = cleaned(read_folder(root / "examples" / "handbook", 50, Summary()), Summary())
    facts = askable([fact for document in documents for fact in facts_of(document)])
    prompts = {key(row.prompt) for fact in facts for row in taught(fact)}
    every = teachable([fact for document in documents for fact in facts_of(document)])
    assert len(documents) > 30 and len(facts) > 250 and len(every) > 300
    assert not prompts & {key(questioned(fact)) for fact in facts}


@pytest.mark.parametrize("sentence, asked", [
    ("The yields were close to their five-year averages in 2014.", {"2014"}),
    ("The yard keeps 4 to 5 tons of steel in Hall Nine.", {"Hall Nine"}),
    ("The team works with Orme valves and was led by Ada Orme's sister.", set()),
    ("The mean of the results is 26.3 ± 5.4 as shown in Fig. 5 of the report.", set()),
    ("The pump was spun at 3500 rpm by Piers Vane.", {"Piers Vane"}),
    ("The board calls it Relay Mapping (RM) and pays 12 euros for it.", {"Relay Mapping", "12 euros"}),
    ("The window of 16 allows a view of Mount Orme.", {"Mount Orme"}),
])  # fmt: skip
def test_a_piece_of_a_phrase_is_not_asked_for(sentence, asked):
    facts = facts_of(Document("a.txt", "Title", (Block("text", sentence),), "en"))
    assert {fact.answer for fact in facts} == asked


@pytest.mark.parametrize("sentence, answer, expected", [
    ('The agent calls the market "close to bottoming out."', "close to bottoming out",
     "What does the agent call the market?"),
    ("Leave for moving house lasts 2 days.", "2 days", "How long does leave for moving house last?"),
    ("The board wants to characterize TM-154 in the lab.", "TM-154",
     "The board wants to characterize which code in the lab?"),
    ("The pump (type 3) was approved; it runs since 14 March 2011.", "14 March 2011",
     "The pump (type 3) was approved; it runs since when?"),
])  # fmt: skip
def test_how_a_fact_is_asked_for(sentence, answer, expected):
    facts = facts_of(Document("a.txt", "Title", (Block("text", sentence),), "en"))
    assert {fact.answer: questioned(fact) for fact in facts}[answer] == expected


def test_a_table_is_asked_about_by_row_and_column():
    rows = (("Name", "Room"), ("Ada Orme", "C-08"), ("Piers Vane", "D-11"))
    found = facts_of(Document("t.csv", "Rooms", (Block("table", "Rooms", rows=rows),)))
    cells = [(fact.entity, fact.column, fact.answer) for fact in found]
    assert cells == [("Ada Orme", "Room", "C-08"), ("Piers Vane", "Room", "D-11")]
    assert options(found[0], found, 0).count("C-08") == 1 and "D-11" in options(found[0], found, 0)


def test_questions_in_documents_are_kept():
    blocks = (
        Block("heading", "May I sell leave?", 2), Block("text", "Yes."), Block("text", "Four days a year."),
        Block("heading", "May I buy some?", 2), Block("heading", "Other", 2), Block("text", "More."),
    )  # fmt: skip
    assert questions_of(Document("a", "A", blocks)) == [("May I sell leave?", "Yes.\nFour days a year.")]


def test_a_question_with_two_answers_is_not_asked():
    facts = [
        Fact("a", "A", "A", f"The Harwick costs {price}.", 18, 18 + len(price), "money", "en")
        for price in ("5 euros", "6 euros")
    ]
    assert askable(facts) == [] and len(askable(facts[:1])) == 1


@given(st.text(max_size=60), st.sampled_from(["en", "ru", "zh"]))
def test_spans_never_overlap(text, language):
    found = spans(text, language)
    assert all(start < end <= len(text) for start, end, _ in found)
    assert all(first[1] <= second[0] for first, second in pairwise(found))


@given(st.lists(st.sampled_from(["red", "kettle", "水", "壶", "чай", "12"]), min_size=1, max_size=6))
def test_token_f1_is_one_for_the_same_words_and_none_for_others(words):
    assert token_f1(" ".join(words), " ".join(reversed(words))) == 1
    assert token_f1("other", " ".join(words)) == 0


def test_nearness_counts_shared_runs_of_words():
    assert nearness("when was the kettle made", ["when was the kettle made in"]) == 1
    assert nearness("when was the kettle made", ["who knows"]) == 0


def test_sentences_of_three_languages():
    assert len(sentences("Dr. Oster lives here. She is 40.", "en")) == 2
    assert len(sentences("公司成立于2019年。总部在青岛！", "zh")) == 2
    assert len(sentences("Он родился в 1990 г. в Твери. Он работает.", "ru")) == 2


@given(st.integers(0, 60), st.integers(0, 30), st.sampled_from([1, 1.5, 4]), st.integers(1, 9))
def test_a_schedule_has_every_fact_in_every_pass_and_every_passage_in_some(facts, texts, passes, batch_size):
    def rows(kind: str, count: int) -> list[dict]:
        return [{"prompt": kind, "completion": "x" * (number * 7 % 23), "number": number} for number in range(count)]

    made = rows("fact", facts), rows("text", texts)
    config = TeachConfig(folder="f", model="m", output="o", passes=passes, batch_size=batch_size)
    if not facts and not texts:
        return
    found = scheduled(*made, config)
    counts = Counter((row["prompt"], row["number"]) for row in found)
    assert len({counts["fact", number] for number in range(facts)}) <= 1
    assert all(counts["fact", number] >= passes for number in range(facts))
    assert all(counts["text", number] >= 1 for number in range(texts))
    assert found == scheduled(*made, config)
