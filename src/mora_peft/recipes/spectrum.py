"""Singular values of ΔW from its small parts: MoRA's r̂ x r̂ blocks and LoRA's thin factors, never d x k at once."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from mora_peft.operators import Operator

_SHOWN = 8  # largest values that a summary keeps


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
