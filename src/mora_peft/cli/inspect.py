"""`mora inspect`: list the layers of an adapter."""

from mora_peft.cli._parser import run_command
from mora_peft.recipes.inspect import InspectConfig, inspect


def main(argv: list[str]) -> int:
    # The other commands call a base model --model; here it is the first word, and may be named so.
    words = [word.removeprefix("--model=") for word in argv if word != "--model"]
    return run_command("inspect", InspectConfig, inspect, words, positional=True)
