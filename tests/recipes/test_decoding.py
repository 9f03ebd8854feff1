"""Greedy decoding in batches gives what decoding one prompt at a time, by the definition, gives."""

import pytest
import torch

from mora_peft.recipes.decoding import greedy
from mora_peft.recipes.methods import METHODS, apply
from mora_peft.recipes.models import load_base

PROMPTS = ["a", "What is the code of the vault?", "1f", "Who was born in Zanthorpe?"]


def by_definition(model, tokenizer, prompt: str, count: int) -> str:
    """The most likely token, `count` times, each from a full forward pass over all that came before."""
    ends = [tokenizer.eos_token_id, tokenizer("\n")["input_ids"][0]]
    ids = tokenizer(prompt)["input_ids"]
    new = []
    for step in range(count):
        logits = model(input_ids=torch.tensor([ids + new])).logits[0, -1]
        if step == 0:
            logits[ends] = -torch.inf
        new.append(logits.argmax().item())
        if new[-1] in ends:
            break
    return tokenizer.decode(new, skip_special_tokens=True).strip().split("\n")[0].strip()


@pytest.mark.parametrize("method", [name for name in METHODS if name != "peft"])  # which needs a file
def test_batches_change_nothing(method, tiny_model):
    base, tokenizer = load_base(tiny_model, torch.float32)
    torch.manual_seed(1)
    model = apply(method, base, r=2).model
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    model.train()
    state = torch.get_rng_state()
    answers = greedy(model, tokenizer, PROMPTS, max_new_tokens=12, batch_size=3)
    assert model.training and torch.equal(state, torch.get_rng_state())
    model.eval()
    with torch.no_grad():
        assert answers == [by_definition(model, tokenizer, prompt, 12) for prompt in PROMPTS]
    assert len(set(answers)) > 1
