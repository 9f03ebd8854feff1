"""Conversion: the outputs of the authors' checkpoints, exact LoRA from sharing, and errors that are what is lost."""

import json
import os
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn

from mora_peft import MoraConfig
from mora_peft.cli.main import main
from mora_peft.errors import UserError
from mora_peft.operators import MORA_TYPES, r_hat_for
from mora_peft.recipes.adapters import linear_shapes
from mora_peft.recipes.convert import ConvertConfig, convert
from mora_peft.recipes.merge import probe_logits, relative_error
from mora_peft.recipes.models import load_base
from mora_peft.tuner.convert import from_authors, to_lora

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"


def authors_checkpoint(folder, state, pickled=False, **fields):
    """A folder as the authors' fork writes it."""
    folder.mkdir()
    config = {"peft_type": "LORA", "use_mora": True, "mora_type": 6, "r": 2, "lora_alpha": 16, "lora_dropout": 0.0,
              "bias": "none", "target_modules": ["layer"], "base_model_name_or_path": None, "task_type": None,
              "use_dora": False, "modules_to_save": None, "rank_pattern": {}}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config | fields))
    if pickled:
        torch.save(state, folder / "adapter_model.bin")
    else:
        save_file({key: tensor.clone() for key, tensor in state.items()}, folder / "adapter_model.safetensors")
    return folder


