"""What PEFT tests for MiSS's conversion to LoRA, for MoRA's operators: exact at full rank, better with every rank."""

import pytest
import torch
from peft import (
    PeftModel,
    convert_to_lora,
    get_peft_model,
    get_peft_model_state_dict,
    save_as_lora,
    set_peft_model_state_dict,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from stand_ins import DECODERS
from transformers import AutoModelForCausalLM

from mora_peft import MoraConfig

LLAMA = "trl-internal-testing/tiny-random-LlamaForCausalLM"
GPT2 = "peft-internal-testing/tiny-random-GPT2LMHeadModel"
SQUARE = ["q_proj", "o_proj"]  # both 32 x 32 in the tiny Llama
FULL_RANK = 32
SHARING = [
    {"operator": "sharing", "layout": layout}
    for layout in ("strided-tiled", "grouped-grouped", "grouped-tiled", "strided-grouped")
]
OTHERS = [{"operator": "rotation"}, {"operator": "rotation", "fold": True}, {"operator": "decoupling"}]
ALL = [*SHARING, *OTHERS, {"operator": "truncation"}]


def base_model(model_id=LLAMA):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(DECODERS[model_id]).eval()


def mora_model(operator, model_id=LLAMA, targets=SQUARE):
    config = MoraConfig(r=2, init_weights=False, target_modules=targets, **operator)
    return get_peft_model(base_model(model_id), config).eval()


def lora_model(lora_config, weights, model_id=LLAMA):
    model = get_peft_model(base_model(model_id), lora_config).eval()
    assert not set_peft_model_state_dict(model, weights).unexpected_keys
    return model


@torch.no_grad()
def effect(model):
    """What the adapter adds to the logits, in float64 to compare small differences."""
    tokens = torch.arange(10).view(2, 5)
    with model.disable_adapter():
        base = model(tokens).logits.double()
    return model(tokens).logits.double() - base


def relative_error(model, reference):
    reference = effect(reference)
    return ((effect(model) - reference).norm() / reference.norm()).item()


@pytest.mark.parametrize("operator", ALL, ids=str)
def test_full_rank_conversion_is_exact(operator):
    mora = mora_model(operator)
    assert mora.supports_lora_conversion()
    assert relative_error(lora_model(*convert_to_lora(mora, rank=FULL_RANK)), mora) < 1e-4


@pytest.mark.parametrize("operator", SHARING, ids=str)
def test_sharing_is_exact_at_its_own_rank(operator):
    mora = mora_model(operator)
    r_hat = {parameter.shape[0] for name, parameter in mora.named_parameters() if "mora_M" in name}
    assert len(r_hat) == 1 and max(r_hat) < FULL_RANK
    assert relative_error(lora_model(*convert_to_lora(mora, rank=r_hat.pop())), mora) < 1e-4


@torch.no_grad()
def delta_weights(model):
    layers = (module for module in model.modules() if isinstance(module, BaseTunerLayer))
    return torch.cat([layer.get_delta_weight("default").flatten() for layer in layers])


@pytest.mark.parametrize("operator", OTHERS, ids=str)
def test_more_rank_is_closer(operator):
    mora = mora_model(operator)
    expected = delta_weights(mora)
    ranks = (1, 8, FULL_RANK)
    converted = [delta_weights(lora_model(*convert_to_lora(mora, rank=rank))) for rank in ranks]
    errors = [((weights - expected).norm() / expected.norm()).item() for weights in converted]
    assert 1 > errors[0] > errors[1] > errors[2]


def test_conv1d_is_converted_in_its_own_orientation():
    mora = mora_model({"operator": "rotation"}, GPT2, ["c_attn"])
    assert relative_error(lora_model(*convert_to_lora(mora, rank=FULL_RANK), GPT2), mora) < 1e-4


def test_the_same_modules_are_targeted():
    mora = mora_model({"operator": "sharing"})
    _, lora_weights = convert_to_lora(mora, rank=4)
    mora_modules = {name.removesuffix(".mora_M") for name in get_peft_model_state_dict(mora)}
    assert mora_modules == {name.rsplit(".", 2)[0] for name in lora_weights}


def test_saved_conversion_equals_the_one_in_memory(tmp_path):
    mora = mora_model({"operator": "rotation"})
    in_memory = lora_model(*convert_to_lora(mora, rank=4))
    save_as_lora(tmp_path, mora, rank=4)
    loaded = PeftModel.from_pretrained(base_model(), tmp_path).eval()
    torch.testing.assert_close(effect(loaded), effect(in_memory))
