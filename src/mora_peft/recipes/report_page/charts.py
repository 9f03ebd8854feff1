"""The page's charts as plotly JSON: curves over steps, bars, what was learned against what was forgotten.

Each takes the groups of a comparison; the `meta` of a trace is the number of its group, by which the legend finds it.
"""

from html import escape
from statistics import mean

import plotly.graph_objects as go

from .groups import Comparison, Group
from .looks import FIXED, figure, logarithmic, look, percentages, scale, strokes
from .metrics import Metric
from .numbers import Estimate, final, forgotten, series
from .words import figures

# More points than this hide the dash pattern: neighbours are averaged.
MOST_POINTS = 60
MOST_MARKERS = 30


def curves(groups: list[Group], name: str, key: str) -> tuple[list[list[float]], list[list[list[float]]]]:
    """Per group, the steps at which every run has `key`, and there each run's value; shapes (n,) and (runs, n).

    A method none of whose runs finished shows what it did until it stopped.
    """
    steps, values = [], []
    for group in groups:
        found = [curve for run in group.finished or group.runs if (curve := series(run, name, key))]
        common = sorted(set.intersection(*(set(curve) for curve in found))) if found else []
        width = -(-len(common) // MOST_POINTS) or 1
        parts = [common[start : start + width] for start in range(0, len(common), width)]
        steps.append([part[-1] for part in parts])
        values.append([[mean(curve[step] for step in part) for part in parts] for curve in found])
    return steps, values


def band(x: list[float], lows: list[float], highs: list[float], index: int) -> go.Scatter:
    """A shaded area between two curves."""
    return go.Scatter(
        x=[*x, *reversed(x)],
        y=[*highs, *reversed(lows)],
        fill="toself",
        fillcolor=look(index)["colour"],
        opacity=0.16,
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        meta=index,
    )


def line_chart(groups: list[Group], name: str, metric: Metric) -> dict | None:
    """A metric of `history` or `evaluations` against steps: the mean over seeds, in a band from lowest to highest.

    None where no run has two values.
    """
    traces, everything = [], []
    steps, values = curves(groups, name, metric.key)
    for index, (group, x, runs) in enumerate(zip(groups, steps, values, strict=True)):
        if not x:
            continue
        columns = list(zip(*runs, strict=True))
        everything += [value for column in columns for value in column]
        if len(runs) > 1:
            traces.append(band(x, list(map(min, columns)), list(map(max, columns)), index))
        traces.append(
            go.Scatter(
                x=x,
                y=[mean(column) for column in columns],
                name=escape(group.label) + ("" if group.finished else " (did not finish)"),
                mode="lines+markers" if len(x) <= MOST_MARKERS else "lines",
                cliponaxis=False,
                hovertemplate="%{y:.1%}" if metric.share else "%{y:.4g}",
                **strokes(index),
            )
        )
    if not any(len(x) > 1 for x in steps):
        return None
    last = max(x[-1] for x in steps if x)
    return figure(
        traces,
        height=300,
        hovermode="x unified" if len(groups) <= 8 else "closest",
        xaxis={"title": {"text": "training steps"}, "range": [-0.015 * last, 1.02 * last], "showgrid": False, **FIXED},
        yaxis={**(percentages if metric.share else scale)(everything), **FIXED},
    )


def bar_chart(groups: list[Group], measure, unit: str) -> dict | None:
    """One horizontal bar a method of `measure(group)`, a number in `unit` or None; None where no method has one."""
    bars = [(index, group, value) for index, group in enumerate(groups) if (value := measure(group)) is not None]
    if not bars:
        return None
    bars.reverse()  # plotly draws from the bottom
    return figure(
        [
            go.Bar(
                x=[value for _, _, value in bars],
                y=[escape(group.label) for _, group, _ in bars],
                orientation="h",
                marker={"color": [look(index)["colour"] for index, _, _ in bars]},
                text=[f" {figures(value)} {unit}" for _, _, value in bars],
                textposition="outside",
                cliponaxis=False,
                hoverinfo="skip",
                width=0.5,
            )
        ],
        height=20 + (32 if len(bars) < 8 else 26) * len(bars),
        margin={"l": 8, "r": 12, "t": 4, "b": 8},
        xaxis={"visible": False, "fixedrange": True, "range": [0, 1.4 * max(value for _, _, value in bars)]},
        yaxis={"automargin": True, "fixedrange": True, "showgrid": False, "ticklen": 8, "tickcolor": "rgba(0,0,0,0)"},
    )


def reach(values: list[float]) -> dict:
    """Error bars from the lowest to the highest of `values` around their mean."""
    centre = mean(values)
    return {"array": [max(values) - centre], "arrayminus": [centre - min(values)], "thickness": 1.5, "width": 4}


def scatter_chart(comparison: Comparison) -> dict | None:
    """The main metric at the end against the change of perplexity on general text: one mark a method, bars over seeds.

    None where no finished run measured both.
    """
    metric, traces, xs, ys = comparison.metric, [], [], []
    for index, group in enumerate(comparison.groups):
        pairs = [(forgotten(run), final(run, metric.key)) for run in group.finished]
        pairs = [pair for pair in pairs if None not in pair]
        if not pairs:
            continue
        x, y = map(list, zip(*pairs, strict=True))
        xs, ys = xs + x, ys + y
        style = strokes(index)
        value = "%{y:.1%}" if metric.share else "%{y:.4g}"
        traces.append(
            go.Scatter(
                x=[Estimate.of(x).mean],
                y=[Estimate.of(y).mean],
                error_x=reach(x) if len(pairs) > 1 else None,
                error_y=reach(y) if len(pairs) > 1 else None,
                name=escape(group.label),
                mode="markers",
                marker=style["marker"] | {"size": 11},
                cliponaxis=False,
                hovertemplate=f"{escape(group.label)}<br>{metric.name} {value}<br>×%{{x:.3g}}<extra></extra>",
                meta=index,
            )
        )
    if not traces:
        return None
    wide = max(xs) > 3 * min(xs)
    return figure(
        traces,
        height=380,
        hovermode="closest",
        xaxis={
            "title": {"text": "perplexity on general text, × base model"},
            **(logarithmic(xs) if wide else {"tickformat": "~g"}),
            "tickprefix": "×",
            **FIXED,
        },
        yaxis={**(percentages if metric.share else scale)(ys), **FIXED},
    )
