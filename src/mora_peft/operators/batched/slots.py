"""Adapters of one layer side by side, and which of them each token of a step uses."""

from __future__ import annotations

import math
from functools import cache, cached_property
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from ..geometry import FIELDS, LORA, MORA, Geometry, pitch, turns
from ..operator import Operator
from ..rank import r_hat_for
from . import native, plain


class Slots:
    """Adapters of one linear layer (k → d) side by side: `count` slots, each empty, a MoRA or a LoRA.

    A slot holds max(max_rank · (k + d), r̂(max_rank)²) numbers of one dtype: a MoRA costs what a LoRA of equal r costs.
    Adapters of different operators, sides and ranks may lie in one `Slots`.

    A slot's numbers, from its start and without gaps:
        MoRA   M (r̂, r̂), row by row, each filled up with zeros to `geometry.pitch`; or as `native.c` packs it, where
               there is that kernel.
        LoRA   A (r, len(inputs)) row by row, then B transposed (r, len(outputs)) row by row.

    Args:
        k, d: Inputs and outputs of the whole layer.
        count: Slots.
        max_rank: The largest r that an adapter may have.
        dtype: float32, bfloat16 or float16, as x and y will be.
        device: Where `buffer` and `table` lie.
        inputs: The inputs that this process holds where the layer is row-parallel; None: all k.
        outputs: The outputs that this process holds where the layer is column-parallel; None: all d.

    Raises:
        ValueError: A range that does not lie within the layer.
    """

    def __init__(
        self,
        k: int,
        d: int,
        count: int,
        max_rank: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        *,
        inputs: range | None = None,
        outputs: range | None = None,
    ) -> None:
        self.k, self.d, self.count, self.max_rank = k, d, count, max_rank
        self.inputs = _part("inputs", inputs, k)
        self.outputs = _part("outputs", outputs, d)
        #: The columns of x and y.
        self.widths = len(self.inputs), len(self.outputs)
        #: The kernel for CPUs, if it can be had.
        self.kernel = native.kernel_for(dtype) if torch.device(device).type == "cpu" else None
        #: Numbers that an adapter may have.
        self.room = max(max_rank * (k + d), self._size(r_hat_for(k, d, max_rank, cap=False)))
        #: (count, capacity) numbers of all slots.
        self.buffer = _zeros(count, -(-self.room // 32) * 32, dtype, device)
        self._rows = self.buffer.unbind()
        #: (count, FIELDS) int32: the kind of each slot (`MORA`, `LORA`, 0 if empty), then its `Geometry`.
        self.table = torch.zeros(count, FIELDS, dtype=torch.int32, device=device)
        #: (count,) int64: addresses of the slots' `geometry.turns`, 0 where nothing is rotated.
        self.turns = torch.zeros(count, dtype=torch.int64, device=device)
        self._turns: list[Tensor | None] = [None] * count
        #: What each slot holds: an operator, a LoRA's rank, or None.
        self.contents: list[Operator | int | None] = [None] * count

    @property
    def capacity(self) -> int:
        """Numbers from one slot's start to the next one's."""
        return self.buffer.shape[1]

    @property
    def largest_side(self) -> int:
        """The side of the largest M that a slot can hold."""
        return math.isqrt(self.room)

    @cached_property
    def for_native(self) -> native.Layer:
        return native.Layer(self)

    def put_mora(self, index: int, operator: Operator, M: Tensor) -> None:
        """Fill slot `index` with a MoRA: M (r̂, r̂), already multiplied by its scaling.

        Raises:
            ValueError: M does not fit the operator or the slot, or the operator is another layer's.
        """
        side = operator.r_hat
        if (operator.k, operator.d) != (self.k, self.d):
            raise ValueError(
                f"An operator for a layer {operator.k} → {operator.d} cannot serve a layer {self.k} → {self.d}."
            )
        if M.shape != (side, side):
            raise ValueError(f"M must have the shape ({side}, {side}), but has {tuple(M.shape)}.")
        if self.kernel:
            M = M.to(self.buffer).contiguous()
            self.kernel.pack(self._place(index, self._size(side)).data_ptr(), M.data_ptr(), side)
        else:
            rows = self._place(index, self._size(side)).view(side, -1)
            rows[:, :side].copy_(M.detach())
            rows[:, side:].zero_()
        if self.contents[index] != operator:  # adapters of a server are mostly of one kind
            self._describe(index, MORA, operator.geometry)
            self.contents[index] = operator

    def put_lora(self, index: int, A: Tensor, B: Tensor) -> None:
        """Fill slot `index` with a LoRA: the whole A (r, k) and B (d, r), with the scaling in B.

        Raises:
            ValueError: A and B are not of one rank, not of this layer's size, or do not fit the slot.
        """
        rank = A.shape[0]
        if A.shape != (rank, self.k) or B.shape != (self.d, rank):
            raise ValueError(
                f"A and B must have the shapes (r, {self.k}) and ({self.d}, r), "
                f"but have {tuple(A.shape)} and {tuple(B.shape)}."
            )
        room_of_A, room_of_B = self._factors(index, rank)
        room_of_A.copy_(A.detach()[:, self.inputs.start : self.inputs.stop])
        room_of_B.copy_(B.detach()[self.outputs.start : self.outputs.stop].T)
        if self.contents[index] != rank:
            self._describe(index, LORA, Geometry(rank, 0, 0, 0, 0))
            self.contents[index] = rank

    def clear(self, index: int) -> None:
        """Empty slot `index`: its tokens get no adapter, whatever numbers are left in the buffer."""
        self._check(index)
        self.table[index] = 0
        self.contents[index] = None

    def matrices(self, indices: slice | list[int]) -> Tensor:
        """M (n, r̂, r̂) of slots that hold MoRAs of one side: a view for a slice if M is not packed, else a copy."""
        side = self.contents[indices.start if isinstance(indices, slice) else indices[0]].r_hat
        numbers = self.buffer[indices, : self._size(side)]
        if self.kernel is None:
            return numbers.unflatten(1, (side, -1))[..., :side]
        columns = numbers.unflatten(1, (-1, side, self.kernel.pair)).transpose(2, 3).flatten(1, 2)
        return columns[:, :side].mT

    def factors(self, index: int) -> tuple[Tensor, Tensor]:
        """A (r, len(inputs)) and Bᵀ (r, len(outputs)) of a slot that holds a LoRA, as views."""
        return self._factors(index, self.contents[index])

    def _factors(self, index: int, rank: int) -> tuple[Tensor, Tensor]:
        k, d = self.widths
        A, B = self._place(index, rank * (k + d)).split([rank * k, rank * d])
        return A.view(rank, k), B.view(rank, d)

    def _size(self, side: int) -> int:
        """Numbers that M (side, side) takes in a slot."""
        if self.kernel is None:
            return side * pitch(side)
        return -(-side // self.kernel.pair) * self.kernel.pair * side

    def _place(self, index: int, size: int) -> Tensor:
        """The first `size` numbers of slot `index`."""
        self._check(index)
        if size > self.room:
            raise ValueError(
                f"An adapter of {size} numbers does not fit into a slot of {self.room}, made for r={self.max_rank} "
                f"on a layer {self.k} → {self.d}: use a larger max_rank."
            )
        return self._rows[index][:size]

    def _describe(self, index: int, kind: int, geometry: Geometry) -> None:
        table = turns(geometry.blocks, geometry.side, self.buffer.device) if geometry.rotated else None
        self.turns[index] = 0 if table is None else table.data_ptr()
        self._turns[index] = table
        self.table[index] = torch.tensor([kind, *map(int, geometry)], dtype=torch.int32)

    def _check(self, index: int) -> None:
        if not 0 <= index < self.count:
            raise ValueError(f"Slot {index} does not exist: there are {self.count}, from 0.")


class Run(NamedTuple):
    """Tokens `order[start:stop]` of a step, all of which use `slot`."""

    slot: int
    start: int
    stop: int


class Step:
    """Which slot each of T tokens uses: arranged once a step, used by every layer.

    Args:
        slots_of_tokens: (T,) integers, -1 for no adapter, on the device of the layers. Rows of x beyond T have none.
            On a GPU T may be more than x has rows: a CUDA graph keeps one step, whose numbers change in place.
    """

    def __init__(self, slots_of_tokens: Tensor) -> None:
        #: (T,) int32.
        self.slots = slots_of_tokens.to(torch.int32)
        #: T.
        self.size = len(self.slots)

    @cached_property
    def order(self) -> Tensor:
        """The tokens that have an adapter, those of one slot next to each other: int64."""
        order = self.slots.argsort(stable=True)
        return order[(self.slots < 0).sum() :]

    @cached_property
    def runs(self) -> list[Run]:
        """Where each slot's tokens stand in `order`, one run a slot."""
        slots, lengths = self.slots[self.order].unique_consecutive(return_counts=True)
        stops = lengths.cumsum(0)
        return list(map(Run, slots.tolist(), (stops - lengths).tolist(), stops.tolist()))

    @cached_property
    def for_native(self) -> native.Arrangement:
        return native.Arrangement(self)


def add_adapters_(y: Tensor, x: Tensor, slots: Slots, step: Step) -> Tensor:
    """y += each token's adapter applied to x, in place; returns y.

    Args:
        y: (T, len(outputs)) or longer; its rows may be strided, as a column slice's are.
        x: (T, len(inputs)) or longer, of y's dtype. Where `inputs` is a part of the layer's, the sum over the parts
            is the adapter's result.
        slots: The layer's adapters. Tokens whose slot is empty get nothing.
        step: Which slot each token uses.

    Reads each M once for up to 16 tokens of its slot, and accumulates in float32.

    Raises:
        ValueError: x, y or the step are not of this layer's size.
    """
    (size, inputs), (room, outputs) = x.shape, y.shape
    if (inputs, outputs) != slots.widths or size > room or (y.is_cpu and step.size > size):
        raise ValueError(
            f"For {step.size} tokens and a layer of {slots.widths[0]} inputs, {slots.widths[1]} outputs, "
            f"x has the shape {tuple(x.shape)} and y {tuple(y.shape)}."
        )
    if y.is_cpu:
        if step.runs and not native.add_(y, x, slots, step):
            plain.add_(y, x, slots, step)
        return y
    if not (y.is_cuda and _has_triton()):
        plain.add_(y, x, slots, step)
        return y
    from . import triton

    return triton.add_(y, x, slots, step)


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def _zeros(count: int, capacity: int, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """(count, capacity), with room after the end, so that kernels may read a vector over it."""
    return torch.zeros(count * capacity + 64, dtype=dtype, device=device)[:-64].view(count, capacity)


def _part(name: str, part: range | None, size: int) -> range:
    if part is None:
        return range(size)
    if part.step != 1 or not 0 <= part.start < part.stop <= size:
        raise ValueError(f"`{name}` must be a part of range({size}) without gaps, but is {part}.")
    return part
