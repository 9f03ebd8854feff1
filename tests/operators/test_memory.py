"""What the training path keeps for backward: r̂ numbers a token for sharing, and x itself for the others."""

import pytest
import torch
from operator_rows import ROWS, normal

from mora_peft.operators.fused import mora_linear

K, D, R_HAT, TOKENS = 24, 18, 6, 1000
every_operator = pytest.mark.parametrize("row", ROWS, ids=str)


def saved_for_backward(row, x, M, W):
    """The storages that one fused step keeps, without M's and W's, as tensors."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = mora_linear(x, M, W, None, row.make(K, D, R_HAT), 1.0)
    y.sum().backward()
    return {pointer: t for pointer, t in kept.items() if pointer not in (M.data_ptr(), W.data_ptr())}


def inputs(dtype=torch.float32):
    return (
        normal(4, TOKENS // 4, K, dtype=dtype).requires_grad_(),
        normal(R_HAT, R_HAT, dtype=dtype).requires_grad_(),
        normal(D, K, dtype=dtype),
    )


@every_operator
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_kept_numbers_per_token(row, dtype):
    x, M, W = inputs(dtype)
    kept = saved_for_backward(row, x, M, W)
    if row.name == "sharing":
        token_sized = [t for t in kept.values() if t.untyped_storage().nbytes() >= TOKENS * t.element_size()]
        assert [t.untyped_storage().nbytes() for t in token_sized] == [TOKENS * R_HAT * x.element_size()]
    else:
        others = [t for pointer, t in kept.items() if pointer != x.data_ptr()]
        assert x.data_ptr() in kept
        assert sum(t.untyped_storage().nbytes() for t in others) < TOKENS


@pytest.mark.parametrize("row", [row for row in ROWS if row.name != "sharing"], ids=str)
def test_layers_that_read_one_x_keep_it_once(row):
    """As queries, keys and values do."""
    x, M, W = inputs()
    first, second = (set(saved_for_backward(row, x, M, W)) & {x.data_ptr()} for _ in range(2))
    assert first == second == {x.data_ptr()}
