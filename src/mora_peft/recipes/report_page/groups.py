"""Runs gathered into groups (one method, several seeds) and comparisons (what was run on equal terms)."""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from statistics import median

from mora_peft.errors import UserError

from .metrics import Metric
from .numbers import Estimate, final, forgetting, initial, number, rows, settings, steps_to
from .words import percent, rate

# Two methods are of equal size when their trainable parameters agree with the budget this closely.
BUDGET_TOLERANCE = 0.02


@dataclass
class Group:
    """The runs of one method that differ in their seed only."""

    label: str
    method: str
    runs: list[dict]

    @property
    def finished(self) -> list[dict]:
        return [run for run in self.runs if run.get("status") == "finished"]

    @property
    def unfinished(self) -> list[dict]:
        return [run for run in self.runs if run.get("status") != "finished"]

    def result(self, measure) -> Estimate | None:
        """`measure(run)` over the finished runs: what a method achieved."""
        return Estimate.of(measure(run) for run in self.finished)

    def cost(self, key: str) -> Estimate | None:
        """A number that a run has whether it finished or not; finished runs come first."""
        return Estimate.of(number(run.get(key)) for run in self.finished or self.runs)

    @property
    def learning_rate(self) -> float | None:
        """What its runs were trained at."""
        return next((found for run in self.runs if (found := number(settings(run).get("learning_rate")))), None)

    def share_of_budget(self) -> float | None:
        trained, budget = self.cost("trainable_parameters"), self.cost("budget_parameters")
        return trained.mean / budget.mean if trained and budget and budget.mean > 0 else None


@dataclass
class Comparison:
    """All methods that ran on one task with the same task options and the same r.

    `apart` are those of its options that other comparisons of the task do not share; `metric` is its main one.
    """

    task: str
    groups: list[Group]
    options: dict = field(default_factory=dict)
    apart: dict = field(default_factory=dict)

    def __post_init__(self):
        self.metric = main_metric(self.runs)

    @property
    def title(self) -> str:
        return ", ".join([self.task, *(f"{key} {value}" for key, value in self.apart.items())])

    @property
    def runs(self) -> list[dict]:
        return [run for group in self.groups for run in group.runs]

    @property
    def metrics(self) -> list[Metric]:
        """Every metric that some run ended with: the main one, then the others, the loss last."""
        found = dict.fromkeys(key for run in self.runs for row in rows(run, "evaluations") for key in row)
        keys = [key for key in found if key != "step" and any(final(run, key) is not None for run in self.runs)]
        rest = sorted((key for key in keys if key != self.metric.key), key=lambda key: key == "loss")
        if (
            "loss" not in keys
            and self.metric.key != "loss"
            and any(final(run, "loss") is not None for run in self.runs)
        ):
            rest.append("loss")
        return [self.metric, *map(Metric, rest)]

    def score(self, group: Group, metric: Metric | None = None) -> Estimate | None:
        """What a method ended with on `metric`, or on the main one."""
        key = (metric or self.metric).key
        return group.result(lambda run: final(run, key))

    @property
    def asked(self) -> int | None:
        """How many rows the main metric is a share of; None where it is something else, or they were not counted."""
        counts = [count for run in self.runs if (count := number(run.get("test_rows"))) and count >= 1]
        return min(counts, default=None) if self.metric.key == "exact_match" else None

    def sure(self, group: Group) -> Estimate | None:
        """The score of a method with all that is known of how chance spreads it: over seeds, and over rows asked."""
        score, asked = self.score(group), self.asked
        return score.of_rows(asked) if score and asked else score

    def before(self, metric: Metric) -> float | None:
        """`metric` of the base model: what most methods start from."""
        starts = (Estimate.of(initial(run, metric.key) for run in group.runs) for group in self.groups)
        known = [start.mean for start in starts if start]
        return median(known) if known else None

    def general_before(self) -> float | None:
        """Perplexity of the base model on general text."""
        known = [values[0] for run in self.runs if (values := forgetting(run))]
        return median(known) if known else None

    @property
    def reference(self) -> Group | None:
        """LoRA, which others are measured by, where it ended with a score: as it is, or in the one way that it ran."""
        found = [group for group in self.groups if group.method == "lora" and self.score(group)]
        plain = [group for group in found if group.label == "LoRA"] or found
        return plain[0] if len(plain) == 1 else None

    def marks(self) -> list[tuple[float, str]]:
        """Levels of the main metric to count the steps to, each with a title.

        Half and 99 % of a share that some run got to; or else where LoRA, or the weakest method, ended.
        """
        metric = self.metric
        if metric.share:
            reached = [
                (mark, f"{percent(mark)} {metric.name}")
                for mark in (0.5, 0.99)
                if any(steps_to(run, metric.key, mark, metric.lower) for group in self.groups for run in group.finished)
            ]
            if any(mark > 0.9 for mark, _ in reached):
                return reached
        scored = [group for group in self.groups if self.score(group)]
        if len(scored) < 2:
            return []
        slow = self.reference or max(scored, key=lambda group: metric.order(self.score(group).mean))
        mark = max((final(run, metric.key) for run in slow.finished if final(run, metric.key) is not None),
                   key=metric.order)  # fmt: skip
        starts = [start for run in self.runs if (start := initial(run, metric.key)) is not None]
        if not starts or not all(metric.better(mark, start) for start in starts):
            return []
        return [(mark, f"{metric.form(mark)}, where {slow.label} ended")]

    def equal_budget(self, group: Group) -> bool:
        """Whether the method trains as many parameters as most methods here were given; unknown counts as yes."""
        budgets = Counter(number(run.get("budget_parameters")) for run in self.runs)
        budgets.pop(None, None)
        trained = group.cost("trainable_parameters")
        if not budgets or not trained:
            return True
        budget = budgets.most_common(1)[0][0]
        return abs(trained.mean - budget) <= BUDGET_TOLERANCE * budget


