"""The README's table of serving, from serving_batch.json and serving_scale/*.json as far as they are there."""

import json
from pathlib import Path
from typing import Any

from markdown_table import markdown

#: Columns: what is served, its case in serving_batch.json, its part of serving_scale/.
COLUMNS = {
    "MoRA (rotation)": ("plugin rotation", "rotation"),
    "MoRA (sharing)": ("plugin sharing", "sharing"),
    "LoRA": ("plugin lora", "lora"),
    "LoRA, vLLM alone": ("stock lora", "stock-lora"),
}
#: Slow ways, measured with 5 adapters and a short workload beside rotation's part `beside`.
OTHERS = {"sharing as its exact LoRA, vLLM alone": "converted", "rotation by PEFT, one adapter at a time": "peft"}


def serving_table(folder: Path) -> str:
    """A line a measurement, a column a way to serve, as far as there are results; a dash where one is missing."""
    batch = _read(folder / "serving_batch.json")
    parts = {part: _read(folder / "serving_scale" / f"{part}.json") for _, part in COLUMNS.values()}
    lines = [["measured, one CPU thread", *COLUMNS]]
    if batch:
        cells = [_figure(batch["over_base"].get(case)) for case, _ in COLUMNS.values()]
        lines.append(["decode throughput of 32 requests with 32 adapters, over the base's without", *cells])
        limit = [_figure(batch.get("limit")) if case in batch["over_base"] else "–" for case, _ in COLUMNS.values()]
        lines.append(["the most of it that reading 32 adapters once a step allows", *limit])
    for label, cell in (
        ("requests/s, 5 adapters", lambda found: _figure(_rate(found, 0))),
        ("requests/s, 2,000 adapters", lambda found: _figure(_rate(found, 1))),
        ("share of it that remains at 2,000", lambda found: _figure(found.get("remaining"))),
        ("median wait for the first token at 2,000, s", lambda found: _figure(_first_token(found))),
        ("memory for each adapter loaded, MB", lambda found: _figure(_megabytes(found))),
    ):
        lines.append([label, *(cell(parts[part]) if parts[part] else "–" for _, part in COLUMNS.values())])
    lines = [line for line in lines if set(line[1:]) != {"–"}]
    measured = [place for place in range(len(COLUMNS) + 1) if {line[place] for line in lines[1:]} != {"–"}]
    header, *rows = [[line[place] for place in measured] for line in lines]
    return "\n\n".join([markdown(header, rows), *_others(folder / "serving_scale")])


def _others(folder: Path) -> list[str]:
    """A table of the slow ways, as shares of what rotation through the plugin answers; none where one is missing."""
    rates = {part: _read(folder / f"{part}.json") for part in ("beside", *OTHERS.values())}
    if None in rates.values():
        return []
    beside = _rate(rates["beside"], 0)
    cells = [f"{_rate(rates[part], 0) / beside:.3f}" for part in OTHERS.values()]
    return [markdown(["5 adapters, the same machine", *OTHERS], [["requests/s, over MoRA (rotation) here", *cells]])]


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8"))["results"] if path.is_file() else None


def _rate(found: dict[str, Any], place: int) -> float | None:
    """Requests a second with few adapters (place 0) or with many (1)."""
    rates = list(found["requests_per_second"].values())
    return rates[place] if place < len(rates) else None


def _first_token(found: dict[str, Any]) -> float | None:
    waits = [run["first_token_seconds"]["p50"] for run in found["runs"] if run["adapters"] > 5 and not run["cold"]]
    return sorted(waits)[len(waits) // 2] if waits else None


def _megabytes(found: dict[str, Any]) -> float | None:
    resident, many = found.get("resident_bytes"), max(run["adapters"] for run in found["runs"])
    return (resident["all_loaded"] - resident["started"]) / many / 1e6 if resident and many > 5 else None


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
