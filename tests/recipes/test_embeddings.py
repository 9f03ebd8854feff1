"""Embeddings beside an adapter: trained, saved with it, merged with it, and tied where the base ties them."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from mora_peft import MoraConfig
from mora_peft.errors import UserError
from mora_peft.recipes.embeddings import check_output_layer, train_embeddings

TOKENS = torch.arange(24).view(2, 12)


def base(tied: bool, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=tied,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(dtype)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("config_class", [LoraConfig, MoraConfig])
def test_embeddings_are_trained_saved_and_merged(config_class, tied, tmp_path):
    model = get_peft_model(base(tied), config_class(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    before = model(TOKENS).logits.detach()
    count = train_embeddings(model)
    assert torch.equal(model(TOKENS).logits, before)
    rest = [p for name, p in model.named_parameters() if p.requires_grad and not ("lora_" in name or "mora_" in name)]
    assert sum(p.numel() for p in rest) == (1 if tied else 2) * 40 * 32 == count
    start = [p.detach().clone() for p in rest]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        model(TOKENS, labels=TOKENS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(not torch.equal(p, q) for p, q in zip(rest, start, strict=True))
    trained = model(TOKENS).logits.detach()

    model.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.zero_()
    model.load_adapter(str(tmp_path / "adapter"), "default", is_trainable=True)
    assert torch.equal(model(TOKENS).logits, trained)
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied

    model.merge_and_unload().save_pretrained(tmp_path / "model")
    merged = LlamaForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.allclose(merged(TOKENS).logits, trained, rtol=1e-4, atol=1e-5)
    assert (merged.get_input_embeddings().weight is merged.get_output_embeddings().weight) == tied


def test_a_model_without_an_adapter_is_left_alone():
    model = base(tied=False).requires_grad_(True)
    assert train_embeddings(model) == 0
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in base(tied=False).named_parameters()]


def test_a_base_in_half_precision_is_refused():
    with pytest.raises(UserError, match="in float32, not in bfloat16"):
        train_embeddings(get_peft_model(base(tied=False, dtype=torch.bfloat16), LoraConfig(target_modules=["q_proj"])))


@pytest.mark.parametrize("options", [{"target_modules": ["lm_head"]}, {"ensure_weight_tying": True}])
def test_an_adapter_that_the_loss_would_pass_by_is_refused(options):
    model = get_peft_model(base(True), MoraConfig(**{"r": 2, "target_modules": ["embed_tokens"]} | options))
    with pytest.raises(UserError, match="output layer's weight, so an adapter on it would never be trained"):
        check_output_layer(model)
