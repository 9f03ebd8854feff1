"""The optimizers that a method can be trained with, by its option `optimizer`: AdamW, or Muon for matrices."""

from functools import partial
from typing import TYPE_CHECKING

from mora_peft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.nn import Module
    from torch.optim import Optimizer
    from transformers import TrainingArguments


def optimizer_named(name: str, model: "Module") -> "Callable[[TrainingArguments], Optimizer] | None":
    """What makes the optimizer `name` for all of `model` that is trained; None for AdamW, the trainer's own."""
    if name not in ("adamw", "muon"):
        raise UserError(f"There is no optimizer {name!r}: expected adamw or muon.")
    return partial(muon, model) if name == "muon" else None


def muon(model: "Module", arguments: "TrainingArguments") -> "Optimizer":
    """Muon (Jordan et al. 2024), as PyTorch has it: each step moves a matrix in all of its directions by as much.

    The root mean square of a step is about 0.2 times the learning rate whatever the matrix's shape, as AdamW's tends to
    be (Liu et al. 2025, arXiv 2502.16982, section 2.2). An r_hat x r_hat matrix costs 30 r_hat^3 operations a step, in
    bfloat16, where each token costs at least 6 r_hat^2; Muon keeps one number for each weight, where AdamW keeps two.

    Raises UserError where something else is trained than matrices between features, and under DeepSpeed.
    """
    import torch

    if arguments.deepspeed_plugin:
        raise UserError("Muon needs whole matrices, which DeepSpeed cuts up: leave out one or the other.")
    lookups = {module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, parameter in trained.items():
        if parameter.ndim != 2 or parameter in lookups:
            raise UserError(
                f"Muon is for matrices between features, which {name} of shape {list(parameter.shape)} is not: leave "
                "out the option optimizer, or take a method that trains nothing else, such as mora or lora."
            )
    return torch.optim.Muon(
        trained.values(),
        lr=arguments.learning_rate,
        weight_decay=arguments.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
