"""kill -9 at random moments of a training run: is every checkpoint readable, and does the run end in the same weights?

`python benchmarks/kill_and_resume.py [KILLS] [DATA]` trains SmolLM2-135M once without a disturbance, then again and
again in one folder, each time killed after a random number of seconds, until it was killed KILLS times (20); the last
start is left alone. Writes benchmarks/results/kill_and_resume.json. DATA is a JSONL file; without it
../shared/data/math/gsm8k.train.jsonl.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _common
import torch
from safetensors.torch import load_file

from mora_peft.recipes import checkpoints

MODEL = "models/SmolLM2-135M-Instruct"


def start(data: str, output: Path) -> subprocess.Popen:
    words = ["train", "--output", output, "--model", MODEL, "--data", data, "--steps", 20, "--batch-size", 1,
             "--max-length", 64, "--checkpoint-every", 1, "--learning-rate", 1e-3, "--dtype", "float32",
             "--method-options", '{"mora_dropout": 0.1}']  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "mora_peft.cli.main", *map(str, words)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def main(kills: int, data: str) -> None:
    folder, moments = Path(tempfile.mkdtemp()), []
    rng = random.Random(0)
    try:
        whole, killed = folder / "whole", folder / "killed"
        begun = time.monotonic()
        assert start(data, whole).wait() == 0
        seconds = time.monotonic() - begun
        while len(moments) < kills:
            process, wait = start(data, killed), rng.uniform(0, 0.6 * seconds)
            try:
                code = process.wait(wait)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                code = process.wait()
            left = sorted(path.name for path in killed.glob("*")) if killed.exists() else []
            last = checkpoints.latest(killed)
            if last:  # readable: every file opens, and the newest is the one a run goes on from
                load_file(last / "adapter_model.safetensors")
                torch.load(last / "optimizer.pt", weights_only=True)
            moments.append({"seconds": round(wait, 1), "exit": code, "went_on_from": last and last.name, "left": left})
            if code == 0:  # it came to its end before it could be killed: begin anew
                shutil.rmtree(killed)
        assert start(data, killed).wait() == 0
        mine, yours = (load_file(path / "adapter" / "adapter_model.safetensors") for path in (killed, whole))
        equal = mine.keys() == yours.keys() and all(torch.equal(mine[name], yours[name]) for name in mine)
    finally:
        shutil.rmtree(folder)
    _common.save(
        "kill_and_resume", {"uninterrupted_seconds": round(seconds, 1), "equal_weights": equal, "kills": moments}
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20, sys.argv[2] if len(sys.argv) > 2 else
         "../shared/data/math/gsm8k.train.jsonl")  # fmt: skip
