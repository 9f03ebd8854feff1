"""The optimizers that a method can be trained with, by its option `optimizer`: AdamW, or Muon for its matrices."""

from functools import partial
from typing import TYPE_CHECKING

from mora_peft.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.nn import Module, Parameter
    from torch.optim import Optimizer
    from transformers import TrainingArguments


def optimizer_named(name: str, model: "Module") -> "Callable[[TrainingArguments], Optimizer] | None":
    """What makes the optimizer `name` for all of `model` that is trained; None for AdamW, the trainer's own."""
    if name not in ("adamw", "muon"):
        raise UserError(f"There is no optimizer {name!r}: expected adamw or muon.")
    return partial(muon, model) if name == "muon" else None


def muon(model: "Module", arguments: "TrainingArguments") -> "Optimizer":
    """Muon (Jordan et al. 2024), as PyTorch has it: each step moves a matrix in all of its directions by as much.

    What is not a matrix between features (vectors, embeddings, the output layer) is trained by AdamW beside it, at the
    same rate: the root mean square of a step of Muon is about 0.2 times the learning rate whatever the matrix's shape,
    as AdamW's tends to be (Liu et al. 2025, arXiv 2502.16982, section 2.2). An r_hat x r_hat matrix costs 30 r_hat^3
    operations a step, in bfloat16, where each token costs at least 6 r_hat^2; Muon keeps one number for each weight,
    where AdamW keeps two.

    Raises UserError where there is no such matrix among what is trained, and under DeepSpeed.
    """
    import torch
    from transformers import Trainer

    from .muon_and_adamw import MuonAndAdamW

    if arguments.deepspeed_plugin:
        raise UserError("Muon needs whole matrices, which DeepSpeed cuts up: leave out one or the other.")
    matrices, others = _split(model)
    if not matrices:
        raise UserError(
            "Muon is for matrices between features, and this method trains none: leave out the option optimizer."
        )
    first = torch.optim.Muon(
        matrices, lr=arguments.learning_rate, weight_decay=arguments.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    if not others:
        return first
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments)
    return MuonAndAdamW(first, kind(others, weight_decay=arguments.weight_decay, **settings))


def _split(model: "Module") -> "tuple[list[Parameter], list[Parameter]]":
    """What of `model` is trained: the matrices between features, and the rest."""
    import torch

    vocabulary = {module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    if (head := model.get_output_embeddings()) is not None:
        vocabulary.add(head.weight)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim == 2 and parameter not in vocabulary]
    chosen = set(matrices)
    return matrices, [parameter for parameter in trained if parameter not in chosen]
