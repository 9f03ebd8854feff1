"""`mora train`: teach a model with one method."""

from mora_peft.cli._parser import run_command
from mora_peft.recipes.train import TrainConfig, train


def main(argv: list[str]) -> int:
    return run_command("train", TrainConfig, train, argv)
