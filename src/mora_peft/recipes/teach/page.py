"""The proof as one self-contained HTML page, made of proof.json and nothing else."""

from datetime import UTC, datetime
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from mora_peft.recipes.files import write_text
from mora_peft.recipes.report_page.looks import FIXED, figure, look, percentages, scale, strokes
from mora_peft.recipes.report_page.words import counted, figures, listed, percent, rate, times

SETS = {
    "taught": ("Taught facts, in wordings never taught", "the proof that it learned facts, not sentences"),
    "own": ("Your own questions", "a taught fact has the answer; never taught in these words"),
    "further": ("Your own questions, further", "no taught fact has the answer: read as text alone, or not there"),
    "earlier": ("What was taught before", "before: the adapter that this one continues from"),
    "control": ("Control: documents never taught", "should stay as it was"),
}


def write_page(proof: dict[str, Any], output: Path) -> Path:
    """Write the page of `proof` to `output`, whole or not at all, and return its path."""
    columns = _columns(proof)
    html = _template().render(
        proof=proof,
        columns=columns,
        facts=_facts(proof),
        claim=claim(proof),
        notes=notes(proof),
        sets=[_set(name, proof["sets"][name], columns) for name in SETS if _asked(proof, name)],
        documents=_documents(proof, columns),
        kinds=_kinds(proof, columns),
        charts=_charts(proof),
        questions={name: proof["sets"][name]["questions"] for name in SETS if _asked(proof, name)},
        titles={name: title for name, (title, _) in SETS.items()},
        files={
            what: [entry for entry in proof["files"] if entry["what"] == what]
            for what in ("dropped", "changed", "taken")
        },
        settings=_settings(proof),
        created=datetime.now(UTC).strftime("%-d %B %Y"),
        plotly=get_plotlyjs(),
    )
    return write_text(output, html)


def claim(proof: dict[str, Any]) -> str:
    """The headline: what the taught model answers, and what the base did."""
    name = next((name for name in ("taught", "own", "further") if _asked(proof, name)), None)
    if name is None:
        return "No facts were found that could be asked for: the documents were learned as text alone."
    found, count = proof["sets"][name]["means"], len(proof["sets"][name]["questions"])
    first = proof["methods"][0]
    return (
        f"{first['label']} answers {percent(found[first['method']]['exact'])} of {counted(count, 'held-out question')} "
        f"word for word; before, the model answered {percent(found['before']['exact'])}."
    )


def notes(proof: dict[str, Any]) -> list[str]:
    """What else there is to know before believing the headline."""
    found = []
    main = proof["methods"][0]
    for other in proof["methods"][1:]:
        value = proof["sets"]["taught"]["means"][other["method"]]["exact"]
        found.append(
            f"{other['label']}, taught the same rows, answers {percent(value)}. One seed each: small differences may "
            "be luck."
        )
    if _asked(proof, "control"):
        control = proof["sets"]["control"]["means"]
        found.append(
            f"Control: of questions about documents never taught, {percent(control[main['method']]['exact'])} are "
            f"answered, and {percent(control['before']['exact'])} were before. What rises here is guessing."
        )
    if _asked(proof, "earlier"):
        earlier = proof["sets"]["earlier"]["means"]
        found.append(
            f"Of the questions about what was taught before, {percent(earlier['before']['exact'])} were answered; "
            f"now it is {percent(earlier[main['method']]['exact'])}."
        )
    forgotten = {method["label"]: method["forgetting"] for method in proof["methods"] if _is_measured(method)}
    if forgotten:
        own = proof["config"]["general"]
        source = "general text" if own else "what the base itself may answer to everyday questions"
        ratios = {name: value["after"] / value["before"] for name, value in forgotten.items()}
        to = listed(
            [f"{figures(forgotten[name]['after'])} ({times(ratio)}) by {name}" for name, ratio in ratios.items()]
        )
        found.append(
            f"Perplexity on {source} went from {figures(next(iter(forgotten.values()))['before'])} to {to}: "
            + ("little was forgotten." if max(ratios.values()) < 1.1 else "this much was forgotten.")
        )
    if proof["nearness"] is not None:
        found.append(
            f"No held-out question is among the taught wordings; {percent(proof['nearness'])} of a question's runs of "
            "four words, on average, also stand in the taught wording that is nearest to it."
        )
    if proof["facts"] < proof["facts_found"]:
        left = proof["facts_found"] - proof["facts"]
        found.append(f"Learned as text only, and not asked about here: {counted(left, 'further fact')}.")
    return found


def _is_measured(method: dict[str, Any]) -> bool:
    return bool(method.get("forgetting") and method["forgetting"].get("after"))


def _asked(proof: dict[str, Any], name: str) -> bool:
    return bool(proof["sets"].get(name, {}).get("questions"))


def _columns(proof: dict[str, Any]) -> list[dict[str, Any]]:
    """Who answers: the model before, and each method."""
    before = "Earlier adapter" if proof["config"]["continue_from"] else "Base model"
    methods = [
        {"key": method["method"], "label": method["label"], "look": look(n)}
        for n, method in enumerate(proof["methods"])
    ]
    return [{"key": "before", "label": before, "look": None}, *methods]


