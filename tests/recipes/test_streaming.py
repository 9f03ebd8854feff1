"""Rows on the disk: the rows, the tokens and the trained weights are those of rows in memory."""

import json
from collections.abc import Callable
from contextlib import contextmanager

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file

from mora_peft.errors import UserError
from mora_peft.recipes import checkpoints, streaming, train
from mora_peft.recipes.data import load_rows, load_texts
from mora_peft.recipes.tasks import pretraining

TEXTS = [f"Row {number} tells of {'ships and ' * (number % 13)}the sea." for number in range(1200)]
KINDS = {
    "texts": [{"text": text} for text in TEXTS],
    "prompts": [{"prompt": text[:5], "completion": text[5:]} for text in TEXTS],
    "facts": [{"key": text[:5], "value": text[5:]} for text in TEXTS],
    "chats": [{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": text}]}
              for text in TEXTS],
}  # fmt: skip


@pytest.fixture
def on_disk(monkeypatch, tmp_path):
    """`with on_disk():` every row is kept on the disk, in a cache of this test's own."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    @contextmanager
    def on_disk():
        with monkeypatch.context() as patch:
            patch.setattr(streaming, "IN_MEMORY", 0)
            yield

    return on_disk


def written(rows: list[dict], file) -> str:
    if file.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), file)
    else:
        file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_same_wherever_they_are_kept(kind, ending, on_disk, tmp_path):
    file = written(KINDS[kind], tmp_path / f"rows{ending}")
    expected = load_rows(file)
    assert not streaming.is_kept_on_disk(expected)
    with on_disk():
        found = load_rows(file)
    assert streaming.is_kept_on_disk(found)
    assert found.column_names == expected.column_names
    assert list(found) == list(expected)


def test_texts_and_their_pieces_too(on_disk, tmp_path):
    file = written(KINDS["texts"], tmp_path / "rows.jsonl")
    options = pretraining.Options(train=file, characters=100)
    expected = load_texts(file)["text"][:], pretraining.rows(options)["text"][:]
    with on_disk():
        texts, pieces = load_texts(file), pretraining.rows(options)
    assert streaming.is_kept_on_disk(texts) and streaming.is_kept_on_disk(pieces)
    assert (texts["text"][:], pieces["text"][:]) == expected


def test_a_mistake_far_down_is_named_and_a_changed_file_read_anew(on_disk, tmp_path):
    file = tmp_path / "rows.jsonl"
    with on_disk():
        written([*KINDS["texts"], {"text": 3}], file)
        with pytest.raises(UserError, match=r"rows\.jsonl, line 1201: expected text to be a text"):
            load_rows(str(file))
        written(KINDS["texts"], file)
        assert len(load_rows(str(file))) == 1200
        written(KINDS["texts"][:7], file)
        assert len(load_rows(str(file))) == 7


@pytest.fixture
def settings(settings, tmp_path) -> Callable[..., train.TrainConfig]:
    def made(kind: str, name: str = "run", **own) -> train.TrainConfig:
        file = written(KINDS[kind], tmp_path / f"{kind}.jsonl")
        changes = {"task": None, "task_options": {}, "data": file, "output": str(tmp_path / name), "max_length": 64}
        return train.TrainConfig(**settings | changes | {"method": "mora"} | own)

    return made


@pytest.mark.parametrize("packing", ["texts", "none", "all"])
@pytest.mark.parametrize("kind", ["texts", "prompts"])
def test_tokens_are_the_same_wherever_they_are_kept(kind, packing, settings, on_disk):
    config = settings(kind, packing=packing)
    expected = train._prepare(config).trainer.train_dataset
    with on_disk():
        found = train._prepare(config).trainer.train_dataset
    assert streaming.is_kept_on_disk(found)
    assert found.features["input_ids"].feature.dtype == "int32"
    assert list(found) == list(expected.select_columns(found.column_names))


def test_a_run_in_the_middle_of_a_pass_goes_on_to_the_same_weights(settings, on_disk, interrupted):
    own = {"steps": 9, "batch_size": 4, "checkpoint_every": 2, "method_options": {"mora_dropout": 0.2}}
    expected = train.train(settings("texts", "in memory", **own))
    config = settings("texts", **own)
    with on_disk():
        with interrupted(5):
            train.train(config)
        assert checkpoints.latest(train.Path(config.output)).name == "checkpoint-4"
        output = train.train(config)
    mine, yours = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (output, expected))
    assert mine.keys() == yours.keys() and all(torch.equal(mine[name], yours[name]) for name in mine)
