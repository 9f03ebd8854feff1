"""The path in plain PyTorch: works on every device, and is the reference of the kernels."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..operator import Operator

if TYPE_CHECKING:
    from .slots import Run, Slots, Step


def add_(y: Tensor, x: Tensor, slots: Slots, step: Step) -> Tensor:
    """`add_adapters_` by the operators' own compress and decompress, and one batched product for all like runs."""

    def alike(run: Run) -> tuple:
        return str(slots.contents[run.slot]), hash(slots.contents[run.slot]), run.stop - run.start, run.slot

    runs = [run for run in step.runs if run.slot < slots.count and slots.contents[run.slot] is not None]
    for _, group in groupby(sorted(runs, key=alike), key=lambda run: alike(run)[:-1]):
        group = list(group)
        tokens = torch.cat([step.order[run.start : run.stop] for run in group])
        apply = _mora if isinstance(slots.contents[group[0].slot], Operator) else _lora
        y.index_add_(0, tokens, apply(x[tokens], slots, [run.slot for run in group]).to(y.dtype))
    return y


def _mora(x: Tensor, slots: Slots, indices: list[int]) -> Tensor:
    """x (n · t, len(inputs)), t tokens for each of n slots of one operator → (n · t, len(outputs)) in float32."""
    operator = slots.contents[indices[0]]
    whole = F.pad(x.float(), (slots.inputs.start, slots.k - slots.inputs.stop))
    s = operator.compress(whole)
    rows = s.to(slots.buffer.dtype).reshape(len(indices), -1, operator.r_hat)
    together = indices[-1] - indices[0] == len(indices) - 1
    M = slots.matrices(slice(indices[0], indices[-1] + 1) if together else indices)
    out = operator.decompress(torch.bmm(rows, M.transpose(1, 2)).float().view(s.shape))
    return out[:, slots.outputs.start : slots.outputs.stop]


def _lora(x: Tensor, slots: Slots, indices: list[int]) -> Tensor:
    """As `_mora` for slots with LoRAs of one rank."""
    factors = [slots.factors(index) for index in indices]
    A, B = (torch.stack(parts) if len(parts) > 1 else parts[0].unsqueeze(0) for parts in zip(*factors, strict=True))
    s = torch.bmm(x.to(A.dtype).view(len(indices), -1, x.shape[-1]), A.transpose(1, 2))
    return torch.bmm(s, B).float().flatten(0, 1)
