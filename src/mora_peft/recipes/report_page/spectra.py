"""Charts of what lies under a result: the singular values of ΔW, and the search for a learning rate."""

from html import escape

import plotly.graph_objects as go

from .groups import Group
from .headline import trials
from .looks import FIXED, figure, logarithmic, scale, strokes
from .numbers import number, numbers, rows
from .words import rate

LAYERS_SHOWN = 6
# A spectrum falls over many decades in its last few values; the chart ends where they no longer matter.
SMALLEST = 1e-4
MOST_POINTS = 120


def spectra(group: Group) -> dict[str, list[float]]:
    """layer → its singular values in falling order, of a method's first run that has any."""
    for run in group.finished or group.runs:
        found = {}
        for row in rows(run, "spectrum"):
            if values := sorted((value for value in numbers(row.get("singular_values")) if value > 0), reverse=True):
                found[str(row.get("layer") or "a layer")] = values
        if found:
            return found
    return {}


def spectrum_charts(groups: list[Group]) -> list[dict]:
    """A chart a layer: singular values of each method's ΔW, largest first, on a logarithmic axis."""
    found = [spectra(group) for group in groups]
    layers = dict.fromkeys(layer for each in found for layer in each)
    # Layers that most methods have come first; sorting keeps the order of layers that equally many have.
    layers = sorted(layers, key=lambda layer: -sum(layer in each for each in found))[:LAYERS_SHOWN]
    return [
        {"title": layer, "figure": spectrum_chart(groups, [each.get(layer, []) for each in found])} for layer in layers
    ]


def spectrum_chart(groups: list[Group], spectra: list[list[float]]) -> dict:
    top = max(values[0] for values in spectra if values)
    shown = [[value for value in values if value >= SMALLEST * top] for values in spectra]
    traces = []
    for index, (group, values) in enumerate(zip(groups, shown, strict=True)):
        if not values:
            continue
        # Of a long spectrum every so many-th value, and always the first and the last.
        places = range(0, len(values), -(-len(values) // MOST_POINTS))
        places = sorted({*places, len(values) - 1})
        traces.append(
            go.Scatter(
                x=[place + 1 for place in places],
                y=[values[place] for place in places],
                name=escape(group.label),
                mode="lines+markers" if len(places) <= 16 else "lines",
                hovertemplate=f"{escape(group.label)}: no. %{{x}} %{{y:.3g}}<extra></extra>",
                **strokes(index),
            )
        )
    everything = [value for values in shown for value in values]
    return figure(
        traces,
        height=280,
        hovermode="closest",
        xaxis={"title": {"text": "singular value, by size"}, "showgrid": False, "rangemode": "tozero", **FIXED},
        yaxis={**logarithmic(everything), **FIXED},
    )


def sweep_chart(groups: list[Group]) -> dict | None:
    """The score of each learning rate, a line a method; the rate that was chosen is ringed.

    Where a rate was tried with several seeds its score is their mean, and a bar reaches from the lowest to the highest.
    """
    traces, rates, scores = [], [], []
    for index, group in enumerate(groups):
        found = [(trial["learning_rate"], number(trial.get("score")), trial) for trial in trials(group)]
        found = [(x, y, numbers(trial.get("scores")) or [y]) for x, y, trial in found if y is not None]
        if not found:
            continue
        x, y, single = map(list, zip(*found, strict=True))
        rates, scores = rates + x, scores + [score for each in single for score in each]
        bars = {
            "array": [max(each) - mean for mean, each in zip(y, single, strict=True)],
            "arrayminus": [mean - min(each) for mean, each in zip(y, single, strict=True)],
            "visible": any(len(each) > 1 for each in single),
        }
        style = strokes(index)
        hover = f"{escape(group.label)}: %{{y:.4g}} at %{{x:.2e}}<extra></extra>"
        traces.append(
            go.Scatter(
                x=x, y=y, error_y=bars, name=escape(group.label), mode="lines+markers", cliponaxis=False,
                hovertemplate=hover, **style
            )
        )  # fmt: skip
        if group.learning_rate in x:
            ring = style["marker"] | {"symbol": "circle-open", "size": 16, "line": {"width": 2}}
            at = x.index(group.learning_rate)
            traces.append(
                go.Scatter(x=[x[at]], y=[y[at]], mode="markers", marker=ring, hoverinfo="skip", cliponaxis=False,
                           meta=index)
            )  # fmt: skip
    if not traces:
        return None
    return figure(
        traces,
        height=340,
        hovermode="closest",
        xaxis={"title": {"text": "learning rate"}, "showgrid": False, **logarithmic(rates), **FIXED},
        yaxis={**scale(scores), **FIXED},
    )


def lost_trials(groups: list[Group]) -> list[str]:
    """The trials that came to no score, in words: they are missing from the chart."""
    told = []
    for group in groups:
        for trial in trials(group):
            if number(trial.get("score")) is None:
                told.append(f"{group.label} at {rate(trial['learning_rate'])} {trial.get('status') or 'unfinished'}")
    return told
