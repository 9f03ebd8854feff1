"""One self-contained HTML page from the results of a comparison: what the numbers say, and what they do not say.

The page has a part for each comparison, and before them one for the capacity that a study of several sizes measured. A
part is a list of sections; each is a function from a Comparison to a title and the data of one template in
`report_page`, or to None where there is nothing to show.
"""

import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import jinja2
from plotly.offline import get_plotlyjs

from mora_peft.errors import UserError

from .files import write_text
from .report_page import sections, tables
from .report_page.capacity import capacity
from .report_page.groups import Comparison, gather
from .report_page.headline import headline
from .report_page.numbers import number, settings
from .report_page.words import counted

SCHEMA = 1
PLOTLY = "plotly.min.js"
SECTIONS = [
    sections.failures,
    tables.results,
    sections.learning,
    sections.forgetting,
    sections.spectrum,
    sections.costs,
    tables.sizes,
    sections.sweeps,
    sections.examples,
    sections.provenance,
]


def load_results(paths: list[Path]) -> list[dict]:
    """The results in `paths`: files of one run each, or folders that hold some at any depth.

    In a folder these are called run.json, or anything.json where there is no run.json. The trials of a search for a
    learning rate are passed over there. Raises UserError, naming the file, where one is missing, is no JSON object, or
    is of a newer schema.
    """
    results = {}
    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(path.rglob("run.json")) or sorted(path.rglob("*.json"))
            found = {file.resolve(): load_result(file) for file in files}
            found = {file: run for file, run in found.items() if is_reported(file, run)}
        else:
            found = {path.resolve(): load_result(path)}
        if not found:
            raise UserError(f"There is no run.json in {path}: give a folder that `mora compare` wrote.")
        results |= found
    return list(results.values())


def is_reported(file: Path, run: dict) -> bool:
    """Whether a file found in a folder is the result of a run of its own: no trial of a search, nor some other JSON."""
    return not settings(run).get("trial") and (file.name == "run.json" or "evaluations" in run)


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


def build_report(results: list[dict], output: Path, shared: bool = False) -> Path:
    """Write the page of `results` (dicts of run.json files) to `output` and return its path.

    One part for each task among them. Missing fields leave gaps, never an error. The page needs no network. It is one
    file of 5 MB, nearly all of it plotly; `shared` leaves plotly beside it, in a file that pages of a folder share.
    Raises UserError where there are no results, or two different ones share a name. `output` appears whole or not at
    all.
    """
    comparisons = gather(results)
    tasks: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        tasks.setdefault(comparison.task, []).append(comparison)
    overviews = [found for each in tasks.values() if (found := capacity(each))]
    output = Path(output)
    html = template().render(
        title=", ".join(tasks),
        created=datetime.now(UTC).strftime("%-d %B %Y"),
        parts=overviews + [part(comparison) for comparison in comparisons],
        plotly=None if shared else get_plotlyjs(),
        shared=PLOTLY,
    )
    if shared:
        write_text(output.with_name(PLOTLY), get_plotlyjs())
    return write_text(output, html)


def claims(results: list[dict]) -> str:
    """What the page says first of each comparison among `results`, a line each."""
    return "\n".join(headline(comparison)[0] for comparison in gather(results))


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
        "task": comparison.title,
        "facts": facts(comparison),
        "claim": claim,
        "notes": notes,
        "sections": [section for make in SECTIONS if (section := make(comparison))],
    }


def facts(comparison: Comparison) -> list[str]:
    """The line above the headline: how much was run, on what."""
    runs = comparison.runs
    steps = {run["steps"] for run in runs if number(run.get("steps"))}
    models = {model_name(str(model)) for run in runs if (model := settings(run).get("model"))}
    devices = {str(run["device"]) for run in runs if run.get("device")}
    found = [counted(len(comparison.groups), "method"), counted(len(runs), "run")]
    if len(steps) == 1:
        found.append(f"{steps.pop():,} steps")
    return found + list(models if len(models) == 1 else []) + list(devices if len(devices) == 1 else [])


def model_name(model: str) -> str:
    """A model's own name, without its folders; of a configuration alone, that of the folder it lies in."""
    path = Path(model)
    return path.parent.name if path.name == "config.json" and path.parent.name else path.name
