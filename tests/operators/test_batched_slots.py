"""What slots cost, what they refuse, and how a step is arranged."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from operator_rows import ROWS, Row, normal, side_for

from mora_peft.operators import lora_parameters, r_hat_for
from mora_peft.operators.batched import Slots, Step, add_adapters_
from mora_peft.operators.geometry import FIELDS


@pytest.mark.parametrize("r", [1, 8, 64])
@pytest.mark.parametrize("k, d", [(576, 576), (576, 192), (576, 1536), (1536, 576), (4096, 11008)])
def test_a_slot_costs_what_a_lora_does(k, d, r):
    slots = Slots(k, d, 3, r, torch.bfloat16)
    assert slots.buffer.nbytes <= 1.05 * 3 * 2 * lora_parameters(k, d, r)
    assert slots.buffer.shape[0] == 3 and slots.table.shape == (3, FIELDS)


@pytest.mark.parametrize("row", ROWS, ids=str)
@given(k=st.integers(2, 60), d=st.integers(2, 60), r=st.integers(1, 70))
def test_what_has_the_rank_fits(row, k, d, r):
    side = side_for(row, r_hat_for(k, d, r, cap=False) // 2 * 2 or 1)
    slots = Slots(k, d, 1, max(r, 2), torch.float32)
    slots.put_mora(0, row.make(k, d, side), torch.zeros(side, side))
    slots.put_lora(0, torch.zeros(r, k), torch.zeros(d, r))


def test_what_does_not_fit_is_refused():
    slots = Slots(12, 10, 2, 2, torch.float32)
    sharing = Row("sharing")
    with pytest.raises(ValueError, match=r"64 numbers does not fit .* 49, made for r=2"):
        slots.put_mora(0, sharing.make(12, 10, 8), torch.zeros(8, 8))
    with pytest.raises(ValueError, match="66 numbers does not fit"):
        slots.put_lora(0, torch.zeros(3, 12), torch.zeros(10, 3))
    with pytest.raises(ValueError, match="10 → 12 cannot serve a layer 12 → 10"):
        slots.put_mora(0, sharing.make(10, 12, 4), torch.zeros(4, 4))
    with pytest.raises(ValueError, match=r"shape \(4, 4\), but has \(4, 3\)"):
        slots.put_mora(0, sharing.make(12, 10, 4), torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"\(r, 12\) and \(10, r\)"):
        slots.put_lora(0, torch.zeros(2, 12), torch.zeros(2, 10))
    for index in (-1, 2):
        with pytest.raises(ValueError, match="does not exist: there are 2"):
            slots.put_lora(index, torch.zeros(1, 12), torch.zeros(10, 1))
    assert not slots.table.any() and slots.contents == [None, None]


@pytest.mark.parametrize("part", [range(0), range(3, 14), range(-1, 4), range(0, 12, 2)], ids=str)
def test_a_part_lies_within_the_layer(part):
    with pytest.raises(ValueError, match=r"`inputs` must be a part of range\(12\)"):
        Slots(12, 10, 1, 1, torch.float32, inputs=part)


@given(tokens=st.lists(st.integers(-1, 4), max_size=30))
def test_a_step_names_every_token_once(tokens):
    step = Step(torch.tensor(tokens, dtype=torch.int64))
    found = {int(token): run.slot for run in step.runs for token in step.order[run.start : run.stop]}
    assert found == {token: slot for token, slot in enumerate(tokens) if slot >= 0}
    assert len(step.order) == len(found) and len({run.slot for run in step.runs}) == len(step.runs)


@pytest.mark.parametrize("shapes", [((3, 8), (3, 6)), ((3, 6), (3, 7)), ((1, 6), (1, 8))], ids=str)
def test_tensors_of_another_layer_are_refused(shapes):
    x, y = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match="For 2 tokens and a layer of 6 inputs, 8 outputs"):
        add_adapters_(y, x, Slots(6, 8, 1, 1, torch.float32), Step(torch.tensor([0, -1])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adapters_add_up(dtype):
    """The public function, also in a dtype that no kernel has."""
    slots = Slots(6, 8, 2, 2, dtype)
    operator, M = Row("rotation").make(6, 8, 4), normal(4, 4, dtype=dtype)
    slots.put_mora(1, operator, M)
    x, y = normal(3, 6, dtype=dtype), normal(3, 8, seed=1, dtype=dtype)
    before = y.clone()
    assert add_adapters_(y, x, slots, Step(torch.tensor([1, 0, 1]))) is y
    expected = before + operator(x, M) * torch.tensor([[1], [0], [1]])
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
