"""On a GPU operators, the training step and batches of many adapters are what they are on a CPU."""

import pytest
import torch
from operator_rows import ROWS, SHAPES, normal, side_for
from test_batched_paths import TOLERANCES, Layer
from torch.testing import assert_close

from mora_peft.operators.batched import Step, add_adapters_
from mora_peft.operators.fused import mora_linear

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

every_operator = pytest.mark.parametrize("row", ROWS, ids=str)
every_shape = pytest.mark.parametrize("shape", [*SHAPES, (150, 50, 20), (576, 1536, 130), (1536, 576, 130)], ids=str)


@every_operator
@every_shape
def test_the_training_step(row, shape):
    k, d, side = shape
    operator = row.make(k, d, side_for(row, side))
    found, expected = (step(operator, device) for device in ("cuda", "cpu"))
    for ours, other in zip(found, expected, strict=True):
        assert_close(ours.cpu(), other, rtol=1e-10, atol=1e-10 * max(other.abs().max().item(), 1))


def step(operator, device: str) -> tuple[torch.Tensor, ...]:
    """Output, gradients and ΔW in float64 of one layer with its adapter."""
    shapes = {"x": (7, operator.k), "M": (operator.r_hat,) * 2, "W": (operator.d, operator.k), "dy": (7, operator.d)}
    given = {name: normal(*shape, seed=seed).to(device) for seed, (name, shape) in enumerate(shapes.items())}
    x, M = given["x"].requires_grad_(), given["M"].requires_grad_()
    y = mora_linear(x, M, given["W"], None, operator, 0.5)
    merged = operator.add_delta_(given["W"].clone(), M.detach())
    return y.detach(), *torch.autograd.grad(y, (x, M), given["dy"]), merged


@every_operator
@every_shape
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_an_adapter_in_a_batch(row, shape, dtype):
    k, d, side = shape
    layer = Layer(k, d, side, 2, dtype, device="cuda")
    layer.put(1, row, side)
    layer.check(add_adapters_, [1, -1, 1, 0, 1])


@pytest.mark.parametrize("sides", [(20, 10), (70, 130), (4, 260)], ids=str)
@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_long_runs(row, sides, dtype):
    """Also longer than a block of tokens, meeting inside one, and between single tokens."""
    layer = Layer(270, 340, max(sides), 2, dtype, device="cuda")
    for index, side in enumerate(sides):
        layer.put(index, row, side)
    runs = [0] * 37 + [1] * 4 + [-1] * 2 + [0] * 3 + [1] * 21
    layer.check(add_adapters_, runs)
    layer.check(add_adapters_, [*[1] * 140, *runs, *[0, 1] * 60, *[0] * 70])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_all_operators_in_one_batch(dtype):
    layer = Layer(150, 190, 130, len(ROWS) + 1, dtype, device="cuda")
    for index, row in enumerate(ROWS):
        layer.put(index, row, (20, 70, 130)[index % 3])
    slots = list(range(-1, len(ROWS) + 1))
    layer.check(add_adapters_, slots)
    layer.check(add_adapters_, [slot for slot in slots for _ in range(12)])
    layer.check(add_adapters_, slots * 200)  # a program takes several of them, one after the other


@pytest.mark.parametrize("part", ["inputs", "outputs"])
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_parts_of_a_layer(row, part):
    for piece in (range(17), range(17, 30)):
        layer = Layer(30, 30, 12, 1, device="cuda", **{part: piece})
        layer.put(0, row, 11)
        layer.check(add_adapters_, [0, -1, 0, *[0] * 20])


def test_a_graph_follows_its_numbers():
    """A captured step reads slots, adapters and tokens anew each time it is replayed."""
    layer = Layer(64, 48, 20, 3, torch.bfloat16, device="cuda")
    tokens = torch.full((9,), -1, device="cuda", dtype=torch.int32)
    x = normal(9, 64, dtype=torch.bfloat16).cuda()
    y, plan = torch.zeros(9, 48, device="cuda", dtype=torch.bfloat16), Step(tokens)
    add_adapters_(y, x, layer.slots, plan)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        add_adapters_(y, x, layer.slots, plan)
    for index, row in enumerate((ROWS[0], ROWS[4], ROWS[7])):
        layer.put(index, row, 20)
    for slots in ([0, 1, 2] * 3, [-1, 2, 2, 2, 0, -1, 1, 1, 0], [1] * 9):
        tokens.copy_(torch.tensor(slots, dtype=torch.int32))
        y.zero_()
        graph.replay()
        deltas = torch.stack([layer.deltas[slot] if slot >= 0 else torch.zeros(48, 64).double() for slot in slots])
        expected = torch.einsum("tdk,tk->td", deltas, x.double().cpu())
        assert_close(y.double().cpu(), expected, rtol=0, atol=2**-6 * expected.abs().max().item())
