"""What holds for every operator, whatever its shape: the dense definition is the witness."""

import doctest
import importlib

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from operator_rows import ROWS, SHAPES, Row, cases, normal, side_for
from torch.testing import assert_close

from mora_peft.operators.fused import mora_linear
from mora_peft.operators.units import compress_units

every_operator = pytest.mark.parametrize("row", ROWS, ids=str)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}


def make(row, shape):
    k, d, r_hat = shape
    operator = row.make(k, d, side_for(row, r_hat))
    return operator, normal(operator.r_hat, operator.r_hat, seed=1)


def plain(x, M, W, bias, operator, scaling):
    """What the fused step stands for, in PyTorch's own steps."""
    return torch.nn.functional.linear(x, W, bias) + scaling * operator(x, M)


def close(found, expected, tolerance):
    """Equal but for rounding: relative to the largest entry, since sums of many entries cancel."""
    assert found.shape == expected.shape
    if expected.numel():
        assert (found.double() - expected.double()).abs().max() <= tolerance * max(expected.double().abs().max(), 1)


# ΔW.


@every_operator
@given(data=st.data())
def test_delta_weight_is_the_dense_definition(row, data):
    operator, M = data.draw(cases(row))
    assert_close(operator.delta_weight(M), row.dense(operator.k, operator.d, M))


@every_operator
@given(data=st.data())
def test_calling_the_operator_is_a_product_with_delta_weight(row, data):
    operator, M = data.draw(cases(row))
    x = normal(3, operator.k)
    assert_close(operator(x, M), x @ row.dense(operator.k, operator.d, M).T)


@every_operator
@given(data=st.data())
def test_a_unit_vector_by_its_index_is_compressed_as_the_vector_is(row, data):
    operator, _ = data.draw(cases(row))
    index = torch.arange(operator.k).view(1, -1)
    expected = operator.compress(torch.eye(operator.k, dtype=torch.float64)[None])
    close(compress_units(operator, index, torch.float64), expected, 1e-12)


@every_operator
@given(data=st.data())
def test_linear_in_x_and_in_M(row, data):
    operator, M = data.draw(cases(row))
    x, z, N = normal(3, operator.k, seed=2), normal(3, operator.k, seed=3), normal(*M.shape, seed=4)
    assert_close(operator(2 * x - 3 * z, M), 2 * operator(x, M) - 3 * operator(z, M))
    assert_close(operator(x, 2 * M - 3 * N), 2 * operator(x, M) - 3 * operator(x, N))
    assert_close(operator.delta_weight(2 * M - 3 * N), 2 * operator.delta_weight(M) - 3 * operator.delta_weight(N))


@every_operator
@given(data=st.data())
def test_adding_delta_weight_in_place_in_any_strides(row, data):
    operator, M = data.draw(cases(row))
    k, d = operator.k, operator.d
    sign = data.draw(st.sampled_from([1.0, -1.0]))
    expected = normal(d, k, seed=5) + sign * row.dense(k, d, M)
    storage = {
        "rows": torch.empty(d, k, dtype=M.dtype),
        "columns": torch.empty(k, d, dtype=M.dtype).T,
        "a window": torch.empty(d + 2, 2 * k + 3, dtype=M.dtype)[1:-1, 2 : 2 * k + 2 : 2],
    }
    for strides, W in storage.items():
        W.copy_(normal(d, k, seed=5))
        assert operator.add_delta_(W, M, sign) is W
        assert_close(W, expected, msg=lambda text, strides=strides: f"{strides}: {text}")


@every_operator
def test_adding_in_place_leaves_the_rest_of_the_storage_alone(row):
    operator, M = make(row, (12, 10, 4))
    storage = torch.zeros(16, 20, dtype=M.dtype)
    operator.add_delta_(storage[3:13, 5:17], M)
    storage[3:13, 5:17] = 0
    assert not storage.any()


@every_operator
@given(data=st.data())
def test_what_it_touches_is_what_adding_changes(row, data):
    operator, M = data.draw(cases(row))
    W = normal(operator.d, operator.k, seed=5)
    before = W.clone()
    kept = [part.clone() for part in operator.touched(W)]
    operator.add_delta_(W, M)
    touched = torch.zeros_like(W)
    for part in operator.touched(touched):
        part.fill_(1)
    assert torch.equal(touched.bool(), operator.delta_weight(torch.ones_like(M) + M.abs()) != 0)
    for part, values in zip(operator.touched(W), kept, strict=True):
        part.copy_(values)
    assert torch.equal(W, before)


