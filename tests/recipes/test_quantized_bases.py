"""Training by the command on bases stored quantized: right gradients, an adapter at the end, or one sentence."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TorchAoConfig

from mora_peft.errors import UserError
from mora_peft.recipes.train import TrainConfig, train


def bits_and_bytes(**options):
    pytest.importorskip("bitsandbytes")
    return BitsAndBytesConfig(**options)


def torchao():
    quantization = pytest.importorskip("torchao.quantization")
    return TorchAoConfig(quantization.Int8WeightOnlyConfig())


KINDS = {
    "nf4": lambda: bits_and_bytes(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "int8": lambda: bits_and_bytes(load_in_8bit=True),
    "torchao": torchao,
}


@pytest.fixture(params=KINDS)
def quantized(request, tiny_model, tmp_path) -> str:
    """The tiny model's folder, stored quantized."""
    folder = str(tmp_path / request.param)
    config = KINDS[request.param]()
    AutoModelForCausalLM.from_pretrained(tiny_model, quantization_config=config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


def test_measuring_does_not_change_what_is_learned(quantized, settings, tmp_path):
    """Packed 4-bit weights have no backward pass, and it is measuring that used to pack them."""
    found = []
    for every in (1, 100):
        options = settings | {"model": quantized, "evaluate_every": every, "output": str(tmp_path / f"run-{every}")}
        output = train(TrainConfig(**options, learning_rate=1e-2))
        found.append(load_file(output / "adapter" / "adapter_model.safetensors"))
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], rtol=1e-3, atol=1e-5)


def test_full_fine_tuning_is_refused(quantized, settings):
    with pytest.raises(UserError, match="quantized"):
        train(TrainConfig(**settings | {"model": quantized}, method="full"))