def one_layer(k, d):
    return nn.ModuleDict({"layer": nn.Linear(k, d, bias=False)})


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the reference vectors are not beside this checkout")
@pytest.mark.parametrize("number", MORA_TYPES)
def test_outputs_are_those_of_the_authors_code(number, tmp_path):
    vectors = load_file(GOLDEN / "reference.safetensors")
    cases = [case for case in json.loads((GOLDEN / "reference.json").read_text()) if case["mora_type"] == number]
    assert cases
    for case in cases:
        k, d, M = case["in_features"], case["out_features"], vectors[case["name"] + ".M"]
        state = {"base_model.model.layer.lora_A.weight": M, "base_model.model.layer.lora_B.weight": M}
        folder = authors_checkpoint(tmp_path / case["name"], state, mora_type=number, r=case["r"])
        config, state = from_authors(folder, {"layer": (k, d)})
        model = get_peft_model(one_layer(k, d).double(), config, autocast_adapter_dtype=False)
        model.base_model.model.layer.double().base_layer.weight.data.zero_()
        assert not set_peft_model_state_dict(model, state).unexpected_keys
        found = model.base_model.model.layer(vectors[case["name"] + ".x"])
        tolerance = 1e-6 if number == 6 else 1e-12
        torch.testing.assert_close(found, vectors[case["name"] + ".y"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("lora_b", ["same", "empty", "absent"])
@pytest.mark.parametrize("pickled", [False, True])
def test_every_way_to_write_a_checkpoint_is_read(lora_b, pickled, tmp_path):
    M = torch.randn(8, 8)
    state = {"base_model.model.layer.lora_A.default.weight": M}
    if lora_b != "absent":
        state["base_model.model.layer.lora_B.default.weight"] = M if lora_b == "same" else torch.empty(0, 8)
    config, found = from_authors(authors_checkpoint(tmp_path / "old", state, pickled))
    assert list(found) == ["base_model.model.layer.mora_M"]
    assert torch.equal(*found.values(), M)
    assert (config.operator, config.scaling, config.cap_r_hat) == ("rotation", 1.0, False)


def test_the_cap_stays_off_only_where_it_would_change_a_side(tmp_path):
    for name, (k, d) in {"narrow": (64, 4), "square": (32, 32)}.items():
        side = r_hat_for(k, d, 2, even=True, cap=False)
        state = {"base_model.model.layer.lora_A.weight": torch.zeros(side, side)}
        config, _ = from_authors(authors_checkpoint(tmp_path / name, state), {"layer": (k, d)})
        assert config.cap_r_hat == (r_hat_for(k, d, 2, even=True) == side) == (name == "square")


WRONG = {
    "plain LoRA": ({"use_mora": False}, torch.ones(8, 8), torch.ones(8, 8), "use_mora"),
    "not square": ({}, torch.ones(8, 6), torch.ones(8, 6), "square"),
    "two matrices": ({}, torch.ones(8, 8), torch.zeros(8, 8), "not its lora_A"),
    "unknown type": ({"mora_type": 5}, torch.ones(8, 8), torch.ones(8, 8), "mora_type"),
    "another base": ({"base_model_name_or_path": "TINY"}, torch.ones(8, 8), torch.ones(8, 8), "no linear layer layer"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_such_checkpoint_gets_one_sentence(case, tmp_path, tiny_model, capsys):
    fields, A, B, sentence = WRONG[case]
    fields = {key: tiny_model if value == "TINY" else value for key, value in fields.items()}
    state = {"base_model.model.layer.lora_A.weight": A, "base_model.model.layer.lora_B.weight": B}
    folder = authors_checkpoint(tmp_path / "old", state, **fields)
    assert main(["convert", "--from-authors", str(folder), "--output", str(tmp_path / "new")]) == 2
    assert sentence in capsys.readouterr().err.strip().splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_pickle_that_would_run_code_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    folder = authors_checkpoint(tmp_path / "old", {"trap": Trap()}, pickled=True)
    with pytest.raises(UserError, match="can run code"):
        convert(ConvertConfig(str(tmp_path / "new"), from_authors=str(folder)))
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def _cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGES = {
    "no configuration": (False, lambda folder: (folder / "adapter_config.json").unlink(), "has no adapter_config.json"),
    "no weights": (False, lambda folder: (folder / "adapter_model.safetensors").unlink(), "weights are missing"),
    "safetensors cut short": (False, lambda folder: _cut(folder / "adapter_model.safetensors"), "damaged or cut short"),
    "pickle cut short": (True, lambda folder: _cut(folder / "adapter_model.bin"), "damaged"),
    "empty pickle": (True, lambda folder: (folder / "adapter_model.bin").write_bytes(b""), "damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_gets_one_sentence(damage, tmp_path, capsys):
    pickled, break_it, sentence = DAMAGES[damage]
    state = {"base_model.model.layer.lora_A.weight": torch.ones(8, 8)}
    folder = authors_checkpoint(tmp_path / "old", state, pickled)
    break_it(folder)
    assert main(["convert", "--from-authors", str(folder), "--output", str(tmp_path / "new")]) == 2
    assert sentence in capsys.readouterr().err.strip().splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_whole_model_converts_through_the_command(tmp_path, tiny_model):
    torch.manual_seed(0)
    targets = {name: shape for name, shape in linear_shapes(tiny_model).items() if name.endswith("q_proj")}
    sides = {name: r_hat_for(*shape, 2, even=True, cap=False) for name, shape in targets.items()}
    state = {f"base_model.model.{name}.lora_A.weight": torch.randn(side, side) for name, side in sides.items()}
    folder = authors_checkpoint(
        tmp_path / "old", state, base_model_name_or_path=tiny_model, target_modules=["q_proj"], task_type="CAUSAL_LM"
    )
    assert main(["convert", "--from-authors", str(folder), "--output", str(tmp_path / "new")]) == 0
    base, _ = load_base(tiny_model, torch.float32)
    model = PeftModel.from_pretrained(base, str(tmp_path / "new"))
    for name, side in sides.items():
        layer = model.base_model.model.get_submodule(name)
        assert layer.r_hat["default"] == side
        assert torch.equal(layer.mora_M["default"], state[f"base_model.model.{name}.lora_A.weight"])
    assert json.loads((tmp_path / "new" / "convert.json").read_text())["checked_against_base"]


def mora_adapter(folder, base_name, **options):
    """A random MoRA adapter on all layers of `base_name`, and its logits."""
    torch.manual_seed(1)
    base, _ = load_base(base_name, torch.float32)
    model = get_peft_model(base, MoraConfig(r=2, target_modules="all-linear", init_weights=False, **options))
    model.save_pretrained(folder)
    return model, probe_logits(model)


@pytest.mark.parametrize("layout", ["strided-tiled", "grouped-grouped", "grouped-tiled", "strided-grouped"])
def test_sharing_becomes_a_lora_exactly(layout, tmp_path, tiny_model):
    _, expected = mora_adapter(tmp_path / "mora", tiny_model, operator="sharing", layout=layout, scaling=0.7)
    output = convert(ConvertConfig(str(tmp_path / "lora"), to_lora=str(tmp_path / "mora")))
    base, _ = load_base(tiny_model, torch.float32)
    model = PeftModel.from_pretrained(base, str(output))
    assert type(model.peft_config["default"]) is LoraConfig
    torch.testing.assert_close(probe_logits(model), expected, rtol=1e-4, atol=1e-4)
    assert json.loads((output / "convert.json").read_text())["weight_error"] == 0


@pytest.mark.parametrize("operator", ["rotation", "sharing", "truncation"])
def test_the_error_of_a_cut_is_the_tail_of_the_singular_values(operator, tmp_path, tiny_model):
    mora, expected = mora_adapter(tmp_path / "mora", tiny_model, operator=operator)
    output = convert(ConvertConfig(str(tmp_path / "lora"), to_lora=str(tmp_path / "mora"), rank=3))
    base, _ = load_base(tiny_model, torch.float32)
    lora = PeftModel.from_pretrained(base, str(output))
    record = json.loads((output / "convert.json").read_text())
    for name, error in record["weight_error_by_layer"].items():
        exact = mora.base_model.model.get_submodule(name).get_delta_weight("default")
        found = lora.base_model.model.get_submodule(name).get_delta_weight("default")
        values = torch.linalg.svdvals(exact)
        assert error == pytest.approx((values[3:].norm() / values.norm()).item(), rel=1e-3)
        assert error == pytest.approx(((exact - found).norm() / exact.norm()).item(), rel=1e-3)
    assert record["logit_error"] == pytest.approx(relative_error(probe_logits(lora), expected), rel=1e-3)


def test_a_full_rank_loses_nothing_whatever_the_operator(tmp_path, tiny_model):
    _, expected = mora_adapter(tmp_path / "mora", tiny_model, operator="rotation", modules_to_save=["lm_head"])
    output = convert(ConvertConfig(str(tmp_path / "lora"), to_lora=str(tmp_path / "mora"), rank=1000))
    base, _ = load_base(tiny_model, torch.float32)
    lora = PeftModel.from_pretrained(base, str(output))
    torch.testing.assert_close(probe_logits(lora), expected, rtol=1e-3, atol=1e-3)


def test_conv1d_layers_convert(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = GPT2Config(vocab_size=50, n_positions=64, n_embd=16, n_layer=1, n_head=2)
    model = GPT2LMHeadModel(sizes).eval()
    mora = get_peft_model(model, MoraConfig(r=2, operator="sharing", target_modules=["c_attn"], init_weights=False))
    expected = probe_logits(mora)
    config, state, _ = to_lora(mora)
    lora = get_peft_model(mora.unload(), config)
    set_peft_model_state_dict(lora, state)
    torch.testing.assert_close(probe_logits(lora), expected, rtol=1e-4, atol=1e-4)


def test_requests_without_an_answer_are_refused(tmp_path, tiny_model):
    mora_adapter(tmp_path / "mora", tiny_model, operator="rotation")
    with pytest.raises(UserError, match="give the rank"):
        convert(ConvertConfig(str(tmp_path / "lora"), to_lora=str(tmp_path / "mora")))
    for options in (
        {},
        {"from_authors": "a", "to_lora": "b"},
        {"from_authors": "a", "rank": 2},
        {"to_lora": "a", "rank": 0},
    ):
        with pytest.raises(UserError):
            ConvertConfig("out", **options)
