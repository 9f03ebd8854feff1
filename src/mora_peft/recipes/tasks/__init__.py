"""Tasks: rows to learn and what is measured, one module each.

A task's module has five names:

    Options                  a dataclass, its fields being the keys of `task_options`
    METRIC                   its main metric: one that its tests measure, or `loss`
    rows(options, data)      the rows to learn, as a data set with the columns prompt and completion, or text;
                             `data` replaces the rows that the options name or the task would make
    tests(options, rows, eval_data)     what is measured, as a list of `Test`; `eval_data` replaces the rows of the
                             first, which are also the ones whose loss per token is measured in every run; `rows` is
                             None where nothing is learned
    tuning(options, rows)    for the search of learning rates: rows to learn and tests, none of them among the rows of
                             `tests`; the function of this module where a task has no better one

Lower is better for the metrics `loss` and `perplexity` and names that end in `_loss` or `_perplexity`; higher for all
others.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mora_peft.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase

#: (model, tokenizer, rows, batch_size) -> metrics by name, and the model's answer to each row (or no answers)
Measure = Callable[["Module", "PreTrainedTokenizerBase", "Dataset", int], tuple[dict[str, float], list[str]]]


@dataclass(frozen=True)
class Test:
    """Rows and what is measured on them. `whole` is for a sum over all rows, which part of them would falsify."""

    __test__ = False  # for pytest, which takes the name for its own

    name: str
    rows: "Dataset"
    measure: Measure
    whole: bool = False

    def limited(self, count: int | None) -> "Test":
        """The same test on its first `count` rows at most."""
        if count is None or self.whole or len(self.rows) <= count:
            return self
        return replace(self, rows=self.rows.select(range(count)))

    def run(
        self, model: "Module", tokenizer: "PreTrainedTokenizerBase", batch_size: int
    ) -> tuple[dict[str, float], list[str]]:
        """The metrics by full name, `name_metric`, and the answers."""
        metrics, answers = self.measure(model, tokenizer, self.rows, batch_size)
        return {f"{self.name}_{metric}" if self.name else metric: value for metric, value in metrics.items()}, answers


def tuning(options: Any, rows: "Dataset") -> tuple["Dataset", list[Test]]:
    """A held-out slice of `rows`, a tenth of them but 64 at most, and the rest to learn; the loss alone is measured."""
    if len(rows) < 2:
        raise UserError("A search of learning rates needs two rows to learn at least: one of them is held out.")
    count = min(64, max(1, len(rows) // 10))
    # From all over the file: its rows may stand in some order.
    held_out = {index * len(rows) // count for index in range(count)}
    rest = [index for index in range(len(rows)) if index not in held_out]
    return rows.select(rest), [Test("", rows.select(sorted(held_out)), nothing)]


def nothing(*_: Any) -> tuple[dict[str, float], list[str]]:
    """The measure of a test whose rows have a loss and nothing else."""
    return {}, []


def task_named(name: str) -> ModuleType:
    """The module of the task `name`; UserError lists the tasks there are otherwise."""
    known = [module.name for module in iter_modules(__path__) if not module.name.startswith("_")]
    if name not in known:
        raise UserError(f"There is no task {name!r}: expected one of {', '.join(known)}.")
    return import_module(f"{__name__}.{name}")


def task_options(name: str, given: dict[str, Any]) -> Any:
    """`given` as the Options of the task `name`; UserError names what it does not take."""
    try:
        return task_named(name).Options(**given)
    except TypeError as error:
        raise UserError(f"The task {name} does not take these options: {error}.") from error
