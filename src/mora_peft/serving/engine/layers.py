"""vLLM's linear layers, each with room for MoRA and LoRA adapters side by side."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from vllm.config import get_current_vllm_config
from vllm.forward_context import get_forward_context, is_forward_context_available
from vllm.lora import utils
from vllm.lora.layers import (
    ColumnParallelLinearWithLoRA,
    MergedColumnParallelLinearVariableSliceWithLoRA,
    MergedColumnParallelLinearWithLoRA,
    MergedQKVParallelLinearWithLoRA,
    QKVParallelLinearWithLoRA,
    ReplicatedLinearWithLoRA,
    RowParallelLinearWithLoRA,
)
from vllm.model_executor.layers.linear import MergedColumnParallelLinear, QKVParallelLinear
from vllm.utils.torch_utils import LayerNameType, _encode_layer_name, _resolve_layer_name, direct_register_custom_op

from mora_peft.operators import Operator
from mora_peft.operators.batched import Slots, add_adapters_


@dataclass(frozen=True)
class Pair:
    """What stands in the place of a LoRA's B where A's place holds a MoRA's M: the operator that M belongs to."""

    operator: Operator

    def pin_memory(self) -> "Pair":
        """vLLM pins whatever an adapter consists of; an operator has no memory."""
        return self


class WithSlots:
    """Put before one of vLLM's classes for a linear layer with LoRA: keeps adapters in `Slots`.

    On a CPU the slots hold LoRAs too. Elsewhere LoRA stays with vLLM's own buffers and kernels.
    """

    #: The adapters of each stretch of this process's outputs, from the first output on, and how many outputs it has.
    slots: list[Slots]
    widths: list[int]
    #: Which of the layer's adapters each stretch takes: vLLM packs q, k and v, or gate and up, in one layer.
    members: list[int]
    #: (k, d) of the whole linear layer, for each of the layer's adapters.
    shapes: list[tuple[int, int]]

    @classmethod
    def can_replace_layer(
        cls, source_layer: nn.Module, lora_config: Any, packed_modules_list: list, model_config: Any = None
    ) -> bool:
        """As vLLM's class says, but for merged layers whose parts and adapters do not go one to one."""
        if not super().can_replace_layer(
            source_layer=source_layer,
            lora_config=lora_config,
            packed_modules_list=packed_modules_list,
            model_config=model_config,
        ):
            return False
        merged = issubclass(cls, MergedColumnParallelLinearWithLoRA)
        return not merged or len(packed_modules_list) == len(source_layer.output_sizes)

    def create_lora_weights(self, max_loras: int, lora_config: Any, model_config: Any = None) -> None:
        """Make room for `max_loras` adapters of up to `lora_config.max_lora_rank`."""
        self.lora_config = lora_config
        self.name = f"{self.base_layer.prefix}.mora"
        get_current_vllm_config().compilation_config.static_forward_context[self.name] = self
        self.owns_lora = self.device.type == "cpu"
        rank, dtype = lora_config.max_lora_rank, lora_config.lora_dtype
        self.members, shapes, inputs, outputs = zip(*_shares(self), strict=True)
        self.widths = [len(held) for held in outputs]
        self.shapes = list(dict(zip(self.members, shapes, strict=True)).values())
        self.slots = [
            Slots(k, d, max_loras, rank, dtype, self.device, inputs=ins, outputs=outs)
            for (k, d), ins, outs in zip(shapes, inputs, outputs, strict=True)
        ]
        if self.owns_lora:
            # vLLM reads shapes and dtype off these, for the adapters that it warms up with; they hold no memory.
            self.lora_a_stacked = tuple(torch.empty(1, 1, rank, k, dtype=dtype, device="meta") for k, _ in self.shapes)
            self.lora_b_stacked = tuple(torch.empty(1, 1, d, rank, dtype=dtype, device="meta") for _, d in self.shapes)
            self.output_slices = tuple(self.widths)
        else:
            super().create_lora_weights(max_loras, lora_config, model_config)

    def reset_lora(self, index: int) -> None:
        """Leave slot `index` without an adapter."""
        for slots in self.slots:
            slots.clear(index)
        if not self.owns_lora:
            super().reset_lora(index)

    def set_lora(self, index: int, lora_a: Any, lora_b: Any) -> None:
        """Put an adapter into slot `index`: A and B of a LoRA, or M and its `Pair`; lists of them for packed layers."""
        firsts, seconds = (lora_a, lora_b) if isinstance(lora_a, list) else ([lora_a], [lora_b])
        is_mora = any(isinstance(second, Pair) for second in seconds)
        for member, slots in zip(self.members, self.slots, strict=True):
            first, second = firsts[member], seconds[member]
            if first is None or not (is_mora or self.owns_lora):
                slots.clear(index)
            elif is_mora:
                slots.put_mora(index, second.operator, first)
            else:
                slots.put_lora(index, first, second)
        if not self.owns_lora and is_mora:
            super().reset_lora(index)
        elif not self.owns_lora:
            super().set_lora(index, lora_a, lora_b)

    def _apply_lora_to_output(self, x: Tensor, output: Tensor) -> Tensor:
        if not self.owns_lora:
            output = super()._apply_lora_to_output(x, output)
        rows = output if output.ndim == 2 else output.flatten(0, -2)
        x = x if x.ndim == 2 else x.flatten(0, -2)
        if torch.compiler.is_compiling() and is_forward_context_available():
            torch.ops.vllm.mora_add_adapters(rows, x, _encode_layer_name(self.name))
        else:
            self.add_adapters(rows, x)
        return output

    def add_adapters(self, rows: Tensor, x: Tensor) -> None:
        """rows (T, outputs held) += the adapters of this step applied to x (T, inputs held)."""
        step = self.punica_wrapper.step
        if step is not None:
            for slots, columns in zip(self.slots, rows.split_with_sizes(self.widths, 1), strict=True):
                add_adapters_(columns, x, slots, step)


