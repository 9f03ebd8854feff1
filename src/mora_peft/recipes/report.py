"""One self-contained HTML page from the results of a comparison: what the numbers say, and what they do not say.

The page is a list of sections; each is a function from a Comparison to a title and the data of one template in
`report_page`, or to None where there is nothing to show.
"""

import json
import os
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import jinja2
from plotly.offline import get_plotlyjs

from mora_peft.errors import UserError

from .report_page.charts import bar_chart, line_chart, look
from .report_page.headline import counted, exact_match, figures, headline, interval, listed, percent
from .report_page.numbers import Comparison, Estimate, Group, final, final_loss, gather, number, rows, steps_to

SCHEMA = 1
EXAMPLES_SHOWN = 4


def load_results(paths: list[Path]) -> list[dict]:
    """The results in `paths`: run.json files, or folders that hold some at any depth.

    Raises UserError, naming the file, where one is missing, is no JSON object, or is of a newer schema.
    """
    files = []
    for path in map(Path, paths):
        found = sorted(path.rglob("run.json")) if path.is_dir() else [path]
        if not found:
            raise UserError(f"There is no run.json in {path}: give a folder that `mora compare` wrote.")
        files += [file.resolve() for file in found]
    return [load_result(file) for file in dict.fromkeys(files)]


def load_result(file: Path) -> dict:
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no file {file}: give a run.json, or a folder that holds some.") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not the JSON of a run: {error}.") from None
    if not isinstance(result, dict):
        raise UserError(f"{file} holds a {type(result).__name__} where the object of one run was expected.")
    if (number(result.get("schema")) or SCHEMA) > SCHEMA:
        raise UserError(f"{file} has schema {result['schema']}, newer than {SCHEMA}: upgrade mora-peft to read it.")
    return result


