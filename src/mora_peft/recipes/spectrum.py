"""Singular values of ΔW: of MoRA and LoRA from their small parts, of any other method from the merged weight.

The small parts are MoRA's r̂ x r̂ blocks and LoRA's thin factors; `inspect` reads adapters of any size with them.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from mora_peft.operators import Operator

_SHOWN = 8  # largest values that a summary keeps
# Values below this share of the largest are rounding, or too small for a chart to show.
_ROUNDING = 1e-6
# The singular values of a wider layer take minutes on a CPU.
_WIDEST = 2048


@dataclass(frozen=True)
class Spectrum:
    """A summary of ΔW's singular values.

    `effective_rank` is exp of the entropy of the values as shares of their sum (Roy and Vetterli 2007), 0 for ΔW = 0;
    `above_1_percent` counts values over 1 % of the largest; `largest` holds the first few in falling order.
    """

    effective_rank: float
    above_1_percent: int
    largest: list[float]


def summarize(values: "Tensor") -> Spectrum:
    """The summary of singular `values`, in falling order."""
    import torch

    if not values.numel() or not values[0] > 0:
        return Spectrum(0.0, 0, values[:_SHOWN].tolist())
    entropy = torch.special.entr(values / values.sum()).sum()
    return Spectrum(entropy.exp().item(), int((values > 0.01 * values[0]).sum()), values[:_SHOWN].tolist())


def factored_values(B: "Tensor", A: "Tensor") -> "Tensor":
    """Singular values of `B @ A`, in falling order: of an r x r matrix for B (d, r) and A (r, k)."""
    import torch

    upper, lower = torch.linalg.qr(B.double()).R, torch.linalg.qr(A.double().T).R
    return torch.linalg.svdvals(upper @ lower.T)


def mora_values(operator: "Operator", M: "Tensor") -> "Tensor":
    """Singular values of `operator`'s ΔW for M, in falling order; zeros beyond ΔW's blocks are left out.

    The blocks of rotation and decoupling share neither rows nor columns, but for the first and the last one, since
    the last wraps around. So ΔW falls into pieces that are orthogonal to each other, at most two blocks wide.
    """
    import torch

    from mora_peft.operators import Decoupling, Sharing

    M = M.detach().double()
    if isinstance(operator, Sharing):
        A, B = operator.lora_factors(M)
        return factored_values(B, A)
    if not isinstance(operator, Decoupling):
        return torch.linalg.svdvals(M[: operator.d, : operator.k])
    delta = operator.delta_weight(M)
    if operator.fold:  # its pieces are bands of rows, each over several blocks of columns
        delta = delta.T
    last = (operator.blocks - 1) % operator.rows
    bands = [range(i * operator.r_hat, min((i + 1) * operator.r_hat, delta.shape[1])) for i in range(operator.rows)]
    ends = [*bands[0], *bands[last]] if last else [*bands[0]]
    pieces = [ends, *(list(band) for i, band in enumerate(bands) if i not in (0, last))]
    values = [torch.linalg.eigvalsh(piece.T @ piece) for piece in (delta[:, columns] for columns in pieces)]
    return torch.cat(values).clamp(min=0).sqrt().sort(descending=True).values


def spectrum_of(model: "Module", layers: int = 3, before: "dict[str, Tensor] | None" = None) -> list[dict]:
    """The singular values of ΔW in a few layers of a tuned `model`, the first, the last and ones evenly between.

    ΔW is what merging adds to the layer's weight, whatever the method: `[{"layer": name, "singular_values": [...] in
    falling order, "r_hat": MoRA's side or None}]`. `before`, from `weights_of` on the untrained model, is what it is
    added to where the base itself is trained (full fine-tuning) or was merged into (ReLoRA); without it a model
    without adapters has no ΔW. Quantized layers and those wider than 2048 both ways are left out. One layer at a time
    is copied, in float64.
    """
    import torch

    found = []
    for name, layer in _sample(model, layers):
        start = before.get(name) if before is not None else _base_weight(layer) if _is_adapted(layer) else None
        if start is None or min(start.shape) > _WIDEST or (end := _merged_weight(layer)) is None:
            continue
        values = torch.linalg.svdvals(end - start.to(end))
        if not values.isfinite().all():
            continue
        kept = values[(values > _ROUNDING * values[0]) & (values > 0)]
        # Four figures: a chart shows no more, and a result holds hundreds of them.
        figures = [float(f"{value:.4g}") for value in kept.tolist()]
        found.append({"layer": name, "singular_values": figures, "r_hat": _side(layer)})
    return found


def weights_of(model: "Module", layers: int = 3) -> "dict[str, Tensor]":
    """Copies of the weights that `spectrum_of` with the same `layers` looks at, adapters left out; shapes (d, k)."""
    named = ((name, _base_weight(layer)) for name, layer in _sample(model, layers))
    return {name: weight.clone() for name, weight in named if weight is not None}


def _sample(model: "Module", count: int) -> "list[tuple[str, Module]]":
    """`count` adapted layers at most, evenly spaced, by their names in the base; linear ones where none is adapted."""
    from torch.nn import Linear

    modules = list(model.named_modules())
    found = [(name, module) for name, module in modules if _is_adapted(module)]
    if not found:
        output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        found = [(name, module) for name, module in modules if isinstance(module, Linear) and module is not output]
    last = len(found) - 1
    places = {round(place * last / (count - 1)) for place in range(count)} if count > 1 else {0}
    return [(found[place][0].removeprefix("base_model.model."), found[place][1]) for place in sorted(places) if found]


def _is_adapted(module: "Module") -> bool:
    """Whether PEFT put an adapter for a weight matrix on `module`."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not isinstance(module, BaseTunerLayer):
        return False
    return getattr(getattr(module.get_base_layer(), "weight", None), "ndim", 0) == 2


def _base_weight(layer: "Module") -> "Tensor | None":
    """The layer's weight, or None where it is not plain numbers: quantized ones look like floating point to torch."""
    import torch

    weight = (layer.get_base_layer() if _is_adapted(layer) else layer).weight.detach()
    return weight if type(weight) is torch.Tensor and weight.is_floating_point() else None


def _merged_weight(layer: "Module") -> "Tensor | None":
    """The weight with its adapter added, in float64: in bfloat16 the sum would drown a small ΔW in rounding."""
    import torch

    weight = _base_weight(layer)
    if weight is None or not _is_adapted(layer):
        return weight if weight is None else weight.double()
    with torch.no_grad():
        copy = deepcopy(layer).double()
        copy.merge()
    return copy.get_base_layer().weight.detach()


def _side(layer: "Module") -> int | None:
    from mora_peft.tuner import MoraLayer

    return next(iter(layer.r_hat.values()), None) if isinstance(layer, MoraLayer) else None
