"""Multiple choice: the option that the model finds likeliest after the prompt, nothing being written by it."""

from collections import Counter
from typing import TYPE_CHECKING

from mora_peft.recipes.data import row_end

from .scoring import log_likelihoods

if TYPE_CHECKING:
    from datasets import Dataset
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase


def choice(
    model: "Module", tokenizer: "PreTrainedTokenizerBase", rows: "Dataset", batch_size: int = 64
) -> tuple[dict[str, float], list[str]]:
    """Accuracy of choosing among `options`, by log-likelihood; and the option chosen in each row.

    `rows` have the columns prompt (a text or messages), options (texts) and right (the one that is right).

    - `accuracy`: of the likeliest option;
    - `accuracy_normalized`: of the likeliest by character, where some row's options differ in length by more than one
      character, so that longer ones are not at a disadvantage;
    - `majority`: the accuracy of always giving the commonest right answer: what knowing nothing is worth;
    - `macro_f1`: the mean over classes of F1, where the options are the same classes (yes, no, maybe) in each row.
    """
    pairs = [
        (row["prompt"], row_end(row["prompt"], option) if isinstance(row["prompt"], str) else option)
        for row in rows
        for option in row["options"]
    ]
    found = iter(log_likelihoods(model, tokenizer, pairs, batch_size))
    scores = [[next(found) for _ in options] for options in rows["options"]]
    return metrics(scores, list(rows["options"]), list(rows["right"]))


def metrics(
    scores: list[list[float]], options: list[list[str]], right: list[str]
) -> tuple[dict[str, float], list[str]]:
    """What `choice` says of these log-likelihoods of these options."""
    chosen = [_best(row, names) for row, names in zip(scores, options, strict=True)]
    result = {"accuracy": _accuracy(chosen, right)}
    lengths = [{len(name) for name in names} for names in options]
    classes = set(options[0])
    fixed = all(set(names) == classes for names in options)
    if not fixed and any(max(row) - min(row) > 1 for row in lengths):
        by_character = [
            _best([score / len(name) for score, name in zip(row, names, strict=True)], names)
            for row, names in zip(scores, options, strict=True)
        ]
        result["accuracy_normalized"] = _accuracy(by_character, right)
    result["majority"] = Counter(right).most_common(1)[0][1] / len(right)
    if fixed and not _are_letters(options[0]):
        result["macro_f1"] = sum(_f1(name, chosen, right) for name in sorted(classes)) / len(classes)
    return result, chosen


def options_of(row: dict) -> dict:
    """A row of prompt, completion and choices with `options` and `right`: letters where the completion is a letter."""
    right, choices = row["completion"].strip(), list(row["choices"])
    letters = [chr(ord("A") + index) for index in range(len(choices))]
    options = letters if right in letters and right not in choices else choices
    return {"prompt": row["prompt"], "options": options, "right": right}


def _best(scores: list[float], names: list[str]) -> str:
    return names[max(range(len(scores)), key=scores.__getitem__)]


def _accuracy(chosen: list[str], right: list[str]) -> float:
    return sum(a == b for a, b in zip(chosen, right, strict=True)) / len(right)


def _f1(name: str, chosen: list[str], right: list[str]) -> float:
    """F1 of one class; 0 where it is neither chosen nor right."""
    hits = sum(a == b == name for a, b in zip(chosen, right, strict=True))
    return 2 * hits / max(1, chosen.count(name) + right.count(name))


def _are_letters(options: list[str]) -> bool:
    return all(len(option) == 1 for option in options)
