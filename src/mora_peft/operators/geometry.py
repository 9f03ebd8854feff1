"""What a kernel must know of an operator, as a few integers: one formula for all of them.

With `side` = r̂, and wrap(x)[p] = x[p mod k] for p < `taken`, 0 beyond:

    compress     s[b mod rows] += R_b wrap(x)[b·side : (b+1)·side]   for b < blocks
    product      z[row] = M s[row]                                   for row < rows
    decompress   y[i] += flat(z)[i mod rows·side]                    for i < `written`

R_b is the rotation by b steps (see `angles`) where `rotated`, else the identity. So sharing is the case that adds all
blocks into one row, truncation the case of one block that is not wrapped, and folding adds block b into row b mod rows.
`inputs_grouped` replaces compress by the sums of r̂ contiguous groups of x, `outputs_grouped` repeats z over r̂
contiguous groups of y; the first `size mod r̂` groups are one longer.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Geometry(NamedTuple):
    """The integers of the formula above; in this order they are the columns of `Slots.table` after the kind."""

    side: int
    blocks: int
    rows: int
    taken: int
    written: int
    inputs_grouped: bool = False
    outputs_grouped: bool = False
    rotated: bool = False


#: Kinds of slots: column 0 of `Slots.table`, 0 for an empty one. A LoRA has its rank as `side` and zeros elsewhere.
MORA, LORA = 1, 2

#: Columns of `Slots.table`.
FIELDS = 1 + len(Geometry._fields)


def angles(blocks: int, side: int, device: torch.device | None = None) -> Tensor:
    """bθ_j of R_b, θ_j = 10000^(−2j/side), j < side / 2: (blocks, side / 2) in float64."""
    half = side // 2
    theta = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=device) / half)
    return torch.arange(blocks, dtype=torch.float64, device=device)[:, None] * theta


@lru_cache(maxsize=256)
def turns(blocks: int, side: int, device: torch.device | None = None) -> Tensor:
    """cos and sin of `angles`: (2, blocks, side / 2) in float32, for `native.c` and `triton.py`.

    `R_b (a, c) = (a cos − c sin, c cos + a sin)` for the halves a and c of a row. A row of the table is filled up with
    zeros to a multiple of 16. Made in float64 on the CPU wherever it goes, as few GPUs are good at float64.
    """
    turned = angles(blocks, side)
    return F.pad(torch.stack([turned.cos(), turned.sin()]).float(), (0, -(side // 2) % 16)).to(device)


#: Sides from which on rows are filled up with zeros, see `pitch`.
WIDE = 64


def pitch(side: int) -> int:
    """Numbers from one row of M, or of compress(x), to the next for `triton.py`: whole vectors of 16 bytes, but for
    small sides, where filling up would cost much and bring little."""
    return side if side < WIDE else -(-side // 8) * 8
