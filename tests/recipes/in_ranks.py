"""What test_ranks.py starts as two processes: each trains the settings of a JSON file, one after another.

A case may ask for an end in the middle: `stop` interrupts all processes before a step, `kill` ends the second one; and
for so many characters of rows to stay `in_memory`.
"""

import contextlib
import json
import os
import signal
import sys

import fsdp_on_cpu

from mora_peft.recipes import streaming, train
from mora_peft.recipes.trainer import RecipeTrainer

fsdp_on_cpu.allow()

ORIGINAL = RecipeTrainer.training_step


def ending(stop: int | None = None, kill: int | None = None):
    def training_step(self, *args, **kwargs):
        if self.state.global_step == stop:
            raise KeyboardInterrupt
        if self.state.global_step == kill and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return ORIGINAL(self, *args, **kwargs)

    return training_step


for case in json.load(open(sys.argv[1])):
    RecipeTrainer.training_step = ending(**case.pop("ending", {}))
    streaming.IN_MEMORY = case.pop("in_memory", streaming.IN_MEMORY)
    with contextlib.suppress(KeyboardInterrupt):
        train.train(train.TrainConfig(**case))
