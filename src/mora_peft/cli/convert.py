"""`mora convert`: the authors' checkpoints into MoRA adapters, MoRA adapters into LoRA."""

from mora_peft.cli._parser import run_command
from mora_peft.recipes.convert import ConvertConfig, convert


def main(argv: list[str]) -> int:
    return run_command("convert", ConvertConfig, convert, argv)
