"""`compress` of unit vectors, from their indices: what a lookup in a table of embeddings has instead of x."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .operator import Operator
from .rotation import Decoupling, _rotation_tables


def compress_units(operator: Operator, index: Tensor, dtype: torch.dtype) -> Tensor:
    """`operator.compress(e)` for the unit vectors e of R^k that `index` (...) names, without making any of them.

    → (..., r̂), or (..., rows, r̂) for the operators that cut x into rows, in `dtype`. So `ΔW e`, one column of ΔW,
    costs r̂² multiply-adds a row, whatever k is. It follows the formula of `Geometry`.
    """
    k, shape = operator.k, operator.geometry
    side = shape.side
    if shape.inputs_grouped:
        size, longer = divmod(k, side)
        first = longer * (size + 1)  # the groups below here are one longer
        group = torch.where(index < first, index // (size + 1), longer + (index - first) // max(size, 1))
        return F.one_hot(group, side).to(dtype)
    out = torch.zeros(*index.shape, shape.rows, side, dtype=dtype, device=index.device)
    for copy in range(0, shape.taken, k):  # wrap(x) repeats the first entries of x until it has `taken`
        place = index + copy
        block = (place // side).clamp(max=shape.blocks - 1)
        unit = F.one_hot(place % side, side).to(dtype)
        if shape.rotated:
            cos, sin = (table[block] for table in _rotation_tables(shape.blocks, side, dtype, index.device))
            unit = unit * cos + unit.roll(side // 2, -1) * sin
        unit = unit * (place < shape.taken).unsqueeze(-1)
        out += F.one_hot(block % shape.rows, shape.rows).to(dtype).unsqueeze(-1) * unit.unsqueeze(-2)
    return out if isinstance(operator, Decoupling) else out.squeeze(-2)
