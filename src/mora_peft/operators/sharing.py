"""Sharing: inputs (and outputs) in one of r̂ groups share a row (and a column) of M (Jiang et al. 2024, section 3.2)."""

from collections.abc import Callable

import torch
from torch import Tensor

from .cycle import cycle, cycle_add_, cycle_sum, group_repeat_add_, group_sum
from .geometry import Geometry
from .operator import Operator


class _Strided:
    """Entries that lie r̂ apart belong together: `sum` is the map to r̂ numbers, `add_` and `repeat` its adjoint."""

    def __init__(self, size: int, r_hat: int) -> None:
        self.size, self.r_hat = size, r_hat

    def sum(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        return cycle_sum(x, self.r_hat, dtype)

    def add_(self, out: Tensor, y: Tensor) -> Tensor:
        return cycle_add_(out, y)

    def repeat(self, y: Tensor, dtype: torch.dtype) -> Tensor:
        return cycle(y.to(dtype), self.size)


class _Wrapped(_Strided):
    """Strided, and the last row is filled up with the first entries: `wrap(x)` as n rows of r̂, summed over the rows."""

    def __init__(self, size: int, r_hat: int) -> None:
        super().__init__(size, r_hat)
        self.wrap = -size % r_hat

    def sum(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        if self.size <= self.r_hat:
            return cycle(x, self.r_hat).to(dtype or x.dtype)
        out = cycle_sum(x, self.r_hat, dtype)
        if self.wrap:
            out[..., self.r_hat - self.wrap :].add_(x[..., : self.wrap])
        return out

    def add_(self, out: Tensor, y: Tensor) -> Tensor:
        if self.size <= self.r_hat:
            return out.add_(cycle_sum(y, self.size))
        cycle_add_(out, y)
        if self.wrap:
            out[..., : self.wrap].add_(y[..., self.r_hat - self.wrap :])
        return out

    def repeat(self, y: Tensor, dtype: torch.dtype) -> Tensor:
        if self.size <= self.r_hat:
            return cycle_sum(y, self.size).to(dtype)
        out = cycle(y.to(dtype), self.size)
        if self.wrap:  # summed before it is rounded to dtype
            out[..., : self.wrap] = y[..., : self.wrap] + y[..., self.r_hat - self.wrap :]
        return out


class _Grouped(_Strided):
    """r̂ contiguous groups, the first `size mod r̂` of them one longer."""

    def sum(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        return group_sum(x, self.r_hat, dtype)

    def add_(self, out: Tensor, y: Tensor) -> Tensor:
        return group_repeat_add_(out, y)

    def repeat(self, y: Tensor, dtype: torch.dtype) -> Tensor:
        return group_repeat_add_(y.new_zeros(*y.shape[:-1], self.size, dtype=dtype), y.to(dtype))


# layout: (how inputs are grouped, how outputs are), in the order of the authors' types 1 to 4.
LAYOUTS: dict[str, tuple[Callable, Callable]] = {
    "strided-tiled": (_Wrapped, _Strided),
    "grouped-grouped": (_Grouped, _Grouped),
    "grouped-tiled": (_Grouped, _Strided),
    "strided-grouped": (_Wrapped, _Grouped),
}


class Sharing(Operator):
    """`compress` sums each group of inputs; `decompress` gives every output of a group the same number.

    ΔW = D M C with 0/1 matrices D (d, r̂) and C (r̂, k), so it is exactly a LoRA of rank r̂.

    Cost a token: r̂² = (k + d) r multiply-adds, as LoRA; reads k, adds into d outputs; keeps r̂ numbers for backward.
    """

    saves_compressed = True

    def __init__(self, k: int, d: int, r_hat: int, layout: str = "strided-tiled") -> None:
        super().__init__(k, d, r_hat)
        inputs, outputs = LAYOUTS[layout]
        self.layout = layout
        self._inputs, self._outputs = inputs(k, r_hat), outputs(d, r_hat)

    def compress(self, x: Tensor) -> Tensor:
        return self._inputs.sum(x)

    def decompress(self, y: Tensor) -> Tensor:
        return self._outputs.repeat(y, y.dtype)

    @property
    def geometry(self) -> Geometry:
        inputs, outputs = (isinstance(side, _Grouped) for side in (self._inputs, self._outputs))
        blocks = -(-self.k // self.r_hat)
        taken = self.k if inputs else blocks * self.r_hat
        return Geometry(self.r_hat, blocks, 1, taken, self.d, inputs_grouped=inputs, outputs_grouped=outputs)

    def lora_factors(self, M: Tensor) -> tuple[Tensor, Tensor]:
        """A (r̂, k) and B (d, r̂) with `B @ A = ΔW` exactly: A = M C, and B holds zeros and ones."""
        return self._inputs.repeat(M, M.dtype), self.decompress(torch.eye(self.r_hat, dtype=M.dtype, device=M.device)).T

    def add_delta_(self, W: Tensor, M: Tensor, sign: float = 1.0) -> Tensor:
        rows = self._inputs.repeat(M * sign, W.dtype)  # M C: r̂ rows, small beside W
        self._outputs.add_(W.T, rows.T)
        return W

    def touched(self, W: Tensor) -> list[Tensor]:
        return [W]

    def take(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return self._inputs.sum(x, dtype).unsqueeze(0)

    def take_adjoint_(self, grad_x: Tensor, grad_taken: Tensor) -> Tensor:
        return self._inputs.add_(grad_x, grad_taken[0])

    def put_(self, out: Tensor, y: Tensor) -> Tensor:
        return self._outputs.add_(out, y[0])

    def put_adjoint(self, grad_out: Tensor, dtype: torch.dtype) -> Tensor:
        return self._outputs.sum(grad_out, dtype).unsqueeze(0)
