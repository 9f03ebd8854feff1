"""Training in every precision, with checkpointed activations, and compiled, on real architectures."""

import pytest
import torch
from peft import get_peft_model
from tiny_models import ARCHITECTURES, adapted, inputs, mora_config, mora_layers
from torch.testing import assert_close

every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)
every_operator = pytest.mark.parametrize("operator", ["sharing", "rotation"])


def loss_of(model, name):
    return model(**inputs(name, dtype=model.dtype)).logits.float().square().mean()


def gradients(model):
    return {key: parameter.grad.clone() for key, parameter in model.named_parameters() if parameter.grad is not None}


def train_step(model, name, forward=None):
    """The loss and all gradients of one step."""
    model.zero_grad()
    loss = loss_of(model if forward is None else forward, name)
    loss.backward()
    return loss.detach(), gradients(model)


@every_architecture
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("autocast", [True, False])
def test_a_half_precision_base(name, dtype, autocast):
    """PEFT keeps adapters of such a base in float32 unless `autocast_adapter_dtype=False`."""
    base = ARCHITECTURES[name].build(dtype)
    torch.manual_seed(1)
    model = get_peft_model(base, mora_config(name), autocast_adapter_dtype=autocast).train()
    expected = torch.float32 if autocast else dtype
    assert {layer.mora_M["default"].dtype for layer in mora_layers(model).values()} == {expected}
    loss, grads = train_step(model, name)
    assert torch.isfinite(loss)
    assert model(**inputs(name, dtype=dtype)).logits.dtype == dtype
    for key, gradient in grads.items():
        if "mora_M" in key:
            assert gradient.dtype == expected
            assert gradient.any()
            assert torch.isfinite(gradient).all()


@every_operator
def test_half_precision_gradients_are_those_of_full_precision(operator):
    full, half = adapted("llama", operator=operator), adapted("llama", torch.bfloat16, operator=operator)
    (_, expected), (_, found) = train_step(full, "llama"), train_step(half, "llama")
    assert expected.keys() == found.keys()
    for key, gradient in found.items():
        assert torch.cosine_similarity(gradient.flatten(), expected[key].flatten(), dim=0) > 0.98


@every_operator
def test_autocast(operator):
    model = adapted("llama", operator=operator)
    _, expected = train_step(model, "llama")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, found = train_step(model, "llama")
    assert torch.isfinite(loss)
    for key, gradient in found.items():
        assert gradient.dtype == torch.float32
        assert torch.cosine_similarity(gradient.flatten(), expected[key].flatten(), dim=0) > 0.98


@every_architecture
@every_operator
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_changes_no_gradient(name, operator, use_reentrant):
    model = adapted(name, operator=operator).train()
    loss, expected = train_step(model, name)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model.enable_input_require_grads()
    checkpointed, found = train_step(model, name)
    assert_close(checkpointed, loss)
    assert found.keys() == expected.keys()
    assert any(gradient.any() for gradient in found.values())
    for key, gradient in found.items():
        assert_close(gradient, expected[key])


@pytest.mark.parametrize(("name", "operator"), [("gpt2", "rotation"), ("bert", "sharing"), ("t5", "rotation")])
def test_a_compiled_model_computes_the_same(name, operator):
    model = adapted(name, operator=operator, mora_dropout=0.0).train()
    model.base_model.model.config.use_cache = False
    loss, expected = train_step(model, name)
    torch.compiler.reset()
    compiled, found = train_step(model, name, torch.compile(model, backend="aot_eager"))
    torch.compiler.reset()
    assert_close(compiled, loss, rtol=1e-4, atol=1e-6)
    assert found.keys() == expected.keys()
    for key, gradient in found.items():
        assert_close(gradient, expected[key], rtol=1e-3, atol=1e-3 * expected[key].abs().max().item())
