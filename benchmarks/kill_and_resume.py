"""kill -9 at random moments of a training run: is every checkpoint readable, and does the run end in the same weights?

`python benchmarks/kill_and_resume.py [KILLS] [DATA]` trains SmolLM2-135M once without a disturbance, then again and
again in one folder, until it was killed KILLS times (20); the last start is left alone. One start in four is killed at
a random moment of its loading, the others at a random moment of their first steps after it, so that the kills are
spread over the run. Writes benchmarks/results/kill_and_resume.json. DATA is a JSONL file; without it
../shared/data/math/gsm8k.train.jsonl.
"""

import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import _common
import torch
from safetensors.torch import load_file

from mora_peft.recipes import checkpoints

MODEL, STEPS = "models/SmolLM2-135M-Instruct", 40
_AHEAD = 3.5  # steps of a start, at most, before it is killed


def teach(data: str, output: str) -> None:
    from mora_peft.recipes import train

    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    settings = {"model": MODEL, "data": data, "steps": STEPS, "batch_size": 1, "max_length": 64, "checkpoint_every": 1,
                "learning_rate": 1e-3, "dtype": "float32", "method_options": {"mora_dropout": 0.1}}  # fmt: skip
    train.train(train.TrainConfig(output=output, **settings))


def same(killed: Path, whole: Path) -> bool:
    mine, yours = (load_file(path / "adapter" / "adapter_model.safetensors") for path in (killed, whole))
    return mine.keys() == yours.keys() and all(torch.equal(mine[name], yours[name]) for name in mine)


def main(kills: int, data: str) -> None:
    # Processes that start with everything imported: most moments are then moments of training.
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["mora_peft.recipes.train", "mora_peft.recipes.trainer", "mora_peft.tuner"])

    def start(output: Path) -> multiprocessing.Process:
        process = server.Process(target=teach, args=(data, str(output)))
        process.start()
        return process

    folder, moments, equal, rng = Path(tempfile.mkdtemp()), [], True, random.Random(0)
    try:
        whole, killed = folder / "whole", folder / "killed"
        warm = start(folder / "warm")  # what is imported late is imported once
        warm.join()
        begun = time.monotonic()
        first = start(whole)
        while first.is_alive() and checkpoints.latest(whole) is None:
            time.sleep(0.02)
        loading = time.monotonic() - begun
        first.join()
        assert warm.exitcode == first.exitcode == 0
        seconds = time.monotonic() - begun
        step = (seconds - loading) / STEPS
        while len(moments) < kills:
            before = checkpoints.latest(killed)
            process, began = start(killed), time.monotonic()
            if rng.random() < 0.25:
                process.join(rng.uniform(0, 0.5 * loading))
            else:
                while process.is_alive() and checkpoints.latest(killed) == before:
                    time.sleep(0.02)
                process.join(rng.uniform(0, _AHEAD * step))
            wait = time.monotonic() - began
            process.kill()
            process.join()
            if process.exitcode == 0:  # it came to its end before it was killed: that start counts for nothing
                equal &= same(killed, whole)
                shutil.rmtree(killed)
                continue
            left = sorted(path.name for path in killed.glob("*")) if killed.exists() else []
            last = checkpoints.latest(killed)
            if last:  # readable: every file opens, and the newest is the one a run goes on from
                load_file(last / "adapter_model.safetensors")
                torch.load(last / "optimizer.pt", weights_only=True)
            moments.append({"seconds": round(wait, 1), "exit": process.exitcode,
                            "goes_on_from": last and last.name, "left": left})  # fmt: skip
        final = start(killed)
        final.join()
        assert final.exitcode == 0
        equal &= same(killed, whole)
    finally:
        shutil.rmtree(folder)
    _common.save(
        "kill_and_resume",
        {
            "uninterrupted_seconds": round(seconds, 1),
            "steps": STEPS,
            "equal_weights": equal,
            "killed": len(moments),
            "killed_after_a_checkpoint": sum(moment["goes_on_from"] is not None for moment in moments),
            "kills": moments,
        },
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20, sys.argv[2] if len(sys.argv) > 2 else
         "../shared/data/math/gsm8k.train.jsonl")  # fmt: skip
