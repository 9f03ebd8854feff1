"""Mathematical reasoning: GSM8K (Cobbe et al. 2021), word problems whose solutions end in `#### NUMBER`.

Measured by the loss of held-out solutions and by the final number of greedily decoded ones.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mora_peft.recipes.data import load_questions, read_questions, spoken
from mora_peft.recipes.measures.numbers import final_number

from . import Test, tuning  # noqa: F401  (tuning is part of the task's protocol)
from ._files import Sources, check, needed

if TYPE_CHECKING:
    from datasets import Dataset

METRIC = "exact_match"


@dataclass
class Options:
    """Where the rows of prompt and completion are, each a file or a hub data set, and how much is measured.

    `train`: problems to learn, a source or several. `test`: held-out ones; the number of a row's `answer`, or else of
    its completion, is the right one. `rows_per_test`: so many of them are measured. `max_new_tokens`: the longest
    solution that is decoded. `chat`: write rows as messages, with the tokenizer's chat template.
    """

    train: Sources = None
    test: Sources = None
    rows_per_test: int = 100
    max_new_tokens: int = 256
    chat: bool = True

    def __post_init__(self):
        check(self)


def rows(options: Options, data: str | None = None) -> "Dataset":
    """The problems to learn."""
    return load_questions(needed(data or options.train, "math", "train", "data"), options.chat)


def tests(options: Options, rows: "Dataset | None" = None, eval_data: str | None = None) -> list[Test]:
    """The held-out problems."""
    from datasets import Dataset

    sources = needed(eval_data or options.test, "math", "test", "eval_data")
    questions = read_questions(sources, options.chat, maybe=("answer",))[: options.rows_per_test]
    made = [row | {"answer": str(row.get("answer") or spoken(row["completion"]))} for row in questions]
    return [Test("", Dataset.from_list(made), partial(final_number, max_new_tokens=options.max_new_tokens))]
