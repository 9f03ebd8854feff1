"""`mora inspect`: list the layers of an adapter."""

from mora_peft.cli._parser import run_command
from mora_peft.recipes.inspect import InspectConfig, inspect


def main(argv: list[str]) -> int:
    words = [word.replace("--target-modules", "--target_modules", 1) for word in argv]
    return run_command("inspect", InspectConfig, inspect, words, positional=True)
