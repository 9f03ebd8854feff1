"""vLLM's linear layers, each with room for MoRA and LoRA adapters side by side."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
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

from mora_peft.operators import Operator
from mora_peft.operators.batched import Slots, add_adapters_


@dataclass(frozen=True)
class Pair:
    """What stands in the place of a LoRA's B where A's place holds a MoRA's M: the operator that M belongs to."""

    operator: Operator

    def pin_memory(self) -> "Pair":
        """vLLM pins whatever an adapter consists of; an operator has no memory."""
        return self


@dataclass(frozen=True)
class Part:
    """A stretch of a layer's outputs, and the adapters of it.

    `member` tells which of the layer's adapters they are: vLLM packs q, k and v, or gate and up, in one layer.
    `columns` are the outputs of this process that they add to; `slots` knows the layer that they were trained for.
    """

    member: int
    columns: slice
    slots: Slots


class WithSlots:
    """Put before one of vLLM's classes for a linear layer with LoRA: keeps adapters in `Slots`.

    On a CPU the slots hold LoRAs too. Elsewhere LoRA stays with vLLM's own buffers and kernels.
    """

    parts: list[Part]
    #: (k, d) of the whole linear layer, for each adapter that this layer takes.
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
        self.owns_lora = self.device.type == "cpu"
        rank, dtype = lora_config.max_lora_rank, lora_config.lora_dtype
        self.parts, shapes, start = [], {}, 0
        for member, k, d, inputs, outputs in _shares(self):
            slots = Slots(k, d, max_loras, rank, dtype, self.device, inputs=inputs, outputs=outputs)
            self.parts.append(Part(member, slice(start, start + len(outputs)), slots))
            shapes[member] = k, d
            start += len(outputs)
        self.shapes = list(shapes.values())
        if self.owns_lora:
            # vLLM reads shapes and dtype off these, for the adapters that it warms up with; they hold no memory.
            self.lora_a_stacked = tuple(torch.empty(1, 1, rank, k, dtype=dtype, device="meta") for k, _ in self.shapes)
            self.lora_b_stacked = tuple(torch.empty(1, 1, d, rank, dtype=dtype, device="meta") for _, d in self.shapes)
            self.output_slices = tuple(part.columns.stop - part.columns.start for part in self.parts)
        else:
            super().create_lora_weights(max_loras, lora_config, model_config)

    def reset_lora(self, index: int) -> None:
        """Leave slot `index` without an adapter."""
        for part in self.parts:
            part.slots.clear(index)
        if not self.owns_lora:
            super().reset_lora(index)

    def set_lora(self, index: int, lora_a: Any, lora_b: Any) -> None:
        """Put an adapter into slot `index`: A and B of a LoRA, or M and its `Pair`; lists of them for packed layers."""
        firsts, seconds = (lora_a, lora_b) if isinstance(lora_a, list) else ([lora_a], [lora_b])
        is_mora = any(isinstance(second, Pair) for second in seconds)
        self.reset_lora(index)
        if not is_mora and not self.owns_lora:
            return super().set_lora(index, lora_a, lora_b)
        for part in self.parts:
            first, second = firsts[part.member], seconds[part.member]
            if first is None:
                continue
            if is_mora:
                part.slots.put_mora(index, second.operator, first)
            else:
                part.slots.put_lora(index, first, second)

    def _apply_lora_to_output(self, x: Tensor, output: Tensor) -> Tensor:
        if not self.owns_lora:
            output = super()._apply_lora_to_output(x, output)
        step = self.punica_wrapper.step
        if step is None:  # before the first step, while vLLM measures the model
            return output
        rows = output.flatten(0, -2) if output.ndim != 2 else output
        x = x.flatten(0, -2) if x.ndim != 2 else x
        for part in self.parts:
            add_adapters_(rows[:, part.columns], x, part.slots, step)
        return output


def _shares(layer: Any) -> Iterator[tuple[int, int, int, range | None, range]]:
    """(member, k, d, inputs, outputs) of each part of `layer`: its adapter, and what this process holds of it."""
    base, shard = layer.base_layer, layer.tp_rank
    if isinstance(layer, RowParallelLinearWithLoRA):
        width = base.input_size_per_partition
        inputs = range(shard * width, (shard + 1) * width)
        yield 0, base.input_size, base.output_size, inputs, range(base.output_size)
        return
    pieces = list(_pieces(base, shard))
    if isinstance(layer, MergedColumnParallelLinearWithLoRA):
        for member, (d, width, shard) in enumerate(pieces):
            yield member, base.input_size, d, None, range(shard * width, (shard + 1) * width)
        return
    d = sum(whole for whole, _, _ in pieces)
    if all(whole == width for whole, width, _ in pieces):
        pieces = [(d, d, 0)]
    start = 0
    for whole, width, shard in pieces:
        yield 0, base.input_size, d, None, range(start + shard * width, start + (shard + 1) * width)
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
    utils._all_lora_classes = CLASSES + tuple(utils._all_lora_classes)
