"""Quantized bases that run on a CPU: adapters start at no difference, are saved and loaded, mixed, and merged."""

import importlib.util

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import nn
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, TorchAoConfig

from mora_peft import MoraConfig
from mora_peft.tuner import MoraLayer

TOKENS = (torch.arange(24) * 7 % 90).view(3, 8)
TARGETS = ["q_proj", "down_proj"]


def torchao_config(name, **options):
    from torchao import quantization

    return TorchAoConfig(quant_type=getattr(quantization, name)(**options))


def per_group(size):
    from torchao.quantization import PerGroup

    return PerGroup(size)


def hqq_in_place(model):
    """hqq's own way to a quantized model, now that Transformers does not load one: linear layers are replaced."""
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    linear = [(name, module) for name, module in model.named_modules() if type(module) is nn.Linear]
    for name, module in linear[:-1]:  # the last one is the output layer
        settings = BaseQuantizeConfig(nbits=4, group_size=32)
        model.set_submodule(name, HQQLinear(module, settings, compute_dtype=torch.float32, device="cpu"))
    return model


QUANTIZERS = {
    "hqq int4": None,
    "bitsandbytes nf4": lambda: BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "bitsandbytes int8": lambda: BitsAndBytesConfig(load_in_8bit=True),
    "torchao int4 weights": lambda: torchao_config(
        "IntxWeightOnlyConfig", weight_dtype=torch.int4, granularity=per_group(32)
    ),
    "torchao int8 weights": lambda: torchao_config("Int8WeightOnlyConfig"),
    "torchao int8 weights and activations": lambda: torchao_config("Int8DynamicActivationInt8WeightConfig"),
}
every_quantizer = pytest.mark.parametrize("quantizer", QUANTIZERS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(**sizes, vocab_size=96, num_key_value_heads=2, initializer_range=0.1, pad_token_id=0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def load(checkpoint, quantizer):
    library = quantizer.split()[0]
    if not importlib.util.find_spec(library):
        pytest.skip(f"{library} is not installed")
    if library == "hqq":
        return hqq_in_place(AutoModelForCausalLM.from_pretrained(checkpoint)).train()
    # Training mode throughout: in evaluation mode on a CPU, bitsandbytes repacks 4-bit weights for inference alone.
    return AutoModelForCausalLM.from_pretrained(checkpoint, quantization_config=QUANTIZERS[quantizer]()).train()


def adapt(base, seed=1, **options):
    torch.manual_seed(seed)
    config = MoraConfig(
        **{"r": 2, "target_modules": TARGETS, "init_weights": False, "task_type": "CAUSAL_LM"} | options
    )
    return get_peft_model(base, config)


def layers(model):
    return [module for module in model.modules() if isinstance(module, MoraLayer)]


@torch.no_grad()
def logits(model, **kwargs):
    return model(TOKENS, **kwargs).logits


@every_quantizer
def test_the_base_is_quantized_and_the_adapter_is_not(quantizer, checkpoint):
    base = load(checkpoint, quantizer)
    expected = logits(base)
    model = adapt(base, init_weights=True).train()
    assert len(layers(model)) == 2 * len(TARGETS)
    assert torch.equal(logits(model), expected)
    for layer in layers(model):
        assert layer.quantization_backend is not None
        assert layer.mora_M["default"].dtype == torch.float32


@every_quantizer
@pytest.mark.parametrize("operator", ["sharing", "rotation"])
def test_the_layer_is_the_quantized_layer_plus_delta_weight(quantizer, operator, checkpoint):
    model = adapt(load(checkpoint, quantizer), operator=operator, scaling=0.5).train()
    for layer in layers(model):
        x = torch.randn(20, layer.in_features, requires_grad=True)
        y = layer(x)
        delta = layer.get_delta_weight("default")
        assert_close(y, layer.get_base_layer()(x) + x @ delta.T, rtol=1e-3, atol=1e-3)
        y.square().sum().backward()
        assert x.grad.any()
        assert layer.mora_M["default"].grad.any()


@every_quantizer
def test_an_adapter_is_saved_and_loaded(quantizer, checkpoint, tmp_path):
    model = adapt(load(checkpoint, quantizer)).train()
    expected = logits(model)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(load(checkpoint, quantizer), tmp_path).train()
    assert torch.equal(logits(loaded), expected)


@every_quantizer
def test_merging_requantizes_and_says_what_it_computes(quantizer, checkpoint):
    """Merged weights are rounded to the base's own grid again: near the adapted output, far from the base's."""
    model = adapt(load(checkpoint, quantizer), scaling=2.0).train()
    with model.disable_adapter():
        base = logits(model)
    adapted = logits(model)
    model.merge_adapter()
    assert all(layer.merged for layer in layers(model))
    merged = logits(model)
    assert (merged - adapted).norm() < 0.3 * (base - adapted).norm()
    model.unmerge_adapter()
    assert torch.equal(logits(model), adapted)
    with model.disable_adapter():
        assert torch.equal(logits(model), base)
    plain = model.merge_and_unload()
    assert not layers(plain)
    assert (logits(plain) - adapted).norm() < 0.3 * (base - adapted).norm()


@every_quantizer
def test_a_safe_merge_of_a_broken_adapter_leaves_the_quantized_base_alone(quantizer, checkpoint):
    model = adapt(load(checkpoint, quantizer)).train()
    with model.disable_adapter():
        base = logits(model)
    for layer in layers(model):
        layer.mora_M["default"].data.fill_(float("nan"))
    with pytest.raises(ValueError, match="The adapter default seems to be broken"):
        model.merge_adapter(safe_merge=True)
    with model.disable_adapter():
        assert torch.equal(logits(model), base)
