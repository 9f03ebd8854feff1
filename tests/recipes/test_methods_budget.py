"""The size of a method, solved for a budget."""

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from mora_peft.errors import UserError
from mora_peft.recipes.methods import apply, build, lora_size
from mora_peft.recipes.methods.budget import budget_for
from mora_peft.recipes.methods.config import config_class
from mora_peft.recipes.models import load_base

# What these can reach, whatever the budget, because single layers may have settings of their own.
EXACT = ["lora", "rslora", "lora+", "relora", "hira"]
NEAR = ["dora", "asymmetric-lora", "loha"]


@pytest.fixture
def tuned(tiny_model):
    def make(method, budget, /, **options):
        base, _ = load_base(tiny_model, torch.float32)
        return apply(method, base, budget, "all-linear", options)

    return make


def test_the_budget_grows_with_r(tiny_model):
    base, _ = load_base(tiny_model, torch.float32)
    assert lora_size(base, 6, "all-linear") == 2 * lora_size(base, 3, "all-linear")


@pytest.mark.parametrize("r", range(2, 9))
@pytest.mark.parametrize("method", EXACT + NEAR)
def test_methods_with_fine_settings_reach_the_budget(method, r, tuned):
    share = tuned(method, r).trainable_parameters / tuned(method, r).budget_parameters
    assert share == 1 if method in EXACT else abs(share - 1) <= 0.02


@pytest.mark.parametrize(("method", "factor"), [("dora", 2), ("asymmetric-lora", 2), ("loha", 1)])
@pytest.mark.parametrize("r", [3, 5])
def test_layers_of_another_rank_keep_the_scale(method, factor, r, tuned):
    model = tuned(method, r).model
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    assert len({layer.r["default"] for layer in layers}) == 2
    assert {layer.scaling["default"] for layer in layers} == {factor}


@pytest.mark.parametrize(
    "method", ["lora", "dora", "miss", "hira", "randlora", "loha", "vera", "mora", "asymmetric-lora"]
)
def test_options_go_before_the_budget(method, tuned):
    result = tuned(method, 2, r=5)
    assert result.model.peft_config["default"].r == 5
    assert not getattr(result.model.peft_config["default"], "rank_pattern", None)
    assert tuned("c3a", 2, block_size=4).model.peft_config["default"].block_size == 4


def test_a_pattern_of_the_users_goes_before_the_budget(tuned):
    config = tuned("dora", 3, rank_pattern={"q_proj": 7}).model.peft_config["default"]
    assert config.rank_pattern == {"q_proj": 7} and config.r == 3


@pytest.mark.parametrize("method", ["lora", "mora", "miss", "hira"])
def test_the_budget_goes_to_the_layers_that_are_left(method, tuned):
    whole, part = tuned(method, 2), tuned(method, 2, exclude_modules=["gate_proj", "up_proj"])
    assert part.budget_parameters == whole.budget_parameters
    assert part.trainable_parameters == pytest.approx(whole.trainable_parameters, rel=0.1)
    assert not [name for name, p in part.model.named_parameters() if p.requires_grad and "gate_proj" in name]


@pytest.mark.parametrize("peft_type", ["LORA", "MISS", "RANDLORA", "VERA"])
def test_solving_draws_no_random_numbers(peft_type, tiny_model):
    base, _ = load_base(tiny_model, torch.float32)
    state = torch.get_rng_state()
    getattr(build, peft_type).settings(config_class(peft_type), budget_for(base, 3, "all-linear"), {})
    assert torch.equal(state, torch.get_rng_state())


def test_values_that_the_configuration_refuses_are_refused(tuned):
    with pytest.raises(UserError, match="r"):
        tuned("lora", 2, r=-1)
    with pytest.raises(UserError, match="block size"):
        tuned("c3a", 2, block_size=5)
    with pytest.raises(UserError, match="operator"):
        tuned("mora", 2, operator="no-such-operator")
