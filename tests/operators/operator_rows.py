"""The one table of operators that the tests of this folder run over, and a strategy for their shapes."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from mora_peft.operators import LAYOUTS, Operator, make_operator, needs_even_side
from mora_peft.operators.dense import dense_delta_weight


@dataclass(frozen=True)
class Row:
    """An operator by name, with its options."""

    name: str
    layout: str | None = None
    fold: bool = False

    def __str__(self) -> str:
        return " ".join(filter(None, (self.name, self.layout, "folded" if self.fold else "")))

    def make(self, k: int, d: int, r_hat: int) -> Operator:
        return make_operator(self.name, k=k, d=d, r_hat=r_hat, layout=self.layout, fold=self.fold)

    def dense(self, k: int, d: int, M: torch.Tensor) -> torch.Tensor:
        return dense_delta_weight(self.name, k, d, M, layout=self.layout or "strided-tiled", fold=self.fold)


ROWS = [
    *(Row("sharing", layout) for layout in LAYOUTS),
    *(Row(name, fold=fold) for name in ("rotation", "decoupling") for fold in (False, True)),
    Row("truncation"),
]

#: (k, d, r̂) with sides that divide, that do not, that are larger than a side, and with each side the longer one.
SHAPES = [(12, 12, 4), (13, 7, 4), (7, 13, 4), (30, 8, 4), (5, 9, 8), (9, 3, 6), (1, 1, 2)]


def side_for(row: Row, r_hat: int) -> int:
    """`r_hat`, made even where the operator needs it."""
    return r_hat + r_hat % 2 if needs_even_side(row.name) else r_hat


@st.composite
def cases(draw, row: Row, largest: int = 24, capped: bool = False):
    """An operator of `row` and its M in float64, for any k, d and r̂ (at most min(k, d) with `capped`)."""
    k, d = draw(st.integers(2, largest)), draw(st.integers(2, largest))
    r_hat = draw(st.integers(1, min(k, d) if capped else 16))
    if needs_even_side(row.name):
        r_hat = max(r_hat - r_hat % 2, 2)
    return row.make(k, d, r_hat), normal(r_hat, r_hat, seed=draw(st.integers(0, 9)))


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
