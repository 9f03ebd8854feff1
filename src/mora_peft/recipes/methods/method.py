"""What a method of fine-tuning is: a row of the table, and what comes of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .budget import Budget

if TYPE_CHECKING:
    from torch.nn import Module
    from torch.optim import Optimizer
    from transformers import PreTrainedModel, TrainerCallback, TrainingArguments


@dataclass(frozen=True)
class Built:
    """A model whose trainable parameters are those that require gradients.

    `optimizer` makes an optimizer of the method's own; `callbacks` are the trainer's.
    """

    model: "Module"
    optimizer: "Callable[[TrainingArguments], Optimizer] | None" = None
    callbacks: "tuple[TrainerCallback, ...]" = ()


@dataclass(frozen=True)
class Tuned:
    """A model ready to train, with its sizes in parameters and, where they disagree, why; see also `Built`."""

    model: "Module"
    budget_parameters: int
    trainable_parameters: int
    budget_note: str | None
    optimizer: "Callable[[TrainingArguments], Optimizer] | None" = None
    callbacks: "tuple[TrainerCallback, ...]" = ()


#: From a base, a budget and options to a model.
Build = Callable[["PreTrainedModel", Budget, dict[str, Any]], Built]


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Args:
        label: Its name in words.
        learning_rate: A good first guess for small models and facts.
        build: Makes a model ready to train; raises UserError for options that the method does not have.
        trains_base: Whether the base's own weights change, which must then be float32.
        limit: Why the method's size may differ from the budget, after "1.2 times the budget:".
    """

    label: str
    learning_rate: float
    build: Build
    trains_base: bool = False
    limit: str = "that is as near as its settings come"
