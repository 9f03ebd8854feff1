"""Truncation: M sees the first r̂ inputs and writes the first r̂ outputs (Jiang et al. 2024, section 3.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .geometry import Geometry
from .operator import Operator


class Truncation(Operator):
    """`compress(x) = x[:r̂]`; `decompress` pads with zeros to d. The baseline that throws inputs away.

    Cost a token: r̂² multiply-adds on r̂ inputs and outputs; keeps nothing beyond x for backward.
    """

    def __init__(self, k: int, d: int, r_hat: int) -> None:
        super().__init__(k, d, r_hat)
        self._read, self._written = min(k, r_hat), min(d, r_hat)

    def compress(self, x: Tensor) -> Tensor:
        return F.pad(x[..., : self._read], (0, self.r_hat - self._read))

    def decompress(self, y: Tensor) -> Tensor:
        return F.pad(y[..., : self._written], (0, self.d - self._written))

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.r_hat, 1, 1, taken=self._read, written=self._written)

    def add_delta_(self, W: Tensor, M: Tensor, sign: float = 1.0) -> Tensor:
        self.touched(W)[0].add_(M[: self._written, : self._read].to(W.dtype), alpha=sign)
        return W

    def touched(self, W: Tensor) -> list[Tensor]:
        return [W[: self._written, : self._read]]

    def take(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return self.compress(x).to(dtype).unsqueeze(0)

    def take_adjoint_(self, grad_x: Tensor, grad_taken: Tensor) -> Tensor:
        grad_x[..., : self._read].add_(grad_taken[0, ..., : self._read])
        return grad_x

    def put_(self, out: Tensor, y: Tensor) -> Tensor:
        out[..., : self._written].add_(y[0, ..., : self._written])
        return out

    def put_adjoint(self, grad_out: Tensor, dtype: torch.dtype) -> Tensor:
        return F.pad(grad_out[..., : self._written].to(dtype), (0, self.r_hat - self._written)).unsqueeze(0)
