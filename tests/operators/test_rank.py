"""r̂ follows LoRA's budget: rounded, capped and even as documented."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mora_peft.operators import lora_parameters, r_hat_for

sizes, ranks = st.integers(1, 20_000), st.integers(1, 512)


@given(k=sizes, d=sizes, r=ranks)
def test_uncapped_side_is_the_whole_number_nearest_to_the_root_of_the_budget(k, d, r):
    root = math.sqrt(lora_parameters(k, d, r))
    assert abs(r_hat_for(k, d, r, cap=False) - root) <= 0.5 + 1e-9


@given(k=sizes, d=sizes, r=ranks, cap=st.booleans())
def test_even_sides_are_rounded_down_and_never_below_two(k, d, r, cap):
    even, side = r_hat_for(k, d, r, even=True, cap=cap), r_hat_for(k, d, r, cap=cap)
    assert even % 2 == 0
    assert even == max(side - side % 2, 2)


@given(k=sizes, d=sizes, r=ranks)
def test_the_cap_only_ever_lowers_the_side_to_the_shorter_side_of_the_layer(k, d, r):
    assert r_hat_for(k, d, r) == min(r_hat_for(k, d, r, cap=False), k, d)


@given(k=sizes, d=sizes, r=ranks)
def test_the_side_grows_with_the_budget_and_does_not_tell_inputs_from_outputs(k, d, r):
    assert 1 <= r_hat_for(k, d, r) <= r_hat_for(k, d, r + 1)
    assert r_hat_for(k, d, r) == r_hat_for(d, k, r)


@pytest.mark.parametrize("name", ["k", "d", "r"])
@pytest.mark.parametrize("value", [0, -3])
def test_sizes_below_one_are_named(name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must be 1 or more, but is {value}"):
        r_hat_for(**{"k": 8, "d": 8, "r": 2, name: value})
