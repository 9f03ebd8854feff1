"""ΔW straight from the definitions, entry by entry: slow, obvious, and the oracle of every test.

Nothing here shares code with the operators. Numbers are Python floats, so the result is in float64.
"""

import math

import torch
from torch import Tensor


def dense_delta_weight(
    operator: str, k: int, d: int, M: Tensor, *, layout: str = "strided-tiled", fold: bool = False
) -> Tensor:
    """ΔW (d, k) in float64 for M (r̂, r̂): the definition applied to each unit vector in turn."""
    side = M.shape[0]
    rows = M.double().tolist()
    columns = [_apply(operator, [float(i == j) for j in range(k)], d, rows, side, layout, fold) for i in range(k)]
    return torch.tensor(columns, dtype=torch.float64).T


def _multiply(M: list[list[float]], x: list[float]) -> list[float]:
    return [sum(m * v for m, v in zip(row, x, strict=True) if v) for row in M]


def _group_of(size: int, side: int) -> list[int]:
    """For each of `size` entries the contiguous group it is in; the first `size mod side` groups are one longer."""
    return [g for g in range(side) for _ in range(size // side + (g < size % side))]


def _wrapped_rows(x: list[float], side: int) -> list[list[float]]:
    n = math.ceil(len(x) / side)
    wrapped = [x[i % len(x)] for i in range(n * side)]
    return [wrapped[i * side : (i + 1) * side] for i in range(n)]


def _rotated(row: list[float], i: int) -> list[float]:
    half = len(row) // 2
    angle = [i * 10000.0 ** (-2 * (j % half) / len(row)) for j in range(len(row))]
    turned = [-v for v in row[half:]] + row[:half]
    return [v * math.cos(a) + t * math.sin(a) for v, t, a in zip(row, turned, angle, strict=True)]


def _apply(operator, x, d, M, side, layout, fold) -> list[float]:
    if operator == "truncation":
        y = _multiply(M, (x + [0.0] * side)[:side])
        return (y + [0.0] * d)[:d]
    if operator == "sharing":
        way_in, way_out = layout.split("-")
        if way_in == "strided":
            s = [sum(column) for column in zip(*_wrapped_rows(x, side), strict=True)]
        else:
            s = [0.0] * side
            for value, group in zip(x, _group_of(len(x), side), strict=True):
                s[group] += value
        y = _multiply(M, s)
        return [y[i % side] for i in range(d)] if way_out == "tiled" else [y[g] for g in _group_of(d, side)]
    rows = _wrapped_rows(x, side)
    if operator == "rotation":
        rows = [_rotated(row, i) for i, row in enumerate(rows)]
    m = math.ceil(d / side)
    if fold and m < len(rows):
        rows = [[sum(column) for column in zip(*rows[i::m], strict=True)] for i in range(m)]
    y = [value for row in rows for value in _multiply(M, row)]
    return [y[i % len(y)] for i in range(d)]
