"""The learning rate of each method, searched with as many trials for one as for another, never on the test rows."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from .runs import read_run
from .train import TrainConfig

# A seed of its own: what a trial draws says nothing about the draws of the runs that are reported.
_SEED = 1_000_003


def rates(first: float, trials: int) -> list[float]:
    """`trials` learning rates a factor of 2 apart, with the first guess in the middle."""
    return [first * 2.0**exponent for exponent in range(-(trials // 2), trials - trials // 2)]


def trial_runs(run: TrainConfig, trials: int, steps: int | None = None) -> list[TrainConfig]:
    """The trials for `run`: `steps` (or as many as the run's) on the task's rows for tuning, at each learning rate."""
    steps = steps or run.steps
    folder = Path(run.output).parent / "search"
    stem = Path(run.output).name.removesuffix(f"-seed{run.seed}")
    return [
        replace(
            run,
            output=str(folder / f"{stem}-lr{rate:.3g}"),
            learning_rate=rate,
            seed=_SEED,
            steps=steps,
            # Before and after is enough.
            evaluate_every=steps,
            checkpoint_every=steps,
            forgetting_data=None,
            trial=True,
        )
        for rate in rates(run.learning_rate, trials)
    ]


def scores(runs: list[TrainConfig]) -> list[dict[str, Any]]:
    """What each trial came to: its learning rate, status, and last loss (None for one that diverged or failed)."""
    found = []
    for config in runs:
        run = read_run(Path(config.output)) or {"status": "failed"}
        losses = [point["loss"] for point in run.get("evaluations", []) if point.get("loss") is not None]
        score = losses[-1] if run["status"] == "finished" and losses else None
        found.append({"learning_rate": config.learning_rate, "score": score, "metric": "loss", "status": run["status"]})
    return found


def best(found: list[dict[str, Any]]) -> float | None:
    """The learning rate of the lowest loss; None where no trial finished."""
    finished = [trial for trial in found if trial["score"] is not None]
    return min(finished, key=lambda trial: trial["score"])["learning_rate"] if finished else None
