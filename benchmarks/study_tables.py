"""Tables of studies, from the runs of `mora compare` that are committed: one of each study, and one of them all."""

from pathlib import Path
from statistics import median

import torch
from markdown_table import markdown

from mora_peft.recipes.report import load_results
from mora_peft.recipes.report_page.capacity import BITS, Store, stores
from mora_peft.recipes.report_page.groups import Comparison, Group, gather
from mora_peft.recipes.report_page.metrics import Metric
from mora_peft.recipes.report_page.numbers import Estimate
from mora_peft.recipes.report_page.spectra import spectra
from mora_peft.recipes.report_page.tables import results
from mora_peft.recipes.report_page.words import figures, rate
from mora_peft.recipes.spectrum import summarize

MAJORITY = "majority"

# The studies of the summary, in its order, each in words; those without results yet are left out.
STUDIES = {
    "memorization-small": "256 random pairs, a model of 1.3 million weights, r=1",
    "memorization-speed": "128 random pairs, SmolLM2-135M, r=8, 120 steps",
    "memorization-speed-muon": "the same in 60 steps",
    "biomedical": "research articles, SmolLM2-135M, r=8",
    "biomedical-second": "the same at half of the adapters' rates",
    "finance": "business reports, SmolLM2-135M, r=8",
    "instruction": "instructions, SmolLM2-135M, r=8",
    "instruction-second": "the same at half of the adapters' rates",
    "math": "GSM8K, SmolLM2-135M, r=8",
    "pretraining": "texts from nothing, a model of 5.3 million weights, r=32",
}
# What a line shows instead of its study's main metric: so small a model solves next to none of these problems, and in
# so few steps LoRA has none of these pairs right yet.
INSTEAD = {"math": Metric("loss"), "memorization-speed-muon": Metric("loss")}
# The methods that it has a column for, as results call them.
COLUMNS = (
    "MoRA (rotation)", "MoRA (rotation, fold)", "MoRA (sharing)", "LoRA", "DoRA", "MiSS", "Full fine-tuning",
)  # fmt: skip


def summary(folder: Path) -> str:
    """A line for each study in `folder`: what it measured before learning, and what each method came to.

    Where methods were trained by Muon too, a further line has those.
    """
    lines = []
    for study, words in STUDIES.items():
        if not (folder / study).is_dir():
            continue
        for comparison in gather(load_results([folder / study])):
            metric = INSTEAD.get(study, comparison.metric)
            groups = {group.label: group for group in comparison.groups}
            start = comparison.before(metric)
            for said, labels in ((words, COLUMNS), (f"{words}, by Muon", [by_muon(label) for label in COLUMNS])):
                scores = [comparison.score(groups[label], metric) if label in groups else None for label in labels]
                if any(scores):
                    ends = [spread(score, metric) for score in scores]
                    before = "–" if start is None else metric.form(start)
                    lines.append([said, heading(metric, comparison), before, *ends])
    return markdown(["learned", "measured", "before", *COLUMNS], lines)


def by_muon(label: str) -> str:
    """The label of a method that is trained by Muon."""
    return f"{label[:-1]}, muon)" if label.endswith(")") else f"{label} (muon)"


def tables(folder: Path) -> str:
    """A table for each comparison in a study's folder, under its title where there are several."""
    comparisons = gather(load_results([folder]))
    parts = []
    if found := stores(comparisons):
        parts.append(capacity_table(found))
    for comparison in comparisons:
        title = f"{comparison.title}:\n\n" if len(comparisons) > 1 else ""
        parts.append(title + results_table(comparison))
    return "\n\n".join(parts)


def results_table(comparison: Comparison) -> str:
    """Method, parameters, rate, rank, what was measured, steps to the last mark and forgetting; best first."""
    metrics = measured(comparison)
    shown = results(comparison)
    headings = [column["title"] for column in shown["columns"]]
    steps = [place for place, title in enumerate(headings) if title.startswith("Steps")][-1:]
    forgotten = [place for place, title in enumerate(headings) if title.startswith("Perplexity on general")]
    groups = {group.label: group for group in comparison.groups}
    header = ["method", "parameters", "learning rate", "rank of ΔW"]
    header += [heading(metric, comparison) for metric in metrics]
    header += [headings[place][0].lower() + headings[place][1:] for place in steps + forgotten]
    lines = []
    if base := shown["base"]:
        starts = [comparison.before(metric) for metric in metrics]
        values = ["–" if start is None else metric.form(start) for start, metric in zip(starts, metrics, strict=True)]
        lines.append(["base model", "–", "–", "–", *values, *(base[place]["text"] for place in steps + forgotten)])
    for line in shown["lines"]:
        group = groups[line["label"]]
        ends = [ended(group, comparison.score(group, metric), metric) for metric in metrics]
        others = [told(line["cells"][place]) for place in steps + forgotten]
        chosen = "–" if (found := group.learning_rate) is None else rate(found)
        lines.append([group.label, parameters(group), chosen, rank(group), *ends, *others])
    return markdown(header, lines)


