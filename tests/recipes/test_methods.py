"""The table of methods: laws that hold for every row."""

import pytest
import torch
from method_rows import options_for

from mora_peft.errors import UserError
from mora_peft.recipes.methods import METHODS, apply, label, lora_size, method_named, slug
from mora_peft.recipes.models import load_base

TARGETS = ["all-linear", ["q_proj", "down_proj"], r".*\.mlp\.[a-z]+_proj"]


def base_for(method: str, folder: str, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """The base in `dtype`, or in float32 where the method changes the base's own weights."""
    return load_base(folder, torch.float32 if METHODS[method].trains_base else dtype)[0]


def loss_of(model: torch.nn.Module) -> torch.Tensor:
    ids = (torch.arange(96).view(4, 24) * 7) % 200
    return model(input_ids=ids, labels=ids).loss


@pytest.mark.parametrize("r", [1, 3, 8])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_meets_the_budget_or_says_why_not(method, r, tiny_model, tmp_path):
    base = base_for(method, tiny_model)
    tuned = apply(method, base, r, "all-linear", options_for(method, tmp_path))
    assert tuned.budget_parameters == r * lora_size(base_for(method, tiny_model), 1, "all-linear") > 0
    assert tuned.trainable_parameters == sum(p.numel() for p in tuned.model.parameters() if p.requires_grad) > 0
    share = tuned.trainable_parameters / tuned.budget_parameters
    assert (abs(share - 1) <= 0.02) == (tuned.budget_note is None)
    if tuned.budget_note:
        assert f"{share:.3g} times the budget: " in tuned.budget_note


@pytest.mark.parametrize("targets", TARGETS[1:], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_goes_to_the_target_modules_only(method, targets, tiny_model, tmp_path):
    tuned = apply(method, base_for(method, tiny_model), 2, targets, options_for(method, tmp_path))
    trained = [name for name, parameter in tuned.model.named_parameters() if parameter.requires_grad]
    wanted = ("q_proj", "down_proj") if isinstance(targets, list) else ("mlp",)
    assert tuned.budget_parameters == lora_size(base_for(method, tiny_model), 2, targets)
    if method not in ("full", "prompt"):
        assert trained and all(any(target in name for target in wanted) for name in trained)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_training_lowers_the_loss_and_changes_only_what_is_trained(method, dtype, tiny_model, tmp_path):
    torch.manual_seed(0)
    tuned = apply(method, base_for(method, tiny_model, dtype), 2, "all-linear", options_for(method, tmp_path))
    model = tuned.model.train()
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {parameter.dtype for parameter in parameters.values()} == {torch.float32}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=METHODS[method].learning_rate, weight_decay=0.0)
    losses = []
    for _ in range(6):
        loss = loss_of(model)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and changed <= set(parameters)


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_option_is_named(method, tiny_model, tmp_path):
    with pytest.raises(UserError, match="no_such_option"):
        apply(
            method, base_for(method, tiny_model), 2, "all-linear", options_for(method, tmp_path) | {"no_such_option": 1}
        )


def test_unknown_methods_are_refused():
    with pytest.raises(UserError, match="'mora2': expected one of mora, "):
        label("mora2", {})


@pytest.mark.parametrize("targets", [["no_such_layer"], ".*no_such_layer"], ids=str)
def test_targets_that_match_nothing_are_refused(targets, tiny_model):
    with pytest.raises(UserError, match="no_such_layer"):
        apply("mora", base_for("mora", tiny_model), 2, targets)


def test_labels_and_slugs_tell_the_rows_apart():
    for names in ({label(name, {}) for name in METHODS}, {slug(name, {}) for name in METHODS}):
        assert len(names) == len(METHODS)
    assert all(method_named(name).learning_rate > 0 for name in METHODS)


def test_names_come_from_the_options():
    assert label("mora", {"operator": "rotation", "fold": True}) == "MoRA (rotation, fold)"
    assert slug("mora", {"operator": "rotation", "fold": True}) == "mora-rotation-fold"
    assert label("lora", {"target_modules": ["q_proj", "v_proj"]}) == "LoRA (q_proj+v_proj)"
    assert slug("lora", {"layers_to_transform": [0, 1]}) == "lora-layers_to_transform-0+1"
    assert slug("lora", {}) == "lora"
    assert "/" not in slug("lora", {"init": "../x"})
