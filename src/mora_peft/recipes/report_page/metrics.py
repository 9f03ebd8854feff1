"""What a metric is: its name in words, whether lower is better, and how its values are written and compared."""

import re
from dataclasses import dataclass
from functools import cached_property

from .numbers import Estimate
from .words import figures, percent

# Metrics whose names hold one of these words are shares, written as percentages.
SHARES = {"match", "accuracy", "f1", "recall", "precision", "majority", "programs"}
SPELLINGS = {
    "f1": "F1", "rouge": "ROUGE", "rougel": "ROUGE-L", "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "mmlu": "MMLU",
    "gsm8k": "GSM8K", "pubmedqa": "PubMedQA", "medmcqa": "MedMCQA", "tatqa": "TAT-QA", "finqa": "FinQA", "plos": "PLOS",
    "majority": "majority baseline", "uuid": "UUID", "wikitext": "WikiText", "superni": "SuperNI",
}  # fmt: skip


def lower_is_better(key: str) -> bool:
    """Of losses and perplexities; everything else is better the higher it is."""
    return key in ("loss", "perplexity") or key.endswith(("_loss", "_perplexity"))


@dataclass(frozen=True)
class Metric:
    """A measure under its name `key` in the evaluations of a run."""

    key: str

    @cached_property
    def lower(self) -> bool:
        return lower_is_better(self.key)

    @cached_property
    def share(self) -> bool:
        words = set(self.key.lower().split("_"))
        return bool(words & SHARES or any(word.startswith("rouge") for word in words))

    @cached_property
    def name(self) -> str:
        """In words, to stand inside a sentence: 'exact match', 'PubMedQA macro F1'."""
        words = re.sub(r"rouge_(l|1|2)(?=_|$)", r"rouge\1", self.key.lower()).split("_")
        return " ".join(SPELLINGS.get(word, word) for word in words if word) or "unnamed metric"

    @property
    def title(self) -> str:
        return self.name[0].upper() + self.name[1:]

    def form(self, value: float) -> str:
        return percent(value) if self.share else figures(value, 4)

    def interval(self, estimate: Estimate) -> str:
        """The 95 % interval of an estimate, cut to what a share can be."""
        if self.share:
            return f"{percent(max(0.0, estimate.low))[:-2]}–{percent(min(1.0, estimate.high))}"
        return f"{self.form(estimate.low)}–{self.form(estimate.high)}"

    def better(self, one: float, other: float) -> bool:
        return one < other if self.lower else one > other

    def order(self, value: float) -> float:
        """A key that sorts the best value first."""
        return value if self.lower else -value

    def lead(self, first: float, second: float) -> str:
        """How far apart two values are, in words."""
        distance = abs(first - second)
        if not self.share:
            part = f" ({percent(distance / abs(second))})" if second else ""
            return f"{figures(distance)}{part}"
        points = f"{distance * 100:.1f}".removesuffix(".0")
        return f"{points} percentage point{'' if points == '1' else 's'}"
