"""Perplexity: how surprised the model is, on average, by the next token of a text."""

import math
from typing import TYPE_CHECKING

from mora_peft.recipes.decoding import context_length, evaluating

from .scoring import by_length, completion_ids, log_likelihoods, logits_at

if TYPE_CHECKING:
    from datasets import Dataset
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase


def perplexity(
    model: "Module", tokenizer: "PreTrainedTokenizerBase", rows: "Dataset", max_length: int = 512, batch_size: int = 8
) -> float:
    """exp of the mean negative log-likelihood of the tokens of `rows`, which have the column `text`.

    A text longer than `max_length` tokens is cut into blocks of that length, each beginning with the last token of the
    one before, so that every token but a text's first counts once. Touches no random numbers and leaves the model in
    the mode that it was in. Raises ValueError where no text has two tokens.
    """
    import torch

    step = min(max_length, context_length(model)) - 1
    blocks = []
    for text in rows["text"]:
        ids = tokenizer(text)["input_ids"]
        blocks += [tuple(ids[start : start + step + 1]) for start in range(0, len(ids) - 1, step)]
    if not blocks:
        raise ValueError("There is no text of two tokens or more to measure the perplexity of.")
    total = 0.0
    with torch.no_grad(), evaluating(model):
        for batch in by_length(blocks, batch_size):
            logits = logits_at(model, tokenizer, batch, list(range(len(batch[-1]) - 1)))
            # Row by row, because the logits of a batch in float32 would be the largest tensor of all.
            for block, scores in zip(batch, logits, strict=True):
                targets = torch.tensor(block[1:], device=scores.device)
                total += torch.nn.functional.cross_entropy(
                    scores[: len(targets)].float(), targets, reduction="sum"
                ).item()
    return math.exp(min(total / sum(len(block) - 1 for block in blocks), 700.0))


def answer_perplexity(
    model: "Module", tokenizer: "PreTrainedTokenizerBase", rows: "Dataset", batch_size: int = 8
) -> float:
    """exp of the mean negative log-likelihood of the tokens of the completions of `rows`, each after its prompt.

    Over answers that a model has drawn itself, the logarithm of another model's perplexity over its own is how far
    apart they are (the Kullback-Leibler divergence, in nats a token).
    """
    pairs = list(zip(rows["prompt"], rows["completion"], strict=True))
    tokens = sum(len(completion_ids(tokenizer, *pair)[1]) for pair in pairs)
    return math.exp(min(-sum(log_likelihoods(model, tokenizer, pairs, batch_size)) / tokens, 700.0))


def text_perplexity(
    model: "Module", tokenizer: "PreTrainedTokenizerBase", rows: "Dataset", batch_size: int = 8, block: int = 512
) -> tuple[dict[str, float], list[str]]:
    """`perplexity` as the measure of a test."""
    return {"perplexity": perplexity(model, tokenizer, rows, block, batch_size)}, []
