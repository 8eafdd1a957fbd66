"""`gram` in Triton: a program for each upper tile and part of the positions, then the parts added and mirrored."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from polyattn.kernels import runtime
from polyattn.kernels.blocks import product
from polyattn.kernels.tuning import Tile, best

TILES = (
    Tile(64, 64, 64, 4, 3),
    Tile(128, 128, 32, 8, 3),
    Tile(128, 128, 64, 8, 3),
    Tile(64, 64, 128, 4, 3),
    Tile(32, 32, 128, 4, 4),
)
"""Rows and columns are both the side of a tile of channels; inner is positions."""


@triton.jit
def upper_tile(number, across):
    """The row and column, not below the diagonal, of a tile counted along the rows."""
    row = 0
    while number >= across - row:
        number -= across - row
        row += 1
    return row, row + number


@triton.jit
def partial_products(
    x, part, N, C, x_batch, x_row, x_column, across, pairs, splits, share, scale,
    SIDE: tl.constexpr, INNER: tl.constexpr, DIRECT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Σ over one part of the positions of one upper tile; with one part, the result itself and its mirror image."""
    program = tl.program_id(0)
    row, column = upper_tile(program % pairs, across)
    split = (program // pairs) % splits
    batch = (program // pairs // splits).to(tl.int64)
    here = row * SIDE + tl.arange(0, SIDE)
    there = column * SIDE + tl.arange(0, SIDE)
    first = split * share
    last = tl.minimum(first + share, N)
    n = first + tl.arange(0, INNER)
    rows = x + batch * x_batch + n.to(tl.int64)[:, None] * x_row
    left = rows + here.to(tl.int64)[None, :] * x_column
    right = rows + there.to(tl.int64)[None, :] * x_column
    stride = tl.full([], INNER, tl.int64) * x_row
    total = tl.zeros((SIDE, SIDE), tl.float32)
    for _ in range(first, last, INNER):
        inside = (n < last)[:, None]
        a = tl.load(left, mask=inside & (here < C)[None, :], other=0.0)
        b = tl.load(right, mask=inside & (there < C)[None, :], other=0.0)
        total = product(tl.trans(a), b, total, PRECISION)
        left += stride
        right += stride
        n += INNER
    if DIRECT:
        value = (total * scale).to(part.dtype.element_ty)
        base = part + batch * C * C
        inside = (here < C)[:, None] & (there < C)[None, :]
        tl.store(base + here[:, None] * C + there[None, :], value, mask=inside)
        if row != column:
            tl.store(base + there[:, None] * C + here[None, :], tl.trans(value), mask=tl.trans(inside))
    else:
        base = part + program.to(tl.int64) * SIDE * SIDE
        offsets = tl.arange(0, SIDE)
        tl.store(base + offsets[:, None] * SIDE + offsets[None, :], total)


@triton.jit
def add_parts(part, out, C, across, pairs, splits, scale, SIDE: tl.constexpr):
    """The parts of one upper tile added, scaled, rounded, and written with their mirror image."""
    program = tl.program_id(0)
    pair = program % pairs
    batch = (program // pairs).to(tl.int64)
    row, column = upper_tile(pair, across)
    offsets = tl.arange(0, SIDE)
    source = part + (batch * splits * pairs + pair) * SIDE * SIDE + offsets[:, None] * SIDE + offsets[None, :]
    total = tl.zeros((SIDE, SIDE), tl.float32)
    for _ in range(splits):
        total += tl.load(source)
        source += pairs * SIDE * SIDE
    value = (total * scale).to(out.dtype.element_ty)
    here = row * SIDE + offsets
    there = column * SIDE + offsets
    base = out + batch * C * C
    inside = (here < C)[:, None] & (there < C)[None, :]
    tl.store(base + here[:, None] * C + there[None, :], value, mask=inside)
    if row != column:
        tl.store(base + there[:, None] * C + here[None, :], tl.trans(value), mask=tl.trans(inside))


def gram(x: Tensor, scale: float, precision: str, tile: Tile | None = None, splits: int | None = None) -> Tensor:
    """XᵀX of x (B, N, C), any strides, times a scale: (B, C, C)."""
    batch, positions, channels = x.shape
    how = runtime.input_precision(x.dtype, precision)
    out = runtime.allocate((batch, channels, channels), x.dtype, x.device)

    def launch(tile: Tile) -> None:
        side = tile.rows
        across = triton.cdiv(channels, side)
        pairs = across * (across + 1) // 2
        parts = splits or runtime.splits_for(batch * pairs, positions, tile.inner, x.device)
        share = triton.cdiv(triton.cdiv(positions, parts), tile.inner) * tile.inner
        parts = triton.cdiv(positions, share)
        direct = parts == 1
        part = out if direct else runtime.allocate((batch, parts, pairs, side, side), runtime.FLOAT32, x.device)
        partial_products[(batch * parts * pairs,)](
            x, part, positions, channels, *x.stride(), across, pairs, parts, share, scale,
            SIDE=side, INNER=tile.inner, DIRECT=direct, PRECISION=how, **tile.launch,
        )  # fmt: skip
        if not direct:
            add_parts[(batch * pairs,)](part, out, channels, across, pairs, parts, scale, SIDE=side)

    problem = (batch, positions, channels, how, x.stride(2) == 1)
    launch(tile or best("gram", problem, x, TILES, launch))
    return out
