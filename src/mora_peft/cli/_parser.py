"""What every command shares: a parser made from a recipe's dataclass, and errors made into one sentence."""

import contextlib
import signal
import sys
from argparse import ArgumentError
from collections.abc import Callable
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from jsonargparse import ArgumentParser

from mora_peft.errors import UserError, is_disk_full

OK, BAD_INPUT, INTERRUPTED = 0, 2, 130


def run_command(
    name: str, config_class: type, recipe: Callable[[Any], Any], argv: list[str], positional: bool = False
) -> int:
    """Parse `argv` into `config_class`, call `recipe` with it, and return the exit code.

    The dataclass is the whole interface: its fields are the options, its docstring is their help, and `--config FILE`
    reads the same names from YAML. `positional=True` takes required fields by position. Exit codes: 0 done (or the
    number that `recipe` returns), 2 bad input or a full disk (one sentence on stderr), 130 interrupted. Anything else
    is a bug and keeps its traceback.
    """
    # A polite kill (SIGTERM) stops a command as Ctrl-C does, so that nothing it started outlives it.
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        result = recipe(parse(name, config_class, argv, positional))
    except KeyboardInterrupt:
        return _say(INTERRUPTED, f"mora {name}: interrupted; run the same command again to go on from where it was.")
    except (UserError, FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        return _say(BAD_INPUT, f"mora {name}: {error}")
    except Exception as error:
        if not is_disk_full(error):
            raise
        return _say(BAD_INPUT, f"mora {name}: the disk is full ({error}); free some space and run the command again.")
    return result if isinstance(result, int) else OK


def parse(name: str, config_class: type, argv: list[str], positional: bool = False) -> Any:
    """An instance of `config_class` from command-line words; UserError names a wrong option and the nearest one."""
    parser = build_parser(name, config_class, positional)
    try:
        found = parser.instantiate(parser.parse_args(_spelled_out(argv, config_class))).as_dict()
    except ArgumentError as error:
        raise UserError(_one_sentence(str(error), parser)) from None
    found.pop("config", None)
    return config_class(**found)


def build_parser(name: str, config_class: type, positional: bool = False) -> ArgumentParser:
    """The parser of `mora NAME`, made from the fields and the docstring of `config_class`."""
    parser = ArgumentParser(
        prog=f"mora {name}", description=_summary(config_class), exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the options below.")
    parser.add_class_arguments(config_class, as_positional=positional)
    return parser


def nearest(word: str, known: list[str]) -> str:
    """', did you mean X?' for the known word nearest to `word`, or nothing where none is near."""
    found = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else "."


def _spelled_out(argv: list[str], config_class: type) -> list[str]:
    """`argv` with `--batch-size` as the field's name, `--batch_size`, and a bare switch `--fresh` as `--fresh=true`."""
    switches = {f"--{field.name}" for field in fields(config_class) if field.type is bool}
    words = [_underscored(word) for word in argv]
    followed = [*words, "--"][1:]
    return [
        f"{word}=true" if word in switches and next_word.startswith("-") else word
        for word, next_word in zip(words, followed, strict=True)
    ]


def _underscored(word: str) -> str:
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value if word.startswith("--") else word


def _summary(config_class: type) -> str:
    return (config_class.__doc__ or "").split("\n\n")[0].strip()


def _one_sentence(message: str, parser: ArgumentParser) -> str:
    sentence = " ".join(message.split()).rstrip(".")
    options = [option for action in parser._actions for option in action.option_strings]
    word = next((word for word in sentence.split() if word.startswith("--")), None)
    if word and word not in options:
        return sentence + nearest(word, options)
    return f"{sentence}; see {parser.prog} --help."


def _say(code: int, sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return code
