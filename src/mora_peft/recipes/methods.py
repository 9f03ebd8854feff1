"""Ways to fine-tune, one row of a table each: from a base model and a budget to a model ready to train.

The budget is the size of a LoRA of rank r over the same target modules. A new method is a function and a row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mora_peft.errors import UserError

if TYPE_CHECKING:
    from torch.nn import Module
    from torch.optim import Optimizer
    from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

Targets = str | list[str]


@dataclass(frozen=True)
class Budget:
    """How much may be trained, and where: `parameters` is the size of a LoRA of rank `r` over `target_modules`."""

    r: int
    target_modules: Targets
    parameters: int


@dataclass(frozen=True)
class Method:
    """A row of the table.

    `build(base, budget, options)` returns the model to train. `learning_rate` is a good first guess for small models
    and facts. `trains_base` says that the base's own weights are trained, which must then be float32. `limit` says in
    words why the method's size may differ from the budget.
    """

    label: str
    learning_rate: float
    build: Callable[["PreTrainedModel", Budget, dict[str, Any]], "Module"]
    trains_base: bool = False
    limit: str | None = None


@dataclass(frozen=True)
class Tuned:
    """A model ready to train, with its sizes in parameters and, where they disagree, why."""

    model: "Module"
    budget_parameters: int
    trainable_parameters: int
    budget_note: str | None
    optimizer: Callable[["TrainingArguments"], "Optimizer"] | None = None
    callbacks: tuple["TrainerCallback", ...] = ()


def mora(base: "PreTrainedModel", budget: Budget, options: dict[str, Any]) -> "Module":
    """One square matrix a layer (Jiang et al. 2024); options are those of MoraConfig."""
    from peft import get_peft_model

    from mora_peft import MoraConfig

    return get_peft_model(base, _config(MoraConfig, budget, options))


def lora(base: "PreTrainedModel", budget: Budget, options: dict[str, Any]) -> "Module":
    """Two thin matrices a layer (Hu et al. 2021), with PEFT's usual scale of 2; options are those of LoraConfig."""
    from peft import LoraConfig, get_peft_model

    return get_peft_model(base, _config(LoraConfig, budget, {"lora_alpha": 2 * budget.r, **options}))


def full(base: "PreTrainedModel", budget: Budget, options: dict[str, Any]) -> "Module":
    """Every weight of the base."""
    if options:
        raise UserError(f"Full fine-tuning has no options, but was given {', '.join(options)}.")
    return base.requires_grad_(True)


def prompt(base: "PreTrainedModel", budget: Budget, options: dict[str, Any]) -> "Module":
    """Trained vectors before the prompt (Lester et al. 2021); options are those of PromptTuningConfig."""
    from peft import PromptTuningConfig, get_peft_model

    tokens = min(budget.parameters // base.config.get_text_config().hidden_size, _LONGEST_PROMPT)
    options = {"num_virtual_tokens": max(tokens, 1), **options}
    return get_peft_model(base, PromptTuningConfig(task_type="CAUSAL_LM", **options))


# Attention pays for every virtual token at every step, so a prompt is kept shorter than the budget would allow.
_LONGEST_PROMPT = 64

METHODS = {
    "mora": Method("MoRA", 3e-3, mora),
    "lora": Method("LoRA", 2e-3, lora),
    "full": Method("Full fine-tuning", 1e-4, full, trains_base=True, limit="it trains every weight of the base"),
    "prompt": Method("Prompt tuning", 3e-2, prompt, limit=f"its prompt is kept to {_LONGEST_PROMPT} vectors"),
}


def method_named(name: str) -> Method:
    """The table's row `name`; UserError lists the rows otherwise."""
    if name not in METHODS:
        raise UserError(f"There is no method {name!r}: expected one of {', '.join(METHODS)}.")
    return METHODS[name]


def label(name: str, options: dict[str, Any]) -> str:
    """The method and its options in words: `MoRA (rotation, fold)`."""
    words = ", ".join(_words(options))
    return method_named(name).label + (f" ({words})" if words else "")


def slug(name: str, options: dict[str, Any]) -> str:
    """The method and its options as a part of a file name: `mora-rotation-fold`."""
    text = "-".join([name, *_words(options)])
    return "".join(character if character.isalnum() or character in "-._" else "-" for character in text)


def apply(
    name: str, base: "PreTrainedModel", r: int, target_modules: Targets = "all-linear", options: dict | None = None
) -> Tuned:
    """Make `base` ready to train with the method `name` at the budget of a LoRA of rank `r`.

    Raises UserError for an unknown method, an unknown option, or target modules that match nothing.
    """
    method = method_named(name)
    budget = Budget(r, target_modules, lora_size(base, r, target_modules))
    model = method.build(base, budget, options or {})
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    share = trainable / budget.parameters
    # Rounding r_hat moves MoRA by a fraction of a per cent; only what is beyond that needs a word.
    note = f"{share:.3g} times the budget: {method.limit or 'its size does not divide evenly'}"
    return Tuned(model, budget.parameters, trainable, note if abs(share - 1) > 0.02 else None)


def lora_size(base: "PreTrainedModel", r: int, target_modules: Targets) -> int:
    """The parameters of a LoRA of rank `r` over `target_modules` of `base`, counted on a copy without storage."""
    import torch
    from peft import LoraConfig, get_peft_model

    with torch.device("meta"):
        twin = type(base)(base.config)
        try:
            tuned = get_peft_model(twin, LoraConfig(r=r, target_modules=target_modules, task_type="CAUSAL_LM"))
        except ValueError as error:
            raise UserError(f"{error}") from error
    return sum(parameter.numel() for parameter in tuned.parameters() if parameter.requires_grad)


def _config(config_class: type, budget: Budget, options: dict[str, Any]) -> Any:
    settings = {"r": budget.r, "target_modules": budget.target_modules, "task_type": "CAUSAL_LM", **options}
    try:
        return config_class(**settings)
    except TypeError as error:
        raise UserError(f"{config_class.__name__} does not take these options: {error}.") from error


def _words(options: dict[str, Any]) -> list[str]:
    """Options as short words: a name stands for itself, True for the option's name, anything else for both."""
    return [
        value if isinstance(value, str) else name if value is True else f"{name}={value}"
        for name, value in options.items()
    ]
