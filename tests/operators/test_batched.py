"""A batch of samples through a batch of matrices: each as if it were alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from operator_rows import normal
from torch.testing import assert_close

from mora_peft.operators.batched import segmented_product


@given(batch=st.integers(1, 5), middle=st.lists(st.integers(0, 3), max_size=2), r_hat=st.integers(1, 6), data=st.data())
def test_every_sample_sees_its_own_matrix(batch, middle, r_hat, data):
    adapters = [normal(r_hat, r_hat, seed=seed) for seed in range(3)]
    Ms = [adapters[data.draw(st.integers(0, 2))] for _ in range(batch)]
    s = normal(batch, *middle, r_hat, seed=5)
    out = segmented_product(s, Ms)
    assert out.shape == s.shape
    for sample, M, found in zip(s, Ms, out, strict=True):
        assert_close(found, sample @ M.T)


@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 4), (3, 2, 2, 4)], ids=str)
def test_gradients_by_finite_differences(shape):
    Ms = [normal(4, 4, seed=seed).requires_grad_() for seed in range(2)]
    s = normal(*shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, a, b: segmented_product(s, [a, b, a]), (s, *Ms))
