"""Layers other than linear ones: each is its base with W + ΔW in W's place, in forward, gradients, merging and LoRA."""

import copy
import warnings
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from tiny_models import ARCHITECTURES, adapted, logits, mora_config, mora_layers
from torch import nn
from torch.testing import assert_close

from mora_peft import MoraConfig
from mora_peft.tuner.convert import to_lora

OPERATORS = [
    {"operator": "rotation"},
    {"operator": "decoupling"},
    {"operator": "sharing"},
    {"operator": "sharing", "layout": "grouped-grouped", "scaling": 0.5},
    {"operator": "truncation"},
]
#: A layer of each kind, and the shape of its input.
LAYERS = {
    "embedding": (nn.Embedding(50, 8), (3, 4)),
    "embedding, fewer rows than columns": (nn.Embedding(5, 8, padding_idx=0), (3, 4)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9)),
    "conv2d": (nn.Conv2d(4, 6, (3, 2), padding="same", dilation=2, padding_mode="circular"), (2, 4, 7, 7)),
    "conv2d, 1x1": (nn.Conv2d(4, 6, 1, bias=False), (2, 4, 3, 3)),
    "conv2d, in groups": (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5)),
    "conv2d, channels last": (nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last), (2, 4, 5, 5)),
    "conv3d": (nn.Conv3d(2, 3, 2), (1, 2, 3, 3, 3)),
}
every_layer = pytest.mark.parametrize("kind", LAYERS)
every_operator = pytest.mark.parametrize("options", OPERATORS, ids=str)


def layer_and_input(kind, **options):
    base, shape = LAYERS[kind]
    torch.manual_seed(0)
    holder = nn.Sequential(OrderedDict(layer=copy.deepcopy(base)))
    config = MoraConfig(**{"r": 2, "target_modules": ["layer"], "init_weights": False} | options)
    model = get_peft_model(holder, config)
    indices = isinstance(base, nn.Embedding)
    x = torch.randint(base.num_embeddings, shape) if indices else torch.randn(shape)
    return model, model.base_model.model.layer, x


@every_layer
@every_operator
def test_the_output_and_its_gradient_are_those_of_the_summed_weight(kind, options):
    _, layer, x = layer_and_input(kind, **options)
    base = layer.get_base_layer()
    y = layer(x)
    y.square().sum().backward()
    W = base.weight.detach().clone().requires_grad_()
    summed = torch.func.functional_call(base, {"weight": W + layer.get_delta_weight("default").detach()}, (x,))
    assert_close(y, summed, rtol=1e-4, atol=1e-5)
    # dL/dM is dL/dW through ΔW's map, which is linear: <dL/dW, ΔW(N)> = <dL/dM, N> for any N.
    summed.square().sum().backward()
    M = layer.mora_M["default"]
    gradient, N = M.grad.clone(), torch.randn_like(M)
    M.data.copy_(N)
    expected = (W.grad * layer.get_delta_weight("default")).sum()
    assert_close((gradient * N).sum(), expected, rtol=1e-3, atol=1e-3)


@every_layer
@every_operator
def test_merging_and_unmerging(kind, options):
    model, layer, x = layer_and_input(kind, **options)
    before, expected = layer.get_base_weight().clone(), model(x)
    model.merge_adapter(safe_merge=kind.startswith("embedding"))
    assert_close(layer.get_base_weight(), before + layer.get_delta_weight("default"))
    assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    with model.disable_adapter():
        assert_close(model(x), torch.func.functional_call(layer.get_base_layer(), {"weight": before}, (x,)))
    model.unmerge_adapter()
    assert_close(layer.get_base_weight(), before)


@every_layer
@pytest.mark.parametrize("operator", ["rotation", "sharing"])
def test_conversion_to_lora_is_exact_at_full_rank(kind, operator):
    model, _, x = layer_and_input(kind, operator=operator)
    if kind in ("conv2d", "conv2d, in groups"):
        with pytest.raises(ValueError, match="cannot be converted: PEFT's LoRA leaves groups, dilation"):
            to_lora(model, rank=64)
        return
    config, state, errors = to_lora(model, rank=64)
    expected = model(x)
    lora = get_peft_model(model.unload(), config)
    assert not set_peft_model_state_dict(lora, state).unexpected_keys
    assert errors["total"] == pytest.approx(0, abs=1e-5)
    assert_close(lora(x), expected, rtol=1e-3, atol=1e-4)


