"""Training through the quantized linears that PEFT resolves: M learns, and the quantized base stays as it was."""

import importlib.util

import pytest
import torch
from peft import get_peft_model
from stand_ins import DECODERS
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TorchAoConfig

from mora_peft import MoraConfig

TOKENS = torch.arange(24).view(3, 8)


def torchao_config(name):
    from torchao import quantization

    return TorchAoConfig(quant_type=getattr(quantization, name)())


QUANTIZERS = {
    "bitsandbytes nf4": lambda: BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "bitsandbytes int8": lambda: BitsAndBytesConfig(load_in_8bit=True),
    "torchao int8 weights": lambda: torchao_config("Int8WeightOnlyConfig"),
    "torchao int8 weights and activations": lambda: torchao_config("Int8DynamicActivationInt8WeightConfig"),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("opt")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(DECODERS["peft-internal-testing/opt-125m"]).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("operator", ["sharing", "rotation"])
@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_mora_learns_on_a_quantized_base(quantizer, operator, checkpoint):
    library = quantizer.split()[0]
    if not importlib.util.find_spec(library):
        pytest.skip(f"{library} is not installed")
    # Training mode throughout: in evaluation mode on a CPU, bitsandbytes repacks 4-bit weights for inference alone.
    model = AutoModelForCausalLM.from_pretrained(checkpoint, quantization_config=QUANTIZERS[quantizer](), dropout=0.0)
    model = get_peft_model(model, MoraConfig(r=2, operator=operator, target_modules=["q_proj", "fc1", "fc2"])).train()
    with model.disable_adapter():
        base_logits = model(TOKENS).logits

    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    losses = []
    for _ in range(4):
        loss = model(input_ids=TOKENS, labels=TOKENS).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    with model.disable_adapter():
        assert torch.equal(model(TOKENS).logits, base_logits)
