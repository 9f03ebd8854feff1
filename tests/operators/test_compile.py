"""Under torch.compile operators and layers are one graph each, with the same values and gradients."""

import pytest
import torch
from operator_rows import ROWS, normal
from torch import nn
from torch.testing import assert_close

from mora_peft import MoraConfig
from mora_peft.tuner import MoraLinear

every_operator = pytest.mark.parametrize("row", ROWS, ids=str)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def one_graph(function):
    return torch.compile(function, backend="aot_eager", fullgraph=True)


@every_operator
@pytest.mark.parametrize("shape", [(13, 7, 4), (12, 24, 6)], ids=str)
def test_an_operator_is_one_graph(row, shape):
    operator = row.make(*shape)
    x, M = normal(3, operator.k).requires_grad_(), normal(operator.r_hat, operator.r_hat).requires_grad_()
    results = []
    for call in (operator, one_graph(lambda x, M: operator(x, M))):
        y = call(x, M)
        results.append((y, *torch.autograd.grad(y, (x, M), normal(*y.shape, seed=1))))
    for compiled, eager in zip(*reversed(results), strict=True):
        assert_close(compiled, eager)


@every_operator
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_layer_is_one_graph(row, dropout):
    torch.manual_seed(0)
    config = MoraConfig(
        r=2, operator=row.name, layout=row.layout, fold=row.fold, mora_dropout=dropout, scaling=0.5, init_weights=False
    )
    layer = MoraLinear(nn.Linear(16, 12).requires_grad_(False), "default", config, r=2)
    x, M = normal(2, 8, 16, dtype=torch.float32).requires_grad_(), layer.mora_M["default"]
    results = []
    for call in (layer, one_graph(layer)):
        torch.manual_seed(1)
        y = call(x)
        results.append((y, *torch.autograd.grad(y.square().sum(), (x, M))))
    assert results[0][2].any()
    if not dropout:  # a compiled graph draws its own random numbers
        for eager, compiled in zip(*results, strict=True):
            assert_close(compiled, eager)
