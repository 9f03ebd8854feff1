"""The proof: how the base model and the taught one answer the same questions, and what general text became to them."""

from collections import Counter, defaultdict
from statistics import fmean
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from mora_peft.recipes.decoding import greedy
from mora_peft.recipes.measures.choice import choice
from mora_peft.recipes.measures.texts import normalized

from .language import words

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase

MEASURES = ("exact", "f1", "choice")


def measured(
    model: "Module", tokenizer: "PreTrainedTokenizerBase", rows: list[dict[str, Any]], batch_size: int = 32
) -> list[dict[str, Any]]:
    """For each question the model's answer, and whether it is exact (0 or 1), its token F1, and whether the right
    option was the likeliest (0 or 1; None where there are no wrong ones)."""
    if not rows:
        return []
    longest = max(len(tokenizer(row["completion"], add_special_tokens=False)["input_ids"]) for row in rows)
    answers = greedy(model, tokenizer, [row["prompt"] for row in rows], longest + 8, batch_size)
    several = [number for number, row in enumerate(rows) if len(row["options"]) > 1]
    chosen: dict[int, str] = {}
    if several:
        asked = Dataset.from_list([{name: rows[n][name] for name in ("prompt", "options", "right")} for n in several])
        chosen = dict(zip(several, choice(model, tokenizer, asked, batch_size)[1], strict=True))
    return [
        {
            "answer": answer,
            "exact": float(normalized(answer) == normalized(row["completion"])),
            "f1": token_f1(answer, row["completion"]),
            "choice": float(chosen[number] == row["right"]) if number in chosen else None,
        }
        for number, (row, answer) in enumerate(zip(rows, answers, strict=True))
    ]


def token_f1(answer: str, expected: str) -> float:
    """F1 over words, or characters of Chinese, as SQuAD has it: 1 for the same words, 0 for none in common."""
    found, wanted = (Counter(words(normalized(text))) for text in (answer, expected))
    common = sum((found & wanted).values())
    return 2 * common / (sum(found.values()) + sum(wanted.values())) if common else 0.0


def means(scores: list[dict[str, Any]]) -> dict[str, float | None]:
    """The mean of each measure over the questions that have it."""
    found = {name: [score[name] for score in scores if score[name] is not None] for name in MEASURES}
    return {name: fmean(values) if values else None for name, values in found.items()}


def by(rows: list[dict[str, Any]], scores: list[dict[str, Any]], field: str) -> dict[str, dict[str, Any]]:
    """The means and the number of questions for each value of a field, such as document or kind."""
    groups = defaultdict(list)
    for row, score in zip(rows, scores, strict=True):
        groups[row[field]].append(score)
    return {name: means(group) | {"questions": len(group)} for name, group in sorted(groups.items())}