def main_metric(runs: list[dict]) -> Metric:
    """The task's own metric, as most runs name it; or else exact match where it was measured, or the loss."""
    measured = {key: None for run in runs for row in rows(run, "evaluations") for key in row if key != "step"}
    named = Counter(run["metric"] for run in runs if isinstance(run.get("metric"), str))
    for name, _ in named.most_common():
        # A task with several tests has the metric once for each, under the test's name.
        if key := next((key for key in measured if key == name or key.endswith(f"_{name}")), None):
            return Metric(name if name in measured else key)
    return Metric("exact_match" if "exact_match" in measured else "loss")


def terms(run: dict) -> dict:
    """What two runs must share to be compared: the options of their task, but for the seed, and r."""
    options = settings(run).get("task_options")
    chosen = {key: value for key, value in options.items() if key != "seed"} if isinstance(options, dict) else {}
    r = settings(run).get("r")
    return chosen if r is None else {"r": r, **chosen}


def gather(results: list[dict]) -> list[Comparison]:
    """The comparisons among `results`, their runs grouped by method; ours first, then by label, so that colours stay.

    Raises UserError where there are no results, or two different results of one comparison bear one name.
    """
    if not results:
        raise UserError("There is no result to report: give at least one run.json, or a folder that holds some.")
    contents: dict[tuple, str] = {}
    grouped: dict[tuple, dict[tuple, list[dict]]] = {}
    for run in results:
        where = (str(run.get("task") or "unnamed task"), json.dumps(terms(run), sort_keys=True, default=str))
        name = str(run.get("run") or "")
        content = json.dumps(run, sort_keys=True, default=str)  # as text, where NaN equals NaN
        if name and contents.setdefault((where, name), content) != content:
            raise UserError(f"Two different results are called {name!r}: report them on separate pages, or rename one.")
        label = str(run.get("label") or run.get("method") or name or "unnamed method")
        family = re.sub(r"[-_]?seed[-_]?\d+", "", name) if name else label
        members = grouped.setdefault(where, {}).setdefault((label, family), [])
        if not name or all(run.get("run") != other.get("run") for other in members):
            members.append(run)

    options = {where: terms(next(iter(families.values()))[0]) for where, families in grouped.items()}
    comparisons = [
        Comparison(where[0], groups_of(families), options[where], apart(where, options))
        for where, families in grouped.items()
    ]
    return sorted(comparisons, key=lambda comparison: (comparison.task, *map(sortable, comparison.apart.values())))


def groups_of(families: dict[tuple, list[dict]]) -> list[Group]:
    """A group for each family; those of one label are told apart by learning rate, or else by their names."""
    of_label: dict[str, dict[str, Group]] = {}
    for (label, family), runs in families.items():
        runs.sort(key=lambda run: (number(run.get("seed")) is None, number(run.get("seed"))))
        of_label.setdefault(label, {})[family] = Group(label, str(runs[0].get("method") or ""), runs)
    for alike in of_label.values():
        rates = {group.learning_rate for group in alike.values()}
        by_rate = len(rates) == len(alike) and None not in rates
        for family, group in alike.items() if len(alike) > 1 else ():
            group.label += f" at {rate(group.learning_rate)}" if by_rate else f", {family}"
    groups = [group for alike in of_label.values() for group in alike.values()]
    return sorted(groups, key=lambda group: ("mora" not in group.method.lower(), group.label.casefold()))


def apart(where: tuple, options: dict[tuple, dict]) -> dict:
    """Those options of one comparison that differ among the comparisons of its task."""
    others = [options[other] for other in options if other[0] == where[0]]
    own = options[where]
    keys = dict.fromkeys(key for found in others for key in found)
    return {key: own.get(key, "–") for key in keys if any(other.get(key) != own.get(key) for other in others)}


def sortable(value) -> tuple:
    return (number(value) is None, number(value) or 0.0, str(value))
