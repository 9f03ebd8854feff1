"""The sections of a comparison: each a function to a title and the data of one template, or None for nothing to show.

In every section with a legend, method number n is drawn in look n.
"""

from .charts import bar_chart, line_chart, scatter_chart
from .groups import Comparison
from .headline import trials
from .looks import look
from .metrics import Metric
from .numbers import number, numbers, rows, settings
from .spectra import lost_trials, spectrum_charts, sweep_chart
from .words import listed, sentence

EXAMPLES_SHOWN = 4
CURVES_SHOWN = 6
LONGEST_JUDGED = 80  # characters


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


def charted(title: str, comparison: Comparison, charts: list[dict], caption: list[str]) -> dict | None:
    """A section of charts under one legend of the methods that are drawn in any of them."""
    shown = [chart for chart in charts if chart["figure"]]
    if not shown:
        return None
    drawn = {trace["meta"] for chart in shown for trace in chart["figure"]["data"]}
    legend = [
        {"number": index, "label": group.label, "finished": bool(group.finished), "look": look(index)}
        for index, group in enumerate(comparison.groups)
        if index in drawn
    ]
    hint = ["Choose a method above to hide or show it."] if len(legend) > 1 else []
    return {
        "title": title,
        "template": "curves.html",
        "legend": legend,
        "charts": shown,
        "caption": [sentence for sentence in caption + hint if sentence],
    }


def learning(comparison: Comparison) -> dict | None:
    """Every metric that was measured on the way, and the training loss, against steps."""
    groups = comparison.groups
    charts = []
    # A majority baseline is the same at every step.
    learned = [metric for metric in comparison.metrics if not metric.key.endswith("majority")]
    for metric in learned[:CURVES_SHOWN]:
        title = "Measured loss" if metric.key == "loss" else metric.title
        charts.append({"title": title, "figure": line_chart(groups, "evaluations", metric)})
    charts.append({"title": "Training loss", "figure": line_chart(groups, "history", Metric("loss"))})
    several = any(len(group.finished or group.runs) > 1 for group in groups)
    tokens = [
        run["tokens"] / run["steps"]
        for run in comparison.runs
        if number(run.get("tokens")) and number(run.get("steps"))
    ]
    caption = [
        "Lines are means over seeds; bands reach from the lowest seed to the highest." if several else "",
        f"A step is about {sum(tokens) / len(tokens):,.0f} tokens." if tokens else "",
        "Dense curves are averaged over neighbouring steps.",
    ]
    return charted("Learning", comparison, charts, caption)


def forgetting(comparison: Comparison) -> dict | None:
    """What was learned against what was forgotten."""
    metric = comparison.metric
    chart = {"title": f"{metric.title} at the end, against forgetting", "figure": scatter_chart(comparison)}
    caption = [
        "To the right more is forgotten: ×1 is the base model's perplexity on general text.",
        f"{'Lower' if metric.lower else 'Higher'} is better on the other axis.",
        "Marks are means over seeds; bars reach from the lowest to the highest."
        if any(len(group.finished) > 1 for group in comparison.groups)
        else "",
    ]
    return charted("Learned and forgotten", comparison, [chart], caption)


def spectrum(comparison: Comparison) -> dict | None:
    """The singular values of ΔW: how many directions of a weight a method changed, and how much."""
    caption = [
        "Singular values of ΔW, what training added to a layer's weight, of each method's first seed, down to a ten "
        "thousandth of the largest. A line that ends early is an update of low rank."
    ]
    return charted("Singular values of ΔW", comparison, spectrum_charts(comparison.groups), caption)


def sweeps(comparison: Comparison) -> dict | None:
    """How each method's learning rate was found."""
    groups = comparison.groups
    names = {
        name for group in groups for run in group.runs for trial in rows(run, "search")
        if isinstance(name := trial.get("metric"), str)
    }  # fmt: skip
    metric = Metric(names.pop()) if len(names) == 1 else None
    title = sentence(f"{metric.name} of the trials") if metric else "Score of the trials"
    lost = lost_trials(groups)
    several = any(len(numbers(trial.get("scores"))) > 1 for group in groups for trial in trials(group))
    caption = [
        "Trials learn and are scored on rows that are not the test rows. The ringed rate is the one that was used.",
        "Points are means over a rate's seeds, and bars reach from the lowest to the highest." if several else "",
        f"{'Lower' if metric.lower else 'Higher'} is better." if metric else "",
        f"Without a score: {listed(lost)}." if lost else "",
    ]
    return charted(
        "Search for the learning rate", comparison, [{"title": title, "figure": sweep_chart(groups)}], caption
    )


def costs(comparison: Comparison) -> dict | None:
    """What a step takes and what the run needs at most."""

    def scaled(key: str, unit: float):
        return lambda group: estimate.mean / unit if (estimate := group.cost(key)) else None

    charts = [
        ("Step time", bar_chart(comparison.groups, scaled("step_seconds_median", 1), "s")),
        ("Peak memory", bar_chart(comparison.groups, scaled("peak_memory_bytes", 2**30), "GiB")),
    ]
    shown = [{"title": title, "figure": figure} for title, figure in charts if figure]
    return {"title": "Time and memory", "template": "costs.html", "charts": shown} if shown else None


def examples(comparison: Comparison) -> dict | None:
    """The same prompts answered before and after training, by each method's first run that has examples."""
    cards: dict[tuple[str, str], dict] = {}
    for group in comparison.groups:
        for row in next((found for run in group.finished if (found := rows(run, "examples"))), []):
            prompt, expected, before, after = (
                str(row.get(key, "–")) for key in ("prompt", "expected", "before", "after")
            )
            card = cards.setdefault(
                (prompt, expected), {"prompt": prompt, "expected": expected, "before": {}, "after": {}}
            )
            card["before"].setdefault(before, []).append(group.label)
            card["after"].setdefault(after, []).append(group.label)
    for card in cards.values():
        # Only of short answers, and where the metric compares texts, does it say anything that two texts differ.
        short = len(card["expected"]) <= LONGEST_JUDGED and "\n" not in card["expected"]
        judged = short and comparison.metric.key.endswith("exact_match")
        for when in ("before", "after"):
            card[when] = [
                {
                    "label": listed(labels),
                    "text": text,
                    "same": text.strip() == card["expected"].strip() if judged else None,
                }
                for text, labels in card[when].items()
            ]
    shown = list(cards.values())
    if not shown:
        return None
    first, rest = shown[:EXAMPLES_SHOWN], shown[EXAMPLES_SHOWN:]
    return {"title": "Before and after", "template": "examples.html", "first": first, "rest": rest}


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
    """All that was set or installed for a run; the seed is told elsewhere, and the folder sets every run apart."""
    told = {key: run[key] for key in ("device", "git_revision", "tokens", "budget_note") if run.get(key) is not None}
    chosen = {key: value for key, value in flat(settings(run)).items() if key not in ("seed", "output")}
    return chosen | flat(run.get("versions"), "version of ") | told


def flat(value, prefix: str = "") -> dict:
    """Nested settings as one level: {"data": {"rows": 8}} → {"data.rows": 8}."""
    if not isinstance(value, dict):
        return {}
    items = {}
    for key, inner in value.items():
        items |= flat(inner, f"{prefix}{key}.") if isinstance(inner, dict) and inner else {f"{prefix}{key}": inner}
    return items
