"""MoRA on a parameter that no linear layer owns, as fused experts have: `target_parameters`."""

from typing import Any

import torch
from torch import Tensor, nn

from .config import MoraConfig
from .layer import MoraLayer
from .sharding import gathered, is_partitioned, shape_of


class ParamWrapper(MoraLayer):
    """One parameter of a module, with an M for each of its matrices: E experts (E, r̂, r̂), a plain matrix (r̂, r̂).

    The module runs with `W + ΔW` in the parameter's place, made anew for every forward, since it may use the parameter
    in any way. A three-dimensional parameter is (E, d, k), or (E, k, d) where the module says `is_transposed`. Further
    parameters of one module wrap each other, as in PEFT, which knows this class by its name.
    """

    def __init__(self, base_layer: nn.Module, adapter_name: str, parameter_name: str, **kwargs: Any) -> None:
        self.parameter_name = parameter_name
        super().__init__(base_layer, adapter_name, **kwargs)

    def _parameter(self) -> nn.Parameter:
        return getattr(self.get_base_layer(), self.parameter_name)

    def _features(self, base: nn.Module) -> tuple[int, int]:
        shape = shape_of(self._parameter())
        if len(shape) not in (2, 3) or not self._parameter().is_floating_point():
            raise ValueError(
                f"`target_parameters` names {self.parameter_name}, which has {len(shape)} dimensions in "
                f"{self._parameter().dtype}: MoRA adapts parameters of 2 or 3 dimensions in a floating point type."
            )
        self._stack = tuple(shape[:-2])
        self._transposed = bool(self._stack) and getattr(base, "is_transposed", False)
        d, k = shape[-2:]
        return (d, k) if self._transposed else (k, d)

    def update_layer(self, adapter_name: str, r: int, config: MoraConfig, **kwargs: Any) -> None:
        if config.mora_dropout:
            raise ValueError(
                "`mora_dropout` must be 0 with `target_parameters`: the module alone knows the input that the adapter "
                f"of {self.parameter_name} would drop from."
            )
        super().update_layer(adapter_name, r, config=config, **kwargs)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        weight, M = self._parameter(), self.mora_M[adapter_name]
        if M.device.type != "meta":
            self.mora_M[adapter_name] = M.to(device or weight.device, weight.dtype)

    # Forward.

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.pop("adapter_names", None) is not None:
            raise ValueError(f"Adapters of parameters ({self.parameter_name}) cannot be mixed in one batch.")
        if self.disable_adapters:
            return self._forward_with(-1.0, self.merged_adapters, *args, **kwargs)
        return self._forward_with(1.0, [] if self.merged else self._active_here(), *args, **kwargs)

    def _forward_with(self, sign: float, adapters: list[str], *args: Any, **kwargs: Any) -> Any:
        """The module with `W + sign · ΔW` of the adapters in W's place."""
        if not adapters:
            return self.base_layer(*args, **kwargs)
        weight, name, inner = self._parameter(), self.parameter_name, self.base_layer
        if is_partitioned(weight):
            raise ValueError(
                f"An adapter of a parameter ({name}) needs it whole, but ZeRO-3 has split it over the processes and "
                "gathers it for its own module alone: leave out `target_parameters`, or shard by FSDP2."
            )
        for adapter in adapters:
            weight = weight + sign * self._delta(adapter, self._scaled_M(adapter)).to(weight.dtype)
        while isinstance(inner, ParamWrapper):
            name, inner = f"base_layer.{name}", inner.base_layer
        return torch.func.functional_call(self.base_layer, {name: weight}, args, kwargs)

    def _delta(self, adapter: str, M: Tensor) -> Tensor:
        """ΔW in the parameter's layout; differentiable in M."""
        operator = self.operator[adapter]
        delta = torch.stack([operator.delta_weight(each) for each in M]) if self._stack else operator.delta_weight(M)
        return delta.mT if self._transposed else delta

    # Merging.

    def get_base_weight(self) -> Tensor:
        return self._parameter().data

    def set_base_weight(self, weight_data: Tensor) -> None:
        self._parameter().data = weight_data

    def _weights(self) -> list[nn.Parameter]:
        return [self._parameter()]

    def get_delta_weight(self, adapter: str) -> Tensor:
        with gathered(self._M(adapter)):
            return self._delta(adapter, self._merge_M(adapter)).to(self.mora_M[adapter].dtype)

    def _matrices(self, weight: Tensor) -> list[Tensor]:
        """The parameter as views of (d, k)."""
        matrices = weight.mT if self._transposed else weight
        return list(matrices) if self._stack else [matrices]

    def _touched_of_whole(self, weight: Tensor, adapter: str) -> list[Tensor]:
        return [part for W in self._matrices(weight) for part in self.operator[adapter].touched(W)]

    def _add_whole_delta_(self, weight: Tensor, adapter: str) -> None:
        M = self._merge_M(adapter).to(weight.device)
        for W, each in zip(self._matrices(weight), M if self._stack else [M], strict=True):
            self.operator[adapter].add_delta_(W, each)

    def lora_tensors(self, A: list[Tensor], B: list[Tensor]) -> dict[str, Tensor]:
        """All experts' A below each other; of B's columns, those of one rank and all experts are neighbours."""
        return {"lora_A.weight": torch.cat(A), "lora_B.weight": torch.stack(B, dim=-1).flatten(1)}

    def unload_and_optionally_merge_module(
        self, merge: bool, safe_merge: bool, adapter_names: list[str] | None
    ) -> nn.Module:
        """The module without its wrappers, which PEFT calls on the outermost of them."""
        layer = self
        while isinstance(layer, ParamWrapper):
            if merge:
                layer.merge(safe_merge=safe_merge, adapter_names=adapter_names)
            layer = layer.base_layer
        return layer

    def extra_repr(self) -> str:
        return f"parameter_name={self.parameter_name!r}"
