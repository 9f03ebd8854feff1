"""The path for GPUs: one kernel, launched twice for each layer and step whatever adapters are there.

Which slot a token uses, and what that slot holds, is read on the device. Nothing here depends on data but the numbers
that the kernel adds, so a captured CUDA graph stays right when adapters come and go.

A program computes TILE numbers of M s for a block of tokens and adds them to all outputs that they stand for; no two
programs write to one output. The first launch takes tokens one by one, which is decoding: it reads each token's M once,
r̂² numbers, for rows · r̂² multiply-adds. The second takes blocks of BLOCK tokens that all use one slot, which is
prefill: M is read once a block, and products run on tensor cores. Each launch leaves the other's tokens alone.
Both make s anew in each program: blocks · r̂ reads of x, which lies in the cache by then.

LoRA slots are left out: on a GPU, LoRA has kernels of its own.
"""

from typing import TYPE_CHECKING

import triton
import triton.language as tl
from torch import Tensor

from ..geometry import FIELDS, MORA

if TYPE_CHECKING:
    from .slots import Slots, Step

BLOCK = 16
TILE = 32
#: Numbers of s, and of outputs, that a program handles at a time.
CHUNK = 64


def add_(y: Tensor, x: Tensor, slots: "Slots", step: "Step") -> Tensor:
    """See `slots.add_adapters_`; the step may have more tokens than x, of which the first are used."""
    tokens = min(len(x), step.size)
    tiles = triton.cdiv(slots.largest_side, TILE)
    for block in (1, BLOCK):
        _add[(triton.cdiv(tokens, block), tiles)](
            *(y, x, slots.buffer, slots.table, step.slots, tokens),
            *(y.stride(0), x.stride(0), slots.capacity, slots.k, slots.d),
            *(slots.inputs.start, slots.inputs.stop, slots.outputs.start, slots.outputs.stop),
            block=block,
            whole=BLOCK,
            tile=TILE,
            chunk=CHUNK,
            fields=FIELDS,
            mora=MORA,
        )
    return y


@triton.jit
def _add(
    y,
    x,
    buffer,
    table,
    slots,
    tokens,
    y_stride,
    x_stride,
    capacity,
    k,
    d,
    in_start,
    in_stop,
    out_start,
    out_stop,
    block: tl.constexpr,
    whole: tl.constexpr,
    tile: tl.constexpr,
    chunk: tl.constexpr,
    fields: tl.constexpr,
    mora: tl.constexpr,
):
    """Block `program_id(0)` of tokens, numbers `program_id(1) · tile` and on of each row of M s."""
    token = tl.program_id(0) * block + tl.arange(0, block)
    inside = token < tokens
    # Do all tokens around here use one slot? Then they are the second launch's.
    around = tl.program_id(0) * block // whole * whole + tl.arange(0, whole)
    uses = tl.load(slots + around, mask=around < tokens, other=-2)
    first = tl.max(uses, axis=0)
    uniform = (tl.min(uses, axis=0) == first) & (first >= 0)
    if block == 1:
        slot = tl.max(tl.load(slots + token, mask=inside, other=-1), axis=0)
        mine = (slot >= 0) & (uniform == 0)
    else:
        slot = first
        mine = uniform
    if mine:
        fact = table + slot * fields
        side = tl.load(fact + 1)
        start = tl.program_id(1) * tile
        if (tl.load(fact) == mora) & (start < side):
            M = buffer + slot.to(tl.int64) * capacity
            i = start + tl.arange(0, tile)
            blocks, rows = tl.load(fact + 2), tl.load(fact + 3)
            taken, written = tl.load(fact + 4), tl.load(fact + 5)
            in_groups, out_groups = tl.load(fact + 6), tl.load(fact + 7)
            rotated = tl.load(fact + 8)
            from_x = x + token.to(tl.int64)[:, None] * x_stride
            to_y = y + token.to(tl.int64)[:, None] * y_stride
            for row in range(0, rows):
                total = tl.zeros((block, tile), dtype=tl.float32)
                for j0 in range(0, side, chunk):
                    j = j0 + tl.arange(0, chunk)
                    s = tl.zeros((block, chunk), dtype=tl.float32)
                    if in_groups != 0:
                        short, longer = k // side, k % side
                        begin = j * short + tl.minimum(j, longer)
                        for step in range(0, short + 1):
                            p = begin + step
                            held = (j < side) & (step < short + (j < longer))
                            s += _read(from_x, p, held, inside, k, k, in_start, in_stop)
                    else:
                        for b in range(row, blocks, rows):
                            a = _read(from_x, b * side + j, j < side, inside, taken, k, in_start, in_stop)
                            if rotated != 0:
                                half = side // 2
                                other = tl.where(j < half, j + half, j - half)
                                c = _read(from_x, b * side + other, j < side, inside, taken, k, in_start, in_stop)
                                power = (j % half).to(tl.float32) * (-2.0 * 9.210340371976184 / side)  # ln 10000
                                angle = tl.exp(power) * b
                                turn = tl.where(j < half, -tl.sin(angle), tl.sin(angle))
                                a = a * tl.cos(angle)[None, :] + c * turn[None, :]
                            s += a
                    m = tl.load(
                        M + i[:, None] * side + j[None, :],
                        mask=(i < side)[:, None] & (j < side)[None, :],
                        other=0.0,
                    )
                    if block == 1:
                        total += tl.sum(m.to(tl.float32) * s, axis=1)[None, :]
                    else:
                        # TF32 keeps all that bfloat16 and float16 have.
                        right = tl.trans(m.to(tl.float32))
                        total = tl.dot(s, right, total, input_precision="ieee" if m.dtype == tl.float32 else "tf32")
                if out_groups != 0:
                    short, longer = d // side, d % side
                    begin = i * short + tl.minimum(i, longer)
                    for step in range(0, short + 1):
                        _write(
                            to_y,
                            total,
                            begin + step,
                            (i < side) & (step < short + (i < longer)),
                            inside,
                            out_start,
                            out_stop,
                        )
                else:
                    for lap in range(row * side, written, rows * side):
                        o = lap + i
                        _write(to_y, total, o, (i < side) & (o < written), inside, out_start, out_stop)


@triton.jit
def _read(from_x, p, valid, inside, taken, k, in_start, in_stop):
    """Entry p of wrap(x), as float32; 0 where it is taken from nowhere, or held by another process."""
    at = p % k
    held = valid & (p < taken) & (at >= in_start) & (at < in_stop)
    return tl.load(from_x + (at - in_start)[None, :], mask=held[None, :] & inside[:, None], other=0.0).to(tl.float32)


@triton.jit
def _write(to_y, total, o, valid, inside, out_start, out_stop):
    """Add `total` to outputs o, rounded once."""
    place = to_y + (o - out_start)[None, :]
    mask = (valid & (o >= out_start) & (o < out_stop))[None, :] & inside[:, None]
    old = tl.load(place, mask=mask, other=0.0)
    tl.store(place, (old.to(tl.float32) + total).to(old.dtype), mask=mask)
