"""`mora inspect`: list the layers of an adapter."""

from mora_peft.cli._parser import run_command
from mora_peft.recipes.inspect import InspectConfig, inspect


def main(argv: list[str]) -> int:
    return run_command("inspect", InspectConfig, inspect, argv, positional=True)