@every_operator
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@given(data=st.data())
def test_a_half_precision_weight_is_rounded_once(row, dtype, data):
    operator, M = data.draw(cases(row, capped=True))
    assume(operator.r_hat <= operator.k)
    assume(not row.fold or operator.k % operator.r_hat == 0)  # the wrapped end of a folded row meets the first row
    M = M.float()
    W = normal(operator.d, operator.k, dtype=dtype)
    expected = W + operator.delta_weight(M).to(dtype)
    assert torch.equal(operator.add_delta_(W, M), expected)


@every_operator
def test_delta_weight_can_be_differentiated(row):
    operator, M = make(row, (9, 7, 4))
    assert torch.autograd.gradcheck(operator.delta_weight, M.requires_grad_())


# The parts.


@every_operator
@given(data=st.data())
def test_adjoints(row, data):
    """⟨A u, v⟩ = ⟨u, Aᵀ v⟩ for the three maps of the training path."""
    operator, M = data.draw(cases(row))
    x = normal(5, operator.k, seed=2)
    taken = operator.take(x, x.dtype)
    v = normal(*taken.shape, seed=3)
    adjoint = operator.take_adjoint_(torch.zeros_like(x), v)
    assert_close((taken * v).sum(), (x * adjoint).sum())

    out = normal(5, operator.d, seed=4)
    assert_close(
        (operator.put_(torch.zeros_like(out), v) * out).sum(), (v * operator.put_adjoint(out, out.dtype)).sum()
    )

    blocks = operator.expand(M)
    B = normal(*blocks.shape, seed=5)
    assert_close((blocks * B).sum(), (M * operator.contract(B)).sum())


@every_operator
@given(data=st.data())
def test_put_and_take_adjoint_add_to_what_is_there(row, data):
    operator, _ = data.draw(cases(row))
    x, out = normal(5, operator.k, seed=2), normal(5, operator.d, seed=4)
    v = normal(*operator.take(x, x.dtype).shape, seed=3)
    added = operator.put_(out.clone(), v) - out
    assert_close(added, operator.put_(torch.zeros_like(out), v))
    assert_close(operator.take_adjoint_(x.clone(), v) - x, operator.take_adjoint_(torch.zeros_like(x), v))


@pytest.mark.parametrize("row", [row for row in ROWS if row.name == "sharing"], ids=str)
@given(data=st.data())
def test_sharing_is_a_lora_of_rank_r_hat(row, data):
    operator, M = data.draw(cases(row))
    A, B = operator.lora_factors(M)
    assert A.shape == (operator.r_hat, operator.k)
    assert B.shape == (operator.d, operator.r_hat)
    assert_close(B @ A, row.dense(operator.k, operator.d, M))


@every_operator
@given(data=st.data())
def test_rank_of_delta_weight_is_bounded(row, data):
    operator, M = data.draw(cases(row, capped=True))
    rank = torch.linalg.matrix_rank(operator.delta_weight(M))
    assert rank <= min(operator.k, operator.d)
    if row.name in ("sharing", "truncation"):
        assert rank <= operator.r_hat


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_rank_is_reached(row):
    """At LoRA's budget r, ΔW has rank r̂ (sharing, truncation) or full rank (rotation, decoupling), far above r."""
    k, r = 32, 2
    operator, M = make(row, (k, k, 12 if row.name == "sharing" else 8))
    assert operator.r_hat >= int((2 * k * r) ** 0.5) - 3
    rank = torch.linalg.matrix_rank(operator.delta_weight(M))
    assert rank == (k if row.name in ("rotation", "decoupling") else operator.r_hat)


@pytest.mark.parametrize("row", [row for row in ROWS if row.fold or row.name == "sharing"], ids=str)
@given(data=st.data())
def test_every_input_feature_has_weight(row, data):
    operator, M = data.draw(cases(row, capped=True))
    assert operator.delta_weight(M).abs().sum(0).min() > 0


