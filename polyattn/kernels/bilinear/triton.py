"""`block_mix` and `block_cross` in Triton: matrix products whose one axis is the S T blocks of a map.

The other axis is everything inside a block: its U x V positions and its group's channels, the axis that is contiguous
in memory running fastest.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from polyattn.kernels import runtime
from polyattn.kernels.blocks import product
from polyattn.kernels.tuning import Tile, best

MIX_TILES = (
    Tile(64, 128, 64, 4, 2),
    Tile(64, 64, 64, 4, 3),
    Tile(64, 256, 64, 8, 2),
    Tile(128, 128, 64, 8, 2),
    Tile(32, 128, 32, 4, 3),
)
CROSS_TILES = (
    Tile(64, 64, 64, 4, 3),
    Tile(64, 64, 128, 4, 3),
    Tile(32, 32, 128, 4, 3),
    Tile(128, 128, 32, 8, 3),
)


@triton.jit
def places(block, inside, T, U, V, M, x_row, x_column, x_channel, LAST: tl.constexpr):
    """Row, column and 64-bit offset of elements: of the block axis, and of the place in the block, before they add."""
    if LAST:
        u = inside // (V * M)
        v = (inside // M) % V
        m = inside % M
    else:
        m = inside // (U * V)
        u = (inside // V) % U
        v = inside % V
    rows, columns = block // T * U, block % T * V
    outer = rows.to(tl.int64) * x_row + columns.to(tl.int64) * x_column
    inner = u.to(tl.int64) * x_row + v.to(tl.int64) * x_column + m.to(tl.int64) * x_channel
    return rows, columns, outer, u, v, inner


@triton.jit
def mix(
    x, k, y, H, W, S, T, U, V, M, G, across, down,
    x_batch, x_row, x_column, x_channel, y_batch, y_row, y_column, y_channel,
    k_batch, k_group, k_row, k_column,
    LAST: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """ROWS blocks of y at COLUMNS places inside them."""
    program = tl.program_id(0)
    block = program % down * ROWS + tl.arange(0, ROWS)
    inside = (program // down) % across * COLUMNS + tl.arange(0, COLUMNS)
    group = ((program // down // across) % G).to(tl.int64)
    batch = (program // down // across // G).to(tl.int64)
    count, length = S * T, U * V * M
    here = x + batch * x_batch + group * M * x_channel
    weights = k + batch * k_batch + group * k_group
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, count, INNER):
        other = start + tl.arange(0, INNER)
        rows, columns, outer, u, v, inner = places(other, inside, T, U, V, M, x_row, x_column, x_channel, LAST)
        exists = (rows[:, None] + u[None, :] < H) & (columns[:, None] + v[None, :] < W)
        exists = exists & (other < count)[:, None] & (inside < length)[None, :]
        b = tl.load(here + outer[:, None] + inner[None, :], mask=exists, other=0.0)
        known = (block < count)[:, None] & (other < count)[None, :]
        a = tl.load(weights + block[:, None] * k_row + other[None, :] * k_column, mask=known, other=0.0)
        total = product(a, b, total, PRECISION)
    rows, columns, outer, u, v, inner = places(block, inside, T, U, V, M, y_row, y_column, y_channel, LAST)
    exists = (rows[:, None] + u[None, :] < H) & (columns[:, None] + v[None, :] < W)
    exists = exists & (block < count)[:, None] & (inside < length)[None, :]
    there = y + batch * y_batch + group * M * y_channel
    tl.store(there + outer[:, None] + inner[None, :], total.to(y.dtype.element_ty), mask=exists)


@triton.jit
def cross(
    y, x, part, H, W, S, T, U, V, M, G, down, splits, share,
    y_batch, y_row, y_column, y_channel, x_batch, x_row, x_column, x_channel,
    LAST: tl.constexpr, SIDE: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Inner products of SIDE blocks of y with SIDE blocks of x over one part of the places inside a block."""
    program = tl.program_id(0)
    left = program % down * SIDE + tl.arange(0, SIDE)
    right = (program // down) % down * SIDE + tl.arange(0, SIDE)
    split = (program // down // down) % splits
    group = ((program // down // down // splits) % G).to(tl.int64)
    batch = (program // down // down // splits // G).to(tl.int64)
    count = S * T
    first = split * share
    last = tl.minimum(first + share, U * V * M)
    a_base = y + batch * y_batch + group * M * y_channel
    b_base = x + batch * x_batch + group * M * x_channel
    total = tl.zeros((SIDE, SIDE), tl.float32)
    for start in range(first, last, INNER):
        inside = start + tl.arange(0, INNER)
        rows, columns, outer, u, v, inner = places(left, inside, T, U, V, M, y_row, y_column, y_channel, LAST)
        exists = (rows[:, None] + u[None, :] < H) & (columns[:, None] + v[None, :] < W)
        exists = exists & (left < count)[:, None] & (inside < last)[None, :]
        a = tl.load(a_base + outer[:, None] + inner[None, :], mask=exists, other=0.0)
        rows, columns, outer, u, v, inner = places(right, inside, T, U, V, M, x_row, x_column, x_channel, LAST)
        exists = (rows[:, None] + u[None, :] < H) & (columns[:, None] + v[None, :] < W)
        exists = exists & (right < count)[:, None] & (inside < last)[None, :]
        b = tl.load(b_base + outer[:, None] + inner[None, :], mask=exists, other=0.0)
        total = product(a, tl.trans(b), total, PRECISION)
    base = part + ((batch * G + group) * splits + split) * count * count
    known = (left < count)[:, None] & (right < count)[None, :]
    tl.store(base + left[:, None] * count + right[None, :], total, mask=known)


def _extents(x: Tensor, groups: int, s: int, t: int) -> tuple[int, int, int, int, int, int, int]:
    _, height, width, channels = x.shape
    return height, width, s, t, -(-height // s), -(-width // t), channels // groups


def block_mix(x: Tensor, k: Tensor, s: int, t: int, precision: str, tile: Tile | None = None) -> Tensor:
    """Blocks of x (B, H, W, C), any strides, mixed by k (B, G, S T, S T): like x."""
    batch, groups, count, _ = k.shape
    extents = _extents(x, groups, s, t)
    y = runtime.allocate_like(x)
    how = runtime.input_precision(x.dtype, precision)
    length = extents[4] * extents[5] * extents[6]

    def launch(tile: Tile) -> None:
        across, down = triton.cdiv(length, tile.columns), triton.cdiv(count, tile.rows)
        mix[(across * down * groups * batch,)](
            x, k, y, *extents, groups, across, down, *x.stride(), *y.stride(), *k.stride(),
            LAST=x.stride(3) == 1, ROWS=tile.rows, COLUMNS=tile.columns, INNER=tile.inner, PRECISION=how,
            **tile.launch,
        )  # fmt: skip

    problem = (batch * groups, length, s, t, how, x.stride(3) == 1)
    launch(tile or best("block_mix", problem, x, MIX_TILES, launch))
    return y


def block_cross(
    y: Tensor, x: Tensor, groups: int, s: int, t: int, precision: str, tile: Tile | None = None,
    splits: int | None = None,
) -> Tensor:  # fmt: skip
    """Inner products of the blocks of y and x, both (B, H, W, C): (B, G, S T, S T)."""
    batch, count = x.shape[0], s * t
    extents = _extents(x, groups, s, t)
    how = runtime.input_precision(x.dtype, precision)
    length = extents[4] * extents[5] * extents[6]

    def launch(tile: Tile) -> Tensor:
        down = triton.cdiv(count, tile.rows)
        parts = splits or runtime.splits_for(batch * groups * down * down, length, tile.inner, x.device)
        share = triton.cdiv(triton.cdiv(length, parts), tile.inner) * tile.inner
        parts = triton.cdiv(length, share)
        part = runtime.allocate((batch, groups, parts, count, count), runtime.FLOAT32, x.device)
        cross[(down * down * parts * groups * batch,)](
            y, x, part, *extents, groups, down, parts, share, *y.stride(), *x.stride(),
            LAST=x.stride(3) == 1, SIDE=tile.rows, INNER=tile.inner, PRECISION=how, **tile.launch,
        )  # fmt: skip
        return part

    problem = (batch * groups, length, s, t, how, x.stride(3) == 1)
    return launch(tile or best("block_cross", problem, x, CROSS_TILES, launch)).sum(2).to(x.dtype)
