"""Forgetting: general text is measured beneath the adapter before, and through it after."""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from mora_peft.errors import UserError
from mora_peft.recipes import train
from mora_peft.recipes.measures.perplexity import answer_perplexity
from mora_peft.recipes.models import load_base
from mora_peft.recipes.train import TrainConfig


@pytest.fixture
def general(tmp_path) -> str:
    file = tmp_path / "general.jsonl"
    file.write_text("".join(json.dumps({"text": f"The {n} ships left the harbour at dawn."}) + "\n" for n in range(6)))
    return str(file)


def run(config: TrainConfig) -> dict:
    return json.loads((train.train(config) / "run.json").read_text())


def test_what_a_run_did_to_general_text(settings, general, tmp_path):
    def found(method, name, steps=5, rate=3e-2):
        changes = {"output": str(tmp_path / name), "steps": steps, "forgetting_data": general, "forgetting_rows": 4}
        return run(TrainConfig(**settings | changes, method=method, learning_rate=rate))["forgetting"]

    adapted, still = found("mora", "adapted"), found("full", "still", rate=1e-30)
    assert adapted["rows"] == 4 and adapted["data"] == general
    assert adapted["before"] == pytest.approx(still["before"], rel=1e-4) == pytest.approx(still["after"], rel=1e-4)
    assert adapted["after"] != pytest.approx(adapted["before"], rel=1e-3)
    # A prompt that nobody has trained yet is no part of the base either.
    assert found("prompt", "prompt")["before"] == pytest.approx(still["before"], rel=1e-4)


def test_of_rows_with_prompts_the_completions_are_measured(settings, tmp_path):
    def before(name, rows):
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        changes = {"output": str(tmp_path / name), "steps": 1, "forgetting_data": str(file)}
        return run(TrainConfig(**settings | changes))["forgetting"]["before"]

    rows = [{"prompt": f"The {n} ships", "completion": " left the harbour at dawn."} for n in range(4)]
    apart = before("apart", rows)
    whole = before("whole", [{"text": row["prompt"] + row["completion"]} for row in rows])
    assert apart != pytest.approx(whole, rel=1e-3)
    model, tokenizer = load_base(settings["model"], torch.float32)
    assert apart == pytest.approx(answer_perplexity(model, tokenizer, Dataset.from_list(rows)), rel=1e-4)


def test_a_resumed_run_remembers_the_base(settings, general, interrupted):
    config = TrainConfig(**settings | {"forgetting_data": general}, learning_rate=3e-2)
    whole = run(config)["forgetting"]
    again = TrainConfig(**settings | {"forgetting_data": general, "fresh": True}, learning_rate=3e-2)
    with interrupted(5):
        train.train(again)
    resumed = run(TrainConfig(**settings | {"forgetting_data": general}, learning_rate=3e-2))["forgetting"]
    assert resumed == whole
    assert not (Path(config.output) / "forgetting.json").exists()


def test_chats_are_refused(settings, tmp_path):
    chats = tmp_path / "chats.jsonl"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    chats.write_text(json.dumps({"messages": turns}) + "\n")
    with pytest.raises(UserError, match=r"chats\.jsonl.*text"):
        train.train(TrainConfig(**settings | {"forgetting_data": str(chats)}))
    assert not Path(settings["output"]).exists()
