"""Weights that DeepSpeed's ZeRO-3 has split: gathered where they are merged into, and nowhere twice.

The first test has a stand-in for DeepSpeed, so that the rules are tested everywhere; the others two real processes,
where DeepSpeed is installed.
"""

import importlib.util
import os
import socket
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from tiny_models import adapted, inputs, logits, mora_layers
from torch.testing import assert_close

from mora_peft.tuner.parameter import ParamWrapper
from mora_peft.tuner.sharding import gathered, is_partitioned

STEPS = 3


class StandIn:
    """What ZeRO-3 does to parameters, in one process: whole ones are put aside, and an empty one stays."""

    def __init__(self, model: torch.nn.Module):
        self.whole = {parameter: parameter.data for parameter in model.parameters()}
        self.gathered = []
        for parameter in self.whole:
            parameter.ds_shape, parameter.ds_numel = parameter.shape, parameter.numel()
            parameter.data = parameter.new_empty(0)
        self.zero = SimpleNamespace(GatheredParameters=self.gather)

    @contextmanager
    def gather(self, parameters, modifier_rank):
        assert modifier_rank == 0
        assert all(is_partitioned(parameter) for parameter in parameters), "DeepSpeed refuses what is gathered already"
        self.gathered.append(len(parameters))
        for parameter in parameters:
            parameter.data = self.whole[parameter]
        yield
        for parameter in parameters:
            self.whole[parameter], parameter.data = parameter.data, parameter.new_empty(0)


@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral", "vit"])
def test_merging_gathers_what_it_needs(name, safe, monkeypatch):
    expected = adapted(name)
    deltas = {key: layer.get_delta_weight("default") for key, layer in mora_layers(expected).items()}
    expected.merge_adapter(safe_merge=safe)
    model = adapted(name)
    untouched = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    split = StandIn(model)
    monkeypatch.setitem(sys.modules, "deepspeed", split)
    names = {parameter: key for key, parameter in model.named_parameters()}

    def state() -> dict[str, torch.Tensor]:
        return {names[parameter]: whole for parameter, whole in split.whole.items()}

    for key, layer in mora_layers(model).items():
        assert torch.equal(layer.get_delta_weight("default"), deltas[key])
    model.merge_adapter(safe_merge=safe)
    assert all(torch.equal(tensor, expected.state_dict()[key]) for key, tensor in state().items())
    assert max(split.gathered) <= 4, "a layer at a time, so that memory stays small"
    model.unmerge_adapter()
    for key, tensor in state().items():
        assert_close(tensor, untouched[key], rtol=1e-5, atol=1e-6)
    with gathered(*model.parameters()):  # as trainers do around a merge
        model.merge_adapter(safe_merge=safe)
    assert all(torch.equal(tensor, expected.state_dict()[key]) for key, tensor in state().items())


def test_an_adapter_of_a_parameter_that_is_split_is_refused():
    model = adapted("mixtral")
    StandIn(model)
    layer = next(layer for layer in mora_layers(model).values() if isinstance(layer, ParamWrapper))
    with pytest.raises(ValueError, match="ZeRO-3 has split it over the processes"):
        layer(torch.zeros(1, 4, 32))


def process(rank: int, port: int, folder: str, operator: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank),
                   "WORLD_SIZE": "2", "DS_ACCELERATOR": "cpu"}  # fmt: skip
    import deepspeed

    torch.set_num_threads(1)
    deepspeed.init_distributed("gloo")
    model = adapted("llama", operator=operator).train()
    settings = {"train_micro_batch_size_per_gpu": 2, "zero_allow_untested_optimizer": True,
                "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}  # fmt: skip
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    engine = deepspeed.initialize(model=model, config=settings, optimizer=optimizer)[0]
    assert all(map(is_partitioned, model.parameters()))
    losses = []
    for _ in range(STEPS):
        batch = {name: value[rank::2] for name, value in inputs("llama", 4).items()}
        loss = engine(**batch).logits.square().mean()
        engine.backward(loss)
        engine.step()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        losses.append(mean / 2)
    before = logits(model, "llama")
    model.merge_adapter()
    after = logits(model, "llama")
    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        model.unmerge_adapter()
        state = {name: parameter.detach().clone() for name, parameter in model.named_parameters() if "mora_" in name}
    if rank == 0:
        save_file(state | {"losses": torch.stack(losses), "before": before, "after": after}, f"{folder}/found")
    dist.destroy_process_group()


@pytest.mark.skipif(not importlib.util.find_spec("deepspeed"), reason="deepspeed is not installed")
@pytest.mark.parametrize("operator", ["sharing", "rotation"])
def test_two_processes_under_deepspeed(operator, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(process, (port, str(tmp_path), operator), nprocs=2)
    found = load_file(tmp_path / "found")
    model = adapted("llama", operator=operator).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(STEPS):
        loss = model(**inputs("llama", 4)).logits.square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    assert_close(found.pop("losses"), torch.stack(losses), rtol=1e-4, atol=1e-6)
    assert_close(found.pop("before"), logits(model, "llama"), rtol=1e-3, atol=1e-4)
    assert_close(found.pop("after"), logits(model, "llama"), rtol=1e-3, atol=1e-4)
    for name, parameter in model.named_parameters():
        if "mora_" in name:
            assert_close(found.pop(name), parameter.detach(), rtol=1e-3, atol=1e-5)
    assert not found
