"""The page's tables: what every method ended with, and what it cost; a line a method, a column a number."""

from collections.abc import Callable
from dataclasses import dataclass

from .groups import Comparison, Group
from .looks import look
from .metrics import Metric
from .numbers import Estimate, forgetting, forgotten, initial, steps_to
from .words import counted, figures, listed, percent, rate, size, times


@dataclass
class Column:
    """A heading, whether lower is better, the cell of a method, and that of the untrained base model."""

    title: str
    lower: bool
    make: Callable[[Group], dict]
    base: dict | None = None


def cell(value: float | None, form, *details: str) -> dict:
    """One table cell: the value it sorts by (None: last), its text, and smaller lines under it."""
    found = [detail for detail in details if detail]
    return {"value": value, "text": "–" if value is None else form(value), "details": found}


def results(comparison: Comparison) -> dict:
    """What every method learned and forgot, best first."""
    columns = [metric_column(comparison, metric) for metric in comparison.metrics]
    columns[1:1] = [steps_column(comparison, mark, title) for mark, title in comparison.marks()]
    if any(forgetting(run) for run in comparison.runs):
        columns.insert(1, forgetting_column(comparison))
    several = any(len(group.finished) > 1 for group in comparison.groups)
    caption = ["Choose a column to sort by it."]
    if comparison.marks():
        caption.insert(0, "Steps count up to the first evaluation at or beyond the mark.")
    if several:
        caption.insert(0, "Means over the seeds that finished; the smaller figures are 95\u00a0% confidence intervals.")
    return table("Results", comparison, columns, caption)


def sizes(comparison: Comparison) -> dict:
    """What every method was given and took, smallest first."""

    def cost(key: str, form) -> Callable[[Group], dict]:
        return lambda group: cell(mean_of(group.cost(key)), form)

    columns = [
        Column("Trainable parameters", True, cost("trainable_parameters", "{:,.0f}".format)),
        Column("Share of budget", True, lambda group: cell(group.share_of_budget(), percent)),
        Column("Learning rate", True, lambda group: cell(group.learning_rate, rate)),
        Column("Tokens learned", True, cost("tokens", "{:,.0f}".format)),
        Column("Step time", True, cost("step_seconds_median", lambda value: f"{figures(value)} s")),
        Column("Peak memory", True, cost("peak_memory_bytes", size)),
        Column("Adapter size", True, cost("adapter_bytes", size)),
    ]
    caption = ["Step time is the median of a run, memory the highest of its process; both are means over seeds."]
    notes = {
        f"{group.label}: {run['budget_note']}." for group in comparison.groups for run in group.runs
        if run.get("budget_note")
    }  # fmt: skip
    return table("Size and cost", comparison, columns, caption, sorted(notes))


def table(title: str, comparison: Comparison, columns: list[Column], caption: list[str], notes=()) -> dict:
    """The data of table.html, sorted by the first column; columns without any value are left out."""
    lines = [
        {
            "label": group.label,
            "detail": seeds(group),
            "look": look(index),
            "cells": [column.make(group) for column in columns],
        }
        for index, group in enumerate(comparison.groups)
    ]
    # The first column stays even where it is empty: that nothing was measured must be seen.
    kept = [
        place
        for place in range(len(columns))
        if place == 0 or any(line["cells"][place]["text"] != "–" for line in lines)
    ]
    for line in lines:
        line["cells"] = [line["cells"][place] for place in kept]
    columns = [columns[place] for place in kept]
    sign = 1 if columns[0].lower else -1
    first = [line["cells"][0]["value"] for line in lines]
    order = sorted(range(len(lines)), key=lambda place: (first[place] is None, sign * (first[place] or 0.0)))
    base = [column.base or cell(None, str) for column in columns]
    return {
        "title": title,
        "template": "table.html",
        "columns": [{"title": column.title, "lower": column.lower} for column in columns],
        "base": base if any(each["value"] is not None for each in base) else None,
        "lines": [lines[place] for place in order],
        "caption": caption,
        "notes": list(notes),
    }


def metric_column(comparison: Comparison, metric: Metric) -> Column:
    """The final value, and where it started if that is not where the other methods did."""
    before = comparison.before(metric)

    def make(group: Group) -> dict:
        estimate = comparison.score(group, metric)
        start = Estimate.of(initial(run, metric.key) for run in group.finished)
        # Most methods change nothing before the first step; one that does starts from somewhere else.
        elsewhere = estimate and start and metric.form(start.mean) != metric.form(before)
        return cell(
            mean_of(estimate),
            metric.form,
            metric.interval(estimate) if estimate and estimate.n > 1 else "",
            f"from {metric.form(start.mean)}" if elsewhere else "",
        )

    return Column(metric.title, metric.lower, make, cell(before, metric.form))


def steps_column(comparison: Comparison, mark: float, title: str) -> Column:
    """Mean steps to a mark; it sorts by them only if every finished run got there."""

    def make(group: Group) -> dict:
        if comparison.score(group) is None:
            return cell(None, str)
        steps = [steps_to(run, comparison.metric.key, mark, comparison.metric.lower) for run in group.finished]
        reached = Estimate.of(steps)
        if reached is None:
            return {"value": None, "text": "not reached", "details": []}
        if reached.n < len(steps):
            told = f"in {reached.n} of {len(steps)} runs"
            return {"value": None, "text": f"{reached.mean:,.0f}", "details": [told]}
        return cell(reached.mean, "{:,.0f}".format)

    return Column(f"Steps to {title}", True, make)


def forgetting_column(comparison: Comparison) -> Column:
    """Perplexity on general text after training, and as a multiple of what it was before."""
    perplexity = Metric("perplexity")

    def make(group: Group) -> dict:
        ratio = group.result(forgotten)
        if ratio is None:
            return cell(None, str)
        pairs = [values for run in group.finished if (values := forgetting(run))]
        before, after = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
        told = f"{perplexity.form(before)} → {perplexity.form(after)}"
        return {"value": ratio.mean, "text": told, "details": [times(ratio.mean)]}

    return Column("Perplexity on general text", True, make, cell(comparison.general_before(), perplexity.form))


def mean_of(estimate: Estimate | None) -> float | None:
    return estimate.mean if estimate else None


def seeds(group: Group) -> str:
    lost = [str(run.get("status") or "unfinished") for run in group.unfinished]
    if not lost:
        return counted(len(group.runs), "seed")
    told = listed(sorted({f"{lost.count(status)} {status}" for status in lost}))
    return f"{told} of {counted(len(group.runs), 'seed')}"
