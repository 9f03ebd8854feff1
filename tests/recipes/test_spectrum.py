"""Spectra for the report: whatever the method, ΔW is what its layer adds, and its singular values are those of it."""

import json

import peft
import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from mora_peft import MoraConfig
from mora_peft.recipes.spectrum import spectrum_of, weights_of

CONFIGS = {
    "rotation": lambda **keys: MoraConfig(r=2, operator="rotation", **keys),
    "sharing": lambda **keys: MoraConfig(r=2, operator="sharing", **keys),
    "lora": lambda **keys: peft.LoraConfig(r=2, **keys),
    "dora": lambda **keys: peft.LoraConfig(r=2, use_dora=True, **keys),
    "miss": lambda **keys: peft.MissConfig(r=2, **keys),
    "loha": lambda **keys: peft.LoHaConfig(r=2, **keys),
    "hira": lambda **keys: peft.HiraConfig(r=2, **keys),
    "vera": lambda **keys: peft.VeraConfig(r=4, **keys | {"target_modules": ["q_proj", "o_proj"]}),
    "randlora": lambda **keys: peft.RandLoraConfig(r=4, **keys | {"target_modules": ["q_proj", "o_proj"]}),
    "c3a": lambda **keys: peft.C3AConfig(block_size=16, **keys),
    "ia3": lambda **keys: peft.IA3Config(feedforward_modules=["down_proj"], **keys),
}
TARGETS = ["q_proj", "v_proj", "o_proj", "down_proj"]


@pytest.fixture
def base(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model)


def tuned(name: str, base):
    """`base` with an adapter of the method `name` whose parameters are not what they start at."""
    model = get_peft_model(base, CONFIGS[name](target_modules=TARGETS, task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_spectrum_is_that_of_what_the_layer_adds(name, base):
    model = tuned(name, base)
    found = spectrum_of(model)
    assert len(found) == 3 and json.dumps(found, allow_nan=False)
    for entry in found:
        layer = model.get_submodule(f"base_model.model.{entry['layer']}")
        with torch.no_grad():
            ones = torch.eye(layer.get_base_layer().in_features)
            added = layer(ones) - layer.get_base_layer()(ones)
        values = torch.linalg.svdvals(added.double())[: len(entry["singular_values"])].tolist()
        # Four figures are kept; the layer's own output is in float32.
        assert entry["singular_values"] == pytest.approx(values, rel=1e-3, abs=1e-5 * values[0])
        assert (entry["r_hat"] is not None) == (name in ("rotation", "sharing"))


def test_the_rank_is_that_of_the_method(base, tiny_model):
    assert {len(entry["singular_values"]) for entry in spectrum_of(tuned("lora", base))} == {2}
    rotation = tuned("rotation", AutoModelForCausalLM.from_pretrained(tiny_model))
    assert all(len(entry["singular_values"]) > entry["r_hat"] / 2 > 2 for entry in spectrum_of(rotation))


def test_the_model_is_left_as_it_was(base):
    model = tuned("rotation", base)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    spectrum_of(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_an_adapter_that_learned_nothing_has_no_singular_values(base):
    model = get_peft_model(base, MoraConfig(r=2, target_modules=TARGETS))
    assert [entry["singular_values"] for entry in spectrum_of(model)] == [[], [], []]


def test_weights_from_before_show_what_full_fine_tuning_changed(base):
    assert spectrum_of(base) == []
    before = weights_of(base)
    name = next(iter(before))
    with torch.no_grad():
        base.get_submodule(name).weight += torch.outer(torch.ones(32), torch.ones(32))
    changed, *others = spectrum_of(base, before=before)
    # In float32 weights the sum is rounded, so smaller values follow.
    assert changed["layer"] == name and changed["singular_values"][0] == pytest.approx(32, rel=1e-3)
    assert all(entry["singular_values"] == [] for entry in others) and len(others) == 2


def test_weights_from_before_count_what_was_merged_on_the_way(base):
    model = tuned("lora", base)
    before = weights_of(model)
    once = spectrum_of(model)
    for _, layer in model.named_modules():
        if hasattr(layer, "lora_A"):
            layer.get_base_layer().weight.data += layer.get_delta_weight("default")
    twice = spectrum_of(model, before=before)
    for one, two in zip(once, twice, strict=True):
        assert two["singular_values"][0] == pytest.approx(2 * one["singular_values"][0], rel=1e-3)
