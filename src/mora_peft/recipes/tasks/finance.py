"""Finance: a model reads reports on, and is asked for their words and for figures in their tables.

Learned from texts; measured by perplexity on other texts, by TAT-QA (Zhu et al. 2021: a figure with its scale, or words
of the report) and by FinQA (Chen et al. 2021: a program that computes the figure), both by greedy decoding.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mora_peft.recipes.data import load_texts, read_questions
from mora_peft.recipes.measures.answers import program_answers, table_answers

from . import Test, tuning  # noqa: F401  (tuning is part of the task's protocol)
from ._files import Sources, check, needed, text_tests

if TYPE_CHECKING:
    from datasets import Dataset

METRIC = "perplexity"


@dataclass
class Options:
    """Where the rows are, each a file, a folder or a hub data set, and how much is measured.

    `train`: texts to learn; questions among them are learned as texts with their answers, and without some of them no
    base model writes a program. `texts`: held-out texts, a source or several, each with a perplexity of its own.
    `tatqa`: rows of prompt, completion, answer (a list) and scale. `finqa`: rows of prompt, completion and answer.
    `rows_per_test`: so many rows of each are measured. `block`: tokens of context that perplexity is measured with.
    """

    train: Sources = None
    texts: Sources = None
    tatqa: str | None = None
    finqa: str | None = None
    rows_per_test: int = 100
    block: int = 512

    def __post_init__(self):
        check(self)


def rows(options: Options, data: str | None = None) -> "Dataset":
    """The texts to learn."""
    return load_texts(needed(data or options.train, "finance", "train", "data"))


def tests(options: Options, rows: "Dataset | None" = None, eval_data: str | None = None) -> list[Test]:
    """Perplexity on the held-out texts, then the questions that the options name."""
    from datasets import Dataset

    sources = needed(eval_data or options.texts, "finance", "texts", "eval_data")
    found = text_tests(sources, options.rows_per_test, options.block)
    if options.tatqa:
        questions = [
            {"prompt": row["prompt"], "answers": [str(text) for text in row["answer"]], "scale": row.get("scale", "")}
            for row in read_questions(options.tatqa, also=("answer",), maybe=("scale",))[: options.rows_per_test]
        ]
        found.append(Test("tatqa", Dataset.from_list(questions), table_answers))
    if options.finqa:
        questions = [
            {"prompt": row["prompt"], "answer": str(row["answer"])}
            for row in read_questions(options.finqa, also=("answer",))[: options.rows_per_test]
        ]
        found.append(Test("finqa", Dataset.from_list(questions), program_answers))
    return found
