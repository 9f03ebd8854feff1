"""Instruction tuning: a model learns to do what it is told, and is measured on other instructions and on knowledge.

Measured by the loss of held-out completions, by ROUGE-L and exact match of greedy ones, and by multiple choice (MMLU,
Hendrycks et al. 2021) by log-likelihood.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mora_peft.recipes.data import as_chat, listed, load_questions, read_questions, spoken
from mora_peft.recipes.measures.choice import choice, options_of
from mora_peft.recipes.measures.texts import overlap

from . import Test, tuning  # noqa: F401  (tuning is part of the task's protocol)
from ._files import Sources, check, needed, stem

if TYPE_CHECKING:
    from datasets import Dataset

METRIC = "loss"


@dataclass
class Options:
    """Where the rows of prompt and completion are, each a file or a hub data set, and how much is measured.

    `train`: instructions to learn, a source or several. `test`: held-out ones, a source or several, measured together;
    those with an `answer` (a text, or a list of all accepted ones) are measured by exact match as well. `choices`: rows
    of prompt, completion and choices, a source or several. `rows_per_test`: so many rows of each test are measured, in
    equal parts from its sources. `max_new_tokens`: the longest answer that is decoded. `chat`: write rows as messages,
    with the tokenizer's chat template.
    """

    train: Sources = None
    test: Sources = None
    choices: Sources = None
    rows_per_test: int = 100
    max_new_tokens: int = 64
    chat: bool = True

    def __post_init__(self):
        check(self)


def rows(options: Options, data: str | None = None) -> "Dataset":
    """The instructions to learn."""
    return load_questions(needed(data or options.train, "instruction", "train", "data"), options.chat)


def tests(options: Options, rows: "Dataset | None" = None, eval_data: str | None = None) -> list[Test]:
    """The held-out instructions, then the multiple choice questions that the options name."""
    from datasets import Dataset

    sources = needed(eval_data or options.test, "instruction", "test", "eval_data")
    share = max(1, options.rows_per_test // len(sources))
    held_out = [
        {name: row[name] for name in ("prompt", "completion")} | _accepted(row)
        for source in sources
        for row in read_questions(source, options.chat, maybe=("answer",))[:share]
    ]
    found = [Test("", Dataset.from_list(held_out), partial(overlap, max_new_tokens=options.max_new_tokens))]
    for source in listed(options.choices or []):
        questions = [options_of(row) for row in read_questions(source, also=("choices",))[: options.rows_per_test]]
        if options.chat:
            questions = [row | {"prompt": as_chat(row | {"completion": row["right"]})["prompt"]} for row in questions]
        found.append(Test(stem(source), Dataset.from_list(questions), choice))
    return found


def _accepted(row: dict) -> dict:
    answer = row.get("answer")
    texts = [answer] if isinstance(answer, str) and answer else list(answer or [])
    return {"accepted": [str(text) for text in texts] or [spoken(row["completion"])], "short": bool(texts)}
