"""`block_mix` and `block_cross` in Triton: matrix products with the S T blocks of a map as one axis.

The other axis runs over the elements of a block: its U x V positions and its group's channels, with the axis contiguous
in memory fastest.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
from __future__ import annotations

from math import gcd
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from polyattn.kernels import runtime
from polyattn.kernels.blocks import product
from polyattn.kernels.tuning import Tile, best

MIX_TILES = (
    Tile(64, 128, 64, 4, 3),
    Tile(64, 64, 64, 4, 4),
    Tile(64, 256, 64, 8, 3),
    Tile(128, 128, 64, 8, 2),
    Tile(32, 128, 32, 4, 3),
)
CROSS_TILES = (
    Tile(64, 64, 64, 4, 3),
    Tile(64, 64, 128, 4, 3),
    Tile(32, 32, 128, 4, 3),
    Tile(128, 128, 32, 8, 3),
)

NARROW = 2**30
"""Offsets below this are computed in 32 bits. Masked elements beyond the last block may overflow; they are never
read."""


@triton.jit
def offset(
    row, column, channel, x_row, x_column, x_channel, LAST: tl.constexpr, UNIT: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    """Compute the offsets of elements, in 64 bits if WIDE. Strides of non-contiguous axes count UNITs."""
    if WIDE:
        row = row.to(tl.int64)
        column = column.to(tl.int64)
        channel = tl.cast(channel, tl.int64)
    if LAST:
        place = row * x_row * UNIT + column * x_column * UNIT + channel * x_channel
    else:
        place = row * x_row * UNIT + column * x_column + channel * x_channel * UNIT
    return place


@triton.jit
def elements(
    x, block, inside, count, last, H, W, T, U, V, M, x_row, x_column, x_channel,
    LAST: tl.constexpr, UNIT: tl.constexpr, WIDE: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Compute pointers to the elements of blocks, and the mask of existing elements.

    UNIT elements are contiguous and aligned to UNIT: the compiler can prove it, because the strides of the other axes
    count UNITs.
    """
    unit, within = inside // UNIT, inside % UNIT
    if LAST:
        # Written as a multiple of UNIT plus a remainder: Triton then proves alignment and vectorises the loads.
        runs = M // UNIT
        m = unit % runs * UNIT + within
        v = unit // runs % V
        u = unit // runs // V
        columns = block % T * V
    else:
        runs = V // UNIT
        m = unit // runs // U
        v = unit % runs * UNIT + within
        u = unit // runs % U
        columns = block % T * (runs * UNIT)
    rows = block // T * U
    exists = (block < count)[:, None] & (inside < last)[None, :]
    # Padding is a mask, not a copy: elements beyond the map read as 0 and are not written.
    if not WHOLE:
        exists = exists & (rows[:, None] + u[None, :] < H) & (columns[:, None] + v[None, :] < W)
    outer = offset(rows, columns, 0, x_row, x_column, x_channel, LAST, UNIT, WIDE)
    inner = offset(u, v, m, x_row, x_column, x_channel, LAST, UNIT, WIDE)
    return x + (outer[:, None] + inner[None, :]), exists


