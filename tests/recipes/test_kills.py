"""kill -9 at any moment: no checkpoint is unreadable, and the run ends in the weights of one that nothing disturbed."""

import multiprocessing
import random
import shutil
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from mora_peft.recipes import checkpoints, train

KILLS = 5


def teach(settings: dict) -> None:
    torch.set_num_threads(1)
    train.train(train.TrainConfig(**settings))


def test_kills_at_random_moments(settings, tmp_path):
    settings |= {"method_options": {"mora_dropout": 0.2}, "checkpoint_every": 1, "evaluate_every": 50, "steps": 50}
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["mora_peft.recipes.train", "mora_peft.recipes.trainer", "mora_peft.tuner"])

    def start(name: str) -> multiprocessing.Process:
        process = server.Process(target=teach, args=(settings | {"output": str(tmp_path / name)},))
        process.start()
        return process

    start("warm").join()  # what is imported late is imported once
    begun = time.monotonic()
    whole = start("whole")
    whole.join()
    seconds = time.monotonic() - begun
    rng, kills, output = random.Random(0), 0, Path(tmp_path / "killed")
    while kills < KILLS:
        process = start("killed")
        process.join(rng.uniform(0.1, 0.5) * seconds)
        process.kill()
        process.join()
        if process.exitcode == 0:  # it came to its end before it was killed
            shutil.rmtree(output)
            continue
        kills += 1
        if last := checkpoints.latest(output):
            load_file(last / "adapter_model.safetensors")
            torch.load(last / "optimizer.pt", weights_only=True)
    final = start("killed")
    final.join()
    assert final.exitcode == 0
    mine, yours = (
        load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (output, tmp_path / "whole")
    )
    assert mine.keys() == yours.keys() and all(torch.equal(mine[name], yours[name]) for name in mine)
    assert sorted(path.name for path in output.iterdir()) == ["adapter", "run.json", "settings.json"]
