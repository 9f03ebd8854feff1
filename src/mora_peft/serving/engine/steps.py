"""Which adapter each token of a step uses: arranged once, before the first layer."""

from typing import Any

from vllm.lora.punica_wrapper import PunicaWrapperBase
from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager

from mora_peft.operators.batched import Step


def install() -> None:
    """Arrange every step for our layers, and spare vLLM a copy of its registry per adapter and step."""
    PunicaWrapperBase.step = None
    update, apply_adapters = PunicaWrapperBase._update_base_metadata, LRUCacheWorkerLoRAManager._apply_adapters

    def _update_base_metadata(self: PunicaWrapperBase, *args: Any) -> None:
        update(self, *args)
        self.step = Step(self.token_lora_indices)

    def _apply_adapters(self: LRUCacheWorkerLoRAManager, requests: set[Any]) -> None:
        manager, absent = self._adapter_manager, set()
        for request in requests:
            if request.load_inplace or request.lora_int_id not in manager._registered_adapters:
                absent.add(request)
            else:
                # Both touch it, so that what is in use is the last to be dropped.
                manager.get_adapter(request.lora_int_id)
                manager.activate_adapter(request.lora_int_id)
        if absent:
            apply_adapters(self, absent)

    PunicaWrapperBase._update_base_metadata = _update_base_metadata
    LRUCacheWorkerLoRAManager._apply_adapters = _apply_adapters
