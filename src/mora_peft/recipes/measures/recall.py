"""Recall: whether the model says the completion of a prompt, word by word, when it decodes greedily."""

from statistics import fmean
from typing import TYPE_CHECKING

from mora_peft.recipes.decoding import greedy

if TYPE_CHECKING:
    from datasets import Dataset
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase


def recall(
    model: "Module", tokenizer: "PreTrainedTokenizerBase", rows: "Dataset", batch_size: int = 64
) -> tuple[dict[str, float], list[str]]:
    """`exact_match` and `character_accuracy`, of all rows and of each `group` of them; and the answers.

    Character accuracy is the share of the expected text's characters that stand in the same place of the answer.
    """
    completions = list(rows["completion"])
    expected = [completion.strip() for completion in completions]
    longest = max(len(ids) for ids in tokenizer(completions, add_special_tokens=False)["input_ids"])
    answers = greedy(model, tokenizer, list(rows["prompt"]), longest + 1, batch_size)
    exact = [float(answer == text) for answer, text in zip(answers, expected, strict=True)]
    characters = [character_accuracy(answer, text) for answer, text in zip(answers, expected, strict=True)]
    groups = list(rows["group"]) if "group" in rows.column_names else [None] * len(exact)
    names = sorted(set(groups)) if len(set(groups)) > 1 else []
    metrics = {"exact_match": fmean(exact), "character_accuracy": fmean(characters)}
    for name in names:
        inside = [index for index, group in enumerate(groups) if group == name]
        metrics[f"exact_match_{name}"] = fmean([exact[index] for index in inside])
        metrics[f"character_accuracy_{name}"] = fmean([characters[index] for index in inside])
    return metrics, answers


def character_accuracy(answer: str, expected: str) -> float:
    """The share of `expected`'s characters that `answer` has in the same place."""
    return sum(a == b for a, b in zip(answer, expected, strict=False)) / len(expected)
