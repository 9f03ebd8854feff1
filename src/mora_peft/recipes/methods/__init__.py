"""Ways to fine-tune, one row of a table each: from a base model and a budget to a model ready to train.

The budget is the size of a LoRA of rank r over the same target modules. A new method is a row, and at most a function.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mora_peft.errors import UserError

from .budget import TOLERANCE, Targets, budget_for, lora_size
from .build import (
    C3A,
    HIGHEST_VERA_RANK,
    HIRA,
    LOHA,
    LONGEST_PROMPT,
    LORA,
    MISS,
    MORA,
    RANDLORA,
    VERA,
    adapter,
    any_peft,
    asymmetric_lora,
    full,
    lora_plus,
    merging,
    prompt,
)
from .method import Method, Tuned
from .optimizers import optimizer_named

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["METHODS", "Method", "Tuned", "apply", "first_rate", "label", "lora_size", "method_named", "slug"]

METHODS = {
    "mora": Method("MoRA", 3e-3, adapter("MORA", MORA)),
    "remora": Method("ReMoRA", 1e-3, merging(adapter("MORA", MORA, operator="sharing"), True), trains_base=True),
    "lora": Method("LoRA", 2e-3, adapter("LORA", LORA)),
    "rslora": Method("rsLoRA", 1e-3, adapter("LORA", LORA, use_rslora=True)),
    "lora+": Method("LoRA+", 5e-4, lora_plus),
    "dora": Method("DoRA", 2e-3, adapter("LORA", LORA, use_dora=True)),
    "asymmetric-lora": Method("Asymmetric LoRA", 4e-3, asymmetric_lora),
    "relora": Method("ReLoRA", 2e-3, merging(adapter("LORA", LORA)), trains_base=True),
    "miss": Method("MiSS", 1e-3, adapter("MISS", MISS)),
    "hira": Method("HiRA", 2e-2, adapter("HIRA", HIRA)),
    "randlora": Method("RandLoRA", 5e-4, adapter("RANDLORA", RANDLORA)),
    "loha": Method("LoHa", 2e-2, adapter("LOHA", LOHA)),
    "c3a": Method("C3A", 2e-1, adapter("C3A", C3A), limit="its blocks must divide its layers"),
    "vera": Method("VeRA", 5e-2, adapter("VERA", VERA), limit=f"its r is kept to {HIGHEST_VERA_RANK}"),
    "ia3": Method("(IA)3", 2e-2, adapter("IA3"), limit="it scales single features, and has no size to set"),
    "prompt": Method("Prompt tuning", 3e-2, prompt, limit=f"its prompt is kept to {LONGEST_PROMPT} vectors"),
    "full": Method("Full fine-tuning", 1e-4, full, trains_base=True, limit="it trains every weight of the base"),
    "peft": Method("PEFT", 2e-3, any_peft, limit="its configuration sets its size"),
}


def method_named(name: str) -> Method:
    """The table's row `name`; UserError lists the rows otherwise."""
    if name not in METHODS:
        raise UserError(f"There is no method {name!r}: expected one of {', '.join(METHODS)}.")
    return METHODS[name]


def first_rate(name: str, options: dict[str, Any]) -> float:
    """A first guess of the learning rate: the row's, or twice it by Muon, which bore no less where it was tried."""
    return method_named(name).learning_rate * (2 if options.get("optimizer") == "muon" else 1)


def label(name: str, options: dict[str, Any]) -> str:
    """The method and its options in words: `MoRA (rotation, fold)`."""
    words = ", ".join(_words(options))
    return method_named(name).label + (f" ({words})" if words else "")


def slug(name: str, options: dict[str, Any]) -> str:
    """The method and its options as a part of a file name: `mora-rotation-fold`."""
    text = "-".join([name, *_words(options)])
    return "".join(character if character.isalnum() or character in "-._+" else "-" for character in text)


def apply(
    name: str, base: "PreTrainedModel", r: int, target_modules: Targets = "all-linear", options: dict | None = None
) -> Tuned:
    """Make `base` ready to train with the method `name` at the budget of a LoRA of rank `r`.

    The option `optimizer` is adamw or muon, for methods without an optimizer of their own. Options that set the
    method's size themselves stand; the note then says how far off the budget they are.

    Raises UserError for an unknown method, an unknown option, or target modules that match nothing.
    """
    method = method_named(name)
    budget = budget_for(base, r, target_modules)
    options = dict(options or {})
    chosen = options.pop("optimizer", None)
    built = method.build(base, budget, options)
    if chosen is not None and built.optimizer:
        raise UserError(f"{name} has an optimizer of its own: leave out the option optimizer.")
    optimizer = built.optimizer or optimizer_named(chosen or "adamw", built.model)
    trainable = sum(parameter.numel() for parameter in built.model.parameters() if parameter.requires_grad)
    share = trainable / budget.parameters
    note = f"{share:.3g} times the budget: {method.limit}" if abs(share - 1) > TOLERANCE else None
    return Tuned(built.model, budget.parameters, trainable, note, optimizer, built.callbacks)


def _words(options: dict[str, Any]) -> list[str]:
    """Options as short words: names stand for themselves, files for their stems, True for its option, else both."""
    return [_word(name, value) for name, value in options.items()]


def _word(name: str, value: Any) -> str:
    if isinstance(value, str):
        return Path(value).stem
    if isinstance(value, list):
        joined = "+".join(map(str, value))
        return joined if all(isinstance(part, str) for part in value) else f"{name}={joined}"
    return name if value is True else f"{name}={value}"
