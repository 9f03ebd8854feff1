"""MoraModel: puts MoRA layers into a model, and what works on a model's adapters as a whole."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import LoraModel
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, onload_layer
from peft.utils import (
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
    AuxiliaryTrainingWrapper,
    get_quantization_kwargs,
    resolve_quantization_backend,
)
from peft.utils.error import NoMatchingPeftModuleError
from torch import nn
from transformers.pytorch_utils import Conv1D

from .config import MoraConfig
from .conv import MoraConv
from .embedding import MoraEmbedding, MoraTiedHead
from .layer import BASE, MoraLayer
from .linear import MoraLinear
from .parameter import ParamWrapper


class MoraModel(BaseTuner):
    """A model whose target layers carry MoRA adapters. Made by `get_peft_model(model, MoraConfig(...))`.

    Args:
        model: The model to adapt.
        config: The configuration of the adapter.
        adapter_name: Its name, `"default"` unless given.
        low_cpu_mem_usage: Create the adapter's weights on the meta device.
    """

    prefix: str = "mora_"
    tuner_layer_cls = MoraLayer
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        try:
            super().inject_adapter(model, adapter_name, *args, **kwargs)
        except NoMatchingPeftModuleError as error:
            hint = _nearest_modules(model, self.peft_config[adapter_name].target_modules)
            raise type(error)(f"{error}{hint}") from None

    def _create_and_replace(
        self,
        config: MoraConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if current_key is None:
            raise ValueError("Current Key shouldn't be `None`")
        r = config.r_for(current_key)
        tied = parameter_name is None and bool(self._check_tied_module_exists(config, current_key))
        # A wrapper that has this adapter already wraps another parameter of the same module.
        nested = isinstance(target, ParamWrapper) and adapter_name in target.operator
        if isinstance(target, MoraLayer) and not nested:
            if tied != isinstance(target, MoraTiedHead):
                raise ValueError(f"Adapters of one model must agree on `ensure_weight_tying` ({current_key}).")
            target.update_layer(adapter_name, r, config=config)
            return
        options = {"config": config, "r": r}
        if parameter_name is not None:
            layer = ParamWrapper(target, adapter_name, parameter_name=parameter_name, **options)
        elif tied:
            embedding = self.model.get_input_embeddings()
            layer = MoraTiedHead(target, adapter_name, embedding=embedding, **options)
        else:
            layer = self._wrapped(target, adapter_name, current_key, **options)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _wrapped(self, target: nn.Module, adapter_name: str, key: str, **options: Any) -> MoraLayer:
        """`target` in the layer that adapts its kind."""
        base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        if isinstance(base, nn.Embedding):
            return MoraEmbedding(target, adapter_name, **options)
        if isinstance(base, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return MoraConv(target, adapter_name, **options)
        quantization_kwargs = get_quantization_kwargs(self)
        quantization = resolve_quantization_backend(base, **quantization_kwargs)
        if not isinstance(base, nn.Linear | Conv1D) and getattr(quantization, "layer_type", None) != "linear":
            raise ValueError(
                f"Target module {target} ({key}) is not supported: MoRA adapts `torch.nn.Linear` (plain or quantized), "
                "transformers' `Conv1D`, `torch.nn.Embedding`, and convolutions that are not transposed. Leave it out "
                "of `target_modules`, or name it in `modules_to_save` to train it whole."
            )
        return MoraLinear(target, adapter_name, **options, **quantization_kwargs)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        unloaded = isinstance(child, MoraLayer) and new_module is child.get_base_layer()
        # What a ParamWrapper wraps has no `weight` to hand on, as PEFT expects of layers. A base layer that gets its
        # place back has its own, which could not be set in hqq's.
        if isinstance(child, ParamWrapper) or unloaded:
            setattr(parent, child_name, new_module)
        else:
            super()._replace_module(parent, child_name, new_module, child)

    def _check_new_adapter_config(self, config: MoraConfig) -> None:
        super()._check_new_adapter_config(config)
        # Which parameter a matrix belongs to is told by the order in which wrappers are nested.
        for name, other in self.peft_config.items():
            asked = [set(each.target_parameters or ()) for each in (config, other)]
            if other is not config and all(asked) and asked[0] != asked[1]:
                raise ValueError(
                    "All adapters of one model must have the same `target_parameters`, or none: "
                    f"got {sorted(asked[0])}, but the adapter {name!r} has {sorted(asked[1])}."
                )

    # LoRA's model asks for no target modules where there are target parameters, and leaves what shares the embedding's
    # weight to the embedding.
    _prepare_adapter_config = LoraModel._prepare_adapter_config
    _add_modules_to_save_to_tie = LoraModel._add_modules_to_save_to_tie
    _add_targets_to_tie = LoraModel._add_targets_to_tie

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Hand `adapter_names`, one for each sample of a mixed batch, to every adapted layer."""
        adapter_names = kwargs.pop("adapter_names", None)
        if adapter_names is None:
            yield
            return
        if self.training:
            raise ValueError("Cannot pass `adapter_names` when the model is in training mode.")
        if not isinstance(adapter_names, list | tuple):
            raise TypeError(f"Got adapter names of type {type(adapter_names)}, expected a list of str.")
        unknown = set(adapter_names) - set(self.peft_config) - {BASE}
        if unknown:
            raise ValueError(f"Trying to infer with non-existing adapter(s): {', '.join(sorted(unknown))}")
        beams = kwargs.get("num_beams") or 1
        # Beam search repeats every sample in the decoder, not in the encoder of an encoder-decoder model.
        get_encoder = getattr(self.model, "get_encoder", None) if beams > 1 else None
        encoder = get_encoder() if get_encoder is not None and self.model.config.is_encoder_decoder else None
        in_encoder = set(encoder.modules()) if encoder is not None else set()
        repeated = [name for name in adapter_names for _ in range(beams)]
        handles = []
        for module in self.modules():
            if isinstance(module, MoraLayer | AuxiliaryTrainingWrapper):
                names = list(adapter_names) if module in in_encoder else repeated
                handles.append(module.register_forward_pre_hook(partial(_pass_names, names=names), with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def unmerge_adapter(self) -> None:
        """Give every layer the weights back that it had before `merge_adapter`, bit by bit."""
        for module in reversed(list(self.model.modules())):  # the last first, where layers share a weight
            if isinstance(module, MoraLayer):
                with onload_layer(module):
                    module.unmerge()

    def add_weighted_adapter(
        self, adapters: list[str], weights: list[float], adapter_name: str, combination_type: str = "linear"
    ) -> None:
        """Add the adapter `adapter_name` whose ΔW is `Σ weights[i] · ΔW of adapters[i]`.

        The given adapters must have the same operator and the same r̂ in every layer: then the sum of their ΔW is a
        MoRA of that shape too.

        Raises:
            ValueError: An unknown adapter, a name that is taken, another combination than `"linear"`, or adapters of
                different shapes.
        """
        if adapter_name in self.peft_config:
            raise ValueError(f"Adapter {adapter_name!r} already exists: choose another name, or delete it first.")
        if combination_type != "linear":
            raise ValueError(f"`combination_type` must be 'linear' for MoRA adapters, but is {combination_type!r}.")
        if len(adapters) != len(weights) or not adapters:
            raise ValueError(f"Give one weight for each adapter: got {len(weights)} weights, {len(adapters)} adapters.")
        for name in adapters:
            if name not in self.peft_config:
                raise ValueError(f"Adapter {name!r} does not exist: expected some of {sorted(self.peft_config)}.")
        layers = [(name, layer) for name, layer in self.named_modules() if isinstance(layer, MoraLayer)]
        for key, layer in layers:
            if len({layer.operator.get(name) for name in adapters}) > 1:
                found = ", ".join(f"{name}: {layer.operator.get(name, 'absent')}" for name in adapters)
                raise ValueError(f"Only MoRA adapters of equal shape can be combined, but in {key} they are {found}.")
        # Equal shapes in every layer: the first adapter's config describes the layers of all of them.
        self.peft_config[adapter_name] = copy(self.peft_config[adapters[0]])
        self.inject_adapter(self.model, adapter_name)
        with torch.no_grad():
            for _, layer in layers:
                if adapter_name not in layer.mora_M:
                    continue  # absent here, or tied to the embedding's
                total = sum(w * layer.scaling[n] * layer.mora_M[n] for n, w in zip(adapters, weights, strict=True))
                layer.mora_M[adapter_name].copy_(total / layer.scaling[adapter_name])


def _pass_names(module: nn.Module, args: tuple, kwargs: dict, names: list[str]) -> tuple[tuple, dict]:
    return args, {**kwargs, "adapter_names": names}


def _nearest_modules(model: nn.Module, targets: set[str] | str | None) -> str:
    """A sentence that names the layers closest in spelling to what was asked for, or nothing."""
    known = sorted({name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)})
    asked = [targets] if isinstance(targets, str) else sorted(targets or ())
    near = [match for name in asked for match in difflib.get_close_matches(name, known, n=1)]
    if near and isinstance(targets, str):
        return f" A string is matched as a regular expression against whole names: did you mean the list {near}?"
    if near:
        return f" Did you mean {', '.join(map(repr, dict.fromkeys(near)))}?"
    return f" Its linear layers are called {', '.join(map(repr, known))}." if known else ""
