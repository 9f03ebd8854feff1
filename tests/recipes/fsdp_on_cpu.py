"""Accelerate's FSDP2 on CPU processes: it looks for an accelerator before it shards, and needs none to do it."""

import os

from accelerate import utils
from accelerate.state import AcceleratorState, PartialState

ORIGINAL = AcceleratorState.__init__


def allow() -> None:
    """Let Accelerate shard on CPUs where it was asked to by the launcher's environment."""
    AcceleratorState.__init__ = _sharding


def _sharding(self, *args, fsdp_plugin=None, **kwargs):
    ORIGINAL(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" and fsdp_plugin is not None:
        self.distributed_type = PartialState._shared_state["distributed_type"] = utils.DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin
