"""The look of each method: a colour, a dash and a marker of its own; and the frame that all charts share.

Colours are Okabe and Ito's, which colour-blind people can tell apart; dash and marker carry the same meaning without
colour. Text and grid colours are left to the page, which follows the reader's light or dark mode.
"""

import math

import plotly.graph_objects as go

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
FIXED = {"fixedrange": True, "zeroline": False}


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


def strokes(index: int) -> dict:
    """The look of method number `index` as plotly's line and marker, and its number as `meta`."""
    style = look(index)
    return {
        "line": {"color": style["colour"], "dash": style["dash"], "width": 2},
        "marker": {"symbol": style["marker"], "size": 7, "color": style["colour"]},
        "meta": index,
    }


def figure(traces: list, **layout) -> dict:
    """A plotly figure as plain data (`data`, `layout`), checked by plotly, with the frame all charts share."""
    frame = {
        "template": {},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 56, "r": 12, "t": 8, "b": 44},
        "showlegend": False,
        "dragmode": False,
    }
    return go.Figure(traces, frame | layout).to_plotly_json()


def percentages(values: list[float]) -> dict:
    """An axis of shares: from 0 to 100 % where values come near that, or else from 0 to what there is."""
    if max(values) < 0.7:
        return {"rangemode": "tozero", "tickformat": ".3~%"}
    marks = [0, 0.25, 0.5, 0.75, 1]
    return {"range": [-0.03, 1.03], "tickvals": marks, "ticktext": [f"{mark:.0%}" for mark in marks]}


def scale(values: list[float]) -> dict:
    """A logarithmic axis where values span more than a decade, as a loss does that goes to nothing."""
    return logarithmic(values) if min(values) > 0 and max(values) > 10 * min(values) else {"tickformat": "~g"}


def logarithmic(values: list[float]) -> dict:
    """A logarithmic axis over positive values: marks at powers of ten, and at 2 and 5 too where those may be few."""
    decades = math.log10(max(values) / min(values))
    small = min(values) < 1e-3 or max(values) >= 1e5
    marks = {"dtick": "D2"} if decades < 2 else {"dtick": max(1, round(decades / 6))}
    return {"type": "log", **marks, **({"exponentformat": "power"} if small else {"tickformat": "~g"})}
