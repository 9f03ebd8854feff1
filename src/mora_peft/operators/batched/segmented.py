"""Many adapters in one batch of samples: each sample is multiplied by its own adapter's M, with gradients."""

import torch
from torch import Tensor


def segmented_product(s: Tensor, Ms: list[Tensor]) -> Tensor:
    """`out[i] = s[i] @ Ms[i].T` for a batch of samples: s (B, ..., r̂), B matrices (r̂, r̂) → (B, ..., r̂).

    One batched product for the whole batch: r̂² multiply-adds a row, and one copy of each sample's M (B · r̂² numbers).
    """
    rows = s.reshape(s.shape[0], -1, s.shape[-1])
    return torch.bmm(rows, torch.stack(Ms).transpose(1, 2)).view(s.shape)
