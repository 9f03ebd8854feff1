"""What PEFT tests for single methods outside its tables, for MoRA: gradients, bias, ranks, and LoRA-only tools."""

import warnings

import pytest
import torch
from peft import get_peft_model
from peft.tuners.lora.intruders import reduce_intruder_dimension
from torch import nn

from mora_peft import MoraConfig


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin0 = nn.Linear(10, 30)
        self.lin1 = nn.Linear(30, 2)

    def forward(self, x):
        return self.lin1(self.lin0(x).relu())


def trainable(model):
    return {name.removeprefix("base_model.model.") for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("second_target", ["lin0", "lin1"])
def test_only_the_active_adapter_requires_grad(second_target):
    model = get_peft_model(Mlp(), MoraConfig(target_modules=["lin0"], r=2))
    model.add_adapter("other", MoraConfig(target_modules=[second_target], r=2))
    assert trainable(model) == {"lin0.mora_M.default"}
    model.set_adapter("default")
    assert trainable(model) == {"lin0.mora_M.default"}
    model.set_adapter("other")
    assert trainable(model) == {f"{second_target}.mora_M.other"}
    with model.disable_adapter():
        assert not trainable(model)
    assert trainable(model) == {f"{second_target}.mora_M.other"}


@pytest.mark.parametrize("bias", ["all", "mora_only"])
def test_disabling_with_trained_biases_warns(bias):
    model = get_peft_model(Mlp(), MoraConfig(target_modules=["lin0"], r=2, bias=bias))
    with (
        pytest.warns(UserWarning, match="disabling adapter layers with bias configured to be"),
        model.disable_adapter(),
    ):
        pass


def test_disabling_without_trained_biases_is_silent():
    model = get_peft_model(Mlp(), MoraConfig(target_modules=["lin0"], r=2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with model.disable_adapter():
            pass


@pytest.mark.parametrize("init_weights", [True, False])
@pytest.mark.parametrize("r", [1, 11, 64])
@pytest.mark.parametrize("operator", ["sharing", "rotation", "decoupling", "truncation"])
def test_any_rank_fits_any_layer(operator, r, init_weights):
    """Where MiSS refuses a rank above the layer's width, MoRA caps the side of M, as documented."""
    torch.manual_seed(0)
    base = Mlp()
    x = torch.randn(5, 10)
    expected = base(x)
    config = MoraConfig(target_modules=["lin0", "lin1"], r=r, operator=operator, init_weights=init_weights)
    model = get_peft_model(base, config).eval()
    for name in trainable(model):
        layer = model.base_model.model.get_submodule(name.split(".")[0])
        r_hat, columns = layer.mora_M["default"].shape
        assert r_hat == columns <= min(layer.in_features, layer.out_features)
    assert torch.equal(model(x), expected) is init_weights


def test_intruder_reduction_refuses_mora():
    model = get_peft_model(Mlp(), MoraConfig(target_modules=["lin0"], r=2))
    with pytest.raises(ValueError, match="not using LoRA"):
        reduce_intruder_dimension(model, threshold_epsilon=999)
