"""An adapter that was served, was dropped to make room, and is no longer there, or no longer right, to be read again.

vLLM reads it in the middle of a step, where an exception would end the engine and with it every request. Instead its
own requests end with an error, and only those.
"""

from collections.abc import Callable
from typing import Any

import torch
from vllm.distributed import get_tp_group
from vllm.logger import init_logger
from vllm.lora.lora_model import LoRAModel
from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.outputs import AsyncModelRunnerOutput
from vllm.v1.worker.gpu_worker import Worker

logger = init_logger(__name__)


def add_or_note(manager: LRUCacheWorkerLoRAManager, request: Any) -> None:
    """Load the adapter of `request`; where that fails, note it, and let the step go on without weights for it."""
    failed = False
    try:
        manager.add_adapter(request)
    except Exception as error:
        logger.error("The adapter %r cannot be read again, so its requests end: %s", request.lora_name, error)
        failed = True
    if _anywhere(failed):
        adapters, number = manager._adapter_manager, request.lora_int_id
        adapters.remove_adapter(number)
        adapters._registered_adapters[number] = LoRAModel(number, 1, {})
        adapters.activate_adapter(number)
        manager.failed = {*getattr(manager, "failed", ()), number}


def _anywhere(failed: bool) -> bool:
    """Whether it failed in any process of the tensor-parallel group, of which one alone tells the scheduler."""
    group = get_tp_group()
    if group.world_size == 1:
        return failed
    found = torch.tensor(int(failed))
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX, group=group.cpu_group)
    return bool(found)


def install() -> None:
    """Carry what was noted from the workers to the scheduler, with the step's output."""
    update = Scheduler.update_from_output

    def telling(function: Callable) -> Callable:
        def told(self: Worker, *args: Any) -> Any:
            output = function(self, *args)
            manager = getattr(self.model_runner, "lora_manager", None)
            failed = getattr(manager, "failed", None)
            if failed and output is not None:
                for number in failed:  # the next request tries again
                    manager.remove_adapter(number)
                manager.failed = None
                _mark(output, failed)
            return output

        return told

    def update_from_output(self: Scheduler, scheduled: Any, output: Any) -> Any:
        if failed := getattr(output, "failed_adapters", None):
            for name, request in self.requests.items():
                if request.lora_request and request.lora_request.lora_int_id in failed:
                    _end(self, name, output)
        return update(self, scheduled, output)

    Worker.execute_model, Worker.sample_tokens = telling(Worker.execute_model), telling(Worker.sample_tokens)
    Scheduler.update_from_output = update_from_output


def _end(scheduler: Scheduler, name: str, output: Any) -> None:
    """Have the coming update end request `name` with an error; what it computed without its adapter is forgotten."""
    scheduler.encoder_cache_mismatch_reqs.add(name)
    scheduler.kv_cache_manager.evict_blocks(
        {block for ids in scheduler.kv_cache_manager.get_block_ids(name) for block in ids}
    )
    if name in output.req_id_to_index and output.sampled_token_ids:
        output.sampled_token_ids[output.req_id_to_index[name]] = []


def _mark(output: Any, failed: set[int]) -> None:
    if isinstance(output, AsyncModelRunnerOutput):
        get_output = output.get_output

        def marked() -> Any:
            found = get_output()
            found.failed_adapters = failed
            return found

        output.get_output = marked
    else:
        output.failed_adapters = failed
