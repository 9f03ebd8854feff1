"""Rows that stand together: the loss and the gradients of the same rows side by side, in fewer tokens."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from mora_peft.errors import UserError
from mora_peft.recipes.together import Together, can_stand_together
from mora_peft.recipes.train import TrainConfig, train
from mora_peft.recipes.trainer import labelled_loss

SYSTEM = [9, 8, 7, 6]


def row(prompt: list[int], completion: list[int]) -> dict:
    return {"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion}


ROWS = {
    "a template": [row([*SYSTEM, 11, 12], [13]), row([*SYSTEM, 11, 14, 15], [16, 17]), row([*SYSTEM, 18], [19])],
    "nothing in common": [row([11, 12], [13, 14]), row([21, 22, 23], [24])],
    "one prompt, two answers": [row([11, 12, 13], [14, 15]), row([11, 12, 13], [16, 17])],
    "one prompt within another": [row([11, 12], [13, 14, 15]), row([11, 12, 13, 14], [16])],
    "no prompt": [row([], [11, 12, 13]), row([11, 12], [14]), row([31], [32, 33])],
}


@pytest.fixture(scope="module")
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64)


@pytest.mark.parametrize("name", ROWS)
def test_the_loss_and_its_gradients_are_those_of_padded_rows(name, model):
    found = []
    for collator in (Together(), DataCollatorForLanguageModeling(pad_token_id=0)):
        batch = collator(ROWS[name])
        model.zero_grad()
        loss, count = labelled_loss(model, batch)
        loss.backward()
        found.append((loss, count, [parameter.grad.clone() for parameter in model.parameters()]))
    (loss, count, gradients), (expected, wanted, others) = found
    assert count == wanted
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients, others)


def test_what_rows_begin_with_alike_stands_once():
    batch = Together()(ROWS["a template"])
    assert batch["input_ids"].shape[1] == len(SYSTEM) + 1 + 2 + 4 + 2, "the template and 11 are there once"
    assert Together()(ROWS["nothing in common"])["input_ids"].shape[1] == 8


class _Mixing(torch.nn.Module):
    """A model that looks at all that came before, whatever the mask says."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config, self.device = model, model.config, model.device

    def forward(self, input_ids, use_cache, **others):
        return self.model(input_ids=input_ids, use_cache=use_cache)


def test_a_model_that_mixes_rows_is_not_given_them_together(model):
    assert can_stand_together(model)
    assert not can_stand_together(_Mixing(model))


def test_training_learns_the_same_rows_together(settings):
    losses = {}
    for packing in ("none", "batch"):
        changes = {"output": f"{settings['output']}-{packing}", "packing": packing, "dtype": "float32"}
        found = json.loads((train(TrainConfig(**settings | changes)) / "run.json").read_text())
        losses[packing] = [entry["loss"] for entry in found["history"]]
    assert losses["batch"] == pytest.approx(losses["none"], rel=1e-4)


def test_a_prompt_of_vectors_cannot_stand_together(settings):
    with pytest.raises(UserError, match="packing to texts or none"):
        TrainConfig(**settings | {"method": "prompt", "packing": "batch"})
