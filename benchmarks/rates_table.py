"""Tables of what each learning rate came to: the trials in benchmarks/results/memorization-rates/.

A trial is a whole run of `mora compare`'s search, on rows that no run which is reported learns. The folders `speed` and
`capacity` hold those of configs/memorization-speed.yaml and configs/memorization-capacity.yaml.
"""

import json
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from markdown_table import markdown

MARKS = (1.0, 0.5, 0.1)
#: Training losses are means over so many steps: a batch holds a part of the rows only.
_SMOOTH = 8


def rates_table(folder: Path) -> str:
    """For each study a line a method: the last loss at the best learning rate and beside it, and steps to the marks."""
    parts = []
    for study in sorted(folder.iterdir(), reverse=True):
        trials = [json.loads(file.read_text(encoding="utf-8")) for file in study.glob("*.json")]
        config = trials[0]["config"]
        where = "" if config["target_modules"] == "all-linear" else " in every fifth decoder layer"
        title = f"{config['task_options']['pairs']:,} pairs, r={config['r']}{where}, {config['steps']} steps:"
        parts.append(f"{title}\n\n{_table(trials)}")
    return "\n\n".join(parts)


def _table(trials: list[dict[str, Any]]) -> str:
    header = ["method", "parameters", "best rate", "loss there", "at half of it", "at twice it"]
    header += [f"steps to {mark:g}" for mark in MARKS]
    trials = sorted(trials, key=lambda trial: (trial["label"], trial["config"]["learning_rate"]))
    lines = []
    for label, runs in groupby(trials, key=lambda trial: trial["label"]):
        runs = list(runs)
        losses = [run["evaluations"][-1]["loss"] for run in runs]
        place = losses.index(min(losses))
        best = runs[place]
        half = f"{losses[place - 1]:.3f}" if place else "–"
        twice = f"{losses[place + 1]:.3f}" if place + 1 < len(losses) else "–"
        edge = "" if 0 < place < len(losses) - 1 else " (the last tried)" if len(losses) > 1 else " (no other)"
        cells = [label, f"{best['trainable_parameters']:,}", f"{best['config']['learning_rate']:g}{edge}"]
        lines.append(
            (min(losses), [*cells, f"{min(losses):.3f}", half, twice, *(_steps(best, mark) for mark in MARKS)])
        )
    return markdown(header, [line for _, line in sorted(lines)])


def _steps(run: dict[str, Any], mark: float) -> str:
    """The first step whose training loss, over the last few, is below `mark`."""
    losses = [point["loss"] for point in run["history"]]
    for step in range(_SMOOTH, len(losses) + 1):
        if fmean(losses[step - _SMOOTH : step]) < mark:
            return str(step)
    return "not reached"
