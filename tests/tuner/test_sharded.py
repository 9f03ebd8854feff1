"""Two processes with a part of the weights each: FSDP2 gives what one process gives, tensor parallelism is refused."""

import os
import socket
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from peft import get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tiny_models import ARCHITECTURES, adapted, inputs, logits, mora_config
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from mora_peft.recipes.relora import merge_and_reset
from mora_peft.tuner.sharding import whole_state

STEPS, OPERATORS = 3, ("sharing", "rotation")
CLOSE = {"rtol": 1e-4, "atol": 1e-6}


def trained(model, rank=None):
    """Losses of a few steps of AdamW; each of two processes takes every other row."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(STEPS):
        batch = {name: value if rank is None else value[rank::2] for name, value in inputs("llama", 4).items()}
        loss = model(**batch).logits.square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        mean = loss.detach().clone()
        if rank is not None:
            dist.all_reduce(mean)
            mean /= 2
        losses.append(mean)
    return torch.stack(losses)


def process(rank: int, port: int, folder: str) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
    }
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(seconds=60))
    split = AutoModelForCausalLM.from_pretrained(f"{folder}/base", tp_plan="auto")
    with pytest.raises(ValueError, match="MoRA does not support tensor parallelism"):
        get_peft_model(split, mora_config("llama"))
    for operator in OPERATORS:
        model = adapted("llama", operator=operator).train()
        mesh = torch.distributed.init_device_mesh("cpu", (2,))
        for layer in model.base_model.model.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
        losses = trained(model, rank)
        whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        trained_alone = whole_state(model, frozen=False)
        before = logits(model, "llama")
        merge_and_reset(model, seed=0)
        after = logits(model, "llama")
        if rank == 0:
            adapter = get_peft_model_state_dict(model, state_dict=trained_alone)
            expected = get_peft_model_state_dict(model, state_dict=whole)
            assert adapter.keys() == expected.keys() and len(trained_alone) < len(whole)
            assert all(torch.equal(adapter[name], expected[name]) for name in adapter)
            save_file(
                adapter | {"losses": losses, "before": before, "after": after}, f"{folder}/{operator}.safetensors"
            )
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    ARCHITECTURES["llama"].build().save_pretrained(folder / "base")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(process, (port, str(folder)), nprocs=2)
    return {operator: load_file(folder / f"{operator}.safetensors") for operator in OPERATORS}


@pytest.mark.parametrize("operator", OPERATORS)
def test_two_processes_with_half_the_base_each(operator, sharded):
    found = sharded[operator]
    model = adapted("llama", operator=operator).train()
    assert_close(found.pop("losses"), trained(model), **CLOSE)
    assert_close(found.pop("before"), logits(model, "llama"), rtol=1e-3, atol=1e-4)
    assert_close(found.pop("after"), logits(model, "llama"), rtol=1e-3, atol=1e-4)
    expected = get_peft_model_state_dict(model)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert_close(found[name], tensor, rtol=1e-3, atol=1e-5)