def _facts(proof: dict[str, Any]) -> list[str]:
    kept = sum(entry["what"] == "taken" for entry in proof["files"])
    return [
        Path(proof["model"]).name, counted(kept, "document"), f"{proof['facts']:,} facts taught",
        f"{proof['methods'][0]['steps']:,} steps", proof["device"],
    ]  # fmt: skip


def _set(name: str, found: dict[str, Any], columns: list[dict]) -> dict[str, Any]:
    title, detail = SETS[name]
    lines = [{"label": column["label"], **_cells(found["means"][column["key"]])} for column in columns]
    return {"title": title, "detail": detail, "count": len(found["questions"]), "lines": lines}


def _cells(means: dict[str, Any]) -> dict[str, str]:
    return {name: "–" if means[name] is None else percent(means[name]) for name in ("exact", "f1", "choice")}


def _documents(proof: dict[str, Any], columns: list[dict]) -> list[dict[str, Any]]:
    """What was learned by document, the best known first."""
    if not _asked(proof, "taught"):
        return []
    found = proof["sets"]["taught"]["documents"]
    main = columns[1]["key"]
    lines = [
        {
            "title": proof["titles"].get(path, path), "path": path, "questions": found[main][path]["questions"],
            "values": [found[column["key"]][path]["exact"] for column in columns],
            "texts": [percent(found[column["key"]][path]["exact"]) for column in columns],
        }
        for path in found[main]
    ]  # fmt: skip
    return sorted(lines, key=lambda line: (-line["values"][1], line["path"]))


def _kinds(proof: dict[str, Any], columns: list[dict]) -> list[dict[str, Any]]:
    if not _asked(proof, "taught"):
        return []
    found = proof["sets"]["taught"]["kinds"]
    return [
        {"title": kind, "questions": values["questions"],
         "texts": [percent(found[column["key"]][kind]["exact"]) for column in columns]}
        for kind, values in found["before"].items()
    ]  # fmt: skip


def _charts(proof: dict[str, Any]) -> list[dict[str, Any]]:
    charts = []
    recall = _lines(proof, "evaluations", "exact_match")
    if recall:
        charts.append(
            {
                "title": "Recall so far, on questions kept apart from the proof",
                "figure": _chart(recall, percentages, "%{y:.0%}"),
            }
        )
    loss = _lines(proof, "history", "loss")
    if loss:
        charts.append({"title": "Training loss", "figure": _chart(loss, scale, "%{y:.3g}")})
    return charts


def _lines(proof: dict[str, Any], name: str, key: str) -> list[tuple[int, str, list, list]]:
    """Number, label, steps and values of each method; averaged over neighbours where there are very many."""
    found = []
    for number, method in enumerate(proof["methods"]):
        points = [(entry["step"], entry[key]) for entry in method[name] if entry.get(key) is not None]
        width = -(-len(points) // 60) or 1
        parts = [points[start : start + width] for start in range(0, len(points), width)]
        if len(parts) > 1:
            found.append(
                (
                    number,
                    method["label"],
                    [part[-1][0] for part in parts],
                    [sum(y for _, y in part) / len(part) for part in parts],
                )
            )
    return found


def _chart(lines: list[tuple[int, str, list, list]], axis, form: str) -> dict[str, Any]:
    traces = [
        go.Scatter(
            x=x, y=y, name=escape(label), mode="lines+markers" if len(x) < 30 else "lines", cliponaxis=False,
            hovertemplate=form, **strokes(number),
        )
        for number, label, x, y in lines
    ]  # fmt: skip
    return figure(
        traces,
        height=280,
        hovermode="x unified",
        showlegend=len(lines) > 1,
        legend={"orientation": "h", "y": 1.12},
        xaxis={"title": {"text": "training steps"}, "showgrid": False, **FIXED},
        yaxis={**axis([value for *_, y in lines for value in y]), **FIXED},
    )


def _settings(proof: dict[str, Any]) -> dict[str, str]:
    told = {name: str(value) for name, value in proof["config"].items() if value not in (None, "", {}, False)}
    rows = listed([f"{count:,} {kind}" for kind, count in proof["rows"].items()])
    for method in proof["methods"]:
        seconds = method["step_seconds_median"]
        told[method["label"]] = (
            f"{method['trainable_parameters']:,} parameters, learning rate {rate(method['learning_rate'])}, "
            f"{method['steps']} of {method['planned_steps']} steps"
            + (f" of {figures(seconds)} s" if seconds else "")
            + (f"; stopped because {method['stopped']}" if method["stopped"] else "")
        )
    versions = {f"version of {name}": str(value) for name, value in proof["versions"].items() if value}
    return told | {"rows learned": rows, "git revision": str(proof["git_revision"])} | versions


@cache
def _template() -> jinja2.Template:
    """The page's template; every value put into it is escaped."""
    loader = jinja2.ChoiceLoader(
        [jinja2.PackageLoader("mora_peft.recipes", "teach"), jinja2.PackageLoader("mora_peft.recipes", "report_page")]
    )
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("proof.html")
