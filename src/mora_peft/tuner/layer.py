"""What every adapted layer has: a frozen base layer with one square matrix M per adapter beside it."""

import math
import warnings
from copy import deepcopy
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, _get_in_out_features, check_adapters_to_merge
from peft.utils import quantization_extra_repr, resolve_quantization_backend
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mora_peft.operators import Operator, can_fold, make_operator, needs_even_side, r_hat_for

from .config import MoraConfig
from .sharding import gathered, shared_out, whole

BASE = "__base__"


class MoraLayer(nn.Module, BaseTunerLayer):
    """A layer that is linear in its weight, and `mora_M`, one (r̂, r̂) parameter per adapter with its operator.

    Each kind of layer says what k and d are, and what `ΔW x` is; life cycle and merging are the same for all.
    `scaling` is the current factor on ΔW of each adapter.
    """

    adapter_layer_names = ("mora_M",)
    other_param_names = ("r", "r_hat", "operator", "scaling", "initial_scaling", "mora_dropout")

    #: Whether rotation and decoupling fold here whatever the configuration says: layers that the authors' code does not
    #: have, and whose inputs outnumber their outputs so far that most would be dropped.
    always_folds = False
    #: Whether the base layer stores its weight as (k, d).
    _transposed = False
    #: Leading sizes of M where one layer holds several matrices, as fused experts do.
    _stack: tuple[int, ...] = ()

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: MoraConfig, r: int, **kwargs: Any) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.quantization_backend = resolve_quantization_backend(
            self.get_base_layer(), get_apply_tensor_subclass=kwargs.get("get_apply_tensor_subclass")
        )
        self.mora_M = nn.ParameterDict({})
        self.mora_dropout = nn.ModuleDict({})
        self.r: dict[str, int] = {}
        self.r_hat: dict[str, int] = {}
        self.operator: dict[str, Operator] = {}
        self.scaling: dict[str, float] = {}
        self.initial_scaling: dict[str, float] = {}
        self._disable_adapters = False
        self.merged_adapters = []
        # What each merged adapter has overwritten: entries of the base weight, or the whole layer if it is quantized.
        self._overwritten: dict[str, list[Tensor] | nn.Module] = {}
        self.cast_input_dtype_enabled = True
        _refuse_tensor_parallel(self.get_base_layer())
        self.in_features, self.out_features = self._features(self.get_base_layer())
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, r, config=config, **kwargs)

    def _features(self, base: nn.Module) -> tuple[int, int]:
        """k and d: what ΔW, of shape (d, k), maps from and to."""
        k, d = _get_in_out_features(base)
        if k is None or d is None:
            raise TypeError(f"Unsupported layer type {type(base)}: MoRA adapts layers that are linear in a weight.")
        return k, d

    def update_layer(
        self, adapter_name: str, r: int, config: MoraConfig, inference_mode: bool = False, **kwargs: Any
    ) -> None:
        """Add the adapter `adapter_name` with LoRA-equivalent rank `r`, on the base layer's device."""
        k, d = self.in_features, self.out_features
        r_hat = r_hat_for(k, d, r, even=needs_even_side(config.operator), cap=config.cap_r_hat)
        fold = config.fold or (self.always_folds and can_fold(config.operator))
        self.operator[adapter_name] = make_operator(
            config.operator, k=k, d=d, r_hat=r_hat, layout=config.layout, fold=fold
        )
        self.r[adapter_name], self.r_hat[adapter_name] = r, r_hat
        self.scaling[adapter_name] = self.initial_scaling[adapter_name] = config.scaling
        self.mora_dropout[adapter_name] = nn.Dropout(config.mora_dropout) if config.mora_dropout else nn.Identity()
        self._make_M(adapter_name, config.init_weights)
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def _make_M(self, adapter: str, zero: bool) -> None:
        self.mora_M[adapter] = nn.Parameter(torch.zeros(*self._stack, self.r_hat[adapter], self.r_hat[adapter]))
        if not zero:
            nn.init.kaiming_uniform_(self.mora_M[adapter], a=math.sqrt(5))
        self._move_adapter_to_device_of_base_layer(adapter)

    def set_scale(self, adapter: str, scale: float) -> None:
        """Set the factor on ΔW of `adapter` to `scale` times the configured one."""
        if adapter in self.scaling:
            self.scaling[adapter] = scale * self.initial_scaling[adapter]

    def scale_layer(self, scale: float) -> None:
        """Multiply the factor on ΔW of every active adapter by `scale`."""
        for adapter in self._active_here():
            self.scaling[adapter] *= scale

    def unscale_layer(self, scale: float | None = None) -> None:
        """Divide the factor on ΔW of every active adapter by `scale`; None sets it back to the configured one."""
        for adapter in self._active_here():
            self.scaling[adapter] = self.initial_scaling[adapter] if scale is None else self.scaling[adapter] / scale

    def _active_here(self) -> list[str]:
        return [adapter for adapter in self.active_adapters if adapter in self.operator]

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return False

    def lora_tensors(self, A: list[Tensor], B: list[Tensor]) -> dict[str, Tensor]:
        """A (rank, k) and B (d, rank) of each of the layer's matrices, as PEFT's LoRA of such a layer names them."""
        return {"lora_A.weight": A[0], "lora_B.weight": B[0]}

    # Forward.

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The base layer's output plus scaling · ΔW x of each active adapter; for a linear layer (..., k) → (..., d).

        `adapter_names` gives each sample x[i] an adapter of its own; `"__base__"` is the base model alone.
        """
        adapter_names = kwargs.pop("adapter_names", None)
        if self.disable_adapters:
            result = self.base_layer(x, *args, **kwargs)
            return self._without_merged(x, result) if self.merged else result
        if adapter_names is not None:
            return self._mixed_forward(x, adapter_names, *args, **kwargs)
        if self.merged:
            return self.base_layer(x, *args, **kwargs)
        return self._with_adapters(x, self._active_here(), *args, **kwargs)

    def _with_adapters(self, x: Tensor, adapters: list[str], *args: Any, **kwargs: Any) -> Tensor:
        result = self.base_layer(x, *args, **kwargs)
        for adapter in adapters:
            result = result + self._adapter_output(adapter, self.mora_dropout[adapter](x)).to(result.dtype)
        return result

    def _adapter_output(self, adapter: str, x: Tensor) -> Tensor:
        """scaling · ΔW x, without the base layer."""
        raise NotImplementedError

    def _M(self, adapter: str) -> Tensor:
        return self.mora_M[adapter]

    def _scaled_M(self, adapter: str) -> Tensor:
        M, scaling = self._M(adapter), self.scaling[adapter]
        return M if scaling == 1.0 else M * scaling

    def _without_merged(self, x: Tensor, result: Tensor) -> Tensor:
        """The base's own output while adapters are merged into it: their share is subtracted."""
        for adapter in self.merged_adapters:
            result = result - self._adapter_output(adapter, x).to(result.dtype)
        return result

    def _mixed_forward(self, x: Tensor, adapter_names: list[str], *args: Any, **kwargs: Any) -> Tensor:
        if x.dim() == 2 and adapter_names and len(x) % len(adapter_names) == 0:
            # OPT's MLP hands over batch and sequence merged into one dimension.
            adapter_names = [name for name in adapter_names for _ in range(len(x) // len(adapter_names))]
        if len(x) != len(adapter_names):
            raise ValueError(
                "Length of `adapter_names` should be the same as the number of inputs, but got "
                f"{len(adapter_names)} and {len(x)} respectively."
            )
        if self.merged:
            raise ValueError(
                "Cannot pass `adapter_names` when there are merged adapters, please call `unmerge_adapter` first."
            )
        result = self.base_layer(x, *args, **kwargs)
        alike: dict[tuple, list[str]] = {}
        for name in dict.fromkeys(adapter_names):
            if name in self.operator:
                alike.setdefault((self.operator[name], self._M(name).dtype), []).append(name)
        for names in alike.values():
            samples = [i for i, name in enumerate(adapter_names) if name in names]
            whole = len(samples) == len(x)
            y = self._mixed_output([adapter_names[i] for i in samples], x if whole else x[samples]).to(result.dtype)
            result = result + y if whole else result.index_add(0, torch.tensor(samples, device=x.device), y)
        return result

    def _mixed_output(self, names: list[str], x: Tensor) -> Tensor:
        """scaling · ΔW x[i] of the adapter names[i]; all of them have one operator and one dtype."""
        return torch.cat([self._adapter_output(*each) for each in zip(names, x.split(1), strict=True)])

    # Merging.

    def get_delta_weight(self, adapter: str) -> Tensor:
        """scaling · ΔW of `adapter`, in the layout of the base layer's weight: (d, k) for `nn.Linear`."""
        with gathered(self._M(adapter)):
            delta = self.operator[adapter].delta_weight(self._merge_M(adapter)).to(self._M(adapter).dtype)
        return delta.T if self._transposed else delta

    def _merge_M(self, adapter: str) -> Tensor:
        """scaling · M, in float32 at least: rotating M in half precision would round more than once."""
        M = whole(self._M(adapter).detach())
        return M.to(torch.promote_types(M.dtype, torch.float32)) * self.scaling[adapter]

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add ΔW of the active adapters (or `adapter_names`) to the base weight, in place.

        What that overwrites is kept until `unmerge`: all of W for sharing, r̂ / k of it for rotation (a sixteenth at
        4096 x 4096 and r=8), the layer as it was for a quantized one.

        Args:
            safe_merge: Merge into a copy first and raise where the result has NaNs or infinities.
        """
        for adapter in check_adapters_to_merge(self, adapter_names):
            if adapter not in self.operator:
                continue
            with gathered(*self._weights(), self._M(adapter)):
                weight = self.get_base_weight()
                overwritten = self.base_layer
                if self.quantization_backend is None:
                    overwritten = [part.clone() for part in self._touched(weight, adapter)]
                if safe_merge:
                    weight = weight.clone()
                self._add_delta_(weight, adapter)
                if safe_merge and not torch.isfinite(weight).all():
                    raise ValueError(f"NaNs detected in the merged weights. The adapter {adapter} seems to be broken")
                if self.quantization_backend is not None:
                    self.base_layer = deepcopy(self.base_layer)
                if safe_merge or self.quantization_backend is not None:
                    self.set_base_weight(weight)
            self._overwritten[adapter] = overwritten
            self.merged_adapters.append(adapter)

    def unmerge(self) -> None:
        """Give the base layer back the weights that it had before `merge`, bit by bit."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        while self.merged_adapters:
            adapter = self.merged_adapters.pop()
            overwritten = self._overwritten.pop(adapter)
            if isinstance(overwritten, nn.Module):
                self.base_layer = overwritten
            elif adapter in self.operator:
                with gathered(*self._weights()), torch.no_grad():
                    for part, before in zip(self._touched(self.get_base_weight(), adapter), overwritten, strict=True):
                        part.copy_(before)

    def keep_merged(self, adapter: str) -> None:
        """Leave ΔW of `adapter`, which is merged, in the base for good: nothing takes it out again."""
        self.merged_adapters.remove(adapter)
        del self._overwritten[adapter]

    def _weights(self) -> list[nn.Parameter]:
        """The base layer's own parameters, which merging changes some of."""
        return list(self.get_base_layer().parameters(recurse=False))

    def _touched(self, weight: Tensor, adapter: str) -> list[Tensor]:
        """The entries of `weight` that merging `adapter` writes, as views."""
        return [weight.to_local()] if isinstance(weight, DTensor) else self._touched_of_whole(weight, adapter)

    def _touched_of_whole(self, weight: Tensor, adapter: str) -> list[Tensor]:
        return self.operator[adapter].touched(weight.T if self._transposed else weight)

    @torch.no_grad()
    def _add_delta_(self, weight: Tensor, adapter: str) -> None:
        """`weight += scaling · ΔW` in place, in the layout that it has."""
        if isinstance(weight, DTensor):  # sharded (FSDP2): each process adds its own part of the whole ΔW
            delta = self.get_delta_weight(adapter).to(weight.dtype)
            weight.to_local().add_(shared_out(delta, weight).to_local())
            return
        self._add_whole_delta_(weight, adapter)

    def _add_whole_delta_(self, weight: Tensor, adapter: str) -> None:
        M = self._merge_M(adapter).to(weight.device)
        self.operator[adapter].add_delta_(weight.T if self._transposed else weight, M)

    def __repr__(self) -> str:
        return "mora." + super().__repr__()

    def extra_repr(self) -> str:
        return quantization_extra_repr(self)


def _refuse_tensor_parallel(base: nn.Module) -> None:
    """Raise ValueError where a plan of tensor parallelism has split the weights of `base`; FSDP's meshes may."""
    for weight in base.parameters(recurse=False):
        if isinstance(weight, DTensor) and not set(weight.device_mesh.mesh_dim_names or ()) <= {"fsdp"}:
            raise ValueError(
                "MoRA does not support tensor parallelism: each process would see a part of a layer's inputs or "
                "outputs, and M works on all of them. Load the model without `tp_plan`, and shard it by FSDP instead."
            )
