"""What the tasks share that read their rows from files: sources, limits, and tests of perplexity."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mora_peft.errors import UserError
from mora_peft.recipes.data import listed, load_texts
from mora_peft.recipes.measures.perplexity import text_perplexity

from . import Test

if TYPE_CHECKING:
    from datasets import Dataset

Sources = str | list[str] | None


def check(options) -> None:
    """Raise UserError where one of the options that count something is not positive."""
    for name in ("rows_per_test", "block", "max_new_tokens"):
        value = getattr(options, name, 1)
        if not isinstance(value, int) or value < 1:
            raise UserError(f"{name} must be a whole number of at least 1, not {value}.")


def needed(sources: Sources, task: str, option: str, setting: str) -> list[str]:
    """`sources` as a list; UserError where there are none, naming the option and the setting that give them."""
    if not sources:
        raise UserError(
            f"The task {task} needs rows: give --{setting} FILE, or its option {option}, a file or several."
        )
    return listed(sources)


def text_tests(sources: list[str], limit: int, block: int) -> list[Test]:
    """A test of perplexity for each source, named after its file; the first has no name, being the main one."""
    return [
        Test(
            "" if number == 0 else stem(source), first(load_texts(source), limit), partial(text_perplexity, block=block)
        )
        for number, source in enumerate(sources)
    ]


def stem(source: str) -> str:
    """The name of a test: `beige_book` of `data/beige_book.test.jsonl`, and of `owner/beige_book:split`."""
    return Path(source).name.split(".")[0].split(":")[0]


def first(rows: "Dataset", limit: int) -> "Dataset":
    """The first `limit` rows."""
    return rows.select(range(min(limit, len(rows))))
