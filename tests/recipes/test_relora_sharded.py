"""Merge and reset with half the weights in each of two processes (FSDP2): what one does, checkpoints included."""

import os
import socket
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from test_relora import merging, rows, tuned
from torch.distributed.fsdp import fully_shard
from torch.testing import assert_close
from transformers import get_scheduler

from mora_peft.errors import UserError
from mora_peft.recipes.relora import BASE
from mora_peft.tuner.sharding import whole

METHODS = {"relora": {"lora_dropout": 0.0}, "remora": {"mora_dropout": 0.0}}
STEPS = 5


def sharded(model):
    mesh = torch.distributed.init_device_mesh("cpu", (2,))
    for layer in model.base_model.model.model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def trained(method: str, folder: Path, rank: int | None = None):
    """Train with a merge after every other step, save a checkpoint after the last one, and return the model."""
    torch.manual_seed(0)
    model = tuned(method, **METHODS[method])
    model = (model if rank is None else sharded(model)).train()
    callback = merging(method, every=2, rewarm=1)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    schedule = get_scheduler("cosine", optimizer, 0, STEPS)
    args = SimpleNamespace(
        output_dir=str(folder), seed=7, should_save=not rank, fsdp=rank is not None, deepspeed_plugin=None
    )
    state = SimpleNamespace(global_step=0, max_steps=STEPS)
    callback.on_train_begin(args, state, None, model=model, lr_scheduler=schedule)
    for step in range(STEPS):
        tokens = torch.stack([row["input_ids"] for row in rows()[4 * step :][:4]])
        tokens = tokens if rank is None else tokens[rank::2]
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        state.global_step += 1
        callback.on_step_end(args, state, None, model=model, optimizer=optimizer)
    (folder / f"checkpoint-{STEPS}").mkdir(parents=True, exist_ok=True)
    callback.on_save(args, state, None, model=model)
    return model


def weights(model) -> dict[str, torch.Tensor]:
    return {name: whole(tensor).detach().clone() for name, tensor in model.state_dict().items()}


def process(rank: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(seconds=60))
    for method, options in METHODS.items():
        found = weights(trained(method, Path(folder, method), rank))
        again = sharded(tuned(method, **options))
        dist.barrier()
        merging(method).load(again, Path(folder, method, f"checkpoint-{STEPS}"))
        loaded = weights(again)
        if rank == 0:
            save_file(found, f"{folder}/{method}.safetensors")
            save_file(loaded, f"{folder}/{method}.loaded.safetensors")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(process, (port, str(folder)), nprocs=2)
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_sharded_weights_are_merged_and_reset_as_whole_ones_are(method, two_processes, tmp_path):
    model = trained(method, tmp_path)
    expected, found = weights(model), load_file(two_processes / f"{method}.safetensors")
    untouched = weights(tuned(method, **METHODS[method]))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert_close(found[name], tensor, rtol=1e-3, atol=1e-5)
    merged = [name for name in expected if not torch.equal(expected[name], untouched[name]) and "base_layer" in name]
    assert len(merged) == 6
    loaded = load_file(two_processes / f"{method}.loaded.safetensors")
    mine, yours = (load_file(folder / f"checkpoint-{STEPS}" / BASE) for folder in (two_processes / method, tmp_path))
    for name in merged:
        assert torch.equal(loaded[name], found[name])
    assert mine.keys() == yours.keys() and len(mine) == 6
    for name, tensor in yours.items():
        assert_close(mine[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("asked", "words"), [("deepspeed_plugin", "DeepSpeed's optimizer"), ("fsdp", "fsdp_version to 2")]
)
def test_what_hides_the_weights_is_refused(asked, words):
    args = SimpleNamespace(**{"deepspeed_plugin": None, "fsdp": None} | {asked: "yes"})
    with pytest.raises(UserError, match=words):
        merging("remora").on_train_begin(args, None, None, model=tuned("remora"), lr_scheduler=None)
