"""What every benchmark here shares: one thread, interleaved repetitions, medians, a JSON that says how it was made."""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

RESULTS = Path(__file__).parent / "results"


def interleaved(cases: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each case, run in turn `repeats` times after one unmeasured round, so that noise hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for repeat in range(repeats + 1):
        for name, run in cases.items():
            start = time.perf_counter()
            run()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratios(seconds: dict[str, list[float]], reference: str) -> dict[str, float]:
    """The median, over repetitions, of each case's time over the reference's time in the same repetition."""
    return {
        name: round(statistics.median(a / b for a, b in zip(values, seconds[reference], strict=True)), 3)
        for name, values in seconds.items()
    }


def save(name: str, results: object) -> None:
    """Write benchmarks/results/NAME.json with the command, versions and device, and print the results."""
    from mora_peft.recipes.provenance import device, git_revision, versions

    record = {
        "command": "python " + " ".join([f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "versions": versions(),
        "git_revision": git_revision(),
        "device": device(),
        "results": results,
    }
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(partial, path)
    print(json.dumps(results, indent=1))
