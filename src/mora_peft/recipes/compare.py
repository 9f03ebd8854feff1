"""Several methods at one budget: each run in a process of its own, then a table, a verdict and a report."""

import os
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from mora_peft.errors import UserError

from . import search
from .files import write_json
from .methods import method_named, slug
from .processes import run_all
from .report_page.groups import main_metric
from .report_page.numbers import series
from .runs import is_finished, read_run
from .settings import Settings
from .train import TrainConfig, check_inputs


@dataclass(kw_only=True)
class Contender:
    """One method of a comparison; what it leaves out is as in `mora train`.

    Args:
        method: How to fine-tune: mora, lora, full, prompt or any other of the README's table.
        method_options: Options of the method's PEFT configuration; and optimizer, adamw or muon.
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
        trials_beyond: Further rates for a method, one at a time, while its best is the lowest or the highest tried.
        trial_steps: Steps of such a trial; without it as many as in a run: shorter ones can choose a wrong rate for it.
        trial_seeds: Seeds that each learning rate is tried with; their mean loss counts, and all must finish.
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
    trials_beyond: int = 0
    trial_steps: int | None = None
    trial_seeds: int = 1
    jobs: int | None = None

    def __post_init__(self):
        super().__post_init__()
        for contender in self.methods:
            method_named(contender.method)
        if not self.methods or not self.seeds or (self.jobs is not None and self.jobs < 1):
            raise UserError("A comparison needs at least one method, one seed and one job.")
        if self.trials < 0 or self.trial_seeds < 1 or (self.trial_steps is not None and self.trial_steps < 1):
            raise UserError("trials must be 0 or more, and trial_steps and trial_seeds at least 1.")
        if self.trials_beyond < 0 or (self.trials_beyond and not self.trials):
            raise UserError("trials_beyond must be 0 or more, and goes on from trials, which are 0 here.")


def compare(config: CompareConfig) -> Path:
    """Run the comparison and return the path of its report.

    Each run has a folder under `output`, with its run.json, its adapter and its log. Finished runs whose settings have
    not changed are not repeated; interrupted ones go on from their last checkpoint. A run that diverges or fails is
    recorded, and the others go on. The same command, given again elsewhere on a shared `output`, takes a share of the
    runs. Raises UserError where none finishes, and before the first begins where what they share cannot be read.
    """
    from .report import build_report, claims

    output = Path(config.output)
    runs = plan(config)
    for trial in {False, config.trials > 0}:
        check_inputs(replace(runs[0], trial=trial))  # for all: they differ in method, learning rate and seed
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
        reasons: dict[str, list[str]] = {}
        for result in results:
            reasons.setdefault(result["message"], []).append(result["run"])
        told = "; ".join(f"{', '.join(names)}: {message}" for message, names in reasons.items())
        raise UserError(f"No run of the comparison finished: {told}")
    report = build_report(results, output / "report.html")
    print(f"\n{table(results)}\n\n{claims(results)}\n\nReport: {report}")
    return report


def _run(runs: list[TrainConfig], fresh: bool, jobs: int) -> None:
    """Train the runs that are not finished yet."""
    waiting = [run for run in runs if fresh or not is_finished(run)]
    seeds = list(dict.fromkeys(run.seed for run in runs))
    for run in runs:
        if run not in waiting:
            print(f"{Path(run.output).name}: finished before, not repeated")
    # One seed of every method before the second of any: a comparison cut short then still compares.
    run_all(sorted(waiting, key=lambda run: seeds.index(run.seed)), jobs)


def _searched(config: CompareConfig, runs: list[TrainConfig], jobs: int) -> dict[str, list[dict[str, Any]]]:
    """For each method, by the name its runs share, what the trials of its learning rates came to."""
    first: dict[str, TrainConfig] = {}
    for run in runs:
        first.setdefault(_family(run), run)
    new = {family: search.rates(run.learning_rate, config.trials) for family, run in first.items()}
    found = {family: [] for family in first}
    for _ in range(1 + config.trials_beyond):
        if not new:
            break
        trials = {
            family: search.trial_runs(first[family], rates, config.trial_steps, config.trial_seeds)
            for family, rates in new.items()
        }
        _run([trial for tried in trials.values() for trial in tried], config.fresh, jobs)
        for family, tried in trials.items():
            found[family] = sorted(found[family] + search.scores(tried), key=lambda trial: trial["learning_rate"])
        new = {family: further for family in new if (further := search.beyond(found[family]))}
    for family, tried in found.items():
        rate = search.best(tried)
        edge = ", at the edge of those tried" if search.beyond(tried) else ""
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
        run = TrainConfig(**shared | asdict(contender))
        stem = f"{slug(run.method, run.method_options)}-r{config.r}"
        if stem in taken:
            stem += f"-lr{contender.learning_rate:g}" if contender.learning_rate else "-default"
        if stem in taken:
            raise UserError(f"The comparison names {stem} twice: its methods must differ in options or learning rate.")
        taken.add(stem)
        for seed in config.seeds:
            runs.append(replace(run, output=str(Path(config.output) / f"{stem}-seed{seed}"), seed=seed))
    return runs


def table(results: list[dict[str, Any]]) -> str:
    """The results as a plain table, a line each: the task's main metric before and after, and what the run took."""
    metric = main_metric(results).key
    head = ("run", "parameters", "s/step", "peak GB", "first", "last", "")
    rows = [head]
    for result in results:
        curve = list(series(result, "evaluations", metric).values())
        seconds, peak = result.get("step_seconds_median"), result.get("peak_memory_bytes")
        rows.append(
            (
                result["run"],
                f"{result['trainable_parameters']:,}" if "trainable_parameters" in result else "",
                f"{seconds:.2f}" if seconds else "",
                f"{peak / 1e9:.1f}" if peak else "",
                *([f"{curve[0]:.3f}", f"{curve[-1]:.3f}"] if curve else ["", ""]),
                metric.replace("_", " ") if result["status"] == "finished" else result["status"],
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:-1]), row[-1]]) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _places() -> int:
    """How many runs can go on at once without being in each other's way."""
    import torch

    return 1 if torch.accelerator.is_available() else os.cpu_count() or 1
