"""Several methods at one budget: each run in a process of its own, then a table, a verdict and a report."""

import os
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from mora_peft.errors import UserError

from . import search
from .files import write_json
from .methods import method_named, slug
from .processes import run_all
from .settings import Settings
from .train import TrainConfig, is_finished, read_run


@dataclass(kw_only=True)
class Contender:
    """One method of a comparison; what it leaves out is as in `mora train`.

    Args:
        method: How to fine-tune: mora, lora, full, prompt or any other of the README's table.
        method_options: Options of the method's PEFT configuration.
        peft_config: JSON file with the configuration of any PEFT method, in place of `method`.
        learning_rate: Peak learning rate; methods differ in what suits them. With trials, the middle of the search.
    """

    method: str = "mora"
    method_options: dict[str, Any] = field(default_factory=dict)
    peft_config: str | None = None
    learning_rate: float | None = None


@dataclass(kw_only=True)
class CompareConfig(Settings):
    """Train several methods at one parameter budget, and write a report of how they did.

    Args:
        methods: The methods to compare.
        seeds: Each method is trained once with each of these seeds.
        trials: Learning rates to try for each method, a factor of 2 apart, on rows held out for it; 0 for no search.
        trial_steps: Steps of such a trial; without it as many as in a run.
        jobs: Runs at a time, each with one thread; without it as many as there are processor cores, or one on a GPU.
    """

    methods: list[Contender] = field(
        default_factory=lambda: [
            Contender(method="mora", method_options={"operator": "rotation"}),
            Contender(method="lora"),
        ]
    )
    seeds: list[int] = field(default_factory=lambda: [0])
    trials: int = 0
    trial_steps: int | None = None
    jobs: int | None = None

    def __post_init__(self):
        super().__post_init__()
        for contender in self.methods:
            method_named(contender.method)
        if not self.methods or not self.seeds or (self.jobs is not None and self.jobs < 1):
            raise UserError("A comparison needs at least one method, one seed and one job.")
        if self.trials < 0 or (self.trial_steps is not None and self.trial_steps < 1):
            raise UserError("trials must be 0 or more, and trial_steps at least 1.")


def compare(config: CompareConfig) -> Path:
    """Run the comparison and return the path of its report.

    Each run has a folder under `output`, with its run.json, its adapter and its log. Finished runs whose settings have
    not changed are not repeated; interrupted ones go on from their last checkpoint. A run that diverges or fails is
    recorded, and the others go on. The same command, given again elsewhere on a shared `output`, takes a share of the
    runs. Raises UserError where none finishes.
    """
    from .report import build_report

    output = Path(config.output)
    runs = plan(config)
    jobs = config.jobs or _places()
    found = _searched(config, runs, jobs) if config.trials else {}
    if found:
        runs = [replace(run, learning_rate=search.best(found[_family(run)]) or run.learning_rate) for run in runs]
    _run(runs, config.fresh, jobs)
    results = [read_run(Path(run.output)) for run in runs]
    for run, result in zip(runs, results, strict=True):
        if found and result.get("search") != found[_family(run)]:
            result["search"] = found[_family(run)]
            write_json(Path(run.output) / "run.json", result)
    if not any(result["status"] == "finished" for result in results):
        reasons = "; ".join(f"{result['run']}: {result['message']}" for result in results)
        raise UserError(f"No run of the comparison finished: {reasons}")
    report = build_report(results, output / "report.html")
    print(f"\n{table(results)}\n\n{verdict(results)}\n\nReport: {report}")
    return report


def _run(runs: list[TrainConfig], fresh: bool, jobs: int) -> None:
    """Train the runs that are not finished yet."""
    waiting = [run for run in runs if fresh or not is_finished(run)]
    for run in runs:
        if run not in waiting:
            print(f"{Path(run.output).name}: finished before, not repeated")
    run_all(waiting, jobs)


def _searched(config: CompareConfig, runs: list[TrainConfig], jobs: int) -> dict[str, list[dict[str, Any]]]:
    """For each method, by the name its runs share, what the trials of its learning rates came to."""
    first: dict[str, TrainConfig] = {}
    for run in runs:
        first.setdefault(_family(run), run)
    trials = {family: search.trial_runs(run, config.trials, config.trial_steps) for family, run in first.items()}
    _run([trial for family in trials.values() for trial in family], config.fresh, jobs)
    found = {family: search.scores(runs) for family, runs in trials.items()}
    for family, tried in found.items():
        rate = search.best(tried)
        edge = ", at the edge of those tried" if rate in (tried[0]["learning_rate"], tried[-1]["learning_rate"]) else ""
        print(f"{family}: " + (f"learning rate {rate:.3g}{edge}" if rate else "no trial finished"), flush=True)
    return found


