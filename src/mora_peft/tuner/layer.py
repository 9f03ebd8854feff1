"""The layer: a frozen linear layer with one square matrix M per adapter beside it."""

import math
import warnings
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, _get_in_out_features, check_adapters_to_merge
from peft.utils import quantization_extra_repr, resolve_quantization_backend
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mora_peft.operators import Operator, make_operator, needs_even_side, r_hat_for
from mora_peft.operators.batched import segmented_product
from mora_peft.operators.fused import mora_linear

from .config import MoraConfig

BASE = "__base__"


class MoraLayer(BaseTunerLayer):
    """What every adapted layer has: `mora_M`, one (r̂, r̂) parameter per adapter, and its operator.

    `scaling` is the current factor on ΔW of each adapter.
    """

    adapter_layer_names = ("mora_M",)
    other_param_names = ("r", "r_hat", "operator", "scaling", "initial_scaling", "mora_dropout")

    def __init__(self, base_layer: nn.Module, **kwargs: Any) -> None:
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
        self.cast_input_dtype_enabled = True
        self.in_features, self.out_features = _get_in_out_features(self.get_base_layer())
        if self.in_features is None or self.out_features is None:
            raise TypeError(f"Unsupported layer type {type(base_layer)}: MoRA adapts linear layers.")

    def update_layer(
        self, adapter_name: str, r: int, config: MoraConfig, inference_mode: bool = False, **kwargs: Any
    ) -> None:
        """Add the adapter `adapter_name` with LoRA-equivalent rank `r`, on the base layer's device."""
        k, d = self.in_features, self.out_features
        r_hat = r_hat_for(k, d, r, even=needs_even_side(config.operator), cap=config.cap_r_hat)
        self.operator[adapter_name] = make_operator(
            config.operator, k=k, d=d, r_hat=r_hat, layout=config.layout, fold=config.fold
        )
        self.r[adapter_name], self.r_hat[adapter_name] = r, r_hat
        self.scaling[adapter_name] = self.initial_scaling[adapter_name] = config.scaling
        self.mora_dropout[adapter_name] = nn.Dropout(config.mora_dropout) if config.mora_dropout else nn.Identity()
        self.mora_M[adapter_name] = nn.Parameter(torch.zeros(r_hat, r_hat))
        if not config.init_weights:
            nn.init.kaiming_uniform_(self.mora_M[adapter_name], a=math.sqrt(5))
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

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
        return [adapter for adapter in self.active_adapters if adapter in self.mora_M]

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return True


