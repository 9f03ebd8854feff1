"""Many adapters in one batch: each sample is multiplied by its own adapter's M."""

import torch
from torch import Tensor


def segmented_product(s: Tensor, Ms: list[Tensor], index: Tensor) -> Tensor:
    """`out[i] = s[i] @ Ms[index[i]].T`: s (B, ..., r̂), Ms each (r̂, r̂), index (B,) → (B, ..., r̂).

    One batched product for the whole batch. Costs r̂² multiply-adds a row, and one copy of each sample's M
    (B · r̂² numbers): the distinct Ms are stacked, then selected by sample.
    """
    stacked = Ms[0].unsqueeze(0) if len(Ms) == 1 else torch.stack(Ms)
    rows = s.reshape(s.shape[0], -1, s.shape[-1])
    return torch.bmm(rows, stacked[index].transpose(1, 2)).view(s.shape)
