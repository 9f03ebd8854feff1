"""`mora convert`: the authors' checkpoints into MoRA adapters, MoRA adapters into LoRA."""

from mora_peft.cli._parser import run_command
from mora_peft.recipes.convert import ConvertConfig, convert


def main(argv: list[str]) -> int:
    return run_command("convert", ConvertConfig, convert, [_underscored(word) for word in argv])


def _underscored(word: str) -> str:
    """Options are named after fields; `--from-authors` is how people write them."""
    name, equals, value = word.partition("=")
    return name.replace("-", "_").replace("__", "--", 1) + equals + value if word.startswith("--") else word
