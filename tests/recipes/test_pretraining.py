"""Pretraining: rows hold the whole text, a model from a configuration learns to read it."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from mora_peft.errors import UserError
from mora_peft.recipes import train
from mora_peft.recipes.data import load_texts
from mora_peft.recipes.tasks import pretraining, task_named, task_options

WORDS = "the cat sat on the mat and the dog lay by the door while rain fell on the roof of the old house".split()


@pytest.fixture
def texts(tmp_path) -> str:
    file = tmp_path / "train.jsonl"
    lines = [{"text": " ".join(WORDS[start:] + WORDS[:start])} for start in range(12)]
    file.write_text("\n".join(map(json.dumps, lines)))
    return str(file)


@given(st.text(alphabet="ab \n\u00e9\u4e2d", max_size=200), st.integers(1, 30))
def test_the_pieces_are_the_text(text, characters):
    pieces = list(pretraining.cut(text, characters))
    assert "".join(pieces) == text
    assert all(1 <= len(piece) <= characters for piece in pieces)
    for piece, following in pairwise(pieces):
        # A word is broken only where it fills a piece by itself.
        assert following[0].isspace() or not any(character.isspace() for character in piece[1:])


def test_rows_are_full_and_nothing_is_lost(texts):
    options = task_options("pretraining", {"train": texts, "characters": 200})
    rows = pretraining.rows(options)["text"]
    assert "".join(rows) == "\n\n".join(load_texts(texts)["text"])
    assert all(150 < len(row) <= 200 for row in rows[:-1])
    assert pretraining.rows(task_options("pretraining", {"characters": 200}), texts)["text"] == rows


def test_perplexity_is_measured_source_by_source(texts, tmp_path):
    other = tmp_path / "rain.test.jsonl"
    other.write_text(json.dumps({"text": "rain fell"}))
    options = task_options("pretraining", {"texts": [texts, str(other)], "rows_per_test": 5})
    main, second = pretraining.tests(options)
    assert (main.name, len(main.rows), second.name) == ("", 5, "rain")
    [given] = pretraining.tests(options, eval_data=str(other))
    assert given.rows["text"] == ["rain fell"]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"characters": 0}, "characters must be at least 1, not 0"),
        ({"block": 0}, "block"),
        ({"page": 3}, "page"),
    ],
)
def test_bad_options_get_one_sentence(options, words):
    with pytest.raises(UserError, match=words):
        task_options("pretraining", options)


def test_texts_must_be_given(texts):
    task = task_named("pretraining")
    with pytest.raises(UserError, match=r"pretraining needs rows: give --data FILE.*train"):
        task.rows(task.Options())
    with pytest.raises(UserError, match=r"give --eval_data FILE.*texts"):
        task.tests(task.Options(train=texts))


@pytest.fixture
def reading(settings, texts, tiny_model) -> dict:
    """Settings of a run that pretrains the tiny model, without its weights."""
    changes = {
        "model": str(Path(tiny_model) / "config.json"),
        "task": "pretraining",
        "task_options": {"train": texts, "texts": texts, "characters": 100, "block": 64, "rows_per_test": 3},
        "dtype": "float32",
    }
    return settings | changes


@pytest.mark.parametrize("method", ["full", "mora"])
def test_a_model_from_a_configuration_learns_to_read(method, reading):
    output = train.train(train.TrainConfig(**reading, method=method, learning_rate=1e-2))
    run = train.read_run(output)
    first, last = run["evaluations"][0]["perplexity"], run["evaluations"][-1]["perplexity"]
    assert 200 < first < 330  # it begins at chance, among 257 bytes
    assert last < 0.9 * first
    assert ("are trained beside it" in (run["budget_note"] or "")) == (method == "mora")


def test_an_interrupted_run_goes_on_with_the_same_random_base(reading, tmp_path, interrupted):
    whole = train.train(train.TrainConfig(**reading | {"output": str(tmp_path / "whole")}, method="lora"))
    config = train.TrainConfig(**reading, method="lora")
    with interrupted(5):
        train.train(config)
    again = train.train(config)
    assert train.read_run(again)["evaluations"] == train.read_run(whole)["evaluations"]
    [expected, found] = [load_file(next(output.glob("*/*.safetensors"))) for output in (whole, again)]
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
