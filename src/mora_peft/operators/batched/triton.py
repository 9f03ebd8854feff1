"""The path for GPUs: three kernels for each layer and step, launched whatever adapters are there.

Which slot a token uses, and what that slot holds, is read on the device, and all grids follow from shapes alone. So a
captured CUDA graph stays right when adapters come and go.

1. `_compress` writes compress(x), rounded to the dtype as the plain path rounds it, into scratch.
2. `_multiply` in the form `SINGLE`, which is decoding: tiles of M times up to 16 rows of one token's compress(x). Where
   there are fewer rows, the same ones again, for further outputs, fill up.
3. `_multiply` in the form `LONG`, which is prefill: tiles of M times one row of each of 64 tokens.

Each block of 64 tokens is the third launch's if its runs of one slot have `RUN` tokens or more on average, else the
second's; the other one leaves it alone. A program owns a tile of M for certain outputs, so no two programs of a launch
write one output, and each is rounded once.

Cost a token: x is read once, compress(x) written once, y read and written once. Decoding reads M once from memory,
which bounds it, and compress(x) from the cache for each 32 rows of M. Prefill does rows · r̂² multiply-adds and reads
1/64 + 1/128 numbers for each, from the cache. Where too few programs would be busy, several multiply one tile and
share its outputs.

Scratch, numbers of the dtype a token: min(k, d) + r̂ for the largest r̂ that fits, and 7 for every 64 of min(k, d), so
mostly about as many as x. This bounds rows · pitch(r̂) for whatever a slot may hold, as rows ≤ ceil(min(k, d) / r̂).

LoRA slots are left out: on a GPU, LoRA has kernels of its own.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import geometry

if TYPE_CHECKING:
    from .slots import Slots, Step

MORA, FIELDS, WIDE = tl.constexpr(geometry.MORA), tl.constexpr(geometry.FIELDS), tl.constexpr(geometry.WIDE)
#: Tokens that are looked at together, and how long their runs must be on average to be multiplied together.
BLOCK, RUN = tl.constexpr(64), tl.constexpr(8)
NOWHERE = tl.constexpr(2**31 - 1)
#: Programs of a launch, if there is work for so many; up to how many of them may repeat a product to share its outputs.
PROGRAMS, SHARING = 2048, 256
#: Up to so many single tokens are computed side by side; of more, several follow each other in one program.
GROUPS = 256


class Form(NamedTuple):
    """What a program of `_multiply` multiplies at a time."""

    block: int  # tokens
    ways: int  # rows of each
    tile: int  # rows of M
    bytes: int  # of each row of M
    stages: int
    warps: int


SINGLE, LONG = Form(1, 16, 32, 256, 4, 4), Form(BLOCK.value, 1, 128, 128, 3, 8)


def add_(y: Tensor, x: Tensor, slots: "Slots", step: "Step") -> Tensor:
    """See `slots.add_adapters_`; the step may have more tokens than x, of which the first are used."""
    tokens = min(len(x), step.size)
    if not tokens:
        return y
    width = scratch(slots)
    s = torch.empty(tokens, width, dtype=slots.buffer.dtype, device=x.device)
    which = slots.table, step.slots, tokens, slots.count
    _compress[(tokens, _among(tokens, width // 256))](
        *(s, x, slots.turns, *which, x.stride(0), width, slots.k, slots.inputs.start, slots.inputs.stop)
    )
    for form in (SINGLE, LONG) if tokens >= RUN.value else (SINGLE,):
        group = form.block
        if form is SINGLE:
            group = min(triton.next_power_of_2(triton.cdiv(tokens, GROUPS)), BLOCK.value)
        groups = triton.cdiv(tokens, group)
        most = triton.cdiv(slots.d, form.tile * form.ways) + triton.cdiv(slots.largest_side, form.tile)
        _multiply[(groups, _among(groups, most))](
            *(y, s, slots.buffer, *which, group, SHARING // groups, y.stride(0), width, slots.capacity),
            *(slots.d, slots.outputs.start, slots.outputs.stop),
            **{"block": form.block, "ways": form.ways, "tile": form.tile, "chunk": form.bytes // s.element_size()},
            num_warps=form.warps,
            num_stages=form.stages,
        )
    return y


def scratch(slots: "Slots") -> int:
    """Numbers that compress(x) of a token may take, made a multiple of 16, which Triton sees and reads in vectors."""
    smaller = min(slots.k, slots.d)
    return triton.cdiv(smaller + slots.largest_side + 7 * triton.cdiv(smaller, WIDE.value), 16) * 16


def _among(groups: int, most: int) -> int:
    """Programs for each of so many groups of tokens."""
    return max(1, min(PROGRAMS // groups, most))


@triton.jit(do_not_specialize=["tokens"])
def _compress(s, x, turns, table, slots, tokens, count, x_stride, width, k, in_start, in_stop):
    """compress(x) of token `program_id(0)`: rows of `pitch` numbers in its row of s (tokens, width)."""
    token = tl.program_id(0)
    slot = _uses(slots, token, tokens, count)
    if slot >= 0:
        fact = table + slot * FIELDS
        if tl.load(fact) == MORA:
            side, blocks, rows, taken = tl.load(fact + 1), tl.load(fact + 2), tl.load(fact + 3), tl.load(fact + 4)
            grouped, rotated = tl.load(fact + 6), tl.load(fact + 8)
            pitch = tl.where(side < WIDE, side, tl.cdiv(side, 8) * 8)
            source = x + token.to(tl.int64) * x_stride - in_start, side, taken, k, in_start, in_stop
            to_s = s + token.to(tl.int64) * width
            if (rows == 1) & (rotated == 0):
                _sums(to_s, source, side, pitch, blocks, grouped)
            else:
                turn = tl.load(turns + slot).to(tl.pointer_type(tl.float32))
                _rows(to_s, source, turn, side, pitch, blocks, rows, rotated)


@triton.jit
def _sums(to_s, source, side, pitch, blocks, grouped):
    """Sharing and truncation: each number is a sum of entries of x that are `step` apart."""
    k = source[3]
    for item in range(tl.program_id(1), tl.cdiv(pitch, 128), tl.num_programs(1)):
        j = item * 128 + tl.arange(0, 128)
        begin, step, most = j, side, blocks
        length = tl.where(j < side, blocks, 0)
        if grouped != 0:
            short, longer = k // side, k % side
            begin, step, most = j * short + tl.minimum(j, longer), 1, short + 1
            length = tl.where(j < side, short + (j < longer), 0)
        total = tl.zeros((128,), dtype=tl.float32)
        for first in range(0, most, 16):
            t = first + tl.arange(0, 16)[:, None]
            read = _read(source, begin[None, :] + t * step, t < length[None, :])
            total += tl.sum(read, axis=0)
        tl.store(to_s + j, total.to(to_s.dtype.element_ty), mask=j < pitch)


@triton.jit
def _rows(to_s, source, turn, side, pitch, blocks, rows, rotated):
    """Rotation and decoupling: four rows at a time, and of each its two halves."""
    half = side // 2
    table_row = tl.cdiv(half, 16) * 16
    across = tl.cdiv(pitch - half, 128)
    for item in range(tl.program_id(1), tl.cdiv(rows, 4) * across, tl.num_programs(1)):
        row = (item // across * 4 + tl.arange(0, 4))[:, None]
        j = (item % across * 128 + tl.arange(0, 128))[None, :]
        left = tl.zeros((4, 128), dtype=tl.float32)
        right = tl.zeros((4, 128), dtype=tl.float32)
        for lap in range(0, blocks, rows):
            b = row + lap
            p = b * side + j
            a = _read(source, p, (b < blocks) & (j < half))
            c = _read(source, p + half, (b < blocks) & (half + j < side))
            if rotated != 0:
                at = turn + b * table_row + j
                known = (b < blocks) & (j < half)
                cos = tl.load(at, mask=known, other=0.0)
                sin = tl.load(at + blocks * table_row, mask=known, other=0.0)
                a, c = a * cos - c * sin, c * cos + a * sin
            left += a
            right += c
        place = to_s + row * pitch + j
        tl.store(place, left.to(to_s.dtype.element_ty), mask=(row < rows) & (j < half))
        tl.store(place + half, right.to(to_s.dtype.element_ty), mask=(row < rows) & (half + j < pitch))


@triton.jit
def _read(source, p, valid):
    """Entry p of wrap(x), as float32; 0 where it is taken from nowhere, or held by another process."""
    from_x, side, taken, k, in_start, in_stop = source
    at = tl.where(p < k, p, p - k)
    if side > k:  # it wraps more than once
        at = p % k
    held = valid & (p < taken) & (at >= in_start) & (at < in_stop)
    return tl.load(from_x + at, mask=held, other=0.0).to(tl.float32)


@triton.jit
def _uses(slots, token, tokens, count):
    """The slots of tokens, -1 for none."""
    slot = tl.load(slots + token, mask=(token >= 0) & (token < tokens), other=-1)
    return tl.where(slot < count, slot, -1)


@triton.jit(do_not_specialize=["tokens", "group", "sharing"])
def _multiply(
    y,
    s,
    buffer,
    table,
    slots,
    tokens,
    count,
    group,
    sharing,
    y_stride,
    width,
    capacity,
    d,
    out_start,
    out_stop,
    block: tl.constexpr,
    ways: tl.constexpr,
    tile: tl.constexpr,
    chunk: tl.constexpr,
):
    """Tokens `program_id(0) · group` and on: one by one if `block` is 1, else all that use one slot at a time."""
    first = tl.program_id(0) * group
    lane = tl.arange(0, BLOCK)
    around = first // BLOCK * BLOCK + lane
    uses = _uses(slots, around, tokens, count)
    before = tl.where(lane > 0, _uses(slots, around - 1, tokens, count), -1)
    used = (uses >= 0).to(tl.int32)
    runs = tl.sum(used * (uses != before).to(tl.int32), axis=0)
    together = tl.sum(used, axis=0) >= RUN * runs
    if block == 1:
        at, stop = first, tl.where(together, first, tl.minimum(first + group, tokens))
    else:
        at, stop = tl.min(tl.where(uses >= 0, uses, NOWHERE), axis=0), tl.where(together, NOWHERE, 0)
    token = tl.arange(0, block)
    while at < stop:
        if block == 1:
            start, slot, mine = at, _uses(slots, at, tokens, count), token == 0
            at += 1
        else:
            start, slot, mine = first, at, uses == at
            at = tl.min(tl.where(uses > at, uses, NOWHERE), axis=0)
        if slot >= 0:
            fact = table + slot * FIELDS
            if tl.load(fact) == MORA:
                side = tl.load(fact + 1)
                M = buffer + slot.to(tl.int64) * capacity
                from_s = s + start.to(tl.int64) * width + token * width
                out = y + start.to(tl.int64) * y_stride - out_start, token * y_stride, d, out_start, out_stop
                if side < WIDE:
                    _add(out, from_s, M, fact, mine, side, side, sharing, ways, tile, chunk)
                else:  # the same again, for a compiler that sees whole vectors
                    _add(out, from_s, M, fact, mine, side, tl.cdiv(side, 8) * 8, sharing, ways, tile, chunk)


@triton.jit
def _add(out, from_s, M, fact, mine, side, pitch, sharing, ways, tile, chunk):
    """This program's tiles of M times rows of compress(x), added to y.

    Unit u of outputs, `u · side` and on, is made of row `u mod rows`; where outputs are grouped, it is entry u of each
    group. A program has a tile of M for `ways` units below `span`, and for those a multiple of `span` further.
    """
    rows = tl.load(fact + 3)
    tiles = tl.cdiv(side, tile)
    laps = tl.cdiv(tl.cdiv(tl.load(fact + 5), side), rows)
    apart = tl.maximum(ways // rows, sharing // (tiles * tl.cdiv(rows, ways)))
    span = tl.minimum(tl.maximum(apart, 1), laps) * rows
    for item in range(tl.program_id(1), tiles * tl.cdiv(span, ways), tl.num_programs(1)):
        first = item % tiles * tile
        i = first + tl.arange(0, tile)
        u = item // tiles * ways + tl.arange(0, ways)
        row = (from_s + u % rows * pitch)[:, None]
        owned = (mine & (u < span))[:, None]
        total = tl.zeros((row.shape[0], tile), dtype=tl.float32)
        for j0 in range(0, pitch, chunk):
            j = j0 + tl.arange(0, chunk)
            left = tl.load(row + j[None, :], mask=owned & (j < pitch)[None, :], other=0.0)
            held = (i < side)[None, :] & (j < pitch)[:, None]
            right = tl.load(M + i[None, :] * pitch + j[:, None], mask=held, other=0.0)
            total = tl.dot(left, right, total, input_precision="ieee")
        _write(out, total, owned, first, u, span, fact, side)


@triton.jit
def _write(out, total, owned, first, u, span, fact, side):
    """Add numbers `first` and on of M compress(x) to all outputs that they stand for, 32 at a time: more need more
    registers than there are."""
    size: tl.constexpr = total.shape[1]
    if size > 32:
        left, right = tl.split(total.reshape(total.shape[0], 2, size // 2).permute(0, 2, 1))
        _write(out, left, owned, first, u, span, fact, side)
        _write(out, right, owned, first + size // 2, u, span, fact, side)
    else:
        to_y, at_y, d, out_start, out_stop = out
        i = first + tl.arange(0, size)
        written, grouped = tl.load(fact + 5), tl.load(fact + 7)
        for lap in range(0, tl.cdiv(written, side), span):
            unit = (u + lap)[:, None]
            o = unit * side + i[None, :]
            valid = o < written
            if grouped != 0:
                short, longer = d // side, d % side
                o = unit + (i * short + tl.minimum(i, longer))[None, :]
                valid = unit < (short + (i < longer))[None, :]
            mask = owned & valid & (i < side)[None, :] & (o >= out_start) & (o < out_stop)
            place = to_y + (at_y[:, None] + o)
            old = tl.load(place, mask=mask, other=0.0)
            tl.store(place, (old.to(tl.float32) + total).to(old.dtype), mask=mask)
