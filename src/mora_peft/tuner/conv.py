"""MoRA on convolutions: the kernel as a matrix from a patch of inputs to the outputs at one position."""

import math

from torch import Tensor, nn

from .layer import MoraLayer
from .sharding import shape_of


class MoraConv(MoraLayer):
    """MoRA on `nn.Conv1d`, `nn.Conv2d` and `nn.Conv3d`, with any stride, padding, dilation and groups.

    The kernel (out, in / groups, *size) is the matrix (d, k) of d = out and k = in / groups · prod(size), channels
    first, as `kernel.flatten(1)` lays it out. Each group of outputs has its own rows in it. ΔW is made for every step,
    since it is small beside the activations, and convolved as the base's kernel is. Rotation and decoupling always
    fold: a kernel wider than one position has more inputs than outputs.
    """

    always_folds = True

    def _features(self, base: nn.Module) -> tuple[int, int]:
        return base.in_channels // base.groups * math.prod(base.kernel_size), base.out_channels

    @property
    def stride(self) -> tuple[int, ...]:
        """Of the base layer: Whisper asks its convolutions how many positions they skip."""
        return self.get_base_layer().stride

    def _adapter_output(self, adapter: str, x: Tensor) -> Tensor:
        """(batch, in, *positions) → (batch, out, *positions)."""
        base, M = self.get_base_layer(), self._scaled_M(adapter)
        kernel = self.operator[adapter].delta_weight(M).view(shape_of(base.weight))
        return base._conv_forward(self._cast_input_dtype(x, M.dtype), kernel, None)

    def get_delta_weight(self, adapter: str) -> Tensor:
        return super().get_delta_weight(adapter).view(shape_of(self.get_base_layer().weight))

    def lora_tensors(self, A: list[Tensor], B: list[Tensor]) -> dict[str, Tensor]:
        base = self.get_base_layer()
        if base.groups > 1 or base.padding_mode != "zeros" or set(base.dilation) != {1}:
            raise ValueError(
                f"{base} cannot be converted: PEFT's LoRA leaves groups, dilation and padding modes out of its kernel."
            )
        ones = [1] * len(base.kernel_size)
        kernel = A[0].reshape(-1, *base.weight.shape[1:])
        return {"lora_A.weight": kernel, "lora_B.weight": B[0].reshape(*B[0].shape, *ones)}

    def _touched_of_whole(self, weight: Tensor, adapter: str) -> list[Tensor]:
        return [weight]

    def _add_whole_delta_(self, weight: Tensor, adapter: str) -> None:
        """A kernel may lie in memory with channels last, where no view of it is a matrix."""
        delta = self.operator[adapter].delta_weight(self._merge_M(adapter).to(weight.device))
        weight.add_(delta.view(weight.shape).to(weight.dtype))
