"""Each sample of a batch with its own adapter computes what it computes alone."""

import pytest
import torch
from tiny_models import ARCHITECTURES, adapted, add, inputs, logits
from torch.testing import assert_close

NAMES = ["wide", "__base__", "default", "shared", "default", "wide"]
CLOSE = {"rtol": 1e-3, "atol": 1e-4}


def with_three_adapters(name):
    """Different r̂, different operators, and a factor on one of them."""
    # With a task, PEFT saves a classification head with every adapter; here all adapters share the base's.
    options = {"task_type": None} if name == "bert" else {}
    model = adapted(name, **options)
    add(model, "wide", name, seed=2, r=5, scaling=0.5, **options)
    add(model, "shared", name, seed=3, operator="sharing", **options)
    return model


def alone(model, adapter, compute):
    if adapter == "__base__":
        with model.disable_adapter():
            return compute()
    model.set_adapter(adapter)
    return compute()


@pytest.mark.parametrize("names", [NAMES, ["shared"] * 6, ["__base__"] * 6, ["default", "wide"] * 3], ids=str)
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "mixtral"])
def test_every_sample_as_if_it_were_alone(name, names):
    model = with_three_adapters(name)
    expected = {adapter: alone(model, adapter, lambda: logits(model, name, batch=6)) for adapter in set(names)}
    mixed = logits(model, name, batch=6, adapter_names=names)
    for i, adapter in enumerate(names):
        assert_close(mixed[i], expected[adapter][i], **CLOSE)
    assert len({tensor.sum().item() for tensor in expected.values()}) == len(set(names))


def test_adapters_of_experts_cannot_be_mixed():
    with pytest.raises(ValueError, match=r"Adapters of parameters \(down_proj\) cannot be mixed in one batch"):
        logits(adapted("mixtral"), "mixtral", adapter_names=["default"] * 3)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", ["llama", "t5"])
def test_generation(name, beams):
    model = with_three_adapters(name)
    prompts = {"input_ids": inputs(name, batch=6)["input_ids"]}
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "num_beams": beams, "do_sample": False, "pad_token_id": 0}
    expected = {a: alone(model, a, lambda: model.generate(**prompts, **options)) for a in set(NAMES)}
    mixed = model.generate(**prompts, adapter_names=NAMES, **options)
    assert mixed.shape == expected["default"].shape
    for i, adapter in enumerate(NAMES):
        assert torch.equal(mixed[i], expected[adapter][i])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(dtype):
    model = adapted("llama", dtype=dtype)
    add(model, "shared", "llama", operator="sharing")
    names = ["default", "__base__", "shared"]
    mixed = logits(model, "llama", adapter_names=names)
    assert mixed.dtype == dtype
    for i, adapter in enumerate(names):
        expected = alone(model, adapter, lambda: logits(model, "llama"))[i]
        assert_close(mixed[i], expected, rtol=0.1, atol=0.02 * expected.abs().max().item())


def test_what_is_refused():
    model = with_three_adapters("llama")
    with pytest.raises(ValueError, match=r"non-existing adapter.*: nobody"):
        logits(model, "llama", adapter_names=["default", "nobody", "wide"])
    with pytest.raises(ValueError, match=r"Length of `adapter_names` should be the same.*got 2 and 3"):
        logits(model, "llama", adapter_names=["default", "wide"])
    with pytest.raises(TypeError, match="expected a list of str"):
        logits(model, "llama", adapter_names="default")
    with pytest.raises(ValueError, match="in training mode"):
        logits(model.train(), "llama", adapter_names=["default"] * 3)
    model.eval().merge_adapter()
    with pytest.raises(ValueError, match=r"merged adapters.*unmerge_adapter"):
        logits(model, "llama", adapter_names=["default"] * 3)
    model.unmerge_adapter()
    logits(model, "llama", adapter_names=["default"] * 3)