def mora_add_adapters(rows: torch.Tensor, x: torch.Tensor, layer_name: LayerNameType) -> None:
    """`WithSlots.add_adapters` as one opaque operation of a compiled graph, which finds its layer by name."""
    get_forward_context().no_compile_layers[_resolve_layer_name(layer_name)].add_adapters(rows, x)


def _nothing(rows: torch.Tensor, x: torch.Tensor, layer_name: LayerNameType) -> None:
    """What a compiler needs to know of it: it returns nothing."""


def _shares(layer: Any) -> Iterator[tuple[int, tuple[int, int], range | None, range]]:
    """(member, (k, d), inputs, outputs) of each stretch: its adapter, and what this process holds of its layer."""
    base, shard = layer.base_layer, layer.tp_rank
    if isinstance(layer, RowParallelLinearWithLoRA):
        width = base.input_size_per_partition
        inputs = range(shard * width, (shard + 1) * width)
        yield 0, (base.input_size, base.output_size), inputs, range(base.output_size)
        return
    k, pieces = base.input_size, list(_pieces(base, shard))
    if isinstance(layer, MergedColumnParallelLinearWithLoRA):
        for member, (d, width, shard) in enumerate(pieces):
            yield member, (k, d), None, range(shard * width, (shard + 1) * width)
        return
    d, start = sum(whole for whole, _, _ in pieces), 0
    if all(whole == width for whole, width, _ in pieces):
        pieces = [(d, d, 0)]
    for whole, width, shard in pieces:  # pieces of one matrix, each of them shared out
        yield 0, (k, d), None, range(start + shard * width, start + (shard + 1) * width)
        start += whole


def _pieces(base: nn.Module, shard: int) -> Iterator[tuple[int, int, int]]:
    """(outputs in all, outputs here, which share of them is here) for each piece that `base` was merged from."""
    if isinstance(base, QKVParallelLinear):
        yield base.total_num_heads * base.head_size, base.num_heads * base.head_size, shard
        # With more processes than key-value heads, several of them hold the same head.
        shard //= base.num_kv_head_replicas
        for size in (base.head_size, base.v_head_size):
            yield base.total_num_kv_heads * size, base.num_kv_heads * size, shard
    elif isinstance(base, MergedColumnParallelLinear):
        for size in base.output_sizes:
            yield size, size // base.tp_size, shard
    else:
        width = getattr(base, "output_size_per_partition", base.output_size)
        yield base.output_size, width, shard if width != base.output_size else 0


CLASSES = tuple(
    type(f"{base.__name__}AndMora", (WithSlots, base), {"__doc__": f"{base.__name__}, with slots for adapters."})
    for base in (
        ColumnParallelLinearWithLoRA,
        MergedColumnParallelLinearWithLoRA,
        QKVParallelLinearWithLoRA,
        MergedQKVParallelLinearWithLoRA,
        MergedColumnParallelLinearVariableSliceWithLoRA,
        RowParallelLinearWithLoRA,
        ReplicatedLinearWithLoRA,
    )
)


def install() -> None:
    """Offer these classes to vLLM before its own; those stay for what these leave to them."""
    direct_register_custom_op("mora_add_adapters", mora_add_adapters, mutates_args=["rows"], fake_impl=_nothing)
    utils._all_lora_classes = CLASSES + tuple(utils._all_lora_classes)
