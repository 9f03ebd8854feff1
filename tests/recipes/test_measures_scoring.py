"""Log-likelihoods and perplexity are those of one plain forward pass over each text, whatever the batch."""

import math

import pytest
import torch
from datasets import Dataset

from mora_peft.recipes.measures.bits import stored_bits
from mora_peft.recipes.measures.perplexity import answer_perplexity, perplexity
from mora_peft.recipes.measures.scoring import by_length, completion_ids, log_likelihoods
from mora_peft.recipes.methods import apply
from mora_peft.recipes.models import load_base

PAIRS = [
    ("Is it?", " yes"),
    ("Is it?", " no"),
    ("a", "b"),
    ("A much longer prompt than that.", " maybe so"),
    ("Q", " A"),
]


@pytest.fixture(params=["lora", "mora", "prompt"])
def model(request, tiny_model):
    """A model in training mode whose adapter does something, and its tokenizer."""
    base, tokenizer = load_base(tiny_model, torch.float32)
    torch.manual_seed(1)
    tuned = apply(request.param, base, r=2).model
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    return tuned.train(), tokenizer


def by_definition(model, ids: list[int], start: int) -> list[float]:
    """log p of each token of `ids` from `start` on, after those before it."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, -len(ids) :].log_softmax(-1)
    return [logits[at - 1, ids[at]].item() for at in range(start, len(ids))]


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_log_likelihoods_are_those_of_single_passes(model, batch_size):
    model, tokenizer = model
    state = torch.get_rng_state()
    found = log_likelihoods(model, tokenizer, PAIRS, batch_size)
    assert model.training and torch.equal(state, torch.get_rng_state())
    model.eval()
    for value, (prompt, completion) in zip(found, PAIRS, strict=True):
        before = tokenizer(prompt)["input_ids"]
        whole = tokenizer(prompt + completion)["input_ids"]
        assert value == pytest.approx(sum(by_definition(model, whole, len(before))), rel=1e-4)


def test_options_of_one_token_share_a_pass(tiny_model, monkeypatch):
    from mora_peft.recipes.measures import scoring

    model, tokenizer = load_base(tiny_model, torch.float32)
    seen = []
    original = scoring.logits_at
    monkeypatch.setattr(scoring, "logits_at", lambda *a: seen.extend(a[2]) or original(*a))
    log_likelihoods(model, tokenizer, [("Q:", letter) for letter in "ABCD"])
    assert len(seen) == 1


def test_a_prompt_too_long_loses_its_beginning(tiny_model):
    model, tokenizer = load_base(tiny_model, torch.float32)
    model.config.max_position_embeddings = 8
    long, short = log_likelihoods(model, tokenizer, [("x" * 30 + "abcdef", "yz"), ("bcdef", "yz")])
    # Seven tokens before the last: the model sees no more of the long prompt than the end of it.
    [cut] = log_likelihoods(model, tokenizer, [("xabcdef", "yz")])
    assert long == pytest.approx(cut, rel=1e-5) and long != pytest.approx(short, rel=1e-5)


def test_completions_are_cut_where_the_texts_part(tiny_model):
    _, tokenizer = load_base(tiny_model, torch.float32)
    before, after = completion_ids(tokenizer, "ab", " c")
    assert tokenizer.decode(before) == "ab" and tokenizer.decode(after) == " c"


def test_batches_hold_every_row_once_and_stay_small():
    rows = [tuple(range(length)) for length in (5, 1, 9, 9, 2, 30)]
    batches = list(by_length(rows, 3, 20))
    assert sorted(row for batch in batches for row in batch) == sorted(rows)
    assert all(len(batch) <= 3 and (len(batch) == 1 or len(batch) * len(batch[-1]) <= 20) for batch in batches)


TEXTS = ["One short text.", "x", "Another one that is longer than a block of sixteen tokens, twice.", "Two."]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_perplexity_is_exp_of_the_mean_loss(model, batch_size):
    model, tokenizer = model
    state = torch.get_rng_state()
    found = perplexity(model, tokenizer, Dataset.from_dict({"text": TEXTS}), 4096, batch_size)
    assert model.training and torch.equal(state, torch.get_rng_state())
    model.eval()
    losses = [-value for text in TEXTS for value in by_definition(model, tokenizer(text)["input_ids"], 1)]
    assert found == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)


def test_blocks_count_every_token_but_the_first_once(tiny_model):
    model, tokenizer = load_base(tiny_model, torch.float32)
    model.eval()
    losses = []
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        blocks = [ids[start : start + 16] for start in range(0, max(1, len(ids) - 1), 15)]
        assert sum(len(block) - 1 for block in blocks) == len(ids) - 1
        losses += [-value for block in blocks for value in by_definition(model, block, 1)]
    found = perplexity(model, tokenizer, Dataset.from_dict({"text": TEXTS}), 16, 2)
    assert found == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)


def test_the_perplexity_of_answers_leaves_their_prompts_out(model):
    model, tokenizer = model
    rows = Dataset.from_list([{"prompt": prompt, "completion": completion} for prompt, completion in PAIRS])
    found = answer_perplexity(model, tokenizer, rows, 2)
    model.eval()
    losses = []
    for pair in PAIRS:
        before, after = completion_ids(tokenizer, *pair)
        losses += [-value for value in by_definition(model, before + after, len(before))]
    assert found == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)


def test_perplexity_needs_tokens(tiny_model):
    with pytest.raises(ValueError, match="two tokens"):
        perplexity(*load_base(tiny_model, torch.float32), Dataset.from_dict({"text": ["x"]}))


def test_bits_are_what_surprise_has_gone(tiny_model):
    model, tokenizer = load_base(tiny_model, torch.float32)
    rows = Dataset.from_list([{"prompt": "ab", "completion": " cd"}, {"prompt": "cd", "completion": " 01"}])
    pairs = list(zip(rows["prompt"], rows["completion"], strict=True))
    surprise = -sum(log_likelihoods(model, tokenizer, pairs)) / math.log(2)
    assert stored_bits(model, tokenizer, rows, 8, 100.0)[0]["bits"] == pytest.approx(200 - surprise, rel=1e-6)
    assert stored_bits(model, tokenizer, rows, 8, 1.0)[0]["bits"] == 0
