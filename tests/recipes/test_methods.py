"""The table of methods: every row meets the budget or says why not."""

import pytest
import torch

from mora_peft.errors import UserError
from mora_peft.recipes.methods import METHODS, apply, label, lora_size, slug
from mora_peft.recipes.models import load_base

TARGETS = ["all-linear", ["q_proj", "down_proj"], r".*\.mlp\.[a-z]+_proj"]


@pytest.mark.parametrize("targets", TARGETS, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_meets_the_budget_or_says_why_not(method, targets, tiny_model):
    base, _ = load_base(tiny_model, torch.float32)
    tuned = apply(method, base, 3, targets)
    assert tuned.budget_parameters == lora_size(base, 3, targets) > 0
    share = tuned.trainable_parameters / tuned.budget_parameters
    assert (abs(share - 1) <= 0.02) == (tuned.budget_note is None)
    if METHODS[method].limit is None and method == "lora":
        assert share == 1


def test_the_budget_grows_with_r(tiny_model):
    base, _ = load_base(tiny_model, torch.float32)
    assert lora_size(base, 6, "all-linear") == 2 * lora_size(base, 3, "all-linear")


def test_names_come_from_the_options():
    assert label("mora", {"operator": "rotation", "fold": True}) == "MoRA (rotation, fold)"
    assert slug("mora", {"operator": "rotation", "fold": True}) == "mora-rotation-fold"
    assert slug("lora", {}) == "lora"
    assert "/" not in slug("lora", {"init": "../x"})


def test_unknown_methods_are_refused():
    with pytest.raises(UserError, match="expected one of mora, lora, full, prompt"):
        label("mora2", {})
