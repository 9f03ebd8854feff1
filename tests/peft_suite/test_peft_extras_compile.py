"""What PEFT tests for MiSS under torch.compile, for MoRA: compiled training equals eager training and can be saved."""

import pytest
import torch
from peft import PeftModel, get_peft_model
from stand_ins import DECODERS
from transformers import AutoModelForCausalLM

from mora_peft import MoraConfig

LLAMA = DECODERS["trl-internal-testing/tiny-random-LlamaForCausalLM"]
TOKENS = torch.arange(24).view(3, 8)
OPERATORS = [{"operator": "sharing"}, {"operator": "rotation"}, {"operator": "rotation", "fold": True}]


def base_model():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LLAMA)
    model.config.use_cache = False
    return model


def train(operator, compile_model):
    """Three optimizer steps from the same start; returns the losses and the model."""
    config = MoraConfig(r=2, task_type="CAUSAL_LM", target_modules="all-linear", init_weights=False, **operator)
    model = get_peft_model(base_model(), config)
    forward = torch.compile(model, backend="aot_eager") if compile_model else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(3):
        loss = forward(input_ids=TOKENS, labels=TOKENS).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, model.eval()


@pytest.mark.parametrize("operator", OPERATORS, ids=str)
def test_compiled_training_equals_eager_training(operator, tmp_path):
    eager_losses, eager = train(operator, compile_model=False)
    compiled_losses, compiled = train(operator, compile_model=True)
    assert eager_losses[-1] < eager_losses[0]
    assert compiled_losses == pytest.approx(eager_losses, rel=1e-4)

    compiled.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(base_model(), tmp_path).eval()
    with torch.inference_mode():
        trained = compiled(TOKENS).logits
        torch.testing.assert_close(loaded(TOKENS).logits, trained)
        torch.testing.assert_close(eager(TOKENS).logits, trained, rtol=1e-3, atol=1e-3)
