"""Weights that several processes hold in parts: gathered where they are merged into, shared out where they are set.

Of FSDP2 a process holds a `DTensor`, which says what part it is. Of DeepSpeed's ZeRO-3 it holds an empty parameter with
`ds_shape` and `ds_numel` beside it, to be gathered by all processes together.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


@contextmanager
def gathered(*parameters: nn.Parameter) -> Iterator[None]:
    """The parameters whole while the block runs, and what the first process has made of them afterwards.

    Parameters that are whole already, among them those that the caller has gathered, stay as they are. Every process
    must come here.
    """
    parts = [parameter for parameter in parameters if is_partitioned(parameter)]
    if not parts:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(parts, modifier_rank=0):
        yield


def is_partitioned(parameter: Tensor) -> bool:
    """Whether ZeRO-3 has left nothing but a placeholder of `parameter` here."""
    return parameter.numel() != getattr(parameter, "ds_numel", parameter.numel())


def shape_of(parameter: Tensor) -> torch.Size:
    """The shape of `parameter` as a whole."""
    return getattr(parameter, "ds_shape", parameter.shape)


def whole(tensor: Tensor) -> Tensor:
    """`tensor` as a whole, where FSDP2 has shared it out; every process must come here."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shared_out(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's part of `tensor`, which is whole and the same in every process, as `like` is shared out."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def whole_state(model: nn.Module, frozen: bool, keep: bool = True) -> dict[str, Tensor]:
    """`model.state_dict()` with whole tensors on the CPU, gathered one by one by all processes.

    Without the `frozen` base, saving an adapter takes no more memory than the adapter. Those that do not `keep` what
    is gathered get nothing. What has two names, as tied weights have, is one tensor.
    """
    once: dict[int, Tensor] = {}
    found = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not frozen and isinstance(tensor, nn.Parameter) and not tensor.requires_grad:
            continue
        if id(tensor) not in once:
            gathered = whole(tensor.detach()).cpu()
            once[id(tensor)] = gathered if keep else gathered.new_empty(0)
        found[name] = once[id(tensor)]
    return found if keep else {}
