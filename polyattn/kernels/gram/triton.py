"""`gram` and `cross_gram` in Triton: a program per tile and part of the positions, then the sum of the parts.

A Gram matrix is symmetric: upper tiles are computed, and each is written with its mirror image.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from polyattn.kernels import runtime
from polyattn.kernels.blocks import product, tile_of
from polyattn.kernels.tuning import TORCH, Tile, best

SINGLE = ["across", "tiles"]
"""Counts of tiles that stay variables even if 1: Triton 3.6 cannot compile a `while` with a constant start."""
TILES = (
    Tile(64, 64, 64, 4, 3),
    Tile(128, 128, 32, 8, 3),
    Tile(128, 128, 64, 8, 3),
    Tile(64, 64, 128, 4, 3),
    Tile(32, 32, 128, 4, 4),
)
"""Rows and columns of the result; inner counts positions. Tiles of Gram matrices are square."""


@triton.jit
def upper_tile(number, across):
    """Find the row and column of a tile on or above the diagonal, counted along the rows."""
    row = 0
    while number >= across - row:
        number -= across - row
        row += 1
    return row, row + number


@triton.jit
def place(number, across, UPPER: tl.constexpr):
    """Find the row and column of a tile, among all tiles or among the upper ones."""
    if UPPER:
        row, column = upper_tile(number, across)
    else:
        row = number // across
        column = number % across
    return row, column


@triton.jit
def store(
    out, total, row, column, C, D, scale, UPPER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """Store a tile of results, scaled and rounded, and its mirror image."""
    value = (total * scale).to(out.dtype.element_ty)
    here = row * ROWS + tl.arange(0, ROWS)
    there = column * COLUMNS + tl.arange(0, COLUMNS)
    inside = (here < C)[:, None] & (there < D)[None, :]
    tl.store(out + here[:, None] * D + there[None, :], value, mask=inside)
    if UPPER:  # noqa: SIM102, known when the kernel is compiled
        # A tile on the diagonal is its own mirror image: a second store would write the same elements.
        if row != column:
            tl.store(out + there[:, None] * D + here[None, :], tl.trans(value), mask=tl.trans(inside))


@triton.jit(do_not_specialize=SINGLE)
def partial_products(
    x, y, part, N, C, D, x_batch, x_row, x_column, y_batch, y_row, y_column, across, tiles, splits, share, scale,
    UNIT: tl.constexpr, UPPER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
    DIRECT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sum one part of the positions of one tile of XᵀY; a single part is the result itself.

    Positions and channel strides are counted in UNITs.
    """
    # N arrives in UNITs: Triton then knows that UNIT divides it, and vectorises masked loads.
    N = N * UNIT
    program = tl.program_id(0)
    row, column = place(program % tiles, across, UPPER)
    split = (program // tiles) % splits
    batch = (program // tiles // splits).to(tl.int64)
    here = row * ROWS + tl.arange(0, ROWS)
    there = column * COLUMNS + tl.arange(0, COLUMNS)
    first = split * share
    last = tl.minimum(first + share, N)
    n = first + tl.arange(0, INNER)
    left = tile_of(x + batch * x_batch, n, here, x_row, x_column, UNIT)
    right = tile_of(y + batch * y_batch, n, there, y_row, y_column, UNIT)
    # INNER times a large stride may overflow 32 bits.
    left_step = tl.full([], INNER, tl.int64) * x_row
    right_step = tl.full([], INNER, tl.int64) * y_row
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for _ in range(first, last, INNER):
        inside = (n < last)[:, None]
        a = tl.load(left, mask=inside & (here < C)[None, :], other=0.0)
        b = tl.load(right, mask=inside & (there < D)[None, :], other=0.0)
        total = product(tl.trans(a), b, total, PRECISION)
        left += left_step
        right += right_step
        n += INNER
    if DIRECT:
        store(part + batch * C * D, total, row, column, C, D, scale, UPPER, ROWS, COLUMNS)
    else:
        base = part + program.to(tl.int64) * ROWS * COLUMNS
        tl.store(base + tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :], total)


@triton.jit(do_not_specialize=SINGLE)
def add_parts(
    part, out, C, D, across, tiles, splits, scale, UPPER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """Sum the parts of one tile, in order."""
    program = tl.program_id(0)
    tile = program % tiles
    batch = (program // tiles).to(tl.int64)
    row, column = place(tile, across, UPPER)
    source = part + (batch * splits * tiles + tile) * ROWS * COLUMNS
    source += tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for _ in range(splits):
        # A fixed order instead of atomic additions: results are the same in every run.
        total += tl.load(source)
        source += tiles * ROWS * COLUMNS
    store(out + batch * C * D, total, row, column, C, D, scale, UPPER, ROWS, COLUMNS)


def products(x: Tensor, y: Tensor, scale: float, precision: str, tile: Tile | None, splits: int | None) -> Tensor:
    """Compute XᵀY of x (B, N, C) and y (B, N, D), any strides, times a scale: (B, C, D).

    If x and y are one tensor, the result is its Gram matrix.
    """
    batch, positions, rows = x.shape
    columns, upper, unit = y.shape[2], x is y, runtime.unit(x, y)
    how = runtime.input_precision(x.dtype, precision)
    out = runtime.allocate((batch, rows, columns), x.dtype, x.device)

    def launch(tile: Tile) -> None:
        if tile == TORCH:
            with runtime.sums_in_float32():
                out.baddbmm_(x.mT, y, beta=0, alpha=scale)
            return
        # Mirroring a tile needs it square.
        width = tile.rows if upper else tile.columns
        across, down = triton.cdiv(columns, width), triton.cdiv(rows, tile.rows)
        tiles = across * (across + 1) // 2 if upper else across * down
        parts = splits or runtime.splits_for(batch * tiles, positions, tile.inner, x.device)
        share = triton.cdiv(triton.cdiv(positions, parts), tile.inner) * tile.inner
        parts = triton.cdiv(positions, share)
        direct = parts == 1
        part = out if direct else runtime.allocate((batch, parts, tiles, tile.rows, width), runtime.FLOAT32, x.device)
        partial_products[(batch * parts * tiles,)](
            x, y, part, positions // unit, rows, columns, *runtime.in_units(x, unit), *runtime.in_units(y, unit),
            across, tiles, parts, share, scale, UNIT=unit,
            UPPER=upper, ROWS=tile.rows, COLUMNS=width, INNER=tile.inner, DIRECT=direct, PRECISION=how, **tile.launch,
        )  # fmt: skip
        if not direct:
            add_parts[(batch * tiles,)](
                part, out, rows, columns, across, tiles, parts, scale, UPPER=upper, ROWS=tile.rows, COLUMNS=width
            )

    if tile is None:
        free = runtime.as_torch(x.dtype, precision)
        layouts = (x.stride(2) == 1, y.stride(2) == 1)
        problem = (batch, positions, rows, *(() if upper else (columns,)), how, *layouts, unit, free)
        candidates = (*TILES, TORCH) if free else TILES
        tile = best("gram" if upper else "cross_gram", problem, x, candidates, launch)
    launch(tile)
    return out


def gram(x: Tensor, scale: float, precision: str, tile: Tile | None = None, splits: int | None = None) -> Tensor:
    """Compute XᵀX of x (B, N, C), any strides, times a scale: (B, C, C)."""
    return products(x, x, scale, precision, tile, splits)
