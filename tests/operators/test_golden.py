"""The authors' implementation as witness: reference vectors that it produced in float64."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mora_peft.operators import MORA_TYPES, make_operator, needs_even_side, r_hat_for
from mora_peft.operators.fused import mora_linear

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden"
CASES = json.loads((GOLDEN / "reference.json").read_text()) if (GOLDEN / "reference.json").exists() else []
pytestmark = pytest.mark.skipif(not CASES, reason="the reference vectors are not beside this checkout (shared/golden)")


@cache
def vectors() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "reference.safetensors")


def of(case: dict, name: str) -> torch.Tensor:
    return vectors()[f"{case['name']}.{name}"]


def operator_of(case: dict):
    name, layout = MORA_TYPES[case["mora_type"]]
    return make_operator(name, k=case["in_features"], d=case["out_features"], r_hat=case["side"], layout=layout)


def assert_equal(case: dict, found: torch.Tensor, name: str) -> None:
    """Relative difference in norm: exact for sharing; the authors' rotation tables are of float32 accuracy."""
    expected = of(case, name)
    assert found.shape == expected.shape
    error = (found - expected).norm() / expected.norm()
    assert error < (1e-6 if case["mora_type"] == 6 else 1e-12), f"{name} differs by {error:.1e}"


def test_every_number_of_the_authors_is_covered():
    assert {case["mora_type"] for case in CASES} == set(MORA_TYPES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_side(case):
    name, _ = MORA_TYPES[case["mora_type"]]
    k, d = case["in_features"], case["out_features"]
    assert r_hat_for(k, d, case["r"], even=needs_even_side(name), cap=False) == case["side"]


@pytest.mark.parametrize("path", ["plain", "fused"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_output_and_gradients(case, path):
    operator = operator_of(case)
    x, M = of(case, "x").clone().requires_grad_(), of(case, "M").clone().requires_grad_()
    if path == "plain":
        y = operator(x, M)
    else:
        y = mora_linear(x, M, x.new_zeros(operator.d, operator.k), None, operator, 1.0)
    y.backward(of(case, "grad_out"))
    assert_equal(case, y, "y")
    assert_equal(case, x.grad, "grad_x")
    assert_equal(case, M.grad, "grad_M")


@pytest.mark.parametrize("case", [case for case in CASES if case["has_delta"]], ids=lambda case: case["name"])
def test_delta_weight(case):
    assert_equal(case, operator_of(case).delta_weight(of(case, "M")), "delta")