@triton.jit
def group_start(x, batch, group, M, x_batch, x_channel, LAST: tl.constexpr, UNIT: tl.constexpr):
    """Compute the pointer to the first element of a sample's group."""
    if LAST:
        start = x + batch * x_batch * UNIT + group * (M // UNIT * UNIT) * x_channel
    else:
        start = x + batch * x_batch * UNIT + group * M * x_channel * UNIT
    return start


@triton.jit
def mix(
    x, k, y, H, W, S, T, U, V, M, G, across, down, parts, share,
    x_batch, x_row, x_column, x_channel, y_batch, y_row, y_column, y_channel, k_batch, k_group, k_row, k_column,
    LAST: tl.constexpr, UNIT: tl.constexpr, WIDE: tl.constexpr, WHOLE: tl.constexpr, ONCE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute ROWS blocks of y for a share of their elements, COLUMNS at a time; weights of one tile are read once."""
    program = tl.program_id(0)
    block = program % down * ROWS + tl.arange(0, ROWS)
    first = (program // down) % parts * share
    last = tl.minimum(first + share, across)
    group = ((program // down // parts) % G).to(tl.int64)
    batch = (program // down // parts // G).to(tl.int64)
    count, length = S * T, U * V * M
    here = group_start(x, batch, group, M, x_batch, x_channel, LAST, UNIT)
    there = group_start(y, batch, group, M, y_batch, y_channel, LAST, UNIT)
    weights = k + batch * k_batch + group * k_group + block[:, None] * k_row
    other = tl.arange(0, INNER)
    if ONCE:
        # All weights fit into one tile, so they are loaded once, before the loop.
        known = (block < count)[:, None] & (other < count)[None, :]
        a = tl.load(weights + other[None, :] * k_column, mask=known, other=0.0)
    for tile in range(first, last):
        inside = tile * COLUMNS + tl.arange(0, COLUMNS)
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
        if ONCE:
            pointers, exists = elements(
                here, other, inside, count, length, H, W, T, U, V, M, x_row, x_column, x_channel,
                LAST, UNIT, WIDE, WHOLE,
            )  # fmt: skip
            total = product(a, tl.load(pointers, mask=exists, other=0.0), total, PRECISION)
        else:
            for start in range(0, count, INNER):
                some = start + tl.arange(0, INNER)
                known = (block < count)[:, None] & (some < count)[None, :]
                part = tl.load(weights + some[None, :] * k_column, mask=known, other=0.0)
                pointers, exists = elements(
                    here, some, inside, count, length, H, W, T, U, V, M, x_row, x_column, x_channel,
                    LAST, UNIT, WIDE, WHOLE,
                )  # fmt: skip
                total = product(part, tl.load(pointers, mask=exists, other=0.0), total, PRECISION)
        pointers, exists = elements(
            there, block, inside, count, length, H, W, T, U, V, M, y_row, y_column, y_channel,
            LAST, UNIT, WIDE, WHOLE,
        )  # fmt: skip
        tl.store(pointers, total.to(y.dtype.element_ty), mask=exists)


@triton.jit
def cross(
    y, x, part, H, W, S, T, U, V, M, G, down, splits, share,
    y_batch, y_row, y_column, y_channel, x_batch, x_row, x_column, x_channel,
    LAST: tl.constexpr, UNIT: tl.constexpr, WIDE: tl.constexpr, WHOLE: tl.constexpr,
    SIDE: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sum inner products of SIDE blocks of y with SIDE blocks of x over one part of the elements of a block."""
    program = tl.program_id(0)
    left = program % down * SIDE + tl.arange(0, SIDE)
    right = (program // down) % down * SIDE + tl.arange(0, SIDE)
    split = (program // down // down) % splits
    group = ((program // down // down // splits) % G).to(tl.int64)
    batch = (program // down // down // splits // G).to(tl.int64)
    count = S * T
    first = split * share
    # Parts of a block's elements are summed by separate programs: few blocks would leave the device idle.
    last = tl.minimum(first + share, U * V * M)
    here = group_start(y, batch, group, M, y_batch, y_channel, LAST, UNIT)
    there = group_start(x, batch, group, M, x_batch, x_channel, LAST, UNIT)
    total = tl.zeros((SIDE, SIDE), tl.float32)
    for start in range(first, last, INNER):
        inside = start + tl.arange(0, INNER)
        pointers, exists = elements(
            here, left, inside, count, last, H, W, T, U, V, M, y_row, y_column, y_channel, LAST, UNIT, WIDE, WHOLE
        )
        a = tl.load(pointers, mask=exists, other=0.0)
        pointers, exists = elements(
            there, right, inside, count, last, H, W, T, U, V, M, x_row, x_column, x_channel, LAST, UNIT, WIDE, WHOLE
        )
        b = tl.load(pointers, mask=exists, other=0.0)
        total = product(a, tl.trans(b), total, PRECISION)
    base = part + ((batch * G + group) * splits + split) * count * count
    known = (left < count)[:, None] & (right < count)[None, :]
    tl.store(base + left[:, None] * count + right[None, :], total, mask=known)


class Blocks(NamedTuple):
    """Maps (B, H, W, C) cut into S x T blocks, and the memory order of a block's elements.

    Attributes:
        last: whether channels are contiguous; otherwise the positions of a row are.
        unit: length of contiguous, aligned runs of elements, a power of two.
        wide: whether a sample's offsets need 64 bits.
        whole: whether the blocks tile the map exactly, without padding.
    """

    height: int
    width: int
    s: int
    t: int
    u: int
    v: int
    channels: int
    last: bool
    unit: int
    wide: bool
    whole: bool

    @classmethod
    def of(cls, groups: int, s: int, t: int, *maps: Tensor) -> Blocks:
        _, height, width, channels = maps[0].shape
        u, v, m = -(-height // s), -(-width // t), channels // groups
        last = maps[0].stride(3) == 1
        axis = 3 if last else 2
        # A common divisor of all other strides keeps every run aligned, for every map.
        others = [n for x in maps for k, n in enumerate(x.stride()) if k != axis]
        contiguous = all(x.stride(axis) == 1 for x in maps)
        unit = gcd(runtime.WIDEST, m if last else v, *others) if contiguous else 1
        # The farthest element decides between 32 and 64 bits; 32-bit arithmetic is cheaper.
        farthest = max(sum((n - 1) * k for n, k in zip(x.shape[1:], x.stride()[1:], strict=True)) for x in maps)
        whole = height == s * u and width == t * v
        return cls(height, width, s, t, u, v, m, last, unit, farthest >= NARROW, whole)

    @property
    def length(self) -> int:
        """Return the number of elements of a block, with the channels of a group."""
        return self.u * self.v * self.channels

    @property
    def extents(self) -> tuple[int, ...]:
        return self.height, self.width, self.s, self.t, self.u, self.v, self.channels

    @property
    def options(self) -> dict[str, bool | int]:
        """Return the compile-time options of the kernels."""
        return {"LAST": self.last, "UNIT": self.unit, "WIDE": self.wide, "WHOLE": self.whole}

    def strides(self, x: Tensor) -> tuple[int, ...]:
        """Return a map's strides, in units except along the contiguous axis."""
        axis = 3 if self.last else 2
        return tuple(n if k == axis else n // self.unit for k, n in enumerate(x.stride()))


def block_mix(
    x: Tensor, k: Tensor, s: int, t: int, precision: str, tile: Tile | None = None, parts: int | None = None
) -> Tensor:
    """Mix the blocks of x (B, H, W, C), any strides, by k (B, G, S T, S T): the result is like x."""
    batch, groups, count, _ = k.shape
    y = runtime.allocate_like(x)
    cut = Blocks.of(groups, s, t, x, y)
    how = runtime.input_precision(x.dtype, precision)

    def launch(tile: Tile) -> None:
        across, down = triton.cdiv(cut.length, tile.columns), triton.cdiv(count, tile.rows)
        share = triton.cdiv(across, parts or runtime.parts_to_fill(groups * batch * down, across, x.device))
        divided = triton.cdiv(across, share)
        mix[(down * divided * groups * batch,)](
            x, k, y, *cut.extents, groups, across, down, divided, share,
            *cut.strides(x), *cut.strides(y), *k.stride(), **cut.options, ONCE=count <= tile.inner,
            ROWS=tile.rows, COLUMNS=tile.columns, INNER=tile.inner, PRECISION=how, **tile.launch,
        )  # fmt: skip

    problem = (batch * groups, cut.length, s, t, how, cut.last, cut.unit)
    launch(tile or best("block_mix", problem, x, MIX_TILES, launch))
    return y


def block_cross(
    y: Tensor, x: Tensor, groups: int, s: int, t: int, precision: str, tile: Tile | None = None,
    splits: int | None = None,
) -> Tensor:  # fmt: skip
    """Compute inner products of the blocks of y and x, both (B, H, W, C): (B, G, S T, S T)."""
    batch, count = x.shape[0], s * t
    cut = Blocks.of(groups, s, t, x, y)
    how = runtime.input_precision(x.dtype, precision)

    def launch(tile: Tile) -> Tensor:
        down = triton.cdiv(count, tile.rows)
        parts = splits or runtime.splits_for(batch * groups * down * down, cut.length, tile.inner, x.device)
        share = triton.cdiv(triton.cdiv(cut.length, parts), tile.inner) * tile.inner
        parts = triton.cdiv(cut.length, share)
        part = runtime.allocate((batch, groups, parts, count, count), runtime.FLOAT32, x.device)
        cross[(down * down * parts * groups * batch,)](
            y, x, part, *cut.extents, groups, down, parts, share, *cut.strides(y), *cut.strides(x), **cut.options,
            SIDE=tile.rows, INNER=tile.inner, PRECISION=how, **tile.launch,
        )  # fmt: skip
        return part

    problem = (batch * groups, cut.length, s, t, how, cut.last, cut.unit)
    # The parts are float32 and rounded once, after their sum.
    return launch(tile or best("block_cross", problem, x, CROSS_TILES, launch)).sum(2).to(x.dtype)
