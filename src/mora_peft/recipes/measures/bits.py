"""Bits: how much of random values a model has stored, in the sense of information theory."""

import math
from typing import TYPE_CHECKING

from .scoring import log_likelihoods

if TYPE_CHECKING:
    from datasets import Dataset
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase


def stored_bits(
    model: "Module", tokenizer: "PreTrainedTokenizerBase", rows: "Dataset", batch_size: int = 64, bits_a_row: float = 0
) -> tuple[dict[str, float], list[str]]:
    """`bits`: what the random completions of `rows` have lost of their surprise, summed over all rows, 0 at least.

    A value of `bits_a_row` random bits costs a model that knows nothing as many to write down, and one that knows it
    its negative log-likelihood, -log2 p(completion | prompt), which tends to 0.
    """
    pairs = list(zip(rows["prompt"], rows["completion"], strict=True))
    left = -sum(log_likelihoods(model, tokenizer, pairs, batch_size)) / math.log(2)
    return {"bits": max(0.0, bits_a_row * len(pairs) - left)}, []