class MoraLinear(nn.Module, MoraLayer):
    """MoRA on `nn.Linear`, transformers' `Conv1D`, or a quantized linear layer that PEFT has a backend for."""

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: MoraConfig, r: int, **kwargs: Any) -> None:
        super().__init__()
        MoraLayer.__init__(self, base_layer, **kwargs)
        self._active_adapter = adapter_name
        self._transposed = isinstance(self.get_base_layer(), Conv1D)
        self.update_layer(adapter_name, r, config=config, **kwargs)

    # Forward.

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(..., k) → (..., d): the base layer's output plus scaling · ΔW x of each active adapter."""
        adapter_names = kwargs.pop("adapter_names", None)
        active = self._active_here()
        if self.disable_adapters:
            result = self.base_layer(x, *args, **kwargs)
            return self._without_merged(x, result) if self.merged else result
        if adapter_names is not None:
            return self._mixed_forward(x, adapter_names, *args, **kwargs)
        if self.merged:
            return self.base_layer(x, *args, **kwargs)
        if len(active) == 1 and not args and not kwargs and self._fusable(x, active[0]):
            base = self.base_layer
            name = active[0]
            return mora_linear(x, self.mora_M[name], base.weight, base.bias, self.operator[name], self.scaling[name])
        result = self.base_layer(x, *args, **kwargs)
        for adapter in active:
            result = result + self._adapter_output(adapter, self.mora_dropout[adapter](x)).to(result.dtype)
        return result

    def _adapter_output(self, adapter: str, x: Tensor) -> Tensor:
        M = self._scaled_M(adapter)
        return self.operator[adapter](self._cast_input_dtype(x, M.dtype), M)

    def _scaled_M(self, adapter: str) -> Tensor:
        M, scaling = self.mora_M[adapter], self.scaling[adapter]
        return M if scaling == 1.0 else M * scaling

    def _without_merged(self, x: Tensor, result: Tensor) -> Tensor:
        """The base's own output while adapters are merged into it: their share is subtracted."""
        for adapter in self.merged_adapters:
            result = result - self._adapter_output(adapter, x).to(result.dtype)
        return result

    def _fusable(self, x: Tensor, adapter: str) -> bool:
        """Whether base and adapter can run as one step (see `mora_linear`).

        That is a plain, frozen `nn.Linear` that nobody hooks into, in training, with more tokens than M has rows:
        below that, rotating the tokens is cheaper than rotating M. A compiler fuses the plain path by itself.
        """
        base = self.base_layer
        if type(base) is not nn.Linear or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return False
        weight, bias, dropout = base.weight, base.bias, self.mora_dropout[adapter]
        return (
            type(weight) is nn.Parameter
            and not weight.requires_grad
            and (bias is None or not bias.requires_grad)
            and x.numel() >= self.r_hat[adapter] * x.shape[-1]
            and (x.dtype == weight.dtype or torch.is_autocast_enabled(x.device.type))
            and self.cast_input_dtype_enabled
            and not (self.training and isinstance(dropout, nn.Dropout))
            and not (base._forward_hooks or base._forward_pre_hooks or base._backward_hooks or base._backward_pre_hooks)
            and "forward" not in base.__dict__
        )

    def _mixed_forward(self, x: Tensor, adapter_names: list[str], *args: Any, **kwargs: Any) -> Tensor:
        """Each sample x[i] with its own adapter `adapter_names[i]`; `"__base__"` is the base model alone.

        Adapters of one operator and side share one compress, one batched product and one decompress.
        """
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
            if name in self.mora_M:
                alike.setdefault((self.operator[name], self.mora_M[name].dtype), []).append(name)
        for names in alike.values():
            samples = [i for i, name in enumerate(adapter_names) if name in names]
            operator, dtype = self.operator[names[0]], self.mora_M[names[0]].dtype
            scaled = {name: self._scaled_M(name) for name in names}
            whole = len(samples) == len(x)
            s = operator.compress(self._cast_input_dtype(x if whole else x[samples], dtype))
            y = operator.decompress(segmented_product(s, [scaled[adapter_names[i]] for i in samples])).to(result.dtype)
            result = result + y if whole else result.index_add(0, torch.tensor(samples, device=x.device), y)
        return result

    # Merging.

    def get_delta_weight(self, adapter: str) -> Tensor:
        """scaling · ΔW of `adapter`, in the layout of the base layer's weight: (d, k), or (k, d) for `Conv1D`."""
        delta = self.operator[adapter].delta_weight(self._merge_M(adapter)).to(self.mora_M[adapter].dtype)
        return delta.T if self._transposed else delta

    def _merge_M(self, adapter: str) -> Tensor:
        """scaling · M, in float32 at least: rotating M in half precision would round more than once."""
        M = self.mora_M[adapter].detach()
        return M.to(torch.promote_types(M.dtype, torch.float32)) * self.scaling[adapter]

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add ΔW of the active adapters (or `adapter_names`) to the base weight, in place.

        Args:
            safe_merge: Merge into a copy first and raise where the result has NaNs or infinities.
        """
        for adapter in check_adapters_to_merge(self, adapter_names):
            if adapter not in self.mora_M:
                continue
            weight = self.get_base_weight()
            if safe_merge:
                weight = weight.clone()
            self._add_delta_(weight, adapter, 1.0)
            if safe_merge and not torch.isfinite(weight).all():
                raise ValueError(f"NaNs detected in the merged weights. The adapter {adapter} seems to be broken")
            if safe_merge or self.quantization_backend is not None:
                self.set_base_weight(weight)
            self.merged_adapters.append(adapter)

    def unmerge(self) -> None:
        """Subtract ΔW of every merged adapter from the base weight again."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        while self.merged_adapters:
            adapter = self.merged_adapters.pop()
            if adapter not in self.mora_M:
                continue
            weight = self.get_base_weight()
            self._add_delta_(weight, adapter, -1.0)
            if self.quantization_backend is not None:
                self.set_base_weight(weight)

    @torch.no_grad()
    def _add_delta_(self, weight: Tensor, adapter: str, sign: float) -> None:
        M = self._merge_M(adapter).to(weight.device)
        self.operator[adapter].add_delta_(weight.T if self._transposed else weight, M, sign)

    def __repr__(self) -> str:
        return "mora." + super().__repr__()

    def extra_repr(self) -> str:
        return quantization_extra_repr(self)
