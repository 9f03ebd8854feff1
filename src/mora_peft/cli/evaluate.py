"""`mora evaluate`: measure an adapter or a model on a file."""

from mora_peft.cli._parser import run_command
from mora_peft.recipes.evaluate import EvaluateConfig, evaluate


def main(argv: list[str]) -> int:
    return run_command("evaluate", EvaluateConfig, evaluate, argv, positional=True)
