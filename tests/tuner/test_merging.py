"""Merged weights compute what the adapter computed, come back when unmerged, and adapters can be added up."""

from copy import copy
from dataclasses import replace

import pytest
import torch
from peft import get_peft_model
from tiny_models import ARCHITECTURES, OPERATORS, adapted, add, base_weights, logits, mora_config, mora_layers, same
from torch.testing import assert_close

every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)
CLOSE = {"rtol": 1e-3, "atol": 1e-4}


@every_architecture
@pytest.mark.parametrize("options", OPERATORS, ids=str)
@pytest.mark.parametrize("safe_merge", [False, True])
def test_merging_keeps_the_output_and_unmerging_restores_the_weights(name, options, safe_merge):
    model = adapted(name, **options)
    before, expected = base_weights(model), logits(model, name)
    model.merge_adapter(safe_merge=safe_merge)
    assert not same(base_weights(model), before)
    assert_close(logits(model, name), expected, **CLOSE)
    for key, layer in mora_layers(model).items():
        assert_close(base_weights(model)[key] - before[key], layer.get_delta_weight("default"), rtol=1e-4, atol=1e-6)
    model.unmerge_adapter()
    assert same(base_weights(model), before)
    assert_close(logits(model, name), expected, **CLOSE)


@every_architecture
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_hundred_merges_change_no_bit_of_the_base(name, dtype):
    """As often as an online trainer sends merged weights to its generator; adding and subtracting would drift."""
    model = adapted(name, dtype, task_type=None)
    add(model, "other", name, operator="sharing", task_type=None)
    before = {key: value.clone() for key, value in model.state_dict().items() if "mora_M" not in key}
    model.base_model.set_adapter(["default", "other"])
    for _ in range(100 if name == "llama" else 3):
        model.merge_adapter()
        model.unmerge_adapter()
    after = model.state_dict()
    assert same({key: after[key] for key in before}, before)


@pytest.mark.parametrize("targets", [["embed_tokens", "lm_head"], ["lm_head", "q_proj"]], ids=str)
@pytest.mark.parametrize("ensure_weight_tying", [False, True])
def test_one_weight_in_two_layers_comes_back(targets, ensure_weight_tying):
    config = copy(ARCHITECTURES["llama"].config)
    config.tie_word_embeddings = True
    base = replace(ARCHITECTURES["llama"], config=config).build()
    assert base.lm_head.weight is base.model.embed_tokens.weight
    options = {"target_modules": targets, "ensure_weight_tying": ensure_weight_tying}
    model = get_peft_model(base, mora_config("llama", **options)).eval()
    before = base_weights(model)
    model.merge_adapter()
    assert not same(base_weights(model), before)
    model.unmerge_adapter()
    assert same(base_weights(model), before)


def test_a_change_of_the_adapter_while_it_is_merged_does_not_reach_the_base():
    model = adapted("llama")
    before = base_weights(model)
    model.merge_adapter()
    for layer in mora_layers(model).values():
        layer.mora_M["default"].data.mul_(2)
        layer.set_scale("default", 3.0)
    model.unmerge_adapter()
    assert same(base_weights(model), before)


@every_architecture
def test_merge_and_unload_leaves_a_plain_model(name):
    model = adapted(name, task_type=None)  # with a task, PEFT trains a head, of which one can be active only
    add(model, "other", name, operator="sharing", task_type=None)
    model.base_model.set_adapter(["default", "other"])
    expected = logits(model, name)
    kind = type(model.base_model.model)
    merged = model.merge_and_unload(safe_merge=True)
    assert type(merged) is kind
    assert not mora_layers(merged)
    assert not [key for key in merged.state_dict() if "mora" in key]
    assert_close(logits(merged, name), expected, **CLOSE)


def test_merging_named_adapters_only():
    model = adapted("llama")
    add(model, "other", "llama", operator="sharing")
    model.set_adapter("other")
    expected = logits(model, "llama")
    model.set_adapter("default")
    merged = model.merge_and_unload(adapter_names=["other"])
    assert_close(logits(merged, "llama"), expected, **CLOSE)