def test_experts_are_converted_to_lora_one_by_one():
    model = adapted("mixtral")
    expected = logits(model, "mixtral")
    config, state, _ = to_lora(model, rank=64)
    assert {name.rsplit(".", 1)[-1] for name in config.rank_pattern} < {"gate_up_proj", "down_proj", "q_proj"}
    lora = get_peft_model(ARCHITECTURES["mixtral"].build(), config).eval()
    assert not set_peft_model_state_dict(lora, state).unexpected_keys
    assert_close(logits(lora, "mixtral"), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("transposed", [False, True])
def test_each_expert_has_its_own_matrix_whatever_the_layout(transposed):
    class Experts(nn.Module):
        is_transposed = transposed

        def __init__(self):
            super().__init__()
            self.up = nn.Parameter(torch.randn(3, 8, 5) if transposed else torch.randn(3, 5, 8))

        def forward(self, x):
            return torch.einsum("tk,ekd->etd" if transposed else "tk,edk->etd", x, self.up)

    holder = nn.Sequential()
    holder.add_module("experts", Experts())
    before = holder.experts.up.detach().clone()
    config = MoraConfig(r=2, target_modules=[], target_parameters=["experts.up"], init_weights=False)
    model = get_peft_model(holder, config)
    layer = model.base_model.model.experts
    assert (layer.in_features, layer.out_features) == (8, 5)
    for e in range(3):
        delta = layer.operator["default"].delta_weight(layer.mora_M["default"][e])
        assert_close(layer.get_delta_weight("default")[e], delta.T if transposed else delta)
    x = torch.randn(4, 8)
    W = before + layer.get_delta_weight("default")
    assert_close(model(x), torch.einsum("tk,ekd->etd", x, W if transposed else W.mT))
    assert torch.equal(model.merge_and_unload().experts.up, W)


REFUSED = [
    ({"target_parameters": ["experts.down_proj"], "mora_dropout": 0.1}, "`mora_dropout` must be 0 with"),
    ({"target_parameters": ["experts.nothing"], "target_modules": []}, "no `target_parameters` found"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_parameters_that_cannot_be_adapted(options, message):
    with pytest.raises(ValueError, match=message):
        adapted("mixtral", **options)


def test_adapters_of_one_model_adapt_the_same_parameters():
    model = adapted("mixtral")
    with pytest.raises(ValueError, match="must have the same `target_parameters`"):
        model.add_adapter("other", mora_config("mixtral", target_parameters=["experts.down_proj"]))


def test_padding_teaches_an_embedding_nothing():
    _, layer, _ = layer_and_input("embedding, fewer rows than columns")
    layer(torch.zeros(2, 3, dtype=torch.long)).sum().backward()
    assert not layer.mora_M["default"].grad.any()
    layer(torch.ones(2, 3, dtype=torch.long)).sum().backward()
    assert layer.mora_M["default"].grad.any()


# Tied weights, as PEFT handles them for LoRA.

TIED = {"target_modules": ["embed_tokens", "q_proj"]}


def tied_base():
    config = copy.deepcopy(ARCHITECTURES["llama"].config)
    config.tie_word_embeddings = True
    torch.manual_seed(0)
    return ARCHITECTURES["llama"].auto.from_config(config).eval()


def tied(config_class=MoraConfig, **options):
    torch.manual_seed(1)
    return get_peft_model(tied_base(), config_class(**{"r": 2, "task_type": "CAUSAL_LM"} | TIED | options)).eval()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"target_modules": ["lm_head"]},
        {"modules_to_save": ["lm_head"]},
        {"ensure_weight_tying": True},
        {"ensure_weight_tying": True, "target_modules": ["q_proj"]},
    ],
    ids=str,
)
def test_the_same_warnings_as_for_lora(options):
    def told(config_class):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = tied(config_class, **options)
            model.merge_and_unload()
        return {str(each.message) for each in caught if "tie" in str(each.message)}, model.config.tie_word_embeddings

    assert told(MoraConfig) == told(LoraConfig)


@pytest.mark.parametrize("operator", ["rotation", "sharing", "truncation"])
def test_tied_layers_have_one_matrix_and_stay_tied_when_merged(operator, tmp_path):
    model = tied(operator=operator, init_weights=False, ensure_weight_tying=True)
    expected = logits(model, "llama")
    assert [name for name, _ in model.named_parameters() if "mora_M" in name and "layers" not in name] == [
        "base_model.model.model.embed_tokens.mora_M.default"
    ]
    model.train()(input_ids=torch.arange(8)[None]).logits.square().mean().backward()
    model.eval().save_pretrained(tmp_path)
    assert not [key for key in load_file(tmp_path / "adapter_model.safetensors") if "lm_head.mora" in key]
    for low_cpu_mem_usage in (False, True):
        again = PeftModel.from_pretrained(tied_base(), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage).eval()
        assert_close(logits(again, "llama"), expected)
    config, state, _ = to_lora(model, rank=64)
    lora = get_peft_model(tied_base(), config).eval()
    set_peft_model_state_dict(lora, state)
    assert_close(logits(lora, "llama"), expected, rtol=1e-3, atol=1e-4)

    model.merge_adapter()
    assert_close(logits(model, "llama"), expected, rtol=1e-3, atol=1e-4)
    with model.disable_adapter():
        assert_close(logits(model, "llama"), logits(tied_base(), "llama"), rtol=1e-3, atol=1e-4)
    model.unmerge_adapter()
    merged = model.merge_and_unload(safe_merge=True)
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    assert_close(logits(merged, "llama"), expected, rtol=1e-3, atol=1e-4)


def test_adapters_of_one_model_agree_on_tying():
    model = tied(ensure_weight_tying=True)
    with pytest.raises(ValueError, match="must agree on `ensure_weight_tying`"):
        model.add_adapter("other", MoraConfig(r=2, target_modules=["lm_head"]))


def test_an_output_layer_alone():
    model = adapted("llama", target_modules=["lm_head"])
    [layer] = mora_layers(model).values()
    before, expected = layer.get_base_weight().clone(), logits(model, "llama")
    model.merge_adapter()
    assert_close(logits(model, "llama"), expected, rtol=1e-3, atol=1e-4)
    assert_close(layer.get_base_weight(), before + layer.get_delta_weight("default"))
    assert F.linear(torch.ones(32), layer.get_delta_weight("default")).any()
