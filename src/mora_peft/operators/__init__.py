"""MoRA's operators: pure tensor functions, independent of PEFT.

>>> import torch
>>> from mora_peft.operators import make_operator, r_hat_for
>>> operator = make_operator("sharing", k=6, d=4, r_hat=2)
>>> operator.compress(torch.arange(6.0))
tensor([6., 9.])
>>> operator.decompress(torch.tensor([1.0, 2.0]))
tensor([1., 2., 1., 2.])
"""

from .operator import Operator
from .rank import lora_parameters, r_hat_for
from .rotation import Decoupling, Rotation
from .sharing import LAYOUTS, Sharing
from .truncation import Truncation

__all__ = [
    "LAYOUTS",
    "MORA_TYPES",
    "OPERATORS",
    "Decoupling",
    "Operator",
    "Rotation",
    "Sharing",
    "Truncation",
    "can_fold",
    "check_operator",
    "lora_parameters",
    "make_operator",
    "needs_even_side",
    "r_hat_for",
]

OPERATORS: dict[str, type[Operator]] = {
    "sharing": Sharing,
    "rotation": Rotation,
    "decoupling": Decoupling,
    "truncation": Truncation,
}

#: The numbers that the authors' code gives operators, as (operator, layout).
MORA_TYPES: dict[int, tuple[str, str | None]] = {
    **{number: ("sharing", layout) for number, layout in enumerate(LAYOUTS, start=1)},
    6: ("rotation", None),
}


def make_operator(
    name: str, *, k: int, d: int, r_hat: int, layout: str | None = None, fold: bool | None = None
) -> Operator:
    """The operator `name` for a layer with `k` inputs and `d` outputs.

    Args:
        layout: One of `LAYOUTS`, for sharing only; None is "strided-tiled".
        fold: Fold rows that truncation would drop (rotation and decoupling only); None is False.

    Raises:
        ValueError: An unknown name or layout, an option the operator does not have, or a side that it cannot use.
    """
    check_operator(name, layout, fold)
    options = {key: value for key, value in (("layout", layout), ("fold", fold)) if value is not None}
    if not can_fold(name):
        options.pop("fold", None)
    return OPERATORS[name](k, d, r_hat, **options)


def check_operator(name: str, layout: str | None = None, fold: bool | None = None) -> None:
    """Raise ValueError with one sentence where `make_operator` would refuse the combination for any layer."""
    if name not in OPERATORS:
        raise ValueError(f"Unknown operator {name!r}: expected one of {', '.join(map(repr, OPERATORS))}.")
    if layout is not None and name != "sharing":
        raise ValueError(
            f"`layout` belongs to the operator 'sharing', but it is {layout!r} with {name!r}: leave it out."
        )
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"Unknown layout {layout!r}: expected one of {', '.join(map(repr, LAYOUTS))}.")
    if fold and not can_fold(name):
        raise ValueError(f"`fold` belongs to 'rotation' and 'decoupling', not to {name!r}: leave it out.")


def needs_even_side(name: str) -> bool:
    """Whether the operator `name` works for even sides of M only."""
    return issubclass(OPERATORS[name], Rotation)


def can_fold(name: str) -> bool:
    """Whether the operator `name` cuts its inputs into rows, and so has the option `fold`."""
    return issubclass(OPERATORS[name], Decoupling)
