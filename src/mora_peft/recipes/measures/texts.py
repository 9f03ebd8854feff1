"""Written answers against the accepted ones: ROUGE-L and exact match."""

import re
import string
from functools import cache
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mora_peft.recipes.decoding import greedy

if TYPE_CHECKING:
    from datasets import Dataset
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase


def overlap(
    model: "Module",
    tokenizer: "PreTrainedTokenizerBase",
    rows: "Dataset",
    batch_size: int = 64,
    max_new_tokens: int = 64,
) -> tuple[dict[str, float], list[str]]:
    """`rouge_l` of greedy answers, and `exact_match` of those to rows that have answers of their own; and the answers.

    `rows` have the columns prompt, accepted (a list of texts) and short (whether they are answers rather than one way
    to say it). ROUGE-L is the F measure of the longest common subsequence of words (Lin 2004), without stemming; an
    answer is held against the accepted text that it is nearest to, and exact after `normalized`.
    """
    answers = greedy(model, tokenizer, list(rows["prompt"]), max_new_tokens, batch_size, False)
    accepted = list(rows["accepted"])
    result = {"rouge_l": fmean([rouge_l(answer, texts) for answer, texts in zip(answers, accepted, strict=True)])}
    exact = [
        float(is_exact(answer, texts))
        for answer, texts, short in zip(answers, accepted, rows["short"], strict=True)
        if short
    ]
    if exact:
        result["exact_match"] = fmean(exact)
    return result, answers


def rouge_l(answer: str, accepted: list[str]) -> float:
    """The highest ROUGE-L (F measure, 0 to 1) of `answer` against one of the `accepted` texts."""
    return _scorer().score_multi(accepted, answer)["rougeL"].fmeasure


def is_exact(answer: str, accepted: list[str]) -> bool:
    """Whether `answer` is one of the `accepted` texts after `normalized`."""
    return normalized(answer) in {normalized(text) for text in accepted}


def normalized(text: str) -> str:
    """`text` in lower case, without punctuation, articles and superfluous white space, as SQuAD compares answers.

    >>> normalized("The  Answer, is: an apple.")
    'answer is apple'
    """
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=False)
