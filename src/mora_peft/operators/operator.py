"""What every operator is: a fixed linear way into and out of the square matrix M."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .geometry import Geometry


class Operator(ABC):
    """A pair compress / decompress for a linear layer with `k` inputs and `d` outputs.

    MoRA computes `h = W x + decompress(M · compress(x))` (Jiang et al. 2024, equation 6) with a trainable M of shape
    (r̂, r̂). Both maps are linear and have no parameters, hence `ΔW` of shape (d, k) exists and can be merged.

    The training path sees the same thing as *blocks*: `ΔW = put · diag(M_0, ..., M_{b-1}) · take`, where `take` and
    `put` only move and add numbers and each M_i is M, or M rotated. `take`, `put_` and `expand` have their adjoints
    beside them, so that the backward pass needs no graph of small steps.
    """

    #: Whether the training path keeps `compress(x)` for backward (r̂ numbers a token) rather than x itself.
    saves_compressed: ClassVar[bool] = False

    def __init__(self, k: int, d: int, r_hat: int) -> None:
        if not isinstance(r_hat, int) or r_hat < 1:
            raise ValueError(f"`r_hat`, the side of M, must be a whole number of 1 or more, but is {r_hat!r}.")
        self.k, self.d, self.r_hat = k, d, r_hat

    @cached_property
    def _identity(self) -> tuple:
        return type(self), self.k, self.d, self.r_hat, getattr(self, "layout", None), getattr(self, "fold", None)

    def __eq__(self, other: object) -> bool:
        """Equal operators give equal results for equal M, so adapters that have them can share a product."""
        return isinstance(other, Operator) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(k={self.k}, d={self.d}, r_hat={self.r_hat})"

    # The definition.

    @abstractmethod
    def compress(self, x: Tensor) -> Tensor:
        """(..., k) → (..., r̂), or (..., rows, r̂) for the operators that cut x into rows."""

    @abstractmethod
    def decompress(self, y: Tensor) -> Tensor:
        """What `compress` gives, times M → (..., d)."""

    def __call__(self, x: Tensor, M: Tensor) -> Tensor:
        """`ΔW x` without ΔW: (..., k) → (..., d)."""
        return self.decompress(F.linear(self.compress(x), M))

    @property
    @abstractmethod
    def geometry(self) -> Geometry:
        """The same definition as a few integers, for the kernels of many adapters in one batch."""

    # ΔW.

    @abstractmethod
    def add_delta_(self, W: Tensor, M: Tensor, sign: float = 1.0) -> Tensor:
        """`W += sign · ΔW(M)` in place through strided views of W, shape (d, k) in any strides; returns W.

        Each entry of W that ΔW touches is read and written once. ΔW is made in M's dtype and rounded to W's before it
        is added, as PEFT does for LoRA; for less rounding, merge into a W of M's dtype and round that.
        """

    @abstractmethod
    def touched(self, W: Tensor) -> list[Tensor]:
        """The entries of W that `add_delta_` writes, as views: kept before and copied back, they undo it exactly."""

    def delta_weight(self, M: Tensor) -> Tensor:
        """ΔW of shape (d, k) in M's dtype; differentiable in M."""
        return self.add_delta_(M.new_zeros(self.d, self.k), M)

    # The training path, on tokens as rows: x (T, k), out (T, d), blocks first.

    @abstractmethod
    def take(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """(T, k) → (b, T, r̂) in `dtype`, cast before anything is summed."""

    @abstractmethod
    def take_adjoint_(self, grad_x: Tensor, grad_taken: Tensor) -> Tensor:
        """Add the gradient of `take`: grad_x (T, k) += takeᵀ(grad_taken (b, T, r̂))."""

    @abstractmethod
    def put_(self, out: Tensor, y: Tensor) -> Tensor:
        """out (T, d) += put(y (b, T, r̂))."""

    @abstractmethod
    def put_adjoint(self, grad_out: Tensor, dtype: torch.dtype) -> Tensor:
        """(T, d) → (b, T, r̂), summed in `dtype`."""

    def expand(self, M: Tensor) -> Tensor:
        """M → its blocks M_i, shape (b, r̂, r̂)."""
        return M.unsqueeze(0)

    def contract(self, grad_blocks: Tensor) -> Tensor:
        """The adjoint of `expand`: (b, r̂, r̂) → (r̂, r̂)."""
        return grad_blocks.sum(0) if len(grad_blocks) > 1 else grad_blocks[0]
