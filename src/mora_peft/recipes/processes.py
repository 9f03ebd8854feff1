"""Trainings side by side, each in a process of its own with one thread, and one place that shows how they get on."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import yaml
from filelock import FileLock, Timeout

from . import provenance
from .files import write_json
from .methods import label
from .runs import DIVERGED, holds_another_run, is_finished
from .train import TrainConfig

_SECONDS_TO_STOP = 20
_SECONDS_BETWEEN_LOOKS = 5


def run_all(runs: list[TrainConfig], jobs: int) -> None:
    """Train every run, `jobs` at a time; each leaves a run.json, a failed one too.

    Runs that another comparison on the same folder is busy with come last: they are waited for, and taken over should
    that one die. Ctrl-C stops the processes and raises KeyboardInterrupt; they go on from their checkpoints the next
    time.
    """
    fleet = _Fleet(runs)
    pool = ThreadPoolExecutor(max_workers=jobs)
    try:
        for future in [pool.submit(fleet.work) for _ in range(jobs)]:
            future.result()
    except BaseException:
        fleet.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


class _Fleet:
    """The runs that wait, and the processes that run now."""

    def __init__(self, runs: list[TrainConfig]):
        self.waiting, self.elsewhere = list(runs), set()
        self.total, self.busy, self.began = len(runs), 0, monotonic()
        self.guard = threading.Lock()
        self.children: set[subprocess.Popen] = set()
        self.stopping = threading.Event()

    def work(self) -> None:
        """Train one waiting run after the other until none is left."""
        while self.waiting and not self.stopping.is_set():
            taken = self._take()
            if taken is None:
                self.stopping.wait(_SECONDS_BETWEEN_LOOKS)
                continue
            run, lock = taken
            try:
                self._train(run)
            finally:
                lock.release()
                with self.guard:
                    self.busy -= 1
            self._tell("trials" if run.trial else "runs")

    def _take(self) -> tuple[TrainConfig, FileLock] | None:
        """The first waiting run that nobody else is at, with its lock held; None where there is none."""
        with self.guard:
            for run in list(self.waiting):
                output = Path(run.output)
                output.mkdir(parents=True, exist_ok=True)
                lock = FileLock(output / ".lock")
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    if run.output not in self.elsewhere:
                        print(f"{output.name}  is under way in another process", flush=True)
                    self.elsewhere.add(run.output)
                    continue
                self.waiting.remove(run)
                if run.output in self.elsewhere and is_finished(run):
                    lock.release()
                    continue
                self.busy += 1
                return run, lock
        return None

    def _train(self, run: TrainConfig) -> None:
        """Train one run to its end in a process of its own, passing the lines of its output on."""
        output = Path(run.output)
        # A run whose settings have changed since starts anew; `mora train` alone would rather ask.
        run = replace(run, fresh=run.fresh or holds_another_run(run))
        settings = output / "train.yaml"
        settings.write_text(yaml.safe_dump(asdict(run), sort_keys=False), encoding="utf-8")
        with open(output / "log.txt", "w", encoding="utf-8") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "mora_peft.cli.main", "train", "--config", str(settings)],
                stdout=subprocess.PIPE,
                stderr=log,  # libraries' notices are kept there, and off the terminal
                text=True,
                # One thread each: runs side by side then neither disturb nor favour one another.
                env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
                # In a session of its own a child gets no Ctrl-C from the terminal: it is stopped from here, once.
                start_new_session=True,
            )
            self.children.add(child)
            for line in child.stdout:
                log.write(line)
                log.flush()
                print(f"{output.name}  {line.rstrip()}", flush=True)
        code = child.wait()
        self.children.discard(child)
        if code not in (0, DIVERGED) and not self.stopping.is_set():
            message = _last_line(output / "log.txt")
            _record_failure(run, message)
            print(f"{output.name}  failed: {message} (all of it: {output / 'log.txt'})", flush=True)

    def _tell(self, what: str) -> None:
        """Print how many runs are done, and how long the rest will take at the pace so far."""
        if self.stopping.is_set() or self.total == 1:
            return
        done = self.total - len(self.waiting) - self.busy
        # Those under way are halfway on average.
        minutes = (monotonic() - self.began) / 60 * (self.total / (done + self.busy / 2) - 1)
        left = f", about {_duration(minutes)} left" if done < self.total else ""
        print(f"{done} of {self.total} {what} done{left}", flush=True)

    def stop(self) -> None:
        """Ask every process to stop, and wait until it has."""
        self.stopping.set()
        for child in list(self.children):
            with suppress(ProcessLookupError):
                child.terminate()
        for child in list(self.children):
            try:
                child.wait(timeout=_SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                child.kill()


def _duration(minutes: float) -> str:
    hours, minutes = divmod(max(1, round(minutes)), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it wrote nothing"


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
