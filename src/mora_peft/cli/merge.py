"""`mora merge`: write a model with its adapter merged in."""

from mora_peft.cli._parser import run_command
from mora_peft.recipes.merge import MergeConfig, merge


def main(argv: list[str]) -> int:
    return run_command("merge", MergeConfig, merge, _adapter_first(argv))


def _adapter_first(argv: list[str]) -> list[str]:
    """`mora merge ADAPTER --output DIR` with the adapter's name written out."""
    return ["--adapter", *argv] if argv and not argv[0].startswith("-") else argv
