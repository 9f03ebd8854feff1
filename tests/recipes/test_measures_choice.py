"""Multiple choice, against counting by hand."""

import pytest
import torch
from datasets import Dataset

from mora_peft.recipes.measures.choice import choice, metrics, options_of
from mora_peft.recipes.models import load_base

CLASSES = ["yes", "no", "maybe"]


def test_classes_have_macro_f1_and_the_majority():
    scores = [[0, -1, -2], [0, -1, -2], [-1, 0, -2], [-1, 0, -2]]  # yes yes no no
    found, chosen = metrics(scores, [CLASSES] * 4, ["yes", "no", "no", "maybe"])
    assert chosen == ["yes", "yes", "no", "no"]
    # F1: yes 2/3 (one hit, two said, one right), no 2/4, maybe 0.
    assert found == {"accuracy": 1 / 2, "majority": 1 / 2, "macro_f1": pytest.approx((2 / 3 + 1 / 2 + 0) / 3)}


def test_always_saying_the_commonest_is_the_majority():
    right = ["yes"] * 5 + ["no"] * 2
    found, _ = metrics([[0, -1, -2]] * 7, [CLASSES] * 7, right)
    assert found["accuracy"] == found["majority"] == 5 / 7
    assert found["macro_f1"] == pytest.approx((2 * 5 / (7 + 5)) / 3)


def test_texts_are_also_measured_by_character():
    options = [["a cat", "an elephant in the room"], ["two", "one hundred"]]
    scores = [[-5.0, -10.0], [-3.0, -33.0]]  # by character: the elephant, and two
    found, _ = metrics(scores, options, ["an elephant in the room", "two"])
    assert (found["accuracy"], found["accuracy_normalized"]) == (1 / 2, 1)
    assert "macro_f1" not in found


def test_letters_are_neither_normalized_nor_averaged():
    found, chosen = metrics([[0, 1], [1, 0]], [["A", "B"]] * 2, ["B", "B"])
    assert chosen == ["B", "A"] and found == {"accuracy": 1 / 2, "majority": 1}


@pytest.mark.parametrize(
    "completion, choices, options",
    [
        (" C", ["w", "x", "y", "z"], ["A", "B", "C", "D"]),
        ("no", CLASSES, CLASSES),
        ("A", ["A", "B"], ["A", "B"]),
        ("x", ["w", "x"], ["w", "x"]),
    ],
)
def test_letters_stand_for_choices_where_the_completion_is_a_letter(completion, choices, options):
    row = options_of({"prompt": "?", "completion": completion, "choices": choices})
    assert row == {"prompt": "?", "options": options, "right": completion.strip()}


@pytest.mark.parametrize("batch_size", [1, 5])
def test_the_chosen_option_is_the_likeliest_of_single_passes(tiny_model, batch_size):
    model, tokenizer = load_base(tiny_model, torch.float32)
    torch.nn.init.normal_(model.lm_head.weight, std=1.0)
    rows = [
        {"prompt": f"Question {number}?", "options": ["yes", "no", "perhaps not"], "right": "no"} for number in range(8)
    ]
    found, chosen = choice(model, tokenizer, Dataset.from_list(rows), batch_size)
    expected = []
    model.eval()
    for row in rows:
        scores = []
        for option in row["options"]:
            ids = tokenizer(f"{row['prompt']} {option}")["input_ids"]
            count = len(tokenizer(f" {option}")["input_ids"])
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            scores.append(sum(logits[at - 1, ids[at]].item() for at in range(len(ids) - count, len(ids))))
        expected.append(row["options"][scores.index(max(scores))])
    assert chosen == expected
    assert found["accuracy"] == expected.count("no") / 8
