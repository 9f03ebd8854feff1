"""The path in plain PyTorch: works on every device, and is the reference of the kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..operator import Operator

if TYPE_CHECKING:
    from .slots import Run, Slots, Step


def add_(y: Tensor, x: Tensor, slots: Slots, step: Step) -> Tensor:
    """`add_adapters_` by the operators' own compress and decompress, and one batched product for all like runs."""
    alike: dict[tuple, list[Run]] = {}
    for run in step.runs:
        content = slots.contents[run.slot] if run.slot < slots.count else None
        if content is not None:
            alike.setdefault((content, run.stop - run.start), []).append(run)
    for (content, _), runs in alike.items():
        tokens = torch.cat([step.order[run.start : run.stop] for run in runs])
        apply = _mora if isinstance(content, Operator) else _lora
        y.index_add_(0, tokens, apply(x[tokens], slots, [run.slot for run in runs]).to(y.dtype))
    return y


def _mora(x: Tensor, slots: Slots, indices: list[int]) -> Tensor:
    """x (n · t, len(inputs)), t tokens for each of n slots of one operator → (n · t, len(outputs)) in float32."""
    operator = slots.contents[indices[0]]
    whole = F.pad(x.float(), (slots.inputs.start, slots.k - slots.inputs.stop))
    s = operator.compress(whole)
    rows = s.to(slots.buffer.dtype).reshape(len(indices), -1, operator.r_hat)
    together = indices[-1] - indices[0] == len(indices) - 1
    M = slots.matrices(slice(indices[0], indices[-1] + 1) if together else indices)
    products = torch.bmm(M, rows.transpose(1, 2)).transpose(1, 2)  # M first: it need not lie densely to be read once
    out = operator.decompress(products.float().reshape(s.shape))
    return out[:, slots.outputs.start : slots.outputs.stop]


def _lora(x: Tensor, slots: Slots, indices: list[int]) -> Tensor:
    """As `_mora` for slots with LoRAs of one rank."""
    factors = [slots.factors(index) for index in indices]
    A, B = (torch.stack(parts) if len(parts) > 1 else parts[0].unsqueeze(0) for parts in zip(*factors, strict=True))
    s = torch.bmm(x.to(A.dtype).view(len(indices), -1, x.shape[-1]), A.transpose(1, 2))
    return torch.bmm(s, B).float().flatten(0, 1)