@pytest.mark.parametrize("name", ["rotation", "decoupling"])
def test_only_folding_saves_the_inputs_that_a_short_output_drops(name):
    k, d, r_hat = 24, 8, 4
    M = normal(r_hat, r_hat)
    unfolded = Row(name).make(k, d, r_hat).delta_weight(M)
    folded = Row(name, fold=True).make(k, d, r_hat).delta_weight(M)
    assert not unfolded[:, d:].any()
    assert folded.abs().sum(0).min() > 0
    assert_close(folded[:, :d], unfolded[:, :d])


@every_operator
def test_equal_operators_are_equal_and_others_are_not(row):
    operator = row.make(24, 10, 4)
    assert operator == row.make(24, 10, 4)
    assert hash(operator) == hash(row.make(24, 10, 4))
    others = [other.make(24, 10, 4) for other in ROWS if other != row]
    assert operator not in [*others, row.make(10, 24, 4), row.make(24, 10, 6), "an operator"]


# Both paths.


@every_operator
@every_shape
def test_gradients_by_finite_differences(row, shape):
    operator, M = make(row, shape)
    x = normal(3, operator.k).requires_grad_()
    W, bias = normal(operator.d, operator.k), normal(operator.d)
    M.requires_grad_()
    assert torch.autograd.gradcheck(operator, (x, M))
    assert torch.autograd.gradcheck(lambda x, M: mora_linear(x, M, W, bias, operator, 0.7), (x, M))


@every_operator
@pytest.mark.parametrize("with_bias", [False, True])
@given(data=st.data())
def test_fused_equals_plain(row, with_bias, data):
    operator, M = data.draw(cases(row))
    scaling = data.draw(st.sampled_from([1.0, 0.5, -3.0, 0.0]))
    x = normal(2, 3, operator.k).requires_grad_()
    W, bias = normal(operator.d, operator.k), normal(operator.d) if with_bias else None
    M.requires_grad_()
    results = []
    for step in (mora_linear, plain):
        y = step(x, M, W, bias, operator, scaling)
        results.append((y, *torch.autograd.grad(y, (x, M), normal(*y.shape, seed=6))))
    for fused, expected in zip(*results, strict=True):
        assert_close(fused, expected)


@every_operator
def test_fused_computes_only_the_gradients_that_are_asked_for(row):
    operator, M = make(row, (13, 7, 4))
    x, W = normal(5, 13), normal(7, 13)
    with_M = mora_linear(x, M.clone().requires_grad_(), W, None, operator, 1.0)
    with_x = mora_linear(x.clone().requires_grad_(), M, W, None, operator, 1.0)
    for y in (with_M, with_x):
        y.sum().backward()
    assert not mora_linear(x, M, W, None, operator, 1.0).requires_grad
    assert_close(with_M, with_x)


@every_operator
@every_shape
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_dtypes(row, shape, dtype):
    operator, M = make(row, shape)
    k, d = operator.k, operator.d
    x, W, bias, M = normal(4, k).to(dtype), normal(d, k).to(dtype), normal(d).to(dtype), M.to(dtype)
    dense = row.dense(k, d, M)
    alone = operator(x, M)
    assert alone.dtype == operator.delta_weight(M).dtype == dtype
    close(alone, x.double() @ dense.T, TOLERANCE[dtype])
    close(operator.delta_weight(M), dense, TOLERANCE[dtype])
    leaves = x.clone().requires_grad_(), M.clone().requires_grad_()
    y = mora_linear(*leaves, W, bias, operator, 0.5)
    assert y.dtype == dtype
    close(y, x.double() @ (W.double() + 0.5 * dense).T + bias.double(), TOLERANCE[dtype])
    y.sum().backward()
    assert [leaf.grad.dtype for leaf in leaves] == [dtype, dtype]


