"""The numbers in one run's result, and their summary over seeds.

Everything here reads the dict of a `run.json` tolerantly: a missing, null or non-finite value is None, never an error.
"""

import math
from dataclasses import dataclass, replace
from statistics import NormalDist, mean


def number(value) -> float | None:
    """`value` as a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def numbers(value) -> list[float]:
    """The finite numbers of a list, none where it is missing or something else."""
    return [found for found in map(number, value) if found is not None] if isinstance(value, list) else []


def rows(run: dict, name: str) -> list[dict]:
    """The list of dicts under `name` in a run, empty where it is missing or something else."""
    value = run.get(name)
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def series(run: dict, name: str, key: str) -> dict[float, float]:
    """step → value of `key` along `history` or `evaluations`, in order of steps."""
    points = ((number(row.get("step")), number(row.get(key))) for row in rows(run, name))
    return dict(sorted((step, value) for step, value in points if step is not None and value is not None))


def final(run: dict, key: str) -> float | None:
    """The last evaluation of `key` after training began; of a loss never evaluated, the last of training."""
    values = [value for step, value in series(run, "evaluations", key).items() if step > 0]
    if values or key != "loss":
        return values[-1] if values else None
    return next(reversed(series(run, "history", "loss").values()), None)


def initial(run: dict, key: str) -> float | None:
    """The evaluation of `key` before training."""
    return series(run, "evaluations", key).get(0)


def steps_to(run: dict, key: str, mark: float, lower: bool) -> float | None:
    """The first evaluated step after training began at which `key` is at `mark` or better."""
    curve = series(run, "evaluations", key).items()
    return next((step for step, value in curve if step > 0 and (value <= mark if lower else value >= mark)), None)


def forgetting(run: dict) -> tuple[float, float] | None:
    """Perplexity on general text before and after training."""
    told = run.get("forgetting")
    values = [number(told.get(name)) for name in ("before", "after")] if isinstance(told, dict) else [None]
    return None if None in values or min(values) <= 0 else tuple(values)


def forgotten(run: dict) -> float | None:
    """Perplexity on general text as a multiple of what it was before training."""
    values = forgetting(run)
    return values[1] / values[0] if values else None


def settings(run: dict) -> dict:
    """The run's settings."""
    config = run.get("config")
    return config if isinstance(config, dict) else {}


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

    def of_rows(self, count: int) -> "Estimate":
        """As a share of `count` rows: its interval reaches at least as far as theirs does (Wilson 1927, 95 %)."""
        z = NormalDist().inv_cdf(0.975)
        centre, width = (self.mean + z * z / (2 * count)), 1 + z * z / count
        half = z * math.sqrt(max(0.0, self.mean * (1 - self.mean)) / count + (z / (2 * count)) ** 2)
        ends = [(centre - half) / width, (centre + half) / width, self.low, self.high]
        known = [end for end in ends if end is not None]
        return replace(self, low=min(known), high=max(known))

    def overlaps(self, other: "Estimate") -> bool:
        """Whether two intervals share a point; of one seed there is only the point."""
        ends = [(e.mean, e.mean) if e.low is None else (e.low, e.high) for e in (self, other)]
        return max(low for low, _ in ends) <= min(high for _, high in ends)
