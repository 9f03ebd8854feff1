"""Rotation and decoupling: x is cut into rows of r̂ and M works on every row (Jiang et al. 2024, section 3.2)."""

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from .cycle import cycle, cycle_add_, cycle_sum, cycle_sum_add_
from .geometry import Geometry, angles
from .operator import Operator


class Decoupling(Operator):
    """`wrap(x)` as n = ceil(k / r̂) rows of r̂; M is applied to every row; rows concatenated, tiled, cut to d.

    ΔW is made of r̂ x r̂ blocks: output block i reads input block i mod n. Where d < n · r̂ the last blocks are cut
    off, so only min(n, ceil(d / r̂)) rows are ever computed, and the inputs of the others have no weight. `fold=True`
    adds row i into row i mod ceil(d / r̂) first, so that every input has weight.

    Cost a token: rows · r̂² multiply-adds, reads rows · r̂ numbers; keeps nothing beyond x for backward.
    """

    def __init__(self, k: int, d: int, r_hat: int, fold: bool = False) -> None:
        super().__init__(k, d, r_hat)
        n, m = -(-k // r_hat), -(-d // r_hat)
        self.fold = fold and m < n
        #: Rows that x is cut into, and rows that M is applied to after folding or cutting.
        self.blocks = n if self.fold else min(n, m)
        self.rows = min(n, m)

    def _rows(self, x: Tensor) -> Tensor:
        """(..., k) → (..., b, r̂): a view unless the last row wraps."""
        return cycle(x, self.blocks * self.r_hat).unflatten(-1, (self.blocks, self.r_hat))

    def rotate(self, rows: Tensor, sign: int = 1) -> Tensor:
        """R_i on row i, or its transpose with `sign=-1`: (..., b or 1, r̂) → (..., b, r̂). Nothing for decoupling."""
        return rows

    def compress(self, x: Tensor) -> Tensor:
        rows = self.rotate(self._rows(x))
        if self.fold:
            rows = cycle_sum(rows.flatten(-2), self.rows * self.r_hat).unflatten(-1, (self.rows, self.r_hat))
        return rows

    def decompress(self, y: Tensor) -> Tensor:
        return cycle(y.flatten(-2), self.d)

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.r_hat, self.blocks, self.rows, taken=self.blocks * self.r_hat, written=self.d)

    # The training path. Row i of the blocks is M R_i, so that x itself need not be rotated: r̂² numbers a block instead
    # of T · r̂. Folded rows are summed before M, so there x is rotated, and M works on m rows a token instead of n.

    def _blocks_first(self, rows: Tensor) -> Tensor:
        """(T, rows, r̂) → (b, T, r̂), or (1, T · rows, r̂) where one M works on every row."""
        return rows.reshape(1, len(rows) * self.rows, self.r_hat) if self.fold else rows.transpose(0, 1)

    def _tokens_first(self, blocks: Tensor, tokens: int) -> Tensor:
        """The inverse of `_blocks_first`, with a token's rows as one: → (T, rows · r̂)."""
        return blocks.transpose(0, 1).reshape(tokens, self.rows * self.r_hat)

    def _rotated(self, M: Tensor) -> Tensor:
        """M R_i of every row of x: (b, r̂, r̂). Rotates each row of M by -i, since (R_i)ᵀ = R_{-i}."""
        return self.rotate(M.unsqueeze(-2), sign=-1).expand(-1, self.blocks, -1).transpose(0, 1)

    def expand(self, M: Tensor) -> Tensor:
        return super().expand(M) if self.fold else self._rotated(M)

    def contract(self, grad_blocks: Tensor) -> Tensor:
        return super().contract(grad_blocks if self.fold else self.rotate(grad_blocks.transpose(0, 1)).transpose(0, 1))

    def take(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        read = x[..., : self.blocks * self.r_hat].to(dtype)
        return self._blocks_first(self.compress(read) if self.fold else self._rows(read))

    def take_adjoint_(self, grad_x: Tensor, grad_taken: Tensor) -> Tensor:
        flat = self._tokens_first(grad_taken, len(grad_x))
        if self.fold:
            rows = cycle(flat, self.blocks * self.r_hat).unflatten(-1, (self.blocks, self.r_hat))
            flat = self.rotate(rows, sign=-1).flatten(-2)
        return cycle_sum_add_(grad_x, flat)

    def put_(self, out: Tensor, y: Tensor) -> Tensor:
        flat = self._tokens_first(y, len(out))
        return cycle_add_(out, flat)

    def put_adjoint(self, grad_out: Tensor, dtype: torch.dtype) -> Tensor:
        flat = cycle_sum(grad_out, self.rows * self.r_hat, dtype)
        return self._blocks_first(flat.unflatten(-1, (self.rows, self.r_hat)))

    def add_delta_(self, W: Tensor, M: Tensor, sign: float = 1.0) -> Tensor:
        for target, values in self._pieces(W, self._rotated(M * sign).to(W.dtype)):
            target.add_(values)
        return W

    def touched(self, W: Tensor) -> list[Tensor]:
        any_blocks = W.new_empty(()).expand(self.blocks, self.r_hat, self.r_hat)
        return [target for target, _ in self._pieces(W, any_blocks)]

    def _pieces(self, W: Tensor, blocks: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The views of W that ΔW is added to, each with what is added, of the blocks (b, r̂, r̂)."""
        r_hat = self.r_hat
        if self.fold:  # a band of rows blocks starts at every rows-th block of inputs
            for first in range(0, self.blocks, self.rows):
                yield from self._band(W, blocks[first : first + self.rows], first * r_hat)
        else:  # a band of all blocks starts at every tile of outputs
            for start in range(0, self.d, self.blocks * r_hat):
                yield from self._band(W[start:], blocks, 0)

    def _band(self, W: Tensor, blocks: Tensor, column: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks (b, r̂, r̂) down the diagonal of W that starts at row 0 and `column`.

        Rows beyond W are cut and columns beyond k wrap around, onto entries that the first blocks wrote already where
        rows are folded. Only the last block can do either.
        """
        r_hat = self.r_hat
        whole = min(len(blocks), W.shape[0] // r_hat, (self.k - column) // r_hat)
        square = W[: whole * r_hat, column : column + whole * r_hat]
        diagonal = square.unflatten(1, (whole, r_hat)).unflatten(0, (whole, r_hat)).diagonal(dim1=0, dim2=2)
        yield diagonal, blocks[:whole].permute(1, 2, 0)
        rows, start = W[whole * r_hat : (whole + 1) * r_hat], column + whole * r_hat
        if whole == len(blocks) or not len(rows):
            return
        last = blocks[whole, : len(rows)]
        here = min(r_hat, self.k - start)
        for target, part in ((rows[:, start : start + here], last[:, :here]), (rows, last[:, here:])):
            if part.shape[1]:
                summed = cycle_sum(part, self.k)[:, : part.shape[1]]
                yield target[:, : summed.shape[1]], summed


class Rotation(Decoupling):
    """Decoupling whose row i is first rotated by i steps, as rotary position embeddings are (Su et al. 2021).

    `R_i x = x cos(iθ) + rotate_half(x) sin(iθ)`, θ_j = 10000^(−2j/r̂) for j < r̂/2, repeated for the second half,
    `rotate_half((a, b)) = (−b, a)` (Jiang et al. 2024, equation 9). r̂ is even.
    """

    def __init__(self, k: int, d: int, r_hat: int, fold: bool = False) -> None:
        super().__init__(k, d, r_hat, fold)
        if r_hat % 2:
            raise ValueError(f"Rotation pairs the features of a row: `r_hat` must be even, but is {r_hat}.")

    @property
    def geometry(self) -> Geometry:
        return super().geometry._replace(rotated=True)

    def rotate(self, rows: Tensor, sign: int = 1) -> Tensor:
        # A compiler looks through the cache anyway, with a warning.
        tables = _rotation_tables.__wrapped__ if torch.compiler.is_compiling() else _rotation_tables
        cos, sin = tables(self.blocks, self.r_hat, rows.dtype, rows.device)
        return (rows * cos).addcmul_(rows.roll(self.r_hat // 2, -1), sin, value=sign)


@lru_cache(maxsize=64)
def _rotation_tables(blocks: int, r_hat: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos(iθ) and sin(iθ), each (blocks, r̂), computed in float64, then cast. sin has the sign of `rotate_half`."""
    with torch.inference_mode(False), torch.no_grad():
        turned = angles(blocks, r_hat, device)
        cos, sin = turned.cos(), turned.sin()
        return torch.cat([cos, cos], dim=-1).to(dtype), torch.cat([-sin, sin], dim=-1).to(dtype)


def forget_tables() -> None:
    """Forget the tables of rotation that were made so far: for those who run operators on tensors without data."""
    _rotation_tables.cache_clear()