@every_architecture
def test_unloading_gives_the_base_back(name):
    base = ARCHITECTURES[name].build()
    model = adapted(name, task_type=None)
    assert torch.equal(logits(model.unload(), name), logits(base, name))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_safe_merge_refuses_a_broken_adapter_and_touches_nothing(value):
    model = adapted("llama")
    before = base_weights(model)
    first = next(iter(mora_layers(model).values()))
    first.mora_M["default"].data[0, 0] = value
    message = "NaNs detected in the merged weights. The adapter default seems to be broken"
    with pytest.raises(ValueError, match=message):
        first.merge(safe_merge=True)
    assert same(base_weights(model), before)
    assert not first.merged


def test_a_half_precision_base_is_merged_from_a_float32_product():
    model = adapted("llama", dtype=torch.bfloat16)
    before = base_weights(model)
    deltas = {key: layer.get_delta_weight("default") for key, layer in mora_layers(model).items()}
    model.merge_adapter()
    for key, weight in base_weights(model).items():
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, before[key] + deltas[key].to(torch.bfloat16))


def test_unmerging_twice_warns():
    model = adapted("llama")
    with pytest.warns(UserWarning, match="Already unmerged"):
        model.unmerge_adapter()


@every_architecture
@pytest.mark.parametrize("operator", ["sharing", "rotation"])
def test_a_weighted_adapter_is_the_weighted_sum(name, operator):
    model = adapted(name, operator=operator, scaling=0.5)
    add(model, "other", name, operator=operator)
    model.add_weighted_adapter(["default", "other"], [0.7, -0.2], "sum")
    for layer in mora_layers(model).values():
        first, second, total = (layer.get_delta_weight(adapter) for adapter in ("default", "other", "sum"))
        assert_close(total, 0.7 * first - 0.2 * second)
    model.base_model.set_adapter(["default"])
    before = logits(model, name)
    model.add_weighted_adapter(["default"], [1.0], "alone")
    model.set_adapter("alone")
    assert_close(logits(model.eval(), name), before, **CLOSE)


@pytest.mark.parametrize("targets", [r".*q_proj", "all-linear", ["q_proj"]], ids=str)
def test_a_weighted_adapter_has_the_layers_of_its_parts(targets):
    model = adapted("llama", target_modules=targets)
    add(model, "other", "llama", target_modules=r".*q_proj" if targets == ["q_proj"] else targets)
    model.add_weighted_adapter(["default", "other"], [1.0, 1.0], "sum")
    for layer in mora_layers(model).values():
        assert torch.equal(layer.mora_M["sum"], layer.mora_M["default"] + layer.mora_M["other"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["default", "wider"], [1, 1], "new"), "equal shape can be combined.*default.*wider"),
        ((["default", "shared"], [1, 1], "new"), "equal shape can be combined.*Rotation.*Sharing"),
        ((["default", "elsewhere"], [1, 1], "new"), "equal shape can be combined.*absent"),
        ((["default", "nobody"], [1, 1], "new"), "'nobody' does not exist: expected some of"),
        ((["default"], [1], "wider"), "'wider' already exists"),
        ((["default"], [1, 2], "new"), "one weight for each adapter: got 2 weights, 1 adapters"),
        (([], [], "new"), "one weight for each adapter"),
        ((["default"], [1], "new", "svd"), "must be 'linear' for MoRA adapters, but is 'svd'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_weighted_adapter_that_cannot_be_is_refused(arguments, message):
    model = adapted("llama")
    add(model, "wider", "llama", r=4)
    add(model, "shared", "llama", operator="sharing")
    add(model, "elsewhere", "llama", target_modules=["q_proj"])
    known = set(model.peft_config)
    with pytest.raises(ValueError, match=message):
        model.add_weighted_adapter(*arguments)
    assert set(model.peft_config) == known
    assert not any("new" in layer.mora_M for layer in mora_layers(model).values())
