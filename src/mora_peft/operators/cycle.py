"""The two parameter-free maps that every operator is made of, each with its adjoint.

`cycle` repeats a vector until it has the wanted length and `cycle_sum` is its adjoint: entries that lie `side` apart
are added up. `group_repeat` and `group_sum` do the same for contiguous groups. All act on the last dimension, are
views and sums only (no multiplications), and never loop over features. Give the in-place ones operands of one dtype:
PyTorch would widen both whole, which is what makes a merge slow.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def cycle(x: Tensor, size: int) -> Tensor:
    """`out[..., i] = x[..., i mod n]`: (..., n) → (..., size). A view where `size <= n`."""
    n = x.shape[-1]
    if size <= n:
        return x[..., :size]
    repeats = -(-size // n)
    return x.unsqueeze(-2).expand(*x.shape[:-1], repeats, n).flatten(-2)[..., :size]


def cycle_add_(out: Tensor, x: Tensor) -> Tensor:
    """`out[..., i] += x[..., i mod n]` in place through views: out (..., size), x (..., n). Writes `out` once."""
    n, size = x.shape[-1], out.shape[-1]
    whole, rest = divmod(size, n)
    if whole:
        out[..., : whole * n].unflatten(-1, (whole, n)).add_(x.unsqueeze(-2))
    if rest:
        out[..., whole * n :].add_(x[..., :rest])
    return out


def cycle_sum(x: Tensor, side: int, dtype: torch.dtype | None = None) -> Tensor:
    """`out[..., j] = Σ_m x[..., j + m · side]`: (..., size) → (..., side), the adjoint of `cycle`.

    Summed in `dtype` where one is given, without a copy of x in it.
    """
    size, dtype = x.shape[-1], dtype or x.dtype
    whole, rest = divmod(size, side)
    if not whole:
        return F.pad(x.to(dtype), (0, side - size))
    if size == side:
        return x.to(dtype)
    if whole > 2:
        out = x[..., : whole * side].unflatten(-1, (whole, side)).sum(-2, dtype=dtype)
    elif whole == 2 and dtype == x.dtype:  # adding two wide pieces takes a third of the time that `sum` takes
        out = x[..., :side] + x[..., side : 2 * side]
    else:
        out = x[..., :side].to(dtype, copy=True)
        if whole == 2:
            out.add_(x[..., side : 2 * side])
    if rest:
        out[..., :rest].add_(x[..., whole * side :])
    return out


def cycle_sum_add_(out: Tensor, x: Tensor) -> Tensor:
    """`out += cycle_sum(x, side)` in place, where out (..., side) may also be wider than x (..., size)."""
    size, side = x.shape[-1], out.shape[-1]
    if size >= 2 * side:
        return out.add_(cycle_sum(x, side))
    out[..., :size].add_(x[..., :side])
    if size > side:
        out[..., : size - side].add_(x[..., side:])
    return out


def group_repeat_add_(out: Tensor, x: Tensor) -> Tensor:
    """Add `x[..., j]` to all of group j of `out` in place: out (..., size), x (..., n).

    The groups are contiguous; the first `size mod n` of them are one longer than the others.
    """
    n = x.shape[-1]
    length, longer = divmod(out.shape[-1], n)
    cut = longer * (length + 1)
    if longer:
        out[..., :cut].unflatten(-1, (longer, length + 1)).add_(x[..., :longer].unsqueeze(-1))
    if length:
        out[..., cut:].unflatten(-1, (n - longer, length)).add_(x[..., longer:].unsqueeze(-1))
    return out


def group_sum(x: Tensor, n: int, dtype: torch.dtype | None = None) -> Tensor:
    """Sum `n` contiguous groups in `dtype`: (..., size) → (..., n), the adjoint of `group_repeat_add_`."""
    length, longer = divmod(x.shape[-1], n)
    cut = longer * (length + 1)
    return torch.cat(
        [
            x[..., :cut].unflatten(-1, (longer, length + 1)).sum(-1, dtype=dtype),
            x[..., cut:].unflatten(-1, (n - longer, length)).sum(-1, dtype=dtype),
        ],
        dim=-1,
    )
