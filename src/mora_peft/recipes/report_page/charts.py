"""The page's charts as plotly JSON, and the look of each method: a colour, a dash and a marker of its own.

Colours are Okabe and Ito's, which colour-blind people can tell apart; dash and marker carry the same meaning without
colour. Text and grid colours are left to the page, which follows the reader's light or dark mode.
"""

from html import escape
from statistics import mean

import plotly.graph_objects as go

from .headline import figures
from .numbers import Group, series

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
# plotly's name of a dash, and the same as an SVG stroke-dasharray for the legend.
DASHES = (
    ("solid", "none"),
    ("dash", "7 4"),
    ("dot", "2 3"),
    ("dashdot", "7 3 2 3"),
    ("longdash", "12 4"),
    ("longdashdot", "12 3 2 3"),
)
MARKERS = (("circle", "●"), ("square", "■"), ("diamond", "◆"), ("triangle-up", "▲"), ("x", "✖"))
# More points than this hide the dash pattern: neighbours are averaged.
MOST_POINTS = 60
MOST_MARKERS = 30


def look(index: int) -> dict:
    """How method number `index` is drawn; no two of the first 210 look the same."""
    dash, stroke = DASHES[index % len(DASHES)]
    marker, glyph = MARKERS[index % len(MARKERS)]
    return {
        "colour": COLOURS[index % len(COLOURS)],
        "dash": dash,
        "stroke": stroke,
        "marker": marker,
        "glyph": glyph,
    }


def figure(traces: list, **layout) -> dict:
    """A plotly figure as plain data (`data`, `layout`), checked by plotly, with the frame all charts share."""
    frame = {
        "template": {},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 52, "r": 12, "t": 8, "b": 44},
        "showlegend": False,
        "dragmode": False,
    }
    return go.Figure(traces, frame | layout).to_plotly_json()


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


def line_chart(groups: list[Group], name: str, key: str, share: bool) -> dict | None:
    """`key` of `history` or `evaluations` against steps: the mean over seeds, in a band from the lowest to the highest.

    `share` draws an axis from 0 to 100 %. None where no run has a value. Each trace's `meta` is its method's number.
    """
    traces, everything = [], []
    steps, values = curves(groups, name, key)
    for index, (group, x, runs) in enumerate(zip(groups, steps, values, strict=True)):
        if not x:
            continue
        style = look(index)
        columns = list(zip(*runs, strict=True))
        everything += [value for column in columns for value in column]
        if len(runs) > 1:
            traces.append(
                go.Scatter(
                    x=[*x, *reversed(x)],
                    y=[*map(max, columns), *reversed([min(column) for column in columns])],
                    fill="toself",
                    fillcolor=style["colour"],
                    opacity=0.16,
                    line={"width": 0},
                    mode="lines",
                    hoverinfo="skip",
                    meta=index,
                )
            )
        traces.append(
            go.Scatter(
                x=x,
                y=[mean(column) for column in columns],
                name=escape(group.label) + ("" if group.finished else " (did not finish)"),
                mode="lines+markers" if len(x) <= MOST_MARKERS else "lines",
                line={"color": style["colour"], "dash": style["dash"], "width": 2},
                marker={"symbol": style["marker"], "size": 7},
                cliponaxis=False,
                hovertemplate="%{y:.1%}" if share else "%{y:.3g}",
                meta=index,
            )
        )
    if not traces:
        return None
    marks = [0, 0.25, 0.5, 0.75, 1]
    percentages = {"range": [-0.03, 1.03], "tickvals": marks, "ticktext": [f"{mark:.0%}" for mark in marks]}
    last = max(x[-1] for x in steps if x)
    frame = {"fixedrange": True, "zeroline": False}
    return figure(
        traces,
        height=300,
        hovermode="x unified",
        xaxis={"title": {"text": "training steps"}, "range": [-0.015 * last, 1.02 * last], "showgrid": False, **frame},
        yaxis={**(percentages if share else scale(everything)), **frame},
    )


def scale(values: list[float]) -> dict:
    """A logarithmic axis where values span more than a decade, as a loss does that goes to nothing."""
    wide = min(values) > 0 and max(values) > 10 * min(values)
    return {"type": "log", "dtick": 1, "tickformat": "~g"} if wide else {"rangemode": "tozero"}


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
        height=20 + 32 * len(bars),
        margin={"l": 8, "r": 12, "t": 4, "b": 8},
        xaxis={"visible": False, "fixedrange": True, "range": [0, 1.4 * max(value for _, _, value in bars)]},
        yaxis={"automargin": True, "fixedrange": True, "showgrid": False, "ticklen": 8, "tickcolor": "rgba(0,0,0,0)"},
    )
