"""The tables of results of README.md and docs/teach.md, from the results that are committed.

`python benchmarks/readme_tables.py [STUDY ...]` fills the place of each study, `<!-- results:STUDY:begin -->` to
`<!-- results:STUDY:end -->`, with the results in benchmarks/results/STUDY; without names, every place. The study
`serving` is that of benchmarks/serving_batch.py and serving_scale.py, `teach` that of benchmarks/teach.py,
`memorization-rates` that of the searches of two configs. Doing it twice changes nothing.
"""

import re
import sys
from pathlib import Path

from markdown_table import markdown
from rates_table import rates_table
from serving_tables import serving_table
from teach_tables import teach_table

from mora_peft.errors import UserError
from mora_peft.recipes.files import write_text
from mora_peft.recipes.report import load_results
from mora_peft.recipes.report_page.capacity import BITS, Store, stores
from mora_peft.recipes.report_page.groups import Comparison, Group, gather
from mora_peft.recipes.report_page.headline import chosen_rate
from mora_peft.recipes.report_page.metrics import Metric
from mora_peft.recipes.report_page.numbers import Estimate
from mora_peft.recipes.report_page.tables import results
from mora_peft.recipes.report_page.words import figures, rate

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "teach.md")
MAJORITY = "majority"
PLACE = re.compile(r"(<!-- results:(\S+):begin -->\n).*?(<!-- results:\2:end -->)", re.DOTALL)


def fill(readme: str, folder: Path, studies: list[str]) -> str:
    """The text of a README with the places of `studies` filled (of all that it has where none is named).

    Raises UserError where a study has no place, or no results.
    """
    places = {name for _, name, _ in PLACE.findall(readme)}
    for study in studies:
        if study not in places:
            raise UserError(
                f"There is no place for {study}: a page needs <!-- results:{study}:begin --> and the same with end."
            )

    def filled(place: re.Match) -> str:
        begin, study, end = place.groups()
        if studies and study not in studies:
            return place[0]
        special = {
            "serving": lambda: serving_table(folder),
            "teach": lambda: teach_table(folder / "teach"),
            "memorization-rates": lambda: rates_table(folder / "memorization-rates"),
        }
        table = special.get(study, lambda: tables(folder / study))()
        return f"{begin}{table}\n{end}"

    return PLACE.sub(filled, readme)


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
    """Method, parameters, rate, what was measured, steps to the last mark and forgetting; best first."""
    metrics = measured(comparison)
    shown = results(comparison)
    headings = [column["title"] for column in shown["columns"]]
    steps = [place for place, title in enumerate(headings) if title.startswith("Steps")][-1:]
    forgotten = [place for place, title in enumerate(headings) if title.startswith("Perplexity on general")]
    groups = {group.label: group for group in comparison.groups}
    header = ["method", "parameters", "learning rate", *(heading(metric, comparison) for metric in metrics)]
    header += [headings[place][0].lower() + headings[place][1:] for place in steps + forgotten]
    lines = []
    if base := shown["base"]:
        starts = [comparison.before(metric) for metric in metrics]
        values = ["–" if start is None else metric.form(start) for start, metric in zip(starts, metrics, strict=True)]
        lines.append(["base model", "–", "–", *values, *(base[place]["text"] for place in steps + forgotten)])
    for line in shown["lines"]:
        group = groups[line["label"]]
        ends = [ended(group, comparison.score(group, metric), metric) for metric in metrics]
        others = [told(line["cells"][place]) for place in steps + forgotten]
        chosen = chosen_rate(group)
        lines.append([group.label, parameters(group), "–" if chosen is None else rate(chosen), *ends, *others])
    return markdown(header, lines)


def measured(comparison: Comparison) -> list[Metric]:
    """The main metric and the bits stored; of tasks that ask questions, the shares of right answers too."""
    asks = comparison.task != "memorization"
    others = (metric for metric in comparison.metrics if metric != comparison.metric)
    wanted = (
        metric
        for metric in others
        if metric.key.endswith(BITS) or (asks and metric.share and not metric.key.endswith(MAJORITY))
    )
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


def ended(group: Group, estimate: Estimate | None, metric: Metric) -> str:
    """What a method ended at, and what of its runs did not finish."""
    lost = [str(run.get("status")) for run in group.unfinished]
    return spread(estimate, metric) + (
        f"; {len(lost)} of {len(group.runs)} {' or '.join(sorted(set(lost)))}" if lost else ""
    )


def spread(estimate: Estimate | None, metric: Metric) -> str:
    """A mean and half the width of its 95 % interval, or a value and the words that it is of one seed."""
    if estimate is None:
        return "–"
    if estimate.n == 1:
        return f"{metric.form(estimate.mean)} (1 seed)"
    return f"{metric.form(estimate.mean)} ± {half(estimate, metric)} ({estimate.n} seeds)"


def half(estimate: Estimate, metric: Metric) -> str:
    """Half of the interval's width: of a share in percentage points, of another number in two figures."""
    width = estimate.high - estimate.mean
    return f"{width * 100:.1f}" if metric.share else figures(width, 2)


def capacity_table(found: list[Store]) -> str:
    """Bits per parameter: a line a method, a column a number of pairs."""
    metric = Metric(BITS)
    sizes = sorted({pairs for store in found for pairs in store.bits})
    header = ["bits per trainable parameter", *(f"{pairs:,.0f} pairs" for pairs in sizes)]
    return markdown(header, [[store.label, *(spread(store.at(pairs), metric) for pairs in sizes)] for store in found])


def main(studies: list[str]) -> int:
    between = "\f"
    whole = between.join(page.read_text(encoding="utf-8") for page in PAGES)
    try:
        texts = fill(whole, ROOT / "benchmarks" / "results", studies).split(between)
    except UserError as error:
        print(f"readme_tables.py: {error}", file=sys.stderr)
        return 2
    for page, text in zip(PAGES, texts, strict=True):
        write_text(page, text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
