"""Which layers are adapted, with what rank, what else is trained, and what is refused."""

import pytest
import torch
from peft import PeftModel, get_peft_model
from tiny_models import ARCHITECTURES, adapted, logits, mora_config, mora_layers
from torch import nn
from transformers.pytorch_utils import Conv1D

from mora_peft import MoraConfig
from mora_peft.operators import r_hat_for

every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)
HEADS = {"lm_head", "proj_out"}


@every_architecture
def test_all_linear_is_every_linear_layer_but_the_head(name):
    model = adapted(name, target_modules="all-linear", target_parameters=None)
    heads = HEADS | ({"classifier"} if ARCHITECTURES[name].task_type else set())
    linear = {
        key
        for key, module in ARCHITECTURES[name].build().named_modules()
        if isinstance(module, nn.Linear | Conv1D) and key.rsplit(".", 1)[-1] not in heads
    }
    assert {key.removeprefix("base_model.model.") for key in mora_layers(model)} == linear
    assert torch.isfinite(logits(model, name)).all()


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in ("vit", "whisper")])
def test_the_architecture_has_default_targets(name):
    assert mora_layers(adapted(name, target_modules=None))


def test_a_regular_expression_and_exclusions():
    by_expression = adapted("llama", target_modules=r".*layers\.1\..*_proj", exclude_modules=["up_proj", "q_proj"])
    found = {key.split("layers.")[1] for key in mora_layers(by_expression)}
    expected = {"self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"}
    assert found == {f"1.{key}" for key in expected}
    without = adapted("llama", target_modules="all-linear", exclude_modules=r".*mlp.*")
    assert mora_layers(without)
    assert not [key for key in mora_layers(without) if "mlp" in key]


@pytest.mark.parametrize("pattern", [None, "layers"])
def test_layers_by_index(pattern):
    model = adapted("llama", layers_to_transform=[1], layers_pattern=pattern)
    assert mora_layers(model)
    assert all("layers.1." in key for key in mora_layers(model))


def test_ranks_by_name_and_by_expression():
    model = adapted("llama", r=1, rank_pattern={"q_proj": 3, r"layers\.0\.mlp\.down_proj": 2}, cap_r_hat=False)
    for key, layer in mora_layers(model).items():
        r = 3 if key.endswith("q_proj") else 2 if "layers.0" in key and key.endswith("down_proj") else 1
        r_hat = r_hat_for(layer.in_features, layer.out_features, r, even=True, cap=False)
        assert layer.r["default"] == r
        assert layer.r_hat["default"] == r_hat
        assert layer.mora_M["default"].shape == (r_hat, r_hat)


def test_modules_to_save_are_trained_and_saved_whole(tmp_path):
    model = adapted("bert", task_type=None, modules_to_save=["classifier"])
    trainable = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert {key for key in trainable if "mora_M" not in key} == {
        f"base_model.model.classifier.modules_to_save.default.{part}" for part in ("weight", "bias")
    }
    with torch.no_grad():
        model.base_model.model.classifier.modules_to_save["default"].bias.add_(5)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(ARCHITECTURES["bert"].build(), tmp_path).eval()
    assert torch.equal(logits(loaded, "bert"), logits(model, "bert"))


@pytest.mark.parametrize("bias", ["none", "all", "mora_only"])
def test_biases(bias):
    model = adapted("opt", bias=bias)
    trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad and "bias" in key}
    every = {key for key, _ in model.named_parameters() if "bias" in key}
    adapted_ones = {key for key in every if any(key.startswith(f"{layer}.") for layer in mora_layers(model))}
    assert adapted_ones
    assert trained == {"none": set(), "all": every, "mora_only": adapted_ones}[bias]


def test_trained_biases_are_saved(tmp_path):
    model = adapted("opt", bias="mora_only")
    with torch.no_grad():
        for layer in mora_layers(model).values():
            layer.get_base_layer().bias.add_(1)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(ARCHITECTURES["opt"].build(), tmp_path).eval()
    assert torch.equal(logits(loaded, "opt"), logits(model, "opt"))


class Pictures(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.ConvTranspose2d(3, 4, 3)
        self.normed = nn.LayerNorm(4)
        self.linear = nn.Linear(4, 4)


@pytest.mark.parametrize("target", ["conv", "normed"])
def test_other_kinds_of_layers_are_refused_with_a_way_out(target):
    model = Pictures()
    with pytest.raises(ValueError, match=r"is not supported: MoRA adapts `torch.nn.Linear`") as error:
        get_peft_model(model, MoraConfig(target_modules=[target, "linear"]))
    assert f"({target})" in str(error.value)
    assert "modules_to_save" in str(error.value)


@pytest.mark.parametrize(
    ("asked", "meant"),
    [("q_porj", "q_proj"), ("down-proj", "down_proj"), ("gate_prj", "gate_proj"), ("vproj", "v_proj")],
)
def test_targets_that_match_nothing_name_the_nearest(asked, meant):
    with pytest.raises(ValueError, match=asked) as error:
        adapted("llama", target_modules=[asked])
    assert f"Did you mean '{meant}'?" in str(error.value)


def test_targets_like_nothing_in_the_model_list_what_there_is():
    with pytest.raises(ValueError, match="Its linear layers are called 'down_proj', 'gate_proj'"):
        adapted("llama", target_modules=["xyzzy"])


def test_an_architecture_without_defaults_asks_for_targets():
    with pytest.raises(ValueError, match="target_modules"):
        get_peft_model(Pictures(), MoraConfig())


def test_an_adapter_can_have_other_targets_than_the_first():
    model = adapted("llama", target_modules=["q_proj"])
    model.add_adapter("other", mora_config("llama", target_modules=["up_proj"], operator="sharing"))
    first = logits(model, "llama")
    model.set_adapter("other")
    assert not torch.equal(logits(model.eval(), "llama"), first)
    model.set_adapter("default")
    assert torch.equal(logits(model.eval(), "llama"), first)
