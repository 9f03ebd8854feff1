"""What a set of run results says in numbers: runs gathered by method, values summarised over seeds.

Everything here reads the dict of a `run.json` tolerantly: a missing, null or non-finite value is None, never an error.
"""

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from statistics import mean

from mora_peft.errors import UserError

# Two methods are of equal size when their trainable parameters agree with the budget this closely.
BUDGET_TOLERANCE = 0.02


def number(value) -> float | None:
    """`value` as a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def rows(run: dict, name: str) -> list[dict]:
    """The list of dicts under `name` in a run, empty where it is missing or something else."""
    value = run.get(name)
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def series(run: dict, name: str, key: str) -> dict[float, float]:
    """step → value of `key` along `history` or `evaluations`, in order of steps."""
    points = ((number(row.get("step")), number(row.get(key))) for row in rows(run, name))
    return dict(sorted((step, value) for step, value in points if step is not None and value is not None))


def final(run: dict, key: str) -> float | None:
    """The last evaluation of `key` after training began."""
    values = [value for step, value in series(run, "evaluations", key).items() if step > 0]
    return values[-1] if values else None


def final_loss(run: dict) -> float | None:
    """The last evaluated loss or, where none was evaluated, the last training loss."""
    evaluated = final(run, "loss")
    return evaluated if evaluated is not None else next(reversed(series(run, "history", "loss").values()), None)


def steps_to(run: dict, recall: float) -> float | None:
    """The first evaluated step whose exact match is at least `recall`."""
    curve = series(run, "evaluations", "exact_match")
    return next((step for step, value in curve.items() if value >= recall), None)


def student_t(degrees: int, confidence: float = 0.95) -> float:
    """The t with P(|T| < t) = `confidence` for Student's distribution (Abramowitz and Stegun 26.7.3-4, bisected)."""
    odd = degrees % 2

    def probability(angle: float) -> float:  # P(|T| < sqrt(degrees) tan(angle))
        term = total = 0.0 if degrees == 1 else math.cos(angle) if odd else 1.0
        for power in range(odd, degrees - 3, 2):
            term *= math.cos(angle) ** 2 * (power + 1) / (power + 2)
            total += term
        return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total

    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if probability(middle) < confidence else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` seeds with its 95 % confidence interval (Student t); with one seed there is no interval."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @classmethod
    def of(cls, values) -> "Estimate | None":
        values = [value for value in values if value is not None]
        if not values:
            return None
        centre, n = mean(values), len(values)
        if n == 1:
            return cls(centre, None, None, 1)
        error = math.sqrt(sum((value - centre) ** 2 for value in values) / (n - 1) / n)
        half = student_t(n - 1) * error
        return cls(centre, centre - half, centre + half, n)

    def overlaps(self, other: "Estimate") -> bool:
        """Whether two intervals share a point; only for estimates that have one."""
        return self.low <= other.high and other.low <= self.high


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

    def share_of_budget(self) -> float | None:
        trained, budget = self.cost("trainable_parameters"), self.cost("budget_parameters")
        return trained.mean / budget.mean if trained and budget and budget.mean > 0 else None


@dataclass
class Comparison:
    """All methods that ran on one task."""

    task: str
    groups: list[Group]

    @property
    def runs(self) -> list[dict]:
        return [run for group in self.groups for run in group.runs]

    def equal_budget(self, group: Group) -> bool:
        """Whether the method trains as many parameters as most methods here were given; unknown counts as yes."""
        budgets = Counter(number(run.get("budget_parameters")) for run in self.runs)
        budgets.pop(None, None)
        trained = group.cost("trainable_parameters")
        if not budgets or not trained:
            return True
        budget = budgets.most_common(1)[0][0]
        return abs(trained.mean - budget) <= BUDGET_TOLERANCE * budget


def gather(results: list[dict]) -> list[Comparison]:
    """One comparison for each task, its runs grouped by method; ours first, then by label, so that colours stay put.

    Raises UserError where there are no results, or two different results bear one name.
    """
    if not results:
        raise UserError("There is no result to report: give at least one run.json, or a folder that holds some.")
    named: dict[tuple, str] = {}
    grouped: dict[tuple, list[dict]] = {}
    for run in results:
        task, name = str(run.get("task") or "unnamed task"), str(run.get("run") or "")
        content = json.dumps(run, sort_keys=True, default=str)  # as text, where NaN equals NaN
        if name and (task, name) in named:
            if named[task, name] == content:
                continue
            raise UserError(f"Two different results are called {name!r}: report them on separate pages, or rename one.")
        named[task, name] = content
        label = str(run.get("label") or run.get("method") or name or "unnamed method")
        family = re.sub(r"[-_]?seed[-_]?\d+", "", name) if name else label
        grouped.setdefault((task, label, family), []).append(run)

    shared = Counter((task, label) for task, label, _ in grouped)
    tasks: dict[str, list[Group]] = {}
    for (task, label, family), runs in grouped.items():
        shown = label if shared[task, label] == 1 else f"{label}, {family}"
        runs.sort(key=lambda run: (number(run.get("seed")) is None, number(run.get("seed"))))
        tasks.setdefault(task, []).append(Group(shown, str(runs[0].get("method") or ""), runs))
    for groups in tasks.values():
        groups.sort(key=lambda group: ("mora" not in group.method.lower(), group.label.casefold()))
    return [Comparison(task, groups) for task, groups in sorted(tasks.items())]
