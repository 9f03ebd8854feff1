"""`mora chat`: talk to a model in the terminal, with and without its adapter."""

from mora_peft.cli._parser import run_command
from mora_peft.recipes.chat import ChatConfig, chat


def main(argv: list[str]) -> int:
    return run_command("chat", ChatConfig, chat, argv, positional=True)
