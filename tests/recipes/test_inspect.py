"""Inspection: sizes that are those of the real adapter, and singular values that are those of the whole ΔW."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from mora_peft import MoraConfig
from mora_peft.cli.main import main
from mora_peft.errors import UserError
from mora_peft.operators import LAYOUTS, OPERATORS, make_operator, needs_even_side, r_hat_for
from mora_peft.recipes.inspect import InspectConfig, inspect
from mora_peft.recipes.models import load_base
from mora_peft.recipes.spectrum import factored_values, mora_values, summarize

CHOICES = [(name, None, False) for name in OPERATORS if name != "sharing"] + [
    *(("sharing", layout, False) for layout in LAYOUTS),
    ("rotation", None, True),
    ("decoupling", None, True),
]
sizes = st.integers(1, 70)


@settings(max_examples=100, deadline=None)
@given(choice=st.sampled_from(CHOICES), k=sizes, d=sizes, r=st.integers(1, 6), cap=st.booleans())
def test_small_parts_have_the_singular_values_of_the_whole(choice, k, d, r, cap):
    name, layout, fold = choice
    side = r_hat_for(k, d, r, even=needs_even_side(name), cap=cap)
    operator = make_operator(name, k=k, d=d, r_hat=side, layout=layout, fold=fold)
    M = torch.randn(side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(k * d))
    whole = torch.linalg.svdvals(operator.delta_weight(M))
    parts = mora_values(operator, M)
    length = max(len(whole), len(parts))
    padded = [torch.nn.functional.pad(values, (0, length - len(values))) for values in (whole, parts)]
    # The square of the largest value is rounded, so that the smallest ones are known to its root only.
    torch.testing.assert_close(*padded, rtol=1e-6, atol=1e-6 * (whole[0].item() + 1))


def test_factors_have_the_singular_values_of_their_product():
    A, B = torch.randn(3, 20, dtype=torch.float64), torch.randn(30, 3, dtype=torch.float64)
    torch.testing.assert_close(factored_values(B, A), torch.linalg.svdvals(B @ A)[:3])


@pytest.mark.parametrize("rank", [1, 5])
def test_the_effective_rank_of_equal_values_is_their_number(rank):
    summary = summarize(torch.full((rank,), 3.0))
    assert summary.effective_rank == pytest.approx(rank)
    assert summary.above_1_percent == rank
    assert summarize(torch.zeros(rank)).effective_rank == 0


def adapter(folder, base_name, config):
    torch.manual_seed(0)
    model = get_peft_model(load_base(base_name, torch.float32)[0], config)
    model.save_pretrained(folder)
    return model


CONFIGS = {
    "rotation": MoraConfig(r=2, target_modules="all-linear", init_weights=False, scaling=0.5),
    "sharing": MoraConfig(r=2, operator="sharing", target_modules=["q_proj", "up_proj"], init_weights=False),
    "patterned": MoraConfig(r=2, target_modules="all-linear", rank_pattern={"q_proj": 4}, init_weights=False),
    "lora": LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_trained_adapter_is_described_as_it_is(name, tmp_path, tiny_model, capsys):
    model = adapter(tmp_path / "adapter", tiny_model, CONFIGS[name])
    layers = inspect(InspectConfig(str(tmp_path / "adapter")))
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert sum(layer.parameters for layer in layers) == sum(tensor.numel() for tensor in tensors.values())
    assert sum(layer.bytes for layer in layers) == sum(tensor.nbytes for tensor in tensors.values())
    for layer in layers:
        delta = model.base_model.model.get_submodule(layer.name).get_delta_weight("default")
        assert delta.shape == (layer.d, layer.k)
        assert layer.spectrum.largest[0] == pytest.approx(torch.linalg.matrix_norm(delta, 2).item(), rel=1e-4)
    shown = capsys.readouterr().out
    assert "q_proj" in shown and "total" in shown


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_plan_has_the_sizes_of_the_adapter_it_plans(operator, tmp_path, tiny_model):
    options = {"r": 3, "operator": operator, "target_modules": ["q_proj", "down_proj"]}
    planned = inspect(InspectConfig(tiny_model, **options))
    adapter(tmp_path / "adapter", tiny_model, MoraConfig(**options))
    made = inspect(InspectConfig(str(tmp_path / "adapter")))
    assert planned == [replace(layer, spectrum=None) for layer in made]


def test_the_cap_and_its_cost_add_up_to_the_uncapped_side(tiny_model):
    layers = inspect(InspectConfig(tiny_model, r=64, operator="sharing"))
    assert any(layer.cap_cost for layer in layers)
    for layer in layers:
        assert layer.parameters + layer.cap_cost == r_hat_for(layer.k, layer.d, 64, cap=False) ** 2
        assert layer.budget == (layer.k + layer.d) * 64


def test_json_holds_every_layer(tmp_path, tiny_model, capsys):
    assert main(["inspect", tiny_model, "--r", "2", "--target-modules", "[q_proj]", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["totals"]["layers"] == len(shown["layers"]) == 2
    assert shown["totals"]["parameters"] == sum(layer["parameters"] for layer in shown["layers"])


def test_a_base_model_is_inspected_without_its_weights(tmp_path, tiny_model):
    import shutil

    bare = shutil.copytree(tiny_model, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    assert inspect(InspectConfig(str(bare)))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["no/such/model"], "could not be read"),
        (["MODEL", "--r", "0"], "positive integer"),
        (["MODEL", "--layout", "spiral", "--operator", "sharing"], "Unknown layout"),
        (["MODEL", "--target_modules", "q_prj"], "q_proj"),
        (["EMPTY"], "could not be read"),
    ],
)
def test_bad_input_gets_one_sentence(arguments, words, tiny_model, tmp_path, capsys):
    names = {"MODEL": tiny_model, "EMPTY": str(tmp_path)}
    assert main(["inspect", *(names.get(word, word) for word in arguments)]) == 2
    assert words in capsys.readouterr().err.strip().splitlines()[-1]


def test_an_adapter_of_another_base_is_refused(tmp_path, tiny_model):
    from transformers import LlamaConfig

    adapter(tmp_path / "adapter", tiny_model, CONFIGS["sharing"])
    wide = LlamaConfig.from_pretrained(tiny_model)
    wide.intermediate_size = 96
    wide.save_pretrained(tmp_path / "wide")
    with pytest.raises(UserError, match="where the base needs"):
        inspect(InspectConfig(str(tmp_path / "adapter"), base=str(tmp_path / "wide")))
