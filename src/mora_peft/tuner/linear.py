"""MoRA on linear layers, plain or quantized: base and adapter as one step where they can be."""

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from transformers.pytorch_utils import Conv1D

from mora_peft.operators.batched import segmented_product
from mora_peft.operators.fused import autocasts, mora_linear

from .config import MoraConfig
from .layer import MoraLayer

#: Kinds of weights that are numbers and nothing else; a fake one stands for a plain one where memory is planned.
_PLAIN = (nn.Parameter, FakeTensor)


class MoraLinear(MoraLayer):
    """MoRA on `nn.Linear`, transformers' `Conv1D`, or a quantized linear layer that PEFT has a backend for."""

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: MoraConfig, r: int, **kwargs: Any) -> None:
        super().__init__(base_layer, adapter_name, config=config, r=r, **kwargs)
        self._transposed = isinstance(self.get_base_layer(), Conv1D)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return True

    def _with_adapters(self, x: Tensor, adapters: list[str], *args: Any, **kwargs: Any) -> Tensor:
        if len(adapters) == 1 and not args and not kwargs and self._fusable(x, adapters[0]):
            base = self.base_layer
            name = adapters[0]
            return mora_linear(x, self.mora_M[name], base.weight, base.bias, self.operator[name], self.scaling[name])
        return super()._with_adapters(x, adapters, *args, **kwargs)

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
            type(weight) in _PLAIN
            and not weight.requires_grad
            and (bias is None or not bias.requires_grad)
            and x.numel() >= self.r_hat[adapter] * x.shape[-1]
            and (x.dtype == weight.dtype or autocasts(x))
            and self.cast_input_dtype_enabled
            and not (self.training and isinstance(dropout, nn.Dropout))
            and not (base._forward_hooks or base._forward_pre_hooks or base._backward_hooks or base._backward_pre_hooks)
            and "forward" not in base.__dict__
        )

    def _adapter_output(self, adapter: str, x: Tensor) -> Tensor:
        M = self._scaled_M(adapter)
        return self.operator[adapter](self._cast_input_dtype(x, M.dtype), M)

    def _mixed_output(self, names: list[str], x: Tensor) -> Tensor:
        """One compress, one batched product and one decompress for all."""
        operator, dtype = self.operator[names[0]], self.mora_M[names[0]].dtype
        scaled = {name: self._scaled_M(name) for name in dict.fromkeys(names)}
        s = operator.compress(self._cast_input_dtype(x, dtype))
        return operator.decompress(segmented_product(s, [scaled[name] for name in names]))