@every_operator
@pytest.mark.parametrize("base", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_a_float32_M_beside_a_base_of_another_dtype(row, base):
    """The output keeps the dtype of the base, and the gradient of M stays float32."""
    operator, M = make(row, (13, 7, 4))
    x, W = normal(4, 13, dtype=base).requires_grad_(), normal(7, 13, dtype=base)
    M = M.float().requires_grad_()
    y = mora_linear(x, M, W, None, operator, 1.0)
    close(y.detach(), x.detach().double() @ (W.double() + row.dense(13, 7, M.detach())).T, TOLERANCE[base])
    y.float().sum().backward()
    assert (y.dtype, x.grad.dtype, M.grad.dtype) == (base, base, torch.float32)


@every_operator
@pytest.mark.parametrize("path", [mora_linear, plain])
def test_autocast(row, path):
    operator, M = make(row, (13, 7, 4))
    x, W, bias = normal(4, 13).float().requires_grad_(), normal(7, 13).float(), normal(7).float()
    M = M.float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = path(x, M, W, bias, operator, 0.5)
    assert y.dtype == torch.bfloat16
    dense = row.dense(13, 7, M.detach())
    close(y.detach(), x.detach().double() @ (W + 0.5 * dense).T + bias, TOLERANCE[torch.bfloat16])
    y.sum().backward()
    assert x.grad.dtype == M.grad.dtype == torch.float32
    expected = torch.autograd.grad(plain(x, M, W, bias, operator, 0.5).sum(), (x, M))
    close(x.grad, expected[0], TOLERANCE[torch.bfloat16])
    close(M.grad, expected[1], TOLERANCE[torch.bfloat16])


@every_operator
@every_shape
def test_inputs_of_one_to_four_dimensions_and_empty_ones(row, shape):
    operator, M = make(row, shape)
    k, d = operator.k, operator.d
    W, dense = normal(d, k), row.dense(k, d, M)
    M.requires_grad_()
    for batch in [(), (3,), (2, 3), (2, 3, 2), (0,), (2, 0), (0, 3, 2)]:
        x = normal(*batch, k).requires_grad_()
        for y, weight in ((operator(x, M), dense), (mora_linear(x, M, W, None, operator, 1.0), W + dense)):
            assert_close(y, x @ weight.T)
            grad_x, grad_M = torch.autograd.grad(y.sum(), (x, M))
            assert_close(grad_x, weight.sum(0).expand_as(x))
            assert grad_M.shape == M.shape
            assert x.numel() or not grad_M.any()


@every_operator
@every_shape
def test_inputs_and_gradients_that_are_not_contiguous(row, shape):
    operator, M = make(row, shape)
    k, d = operator.k, operator.d
    W, dense = normal(k, d).T, row.dense(k, d, M)
    M = M.T.contiguous().T.requires_grad_()
    layouts = [
        normal(k, 6).T,
        normal(2, k, 3).transpose(1, 2),
        normal(2, 3, 2 * k)[..., ::2],
        normal(k).expand(2, 3, k),
    ]
    for x in layouts:
        x = x.detach().requires_grad_()
        for y, weight in ((operator(x, M), dense), (mora_linear(x, M, W, None, operator, 1.0), W + dense)):
            assert_close(y, x @ weight.T)
            grad_out = normal(*reversed(y.shape)).permute(*reversed(range(y.dim())))
            for upstream in (grad_out, torch.ones(1, dtype=y.dtype).expand_as(y)):
                grad_x, _ = torch.autograd.grad(y, (x, M), upstream, retain_graph=True)
                assert_close(grad_x, upstream @ weight)


@every_operator
@pytest.mark.parametrize("path", [mora_linear, plain])
def test_one_M_used_twice_in_one_graph(row, path):
    operator, M = make(row, (12, 12, 4))
    W, dense = normal(12, 12), row.dense(12, 12, M)
    x = normal(5, 12).requires_grad_()
    M.requires_grad_()

    def twice(x, M):
        return path(path(x, M, W, None, operator, 1.0), M, W, None, operator, 0.5) + path(x, M, W, None, operator, 1.0)

    first = x @ (W + dense).T
    assert_close(twice(x, M), first @ (W + 0.5 * dense).T + first)
    assert torch.autograd.gradcheck(twice, (x, M))


@every_operator
@pytest.mark.parametrize("path", [mora_linear, plain])
def test_neither_path_writes_into_its_inputs(row, path):
    operator, M = make(row, (13, 7, 4))
    inputs = [normal(4, 13).requires_grad_(), M.requires_grad_(), normal(7, 13), normal(7)]
    before = [tensor.detach().clone() for tensor in inputs]
    upstream = normal(4, 7)
    path(*inputs, operator, 0.5).backward(upstream)
    assert all(torch.equal(*pair) for pair in zip(inputs, before, strict=True))
    assert torch.equal(upstream, normal(4, 7))


@pytest.mark.parametrize("module", ["mora_peft.operators"])
def test_examples_in_the_documentation_run(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0
