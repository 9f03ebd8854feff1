"""Trainings side by side, each in a process of its own with one thread, and one place that shows how they get on."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import yaml

from . import provenance
from .files import write_json
from .methods import label
from .train import TrainConfig, holds_another_run

_SECONDS_TO_STOP = 20


def run_all(runs: list[TrainConfig], jobs: int) -> None:
    """Train every run, `jobs` at a time; each leaves a run.json, a failed one too.

    Ctrl-C stops the processes and raises KeyboardInterrupt; they go on from their checkpoints the next time.
    """
    fleet = _Fleet()
    pool = ThreadPoolExecutor(max_workers=jobs)
    try:
        for future in [pool.submit(fleet.run, run) for run in runs]:
            future.result()
    except BaseException:
        fleet.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


class _Fleet:
    """The processes that run now."""

    def __init__(self):
        self.children: set[subprocess.Popen] = set()
        self.stopping = False

    def run(self, run: TrainConfig) -> None:
        """Train one run to its end, passing its lines on."""
        if self.stopping:
            return
        output = Path(run.output)
        output.mkdir(parents=True, exist_ok=True)
        # A run whose settings have changed since starts anew; `mora train` alone would rather ask.
        run = replace(run, fresh=run.fresh or holds_another_run(run))
        settings = output / "train.yaml"
        settings.write_text(yaml.safe_dump(asdict(run), sort_keys=False), encoding="utf-8")
        child = subprocess.Popen(
            [sys.executable, "-m", "mora_peft.cli.main", "train", "--config", str(settings)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # One thread each: runs side by side then neither disturb nor favour one another.
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
            # In a session of its own a child gets no Ctrl-C from the terminal: it is stopped from here, once.
            start_new_session=True,
        )
        self.children.add(child)
        last = "it wrote nothing"
        with open(output / "log.txt", "w", encoding="utf-8") as log:
            for line in child.stdout:
                log.write(line)
                log.flush()
                if line.strip():
                    last = line.strip()
                    if not line.startswith((" ", "Traceback")):
                        print(f"{output.name}  {last}", flush=True)
        code = child.wait()
        self.children.discard(child)
        if code != 0 and not self.stopping:
            _record_failure(run, last)

    def stop(self) -> None:
        """Ask every process to stop, and wait until it has."""
        self.stopping = True
        for child in list(self.children):
            with suppress(ProcessLookupError):
                child.send_signal(signal.SIGINT)
        for child in list(self.children):
            try:
                child.wait(timeout=_SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                child.kill()


def _record_failure(run: TrainConfig, message: str) -> None:
    """The run.json of a run that ended in an error; `message` is the last thing that it said."""
    result = {
        "schema": 1,
        "run": Path(run.output).name,
        "task": run.task or "data",
        "method": run.method,
        "label": label(run.method, run.method_options),
        "seed": run.seed,
        "status": "failed",
        "message": message,
        "config": asdict(run),
        "fingerprint": provenance.fingerprint(asdict(run)),
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "history": [],
        "evaluations": [],
        "examples": [],
    }
    write_json(Path(run.output) / "run.json", result)
