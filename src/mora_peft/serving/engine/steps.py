"""Which adapter each token of a step uses: arranged once, before the first layer."""

from typing import Any

import torch
from vllm.lora.punica_wrapper import PunicaWrapperBase
from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager

from mora_peft.operators.batched import Step

from .faults import add_or_note


def install() -> None:
    """Arrange every step for our layers, and spare vLLM a copy of its registry per adapter and step."""
    create, update = PunicaWrapperBase.__init__, PunicaWrapperBase._update_base_metadata

    def __init__(self: PunicaWrapperBase, *args: Any, **options: Any) -> None:
        create(self, *args, **options)
        self.step = None
        if torch.device(self.device).type != "cpu":
            # A CUDA graph has no branches and keeps addresses: one step for ever, whose numbers change in place.
            self.step = Step(torch.full_like(self._token_lora_indices, -1, dtype=torch.int32))

    def _update_base_metadata(self: PunicaWrapperBase, *args: Any) -> None:
        update(self, *args)
        found = self.token_lora_indices
        if found.device.type == "cpu":
            step = Step(found)
            self.step = step if step.runs else None
        else:
            self.step.slots[: len(found)].copy_(found)
            self.step.slots[len(found) :].fill_(-1)

    def _apply_adapters(self: LRUCacheWorkerLoRAManager, requests: set[Any]) -> None:
        manager, absent = self._adapter_manager, []
        # First those that have a slot: each is touched, so that none of them is dropped for another of this step. And
        # in one order in all processes of a tensor-parallel group, so that they keep and drop the same ones.
        known = manager._active_adapters
        for request in sorted(requests, key=lambda request: (request.lora_int_id not in known, request.lora_int_id)):
            if request.load_inplace or request.lora_int_id not in manager._registered_adapters:
                absent.append(request)
            else:
                manager.get_adapter(request.lora_int_id)
                manager.activate_adapter(request.lora_int_id)
        for request in absent:
            add_or_note(self, request)

    PunicaWrapperBase.__init__ = __init__
    PunicaWrapperBase._update_base_metadata = _update_base_metadata
    LRUCacheWorkerLoRAManager._apply_adapters = _apply_adapters
