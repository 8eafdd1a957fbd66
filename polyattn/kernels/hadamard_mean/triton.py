"""`hadamard_mean` in Triton: both products of a tile stay in registers, where they are multiplied and summed."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from polyattn.kernels import runtime
from polyattn.kernels.blocks import product, tile_of
from polyattn.kernels.tuning import Tile, best

TILES = (
    Tile(128, 64, 64, 8, 3),
    Tile(64, 64, 64, 4, 4),
    Tile(64, 128, 64, 8, 3),
    Tile(128, 64, 32, 8, 4),
)


@triton.jit
def products_of_projections(
    x, w1, w2, part, N, C, D, across, splits, share, scale,
    x_batch, x_row, x_column, w1_row, w1_column, w2_row, w2_column,
    UNIT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sum (x w1)[n,d] (x w2)[n,d] over one part of the positions, for one tile of columns d.

    Positions and the channel stride of x are counted in UNITs.
    """
    N = N * UNIT
    program = tl.program_id(0)
    d = program % across * COLUMNS + tl.arange(0, COLUMNS)
    split = (program // across) % splits
    batch = (program // across // splits).to(tl.int64)
    first = split * share
    last = tl.minimum(first + share, N)
    x_step = tl.full([], INNER, tl.int64) * x_column * UNIT
    w1_step = tl.full([], INNER, tl.int64) * w1_row
    w2_step = tl.full([], INNER, tl.int64) * w2_row
    sums = tl.zeros((COLUMNS,), tl.float32)
    for start in range(first, last, ROWS):
        n = start + tl.arange(0, ROWS)
        k = tl.arange(0, INNER)
        rows = tile_of(x + batch * x_batch, n, k, x_row, x_column, UNIT)
        left = tile_of(w1, k, d, w1_row, w1_column)
        right = tile_of(w2, k, d, w2_row, w2_column)
        one = tl.zeros((ROWS, COLUMNS), tl.float32)
        two = tl.zeros((ROWS, COLUMNS), tl.float32)
        for _ in range(0, C, INNER):
            inside = (k < C)[:, None] & (d < D)[None, :]
            a = tl.load(rows, mask=(n < last)[:, None] & (k < C)[None, :], other=0.0)
            # One load of x serves both projections.
            one = product(a, tl.load(left, mask=inside, other=0.0), one, PRECISION)
            two = product(a, tl.load(right, mask=inside, other=0.0), two, PRECISION)
            rows += x_step
            left += w1_step
            right += w2_step
            k += INNER
        # Positions beyond the part load as 0, so their products add 0: no mask is needed here.
        sums += tl.sum(one * two, axis=0)
    tl.store(part + (batch * splits + split) * D + d, sums * scale, mask=d < D)


def hadamard_mean(
    x: Tensor, w1: Tensor, w2: Tensor, scale: float, precision: str, tile: Tile | None = None, splits: int | None = None
) -> Tensor:
    """Compute scale * Σ_n (x w1) ⊙ (x w2) of x (B, N, C), any strides, and w1, w2 (C, D): (B, D)."""
    batch, positions, channels = x.shape
    columns = w1.shape[1]
    how, unit = runtime.input_precision(x.dtype, precision), runtime.unit(x)

    def launch(tile: Tile) -> Tensor:
        across = triton.cdiv(columns, tile.columns)
        parts = splits or runtime.splits_for(batch * across, positions, tile.rows, x.device)
        share = triton.cdiv(triton.cdiv(positions, parts), tile.rows) * tile.rows
        parts = triton.cdiv(positions, share)
        part = runtime.allocate((batch, parts, columns), runtime.FLOAT32, x.device)
        products_of_projections[(across * parts * batch,)](
            x, w1, w2, part, positions // unit, channels, columns, across, parts, share, scale,
            *runtime.in_units(x, unit), *w1.stride(), *w2.stride(), UNIT=unit,
            ROWS=tile.rows, COLUMNS=tile.columns, INNER=tile.inner, PRECISION=how, **tile.launch,
        )  # fmt: skip
        return part

    problem = (batch, positions, channels, columns, how, x.stride(2) == 1, unit)
    part = launch(tile or best("hadamard_mean", problem, x, TILES, launch))
    # Parts are scaled in float32 and rounded once, after their sum.
    return part.sum(1).to(x.dtype)