def build_report(results: list[dict], output: Path) -> Path:
    """Write the page of `results` (dicts of run.json files) to `output` and return its path.

    One part for each task among them. Missing fields leave gaps, never an error. The page needs no network.
    Raises UserError where there are no results, or two different ones share a name. `output` appears whole or not at
    all.
    """
    comparisons = gather(results)
    output = Path(output)
    html = template().render(
        title=", ".join(comparison.task for comparison in comparisons),
        created=datetime.now(UTC).strftime("%-d %B %Y"),
        parts=[part(comparison) for comparison in comparisons],
        plotly=get_plotlyjs(),
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_text(html, encoding="utf-8")
        os.replace(unfinished, output)
    finally:
        unfinished.unlink(missing_ok=True)
    return output


@cache
def template() -> jinja2.Template:
    """The page's template; every value put into it is escaped."""
    loader = jinja2.PackageLoader("mora_peft.recipes", "report_page")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html")


def part(comparison: Comparison) -> dict:
    claim, notes = headline(comparison)
    return {
        "task": comparison.task,
        "facts": facts(comparison),
        "claim": claim,
        "notes": notes,
        "sections": [section for make in SECTIONS if (section := make(comparison))],
    }


def facts(comparison: Comparison) -> list[str]:
    """The line above the headline: how much was run, on what."""
    runs = comparison.runs
    steps = {run["steps"] for run in runs if number(run.get("steps"))}
    models = {str(model) for run in runs if (model := settings(run).get("model"))}
    devices = {str(run["device"]) for run in runs if run.get("device")}
    found = [counted(len(comparison.groups), "method"), counted(len(runs), "run")]
    if len(steps) == 1:
        found.append(f"{steps.pop():,} steps")
    return (
        found + [Path(value).name for value in models if len(models) == 1] + list(devices if len(devices) == 1 else [])
    )


def failures(comparison: Comparison) -> dict | None:
    """Runs that did not finish, with their own words."""
    lost = [
        {
            "label": group.label,
            "seed": run.get("seed"),
            "status": str(run.get("status") or "unfinished"),
            "message": str(run.get("message") or "No message was recorded."),
        }
        for group in comparison.groups
        for run in group.unfinished
    ]
    return {"title": "Runs that did not finish", "template": "failures.html", "runs": lost} if lost else None


def cell(estimate: Estimate | None, form, detail: str = "") -> dict:
    """One table cell: the value it sorts by (None: last), its text, and a smaller second line."""
    if estimate is None:
        return {"value": None, "text": "–", "detail": detail}
    return {"value": estimate.mean, "text": form(estimate.mean), "detail": detail}


def share_cell(estimate: Estimate | None) -> dict:
    return cell(estimate, percent, interval(estimate) if estimate and estimate.n > 1 else "")


def steps_cell(group: Group, recall: float) -> dict:
    """Mean steps to `recall`; it sorts by them only if every finished run got there."""
    if exact_match(group) is None:
        return cell(None, str)
    steps = [steps_to(run, recall) for run in group.finished]
    reached = Estimate.of(steps)
    if reached is None:
        return {"value": None, "text": "not reached", "detail": ""}
    if reached.n < len(steps):
        return {"value": None, "text": f"{reached.mean:,.0f}", "detail": f"in {reached.n} of {len(steps)} runs"}
    return cell(reached, "{:,.0f}".format)


def size(count: float) -> str:
    """Bytes in binary units, three figures: 4915200 → '4.69 MiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} B" if unit == "B" else f"{figures(count)} {unit}"
        count /= 1024


# Column title → cell of a method.
COLUMNS = {
    "Exact match": lambda group: share_cell(exact_match(group)),
    "Character accuracy": lambda group: share_cell(group.result(lambda run: final(run, "character_accuracy"))),
    "Steps to 50\u00a0%": lambda group: steps_cell(group, 0.5),
    "Steps to 99\u00a0%": lambda group: steps_cell(group, 0.99),
    "Final loss": lambda group: cell(group.result(final_loss), figures),
    "Trainable parameters": lambda group: cell(group.cost("trainable_parameters"), "{:,.0f}".format),
    "Share of budget": lambda group: cell(Estimate.of([group.share_of_budget()]), percent),
    "Step time": lambda group: cell(group.cost("step_seconds_median"), lambda value: f"{figures(value)} s"),
    "Peak memory": lambda group: cell(group.cost("peak_memory_bytes"), size),
    "Adapter size": lambda group: cell(group.cost("adapter_bytes"), size),
}


def table(comparison: Comparison) -> dict:
    """Every method in numbers, best final exact match first."""
    lines = [
        {
            "label": group.label,
            "detail": seeds(group),
            "look": look(index),
            "cells": [make(group) for make in COLUMNS.values()],
        }
        for index, group in enumerate(comparison.groups)
    ]
    best = list(COLUMNS).index("Exact match")
    lines.sort(key=lambda line: -(-1 if line["cells"][best]["value"] is None else line["cells"][best]["value"]))
    several = any(len(group.finished) > 1 for group in comparison.groups)
    return {
        "title": "Results",
        "template": "table.html",
        "columns": list(COLUMNS),
        "sorted": best,
        "lines": lines,
        "several": several,
    }


def seeds(group: Group) -> str:
    lost = [str(run.get("status") or "unfinished") for run in group.unfinished]
    if not lost:
        return counted(len(group.runs), "seed")
    told = listed(sorted({f"{lost.count(status)} {status}" for status in lost}))
    return f"{told} of {counted(len(group.runs), 'seed')}"


def learning(comparison: Comparison) -> dict | None:
    """Recall and loss against steps, one legend for all three charts."""
    groups = comparison.groups
    charts = [
        ("Exact match", line_chart(groups, "evaluations", "exact_match", share=True)),
        ("Character accuracy", line_chart(groups, "evaluations", "character_accuracy", share=True)),
        ("Training loss", line_chart(groups, "history", "loss", share=False)),
    ]
    shown = [{"title": title, "figure": figure} for title, figure in charts if figure]
    if not shown:
        return None
    drawn = {trace["meta"] for chart in shown for trace in chart["figure"]["data"]}
    return {
        "title": "Learning",
        "template": "curves.html",
        "legend": [
            {"number": index, "label": group.label, "finished": bool(group.finished), "look": look(index)}
            for index, group in enumerate(groups)
            if index in drawn
        ],
        "charts": shown,
        "several": any(len(group.finished or group.runs) > 1 for group in groups),
    }


def costs(comparison: Comparison) -> dict | None:
    """What a step takes and what the run needs at most."""

    def scaled(key: str, unit: float):
        return lambda group: estimate.mean / unit if (estimate := group.cost(key)) else None

    charts = [
        ("Step time", bar_chart(comparison.groups, scaled("step_seconds_median", 1), "s")),
        ("Peak memory", bar_chart(comparison.groups, scaled("peak_memory_bytes", 2**30), "GiB")),
    ]
    shown = [{"title": title, "figure": figure} for title, figure in charts if figure]
    return {"title": "Cost", "template": "costs.html", "charts": shown} if shown else None


def examples(comparison: Comparison) -> dict | None:
    """The same prompts answered before and after training, by each method's first run that has examples."""
    cards: dict[tuple[str, str], dict] = {}
    for group in comparison.groups:
        for row in next((found for run in group.finished if (found := rows(run, "examples"))), []):
            prompt, expected, before, after = (
                str(row.get(key, "–")) for key in ("prompt", "expected", "before", "after")
            )
            card = cards.setdefault(
                (prompt, expected), {"prompt": prompt, "expected": expected, "before": {}, "after": []}
            )
            card["before"].setdefault(before, []).append(group.label)
            card["after"].append({"label": group.label, "text": after, "right": after.strip() == expected.strip()})
    for card in cards.values():
        card["before"] = [
            {"label": listed(labels), "text": text, "right": text.strip() == card["expected"].strip()}
            for text, labels in card["before"].items()
        ]
    shown = list(cards.values())
    if not shown:
        return None
    first, rest = shown[:EXAMPLES_SHOWN], shown[EXAMPLES_SHOWN:]
    return {"title": "Before and after", "template": "examples.html", "first": first, "rest": rest}


def settings(run: dict) -> dict:
    config = run.get("config")
    return config if isinstance(config, dict) else {}


def provenance(comparison: Comparison) -> dict | None:
    """Settings and versions: what all runs share, and what sets methods apart."""
    described = [(group.label, [described_run(run) for run in group.runs]) for group in comparison.groups]
    shared, apart = {}, {}
    for key in sorted({key for _, runs in described for values in runs for key in values}):
        found: dict[str, list[str]] = {}
        for label, runs in described:
            for value in dict.fromkeys(str(values.get(key, "–")) for values in runs):
                found.setdefault(value, []).append(label)
        (shared if len(found) == 1 else apart)[key] = found
    if not shared and not apart:
        return None
    shared = {key: next(iter(found)) for key, found in shared.items()}
    return {"title": "Settings and versions", "template": "settings.html", "shared": shared, "apart": apart}


def described_run(run: dict) -> dict:
    """All that was set or installed for a run; the seed is told elsewhere."""
    told = {key: run[key] for key in ("device", "git_revision", "tokens", "budget_note") if run.get(key) is not None}
    chosen = {key: value for key, value in flat(settings(run)).items() if key != "seed"}
    return chosen | flat(run.get("versions"), "version of ") | told


def flat(value, prefix: str = "") -> dict:
    """Nested settings as one level: {"data": {"rows": 8}} → {"data.rows": 8}."""
    if not isinstance(value, dict):
        return {}
    items = {}
    for key, inner in value.items():
        items |= flat(inner, f"{prefix}{key}.") if isinstance(inner, dict) and inner else {f"{prefix}{key}": inner}
    return items


SECTIONS = [failures, table, learning, examples, costs, provenance]