def measured(comparison: Comparison) -> list[Metric]:
    """The main metric; of memory bits stored, or the loss; of others right answers, perplexities, or the loss."""
    others = [metric for metric in comparison.metrics if metric != comparison.metric]
    if comparison.task == "memorization":
        bits = [metric for metric in others if metric.key.endswith(BITS)]
        return [comparison.metric, *(bits or [metric for metric in others if metric.key == "loss"])]
    perplexities = any(metric.key.endswith("perplexity") for metric in comparison.metrics)
    wanted = [
        metric
        for metric in others
        if metric.key.endswith("perplexity")
        or (metric.share and not metric.key.endswith(MAJORITY))
        or (metric.key == "loss" and not perplexities)
    ]
    return [comparison.metric, *wanted]


def heading(metric: Metric, comparison: Comparison) -> str:
    """A metric's name; an accuracy with what always giving the same answer comes to."""
    words = [metric.name, "(lower is better)" if metric.lower else ""]
    if metric.key.endswith("accuracy"):
        same = Metric(metric.key.removesuffix("accuracy") + MAJORITY)
        if (share := comparison.before(same)) is not None:
            words.append(f"(the same answer always: {same.form(share)})")
    return " ".join(filter(None, words))


def told(cell: dict) -> str:
    return " ".join([cell["text"], *(f"({detail})" for detail in cell["details"])])


def parameters(group: Group) -> str:
    trained = group.cost("trainable_parameters")
    return f"{trained.mean:,.0f}" if trained else "–"


def rank(group: Group) -> str:
    """Singular values of ΔW above 1 % of the largest: of the layers that a run has kept them of, the middle count."""
    counts = [summarize(torch.tensor(values)).above_1_percent for values in spectra(group).values()]
    return f"{median(counts):.0f}" if counts else "–"


def ended(group: Group, estimate: Estimate | None, metric: Metric) -> str:
    """What a method ended at, and what of its runs did not finish."""
    lost = [str(run.get("status")) for run in group.unfinished]
    return counted(estimate, metric) + (
        f"; {len(lost)} of {len(group.runs)} {' or '.join(sorted(set(lost)))}" if lost else ""
    )


def counted(estimate: Estimate | None, metric: Metric) -> str:
    """`spread`, and of how many seeds it is."""
    return spread(estimate, metric) + (f" ({estimate.n} seeds)" if estimate and estimate.n > 1 else "")


def spread(estimate: Estimate | None, metric: Metric) -> str:
    """A mean and half the width of its 95 % interval, or a value and the words that it is of one seed."""
    if estimate is None:
        return "–"
    if estimate.n == 1:
        return f"{metric.form(estimate.mean)} (1 seed)"
    return f"{metric.form(estimate.mean)} ± {half(estimate, metric)}"


def half(estimate: Estimate, metric: Metric) -> str:
    """Half of the interval's width: of a share in percentage points, of another number in two figures."""
    width = estimate.high - estimate.mean
    return f"{width * 100:.1f}" if metric.share else figures(width, 2)


def capacity_table(found: list[Store]) -> str:
    """Bits per parameter: a line a method, whoever stored most first, and a column a number of pairs."""
    metric = Metric(BITS)
    sizes = sorted({pairs for store in found for pairs in store.bits})
    found = sorted(found, key=lambda one: [at.mean if (at := one.at(pairs)) else 0 for pairs in sizes], reverse=True)
    header = ["bits per trainable parameter", *(f"{pairs:,.0f} pairs" for pairs in sizes)]
    return markdown(header, [[store.label, *(counted(store.at(pairs), metric) for pairs in sizes)] for store in found])
