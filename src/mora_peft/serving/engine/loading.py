"""From an adapter's folder to the weights that vLLM keeps of it: everything is checked here, nothing in a step."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn
from vllm import envs
from vllm.lora.lora_model import LoRAModel
from vllm.lora.lora_weights import LoRALayerWeights
from vllm.lora.model_manager import LoRAModelManager
from vllm.lora.utils import get_adapter_absolute_path
from vllm.lora.worker_manager import WorkerLoRAManager
from vllm.model_executor.models.utils import PPMissingLayer

from mora_peft.errors import UserError
from mora_peft.tuner.files import WEIGHTS, line_of

from ..reading import ServedAdapter, check_weights, read_served
from .layers import Pair, WithSlots
from .refusals import marked

#: Bytes that a LoRA's file may have beyond what its linear layers can take: vLLM adapts embeddings, too.
LARGEST_LORA = 2**32


def install() -> None:
    """Read MoRA adapters where vLLM reads LoRAs, and check both against the model."""
    load, create_modules = WorkerLoRAManager._load_adapter, LoRAModelManager._create_lora_modules

    def _load_adapter(self: WorkerLoRAManager, request: Any) -> LoRAModel:
        try:
            folder, limit = Path(get_adapter_absolute_path(request.lora_path)), _largest(self._adapter_manager)
            adapter = read_served(folder, limit)
            if adapter is not None:
                return _fit(self._adapter_manager, adapter, request.lora_int_id)
            if (folder / WEIGHTS).is_file():
                # vLLM maps the file, and looks at nothing in it.
                check_weights(folder, LARGEST_LORA + limit)
            model = load(self, request)
            _check_lora(self._adapter_manager, model, request.lora_path)
            return model
        except ValueError as error:  # ours, and what vLLM says of a LoRA that it cannot take
            raise marked(error) from error
        except (KeyError, TypeError, AttributeError) as error:  # vLLM's, for a configuration of other fields
            raise marked(UserError(f"{request.lora_path} is not a LoRA adapter ({line_of(error)}).")) from error

    def _create_lora_modules(self: LoRAModelManager) -> None:
        if self.lora_config.fully_sharded_loras:
            raise UserError("mora-peft does not work with --fully-sharded-loras: start without it.")
        if envs.VLLM_LORA_ENABLE_DUAL_STREAM:
            raise UserError("mora-peft does not work with VLLM_LORA_ENABLE_DUAL_STREAM: start without it.")
        create_modules(self)

    WorkerLoRAManager._load_adapter = _load_adapter
    LoRAModelManager._create_lora_modules = _create_lora_modules


def _fit(manager: LoRAModelManager, adapter: ServedAdapter, adapter_id: int) -> LoRAModel:
    """The adapter as vLLM keeps it; UserError where it does not fit the model or the server's settings."""
    config, scale = manager.lora_config, adapter.config.scaling
    layers = {name: (module, member) for name, module, member in _layers(manager)}
    mapper = getattr(manager.model, "hf_to_vllm_mapper", None)
    mapper = mapper and mapper.get_rename_mapper()
    weights = {}
    for published, M in sorted(adapter.matrices.items()):
        name = mapper._map_name(published) if mapper else published
        if name not in layers and manager.is_pooling_model and f"model.{name}" in layers:
            name = f"model.{name}"
        if name not in layers:
            if name is not None and _is_elsewhere(manager.model, name):
                continue
            raise UserError(_why_not(manager, adapter, published, name))
        module, member = layers[name]
        if not isinstance(module, WithSlots):
            raise UserError(
                f"{adapter.folder} adapts {published}, a {type(module.base_layer).__name__} in the served model, which "
                "MoRA cannot be served on: train without it, or merge the adapter."
            )
        r = adapter.r_for(published)
        if r > config.max_lora_rank:
            raise UserError(
                f"{adapter.folder} has r={r} for {published}, but the server was started for r up to "
                f"{config.max_lora_rank}: start it with --max-lora-rank {r} or the next larger choice."
            )
        operator = adapter.operator_for(published, *module.shapes[member])
        M = (M if scale == 1 else M * scale).to(config.lora_dtype)
        # In the places of A and B, and as many bytes; vLLM leaves what has the scaling 1 as it is.
        weights[name] = LoRALayerWeights(name, r, lora_alpha=r, lora_a=M, lora_b=Pair(operator), scaling=1)
    return LoRAModel(adapter_id, adapter.config.r, weights)


def _check_lora(manager: LoRAModelManager, model: LoRAModel, path: str) -> None:
    """Raise UserError where a LoRA's matrices do not have the model's shapes, which vLLM would find out too late."""
    for name, module, member in _layers(manager):
        weights = model.get_lora(name)
        if weights is None or not isinstance(module, WithSlots):
            continue
        k, d = module.shapes[member]
        if weights.lora_a is None or weights.lora_b is None:
            raise UserError(f"{path} has only one of A and B for {name}: save the adapter again.")
        r = len(weights.lora_a)
        if r > manager.lora_config.max_lora_rank:
            raise UserError(f"{path} has r={r} for {name}, but says otherwise in its configuration: save it again.")
        for matrix, found, expected in (("A", weights.lora_a.shape, (r, k)), ("B", weights.lora_b.shape, (d, r))):
            if tuple(found) != expected:
                raise UserError(
                    f"{path} does not fit the served model: {matrix} of {name} has shape {tuple(found)}, but it should "
                    f"be {expected}; give an adapter of this base model."
                )


def _layers(manager: LoRAModelManager) -> Iterator[tuple[str, nn.Module, int]]:
    """(name in the model as published, the layer that serves it, which of its adapters) for each that takes one."""
    for name, module in manager.modules.items():
        for member, part in enumerate(manager.packed_modules.get(name, [name])):
            yield part, module, member


def _largest(manager: LoRAModelManager) -> int:
    """The most bytes that a weights file for this model can have: all layers adapted, in float64, with their names."""
    rank = manager.lora_config.max_lora_rank
    shapes = [shape for module in manager.modules.values() for shape in getattr(module, "shapes", ())]
    return 2**24 + sum(8 * (rank + 1) * (k + d) + 512 for k, d in shapes)


def _is_elsewhere(model: nn.Module, name: str) -> bool:
    """Whether the layer is in another stage of a pipeline."""
    module = model
    for part in name.split("."):
        if isinstance(module, PPMissingLayer):
            return True
        module = getattr(module, part, None)
    return isinstance(module, PPMissingLayer)


def _why_not(manager: LoRAModelManager, adapter: ServedAdapter, published: str, name: str | None) -> str:
    """The sentence for an adapter of a layer that takes none here."""
    targets = manager.lora_config.target_modules
    kind = published.rpartition(".")[2]
    packed = {part for parts in manager.packed_modules_mapping.values() for part in parts}
    known = packed | set(manager.supported_lora_modules)
    if targets and kind in known and name is not None and not manager._match_target_modules(name):
        return (
            f"{adapter.folder} adapts {published}, but the server was started for {', '.join(sorted(targets))} only: "
            f"start it with {kind} among --lora-target-modules."
        )
    return (
        f"{adapter.folder} adapts {published}, which the served model does not have as a linear layer: "
        "give an adapter of this base model."
    )
