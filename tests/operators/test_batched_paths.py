"""Each token of a batch gets its own adapter, whatever lies in the other slots, by every path of this machine."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from operator_rows import ROWS, SHAPES, Row, normal, side_for
from torch import Tensor
from torch.testing import assert_close

from mora_peft.operators.batched import Slots, Step, native, plain

#: How far a result may lie from the exact one, as a part of the largest number in it: inputs are exact, compress(x) and
#: the result are rounded to the dtype.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2**-6, torch.float16: 2**-9}


def add_native(y, x, slots, step):
    assert native.add_(y, x, slots, step)


PATHS = {"plain": plain.add_, "native": add_native}


@pytest.fixture(params=PATHS)
def add(request):
    if request.param == "native" and not native.kernel_for(torch.float32):
        pytest.skip("there is no C compiler")
    return PATHS[request.param]


class Layer:
    """Slots together with what they stand for: ΔW (d, k) of each in float64, zero for an empty slot."""

    def __init__(self, k: int, d: int, largest: int, count: int, dtype: torch.dtype = torch.float32, **parts) -> None:
        self.slots = Slots(k, d, count, max(5, math.ceil(largest**2 / (k + d))), dtype, **parts)
        self.deltas = torch.zeros(count, d, k, dtype=torch.float64)

    def put(self, index: int, row: Row | int, side: int = 0) -> None:
        """A MoRA of `row`, or a LoRA of that rank."""
        k, d, dtype = self.slots.k, self.slots.d, self.slots.buffer.dtype
        if isinstance(row, int):
            A, B = normal(row, k, seed=index, dtype=dtype), normal(d, row, seed=index + 50, dtype=dtype)
            self.slots.put_lora(index, A, B)
            self.deltas[index] = B.double() @ A.double()
        else:
            operator = row.make(k, d, side_for(row, side))
            M = normal(operator.r_hat, operator.r_hat, seed=index, dtype=dtype)
            self.slots.put_mora(index, operator, M)
            self.deltas[index] = operator.delta_weight(M.double())

    def clear(self, index: int) -> None:
        self.slots.clear(index)
        self.deltas[index] = 0

    def check(self, add, tokens: list[int], padding: int = 0) -> None:
        """What `add` makes of one batch is the definition, in a y that is a slice of a wider one."""
        dtype, inputs, outputs = self.slots.buffer.dtype, self.slots.inputs, self.slots.outputs
        device = self.slots.buffer.device
        size = len(tokens) + padding
        x = normal(size, len(inputs), seed=3, dtype=dtype)
        around = normal(size, len(outputs) + 3, seed=4, dtype=dtype)
        found = around.to(device, copy=True)
        add(found[:, 1:-2], x.to(device), self.slots, Step(torch.tensor(tokens, dtype=torch.int64, device=device)))
        found = found.cpu()

        expected = around.double()
        for i, slot in enumerate(tokens):
            if slot >= 0:
                delta = self.deltas[slot, outputs.start : outputs.stop, inputs.start : inputs.stop]
                expected[i, 1:-2] += delta @ x[i].double()
        close(found, expected)
        # Where there is no adapter, not a bit changes.
        alone = [i for i in range(size) if i >= len(tokens) or tokens[i] < 0 or self.slots.contents[tokens[i]] is None]
        assert torch.equal(found[alone], around[alone])
        assert torch.equal(found[:, [0, -2, -1]], around[:, [0, -2, -1]])


def close(found: Tensor, expected: Tensor) -> None:
    tolerance = TOLERANCES[found.dtype] * max(expected.abs().max().item(), 1.0) if expected.numel() else 0
    assert_close(found.double(), expected.double(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, (96, 64, 36), (50, 150, 20), (150, 50, 20)], ids=str)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_an_adapter_is_its_definition(row, shape, dtype, add):
    k, d, side = shape
    layer = Layer(k, d, side, 2, dtype)
    layer.put(1, row, side)
    layer.check(add, [1, -1, 1, 0, 1])


@given(data=st.data())
def test_any_mixture(data):
    size = st.integers(1, 40)
    k, d, count = data.draw(size), data.draw(size), data.draw(st.integers(1, 5))
    layer = Layer(k, d, largest := 2 * max(k, d) + 2, count)
    for index in range(count):
        row = data.draw(st.sampled_from([None, 3, 1, *ROWS]), label=f"slot {index}")
        if row is not None:
            layer.put(index, row, data.draw(st.integers(1, largest - 1)))
    tokens = data.draw(st.lists(st.integers(-1, count - 1), max_size=40), label="tokens")
    padding = data.draw(st.integers(0, 3))
    for add in PATHS.values() if native.kernel_for(torch.float32) else [plain.add_]:
        layer.check(add, tokens, padding)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("row", [*ROWS, 5], ids=str)
def test_long_runs(row, dtype, add):
    layer = Layer(70, 40, 20, 2, dtype)
    layer.put(0, row, 20)
    layer.put(1, row, 10)
    layer.check(add, [0] * 37 + [1] * 4 + [-1] * 2 + [0] * 3 + [1] * 21)


@pytest.mark.parametrize("part", ["inputs", "outputs"])
@pytest.mark.parametrize("row", [*ROWS, 3], ids=str)
@given(data=st.data())
def test_parts_of_a_layer_are_the_layer(row, part, data):
    """Outputs of parts side by side, and the sum of what parts of the inputs give, are the whole's."""
    size = st.integers(2, 30)
    k, d, side = data.draw(size), data.draw(size), data.draw(st.integers(1, 40))
    cut = data.draw(st.integers(1, (k if part == "inputs" else d) - 1))
    for add in PATHS.values() if native.kernel_for(torch.float32) else [plain.add_]:
        for piece in (range(cut), range(cut, k if part == "inputs" else d)):
            layer = Layer(k, d, side + 1, 1, **{part: piece})
            layer.put(0, row, side)
            layer.check(add, [0, -1, 0])


@pytest.mark.parametrize("row", [ROWS[0], 4], ids=str)
def test_nothing_is_left_of_an_earlier_adapter(row, add):
    layer = Layer(30, 20, 20, 3)
    for index in range(3):
        layer.put(index, Row("rotation"), 20)
    layer.slots.buffer[:] = math.nan
    layer.put(0, row, 7)
    layer.clear(1)
    layer.check(add, [0, 1, 0, 0, 1])


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_stays_with_its_token(value, add):
    slots = Slots(8, 8, 2, 1, torch.float32)
    for index in range(2):
        slots.put_mora(index, Row("decoupling").make(8, 8, 2), torch.eye(2))
    slots.buffer[1, :4] = value
    y = torch.zeros(4, 8)
    add(y, torch.ones(4, 8), slots, Step(torch.tensor([0, 1, 0, 1])))
    assert torch.equal(y[::2], torch.ones(2, 8)) and not y[1::2].isfinite().any()
