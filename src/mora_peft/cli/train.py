"""`mora train`: teach a model with one method."""

from mora_peft.cli._parser import OK, run_command
from mora_peft.recipes.runs import DIVERGED, read_run
from mora_peft.recipes.train import TrainConfig, train


def main(argv: list[str]) -> int:
    return run_command("train", TrainConfig, trained, argv)


def trained(config: TrainConfig) -> int:
    """Train, and return the exit code."""
    return DIVERGED if read_run(train(config))["status"] == "diverged" else OK
