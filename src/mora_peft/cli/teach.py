"""`mora teach`: documents in, a model that knows them out, with proof."""

from mora_peft.cli._parser import run_command
from mora_peft.recipes.teach.settings import TeachConfig


def main(argv: list[str]) -> int:
    """Run `mora teach FOLDER ...`; `--from ADAPTER` is the short form of `--continue_from ADAPTER`."""
    return run_command("teach", TeachConfig, _teach, _spelled_out(argv))


def _spelled_out(argv: list[str]) -> list[str]:
    words = [f"--continue_from{word[6:]}" if word.partition("=")[0] == "--from" else word for word in argv]
    return ["--folder", *words] if words and not words[0].startswith("-") else words


def _teach(config: TeachConfig) -> None:
    from mora_peft.recipes.teach.teach import teach

    teach(config)
