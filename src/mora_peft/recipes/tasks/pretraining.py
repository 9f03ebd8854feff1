"""Pretraining: a model without a past learns to read, and is measured by its perplexity on texts it has not seen.

The model is best made from a configuration: `model: some/config.json`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mora_peft.errors import UserError
from mora_peft.recipes.data import each_text, source_stamp
from mora_peft.recipes.streaming import kept

from . import Test, tuning  # noqa: F401  (tuning is part of the task's protocol)
from ._files import Sources, check, needed, text_tests

if TYPE_CHECKING:
    from datasets import Dataset

METRIC = "perplexity"


@dataclass
class Options:
    """Where the texts are, a source or several each: a file, a folder or a hub data set.

    `train`: texts to learn, joined and cut into rows of `characters`; max_length must have room for a row, whose end
    is lost otherwise. `texts`: held-out texts, the first `rows_per_test` of each source; `block`: tokens of context
    that perplexity is measured with. `train_embeddings`: beside an adapter, embeddings and output layer are trained
    too, without which a model without a past learns little.
    """

    train: Sources = None
    texts: Sources = None
    characters: int = 1200
    rows_per_test: int = 100
    block: int = 512
    train_embeddings: bool = True

    def __post_init__(self):
        check(self)
        if self.characters < 1:
            raise UserError(f"characters must be at least 1, not {self.characters}.")


def rows(options: Options, data: str | None = None) -> "Dataset":
    """The texts to learn, in rows of about equal length: short texts share one, long ones fill several."""
    sources = needed(data or options.train, "pretraining", "train", "data")

    def pieces() -> Iterator[dict[str, str]]:
        parts = (part for text in each_text(sources) for part in ("\n\n", text))
        next(parts)  # nothing stands before the first text
        return ({"text": text} for text in cut(parts, options.characters))

    return kept(pieces, "pieces", options.characters, *map(source_stamp, sources))


def tests(options: Options, rows: "Dataset | None" = None, eval_data: str | None = None) -> list[Test]:
    """Perplexity on the held-out texts, source by source."""
    sources = needed(eval_data or options.texts, "pretraining", "texts", "eval_data")
    return text_tests(sources, options.rows_per_test, options.block)


def cut(parts: Iterable[str], characters: int) -> Iterator[str]:
    """The text that `parts` make together, in pieces of `characters` at most, cut before white space if there is any.

    The parts are taken one by one, and no more of the text is held than the part at hand and what is left of others.
    """
    piece = re.compile(rf"(?s).{{1,{characters}}}(?=\s|\Z)|.{{1,{characters}}}")
    rest = ""
    for part in parts:
        rest, start = rest + part, 0
        while len(rest) - start > characters:  # so that what follows the piece is known
            found = piece.match(rest, start)
            yield found[0]
            start = found.end()
        rest = rest[start:]
    yield from piece.findall(rest)
