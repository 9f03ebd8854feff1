"""Answers in batches are those of one prompt at a time, by the definition: the likeliest, or drawn."""

from collections import Counter

import pytest
import torch

from mora_peft.recipes.decoding import drawn, greedy
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


def test_answers_are_drawn_by_their_probabilities(tiny_model):
    model, tokenizer = load_base(tiny_model, torch.float32)
    state = torch.get_rng_state()
    first, again = (drawn(model, tokenizer, PROMPTS * 2, 12, seed=3, batch_size=3) for _ in range(2))
    assert first == again != drawn(model, tokenizer, PROMPTS * 2, 12, seed=4, batch_size=3)
    assert torch.equal(state, torch.get_rng_state())
    # One token of one prompt, many times over: as often as the model says. Some tokens are written alike.
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(20)
        probabilities = model(**tokenizer("1f", return_tensors="pt")).logits[0, -1].softmax(-1)
    expected = Counter()
    for token, probability in enumerate(probabilities.tolist()):
        expected[tokenizer.decode([token], skip_special_tokens=True).strip()] += probability
    found = Counter(drawn(model, tokenizer, ["1f"] * 500, 1, seed=0))
    assert expected.most_common(1)[0][1] < 0.9
    assert all(abs(found[text] / 500 - share) < 0.08 for text, share in expected.items())
