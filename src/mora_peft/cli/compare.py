"""`mora compare`: train several methods at one budget, and write a report."""

from mora_peft.cli._parser import run_command
from mora_peft.recipes.compare import CompareConfig, compare


def main(argv: list[str]) -> int:
    return run_command("compare", CompareConfig, compare, argv)
