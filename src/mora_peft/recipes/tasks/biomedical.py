"""Biomedicine: a model reads research articles on, and is asked for their words and for what they teach.

Learned from texts; measured by perplexity on other texts, by PubMedQA (Jin et al. 2019: yes, no or maybe) and by
MedMCQA (Pal et al. 2022: examination questions with four options), both by log-likelihood.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mora_peft.recipes.data import load_texts, read_questions
from mora_peft.recipes.measures.choice import choice, options_of

from . import Test, tuning  # noqa: F401  (tuning is part of the task's protocol)
from ._files import Sources, check, needed, text_tests

if TYPE_CHECKING:
    from datasets import Dataset

METRIC = "perplexity"


@dataclass
class Options:
    """Where the rows are, each a file, a folder or a hub data set, and how much is measured.

    `train`: texts to learn; questions among them are learned as texts with their answers. `texts`: held-out texts, a
    source or several. `pubmedqa`, `medmcqa`: rows of prompt, completion and choices. `rows_per_test`: so many rows of
    each are measured. `block`: tokens of context that perplexity is measured with.
    """

    train: Sources = None
    texts: Sources = None
    pubmedqa: str | None = None
    medmcqa: str | None = None
    rows_per_test: int = 100
    block: int = 512

    def __post_init__(self):
        check(self)


def rows(options: Options, data: str | None = None) -> "Dataset":
    """The texts to learn."""
    return load_texts(needed(data or options.train, "biomedical", "train", "data"))


def tests(options: Options, rows: "Dataset | None" = None, eval_data: str | None = None) -> list[Test]:
    """Perplexity on the held-out texts, then the questions that the options name."""
    from datasets import Dataset

    sources = needed(eval_data or options.texts, "biomedical", "texts", "eval_data")
    found = text_tests(sources, options.rows_per_test, options.block)
    for name in ("pubmedqa", "medmcqa"):
        if source := getattr(options, name):
            questions = read_questions(source, also=("choices",))[: options.rows_per_test]
            found.append(Test(name, Dataset.from_list([options_of(row) for row in questions]), choice))
    return found