def _family(run: TrainConfig) -> str:
    """The name that runs share which differ in their seed only."""
    return Path(run.output).name.removesuffix(f"-seed{run.seed}")


def plan(config: CompareConfig) -> list[TrainConfig]:
    """The runs of a comparison: every method with every seed, each with a folder name of its own."""
    shared = {item.name: getattr(config, item.name) for item in fields(Settings)}
    runs, taken = [], set()
    for contender in config.methods:
        stem = f"{slug(contender.method, contender.method_options)}-r{config.r}"
        if stem in taken:
            stem += f"-lr{contender.learning_rate:g}" if contender.learning_rate else "-default"
        if stem in taken:
            raise UserError(f"The comparison names {stem} twice: its methods must differ in options or learning rate.")
        taken.add(stem)
        for seed in config.seeds:
            own = {"output": str(Path(config.output) / f"{stem}-seed{seed}"), "seed": seed}
            runs.append(TrainConfig(**shared | own | asdict(contender)))
    return runs


def table(results: list[dict[str, Any]]) -> str:
    """The results as a plain table, a line each."""
    head = ("run", "parameters", "s/step", "peak GB", "first", "last", "")
    rows = [head]
    for result in results:
        curve = _curve(result)
        numbers = [f"{curve[0][1]:.3f}", f"{curve[-1][1]:.3f}"] if curve else ["", ""]
        seconds, peak = result.get("step_seconds_median"), result.get("peak_memory_bytes")
        rows.append(
            (
                result["run"],
                f"{result['trainable_parameters']:,}" if "trainable_parameters" in result else "",
                f"{seconds:.2f}" if seconds else "",
                f"{peak / 1e9:.1f}" if peak else "",
                *numbers,
                _metric(result).replace("_", " ") if result["status"] == "finished" else result["status"],
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:-1]), row[-1]]) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def verdict(results: list[dict[str, Any]]) -> str:
    """Which method led, in a sentence: by the last measurement, then by the area under the curve; ties are said.

    Measured are exact match where the task has it, or else the loss; means over seeds.
    """
    finished = [result for result in results if result["status"] == "finished" and _curve(result)]
    if not finished:
        return "Nothing was measured, so no method led."
    metric = _metric(finished[0])
    sign = -1 if metric == "loss" else 1
    scores: dict[str, list[tuple[float, float]]] = {}
    for result in finished:
        name = result["run"].removesuffix(f"-seed{result['seed']}")
        scores.setdefault(name, []).append((_curve(result)[-1][1], _area(_curve(result))))
    means = {name: tuple(round(sum(column) / len(column), 4) for column in zip(*pairs, strict=True))
             for name, pairs in scores.items()}  # fmt: skip
    words = metric.replace("_", " ")
    best = max(means, key=lambda name: tuple(sign * value for value in means[name]))
    last, area = means[best]
    others = {name: value for name, value in means.items() if name != best}
    if not others:
        return f"{best} ended at {words} {last:.3f}; there was nothing to compare it with."
    level = [name for name, (their_last, _) in others.items() if their_last == last]
    if not level:
        next_best = max(others, key=lambda name: sign * others[name][0])
        return f"{best} led: {words} {last:.3f} at the end, against {others[next_best][0]:.3f} of {next_best}."
    tied = f"{' and '.join([best, *level])} tied at the end ({words} {last:.3f})"
    next_area = max((others[name][1] for name in level), key=lambda value: sign * value)
    if area == next_area:
        return f"{tied}, and on the way there too."
    return f"{tied}; {best} got there sooner (mean over the steps {area:.3f} against {next_area:.3f})."


def _places() -> int:
    """How many runs can go on at once without being in each other's way."""
    import torch

    return 1 if torch.accelerator.is_available() else os.cpu_count() or 1


def _metric(result: dict[str, Any]) -> str:
    evaluations = result.get("evaluations") or [{}]
    return "exact_match" if "exact_match" in evaluations[-1] else "loss"


def _curve(result: dict[str, Any]) -> list[tuple[int, float]]:
    metric = _metric(result)
    return [(point["step"], point[metric]) for point in result.get("evaluations") or [] if metric in point]


def _area(curve: list[tuple[int, float]]) -> float:
    """The mean of a curve over its steps, by the trapezoidal rule."""
    steps = curve[-1][0] - curve[0][0]
    area = sum((b - a) * (x + y) / 2 for (a, x), (b, y) in pairwise(curve))
    return area / steps if steps else curve[-1][1]
