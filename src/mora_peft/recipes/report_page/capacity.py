"""How much a method can store: bits per trainable parameter as the number of random pairs grows.

Every number of pairs is a comparison of its own; this part draws on all of them.
"""

from dataclasses import dataclass, field
from html import escape
from statistics import mean

import plotly.graph_objects as go

from .charts import band
from .groups import Comparison
from .headline import compared
from .looks import FIXED, figure, logarithmic, look, strokes
from .metrics import Metric
from .numbers import Estimate, final, number
from .tables import cell
from .words import counted, few, figures

BITS = "bits_per_parameter"


@dataclass
class Store:
    """What one method stored: number of pairs → bits per parameter, a value for each seed."""

    label: str
    method: str
    bits: dict[float, list[float]] = field(default_factory=dict)

    def at(self, pairs: float) -> Estimate | None:
        return Estimate.of(self.bits.get(pairs, []))

    @property
    def most(self) -> tuple[float, Estimate]:
        """The number of pairs at which it stored most, and how much that was."""
        return max(((pairs, self.at(pairs)) for pairs in self.bits), key=lambda found: found[1].mean)


def stores(comparisons: list[Comparison]) -> list[Store]:
    """The methods of one task's comparisons, where these hold more than one number of pairs; else none."""
    found: dict[str, Store] = {}
    for comparison in comparisons:
        pairs = number(comparison.options.get("pairs"))
        key = next((metric.key for metric in comparison.metrics if metric.key.endswith(BITS)), None)
        if not pairs or key is None or pairs < 0:
            continue
        rest = [f"{name} {value}" for name, value in comparison.apart.items() if name != "pairs"]
        for group in comparison.groups:
            values = [value for run in group.finished if (value := final(run, key)) is not None]
            if values:
                label = ", ".join([group.label, *rest])
                found.setdefault(label, Store(label, group.method)).bits.setdefault(pairs, []).extend(values)
    sizes = {pairs for store in found.values() for pairs in store.bits}
    order = sorted(found.values(), key=lambda store: ("mora" not in store.method.lower(), store.label.casefold()))
    return order if len(sizes) > 1 else []


def capacity(comparisons: list[Comparison]) -> dict | None:
    """The part on capacity of one task's comparisons, or None where they do not measure it."""
    found = stores(comparisons)
    if not found:
        return None
    sizes = sorted({pairs for store in found for pairs in store.bits})
    claim, notes = told(found, sizes)
    return {
        "task": f"{comparisons[0].task}: capacity",
        "facts": [counted(len(found), "method"), f"{sizes[0]:,.0f} to {sizes[-1]:,.0f} pairs"],
        "claim": claim,
        "notes": notes,
        "sections": [chart(found, sizes), table(found, sizes)],
    }


def told(found: list[Store], sizes: list[float]) -> tuple[str, list[str]]:
    """Who stored the most bits per parameter, each where it stored most; and what bounds that."""
    metric = Metric(BITS)
    ranked = sorted(found, key=lambda store: -store.most[1].mean)
    if len(ranked) == 1:
        pairs, most = ranked[0].most
        claim = f"{ranked[0].label} stored {figures(most.mean)} bits per trainable parameter, at {pairs:,.0f} pairs."
    else:
        claim = compared(metric, [(store.label, store.most[1]) for store in ranked], "").replace(
            "final bits per parameter", "bits per parameter"
        )
    notes = ["Each method counts with the number of pairs at which it stored most."]
    reference = [store for store in ranked if store.method == "lora"]
    if len(reference) == 1 and len(ranked) > 1:
        best = next(store for store in ranked if store is not reference[0])
        ratio = best.most[1].mean / reference[0].most[1].mean if reference[0].most[1].mean > 0 else None
        if ratio:
            notes.insert(0, f"On average, {best.label} stored {figures(ratio)} times the bits of {reference[0].label}.")
    growing = [store.label for store in ranked if len(store.bits) > 1 and store.most[0] == max(store.bits)]
    if growing:
        notes.append(f"Most at the largest number of pairs tried, so the limit may not be reached: {few(growing)}.")
    if any(estimate.n > 1 for _, estimate in (store.most for store in ranked)):
        notes.append("Means over seeds with 95\u00a0% confidence intervals (Student\u00a0t).")
    if any(estimate.n == 1 for store in found for estimate in map(store.at, store.bits)):
        notes.append("Some points are of one seed, which shows no spread: a difference there may be luck.")
    return claim, notes


def chart(found: list[Store], sizes: list[float]) -> dict:
    """Bits per parameter against the number of pairs, a line a method with a band over seeds."""
    traces = []
    for index, store in enumerate(found):
        x = sorted(store.bits)
        values = [store.bits[pairs] for pairs in x]
        if any(len(seeds) > 1 for seeds in values):
            traces.append(band(x, list(map(min, values)), list(map(max, values)), index))
        traces.append(
            go.Scatter(
                x=x,
                y=list(map(mean, values)),
                name=escape(store.label),
                mode="lines+markers",
                cliponaxis=False,
                hovertemplate=f"{escape(store.label)}: %{{y:.3g}} bits at %{{x:,}} pairs<extra></extra>",
                **strokes(index),
            )
        )
    marks = {"tickvals": sizes, "ticktext": [f"{pairs:,.0f}" for pairs in sizes]} if len(sizes) <= 8 else {}
    drawn = figure(
        traces,
        height=380,
        hovermode="closest",
        xaxis={"title": {"text": "random pairs to learn"}, "showgrid": False, **logarithmic(sizes), **marks, **FIXED},
        yaxis={"rangemode": "tozero", **FIXED},
    )
    return {
        "title": "Capacity",
        "template": "curves.html",
        "legend": [
            {"number": index, "label": store.label, "finished": True, "look": look(index)}
            for index, store in enumerate(found)
        ],
        "charts": [{"title": "Bits memorized per trainable parameter", "figure": drawn}],
        "caption": [
            "Bits are the negative log-likelihood that training took off the random values.",
            "Lines are means over seeds; bands reach from the lowest seed to the highest.",
        ],
    }


def table(found: list[Store], sizes: list[float]) -> dict:
    """Bits per parameter, a line a method and a column a number of pairs."""

    def made(pairs: float, store: Store) -> dict:
        estimate = store.at(pairs)
        if estimate is None:
            return cell(None, figures)
        spread = f"{figures(estimate.low)}–{figures(estimate.high)}" if estimate.n > 1 else ""
        return cell(estimate.mean, figures, spread)

    def most(store: Store) -> dict:
        pairs, estimate = store.most
        return cell(estimate.mean, figures, f"at {pairs:,.0f} pairs")

    lines = [
        {
            "label": store.label,
            "detail": counted(max(map(len, store.bits.values())), "seed"),
            "look": look(index),
            "cells": [most(store), *(made(pairs, store) for pairs in sizes)],
        }
        for index, store in enumerate(found)
    ]
    lines.sort(key=lambda line: -line["cells"][0]["value"])
    return {
        "title": "Bits per trainable parameter",
        "template": "table.html",
        "columns": [
            {"title": title, "lower": False} for title in ["Most", *(f"{pairs:,.0f} pairs" for pairs in sizes)]
        ],
        "base": None,
        "lines": lines,
        "caption": ["Means over seeds; the smaller figures are 95\u00a0% confidence intervals."],
        "notes": [],
    }
