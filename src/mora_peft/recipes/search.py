"""The learning rate of each method, searched with as many trials for one as for another, never on the test rows."""

from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from .report_page.numbers import final
from .runs import read_run
from .train import TrainConfig

# Seeds of their own, from here on: what a trial draws says nothing about the draws of the runs that are reported.
_SEED = 1_000_003


def rates(first: float, trials: int) -> list[float]:
    """`trials` learning rates a factor of 2 apart, with the first guess in the middle."""
    return [first * 2.0**exponent for exponent in range(-(trials // 2), trials - trials // 2)]


def beyond(found: list[dict[str, Any]]) -> list[float]:
    """The next learning rate past the best of those tried, which ascend, where that is the first or last; or none.

    It is the next lower one where no rate's trials all finished.
    """
    rate, tried = best(found), [trial["learning_rate"] for trial in found]
    if rate in (None, tried[0]):
        return [tried[0] / 2]
    return [tried[-1] * 2] if rate == tried[-1] else []


def trial_runs(run: TrainConfig, tried: list[float], steps: int | None = None, seeds: int = 1) -> list[TrainConfig]:
    """The trials for `run`: `steps` (or as many as the run's) on the task's rows for tuning, `seeds` at each rate."""
    steps = steps or run.steps
    folder = Path(run.output).parent / "search"
    stem = Path(run.output).name.removesuffix(f"-seed{run.seed}")
    return [
        replace(
            run,
            output=str(folder / (f"{stem}-lr{rate:.3g}" + (f"-again{number}" if number else ""))),
            learning_rate=rate,
            seed=_SEED + number,
            steps=steps,
            # Its last loss is all that counts.
            evaluate_every=steps,
            checkpoint_every=steps,
            forgetting_data=None,
            trial=True,
        )
        for rate in tried
        for number in range(seeds)
    ]


def scores(runs: list[TrainConfig]) -> list[dict[str, Any]]:
    """What the trials came to, a line for each learning rate of `runs`: its status, and the mean of its last losses.

    There is no mean where one of a rate's trials diverged or failed: a rate must suit every seed.
    """
    return [_scored(rate, list(same)) for rate, same in groupby(runs, key=lambda run: run.learning_rate)]


def _scored(rate: float, runs: list[TrainConfig]) -> dict[str, Any]:
    ended = [read_run(Path(config.output)) or {"status": "failed"} for config in runs]
    losses = [final(run, "loss") for run in ended if run["status"] == "finished"]
    status = next((run["status"] for run in ended if run["status"] != "finished"), "finished")
    whole = status == "finished" and None not in losses
    score = sum(losses) / len(losses) if whole else None
    return {"learning_rate": rate, "score": score, "scores": losses, "metric": "loss", "status": status}


def best(found: list[dict[str, Any]]) -> float | None:
    """The learning rate of the lowest loss; None where no rate's trials all finished."""
    finished = [trial for trial in found if trial["score"] is not None]
    return min(finished, key=lambda trial: trial["score"])["learning_rate"] if finished else None
