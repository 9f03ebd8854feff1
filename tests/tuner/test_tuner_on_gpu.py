"""On a GPU an adapted model trains, merges, mixes and is saved as it is on a CPU."""

import pytest
import torch
from peft import PeftModel
from tiny_models import ARCHITECTURES, OPERATORS, adapted, add, base_weights, inputs, same
from torch.testing import assert_close

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

every_operator = pytest.mark.parametrize("options", OPERATORS, ids=str)


def logits(model: torch.nn.Module, name: str, device: str, **kwargs) -> torch.Tensor:
    given = {key: value.to(device) for key, value in inputs(name, dtype=model.dtype).items()}
    return model(**given, **kwargs).logits


@every_operator
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_outputs_and_gradients(name, options):
    found = []
    for device in ("cuda", "cpu"):
        model = adapted(name, **options).to(device).train()
        out = logits(model, name, device)
        out.square().mean().backward()
        gradients = {key: p.grad.cpu() for key, p in model.named_parameters() if p.requires_grad and p.grad is not None}
        found.append((out.detach().cpu(), gradients))
    (ours, our_gradients), (other, gradients) = found
    assert_close(ours, other, rtol=1e-3, atol=1e-4)
    assert our_gradients.keys() == gradients.keys() != set()
    for key, gradient in gradients.items():
        assert_close(our_gradients[key], gradient, rtol=1e-2, atol=1e-3 * max(gradient.abs().max().item(), 1e-3))


@every_operator
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_merging_and_taking_out(options, dtype):
    model = adapted("llama", dtype, **options).cuda()
    before, expected = base_weights(model), logits(model, "llama", "cuda")
    model.merge_adapter()
    assert not same(base_weights(model), before)
    loose = {"rtol": 1e-3, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0.1, "atol": 0.1}
    assert_close(logits(model, "llama", "cuda"), expected, **loose)
    model.unmerge_adapter()
    assert same(base_weights(model), before)


@torch.no_grad()
def test_a_mixed_batch():
    model = adapted("llama", operator="rotation")
    add(model, "other", "llama", operator="rotation")
    names = ["default", "__base__", "other"]
    expected = logits(model, "llama", "cpu", adapter_names=names)
    assert_close(logits(model.cuda(), "llama", "cuda", adapter_names=names).cpu(), expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_saved_there_and_loaded_here(tmp_path):
    model = adapted("llama", operator="rotation").cuda()
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(ARCHITECTURES["llama"].build(), tmp_path)
    expected = logits(model, "llama", "cuda").cpu()
    assert_close(logits(loaded, "llama", "cpu"), expected, rtol=1e-3, atol=1e-4)
    there = PeftModel.from_pretrained(ARCHITECTURES["llama"].build().cuda(), tmp_path)
    assert_close(logits(there, "llama", "cuda").cpu(), expected, rtol=1e-3, atol=1e-4)
