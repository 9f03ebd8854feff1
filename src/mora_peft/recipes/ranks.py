"""Several processes that train one model together, as `torchrun` or `accelerate launch` start them.

A recipe runs in each of them alike. What is written to the disk and said on the terminal is the first one's alone, and
the others wait for it where they go on to read that. Started by itself, a process is the first of one.
"""

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mora_peft.errors import UserError

# How libraries say that a process at the other end of a connection is gone.
_LOST = ("closed by peer", "reset by peer", "broken pipe", "remote process exited", "network error", "ncclremoteerror")


def count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def wait() -> None:
    """Go on when every process has come this far."""
    if count() > 1:
        import torch.distributed as dist

        dist.barrier()


def say(text: str) -> None:
    """Print `text` once."""
    if is_first():
        print(text, flush=True)


@contextmanager
def together() -> Iterator[None]:
    """Connects the processes while the block runs; UserError where another one ended before it."""
    if count() == 1:
        yield
        return
    import torch
    from accelerate import PartialState

    # For as long as this process lives: Accelerate connects it once.
    atexit.register(PartialState(cpu=not torch.accelerator.is_available()).destroy_process_group)
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in _LOST):
            raise
        raise UserError(
            "another process of this run has ended (what it said stands above): run the same command again to go on "
            "from the last checkpoint."
        ) from error


def share_of(rows: int, name: str) -> int:
    """How many of `rows` that all processes work on at once are this one's; UserError where they cannot be shared."""
    if rows % count():
        raise UserError(f"{name} is {rows}, which {count()} processes cannot share evenly: make it a multiple of that.")
    return rows // count()


def check_sharding(sharded: bool, embeddings: bool) -> None:
    """UserError where FSDP was asked for and cannot be: Accelerate passes over it on a CPU.

    `embeddings`: they are trained beside an adapter. Their two names for one weight fail in Accelerate where the first
    process alone reads the base.
    """
    if _sharding_asked_for() and not sharded:
        raise UserError("Accelerate shards weights (FSDP) on accelerators only: on a CPU start the run without it.")
    if sharded and embeddings and os.environ.get("FSDP_CPU_RAM_EFFICIENT_LOADING", "false").lower() == "true":
        raise UserError(
            "Embeddings beside an adapter cannot be handed out by one process: start the run with "
            "`accelerate launch --fsdp_cpu_ram_efficient_loading false`."
        )


def check_optimizer(own: bool) -> None:
    """UserError where FSDP was asked for and the method brings an optimizer, which Transformers will not shard."""
    if own and _sharding_asked_for():
        raise UserError("FSDP shards AdamW only: start the run without it, or take a method without another optimizer.")


def _sharding_asked_for() -> bool:
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
