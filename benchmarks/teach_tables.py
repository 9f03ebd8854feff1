"""The tables of docs/teach.md: what each teaching in benchmarks/results/teach/ was asked, and what it answered."""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from markdown_table import markdown

#: What a column is called, and the set of questions and the measure that it shows.
COLUMNS = {
    "held-out wordings": ("taught", "exact"),
    "own questions": ("own", "exact"),
    "own, not taught": ("further", "exact"),
    "right of four": ("taught", "choice"),
    "control": ("control", "exact"),
}
NAMES = {"handbook": "the handbook", "beige-book": "Beige Book", "plos": "PLOS"}


def teach_table(folder: Path) -> str:
    """A line for each model and source: exact answers as the mean over its seeds, with the lowest and highest."""
    header = ["taught", "model", "parameters", *COLUMNS, "perplexity of general text", "training, minutes"]
    lines = []
    for name, title in NAMES.items():
        proofs = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob(f"{name}-seed*.json"))]
        if not proofs:
            continue
        asked = len(proofs[0]["sets"]["taught"]["questions"])
        told = f"{title}, {proofs[0]['facts']} facts, {asked} asked, {_seeds(len(proofs))}"
        lines.append(
            [told, "base model", "–", *(_shown(proofs, "before", *column) for column in COLUMNS.values()), "–", "–"]
        )
        for number, method in enumerate(proofs[0]["methods"]):
            runs = [proof["methods"][number] for proof in proofs]
            ratios = [run["forgetting"]["after"] / run["forgetting"]["before"] for run in runs]
            minutes = [run["steps"] * run["step_seconds_median"] / 60 for run in runs]
            cells = [_shown(proofs, method["method"], *column) for column in COLUMNS.values()]
            parameters = f"{method['trainable_parameters']:,}"
            lines.append(["", method["label"], parameters, *cells, f"×{fmean(ratios):.2f}", f"{fmean(minutes):.0f}"])
    return markdown(header, lines)


def _seeds(count: int) -> str:
    return f"{count} seeds" if count > 1 else "1 seed"


def _shown(proofs: list[dict[str, Any]], who: str, questions: str, measure: str) -> str:
    """A share as the mean over seeds, and its range where they differ."""
    values = [100 * proof["sets"][questions]["means"][who][measure] for proof in proofs if questions in proof["sets"]]
    if not values:
        return "–"
    low, high = round(min(values)), round(max(values))
    return f"{fmean(values):.0f} %" + (f" ({low}–{high})" if low < high else "")
