"""`project` and `project_pair` in Triton: one kernel, with the second product and the scale compiled in or out."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from polyattn.kernels import runtime
from polyattn.kernels.blocks import product, tile_of
from polyattn.kernels.tuning import TORCH, Tile, best

TILES = (
    Tile(128, 128, 64, 8, 3),
    Tile(128, 256, 64, 8, 3),
    Tile(128, 64, 64, 4, 3),
    Tile(64, 64, 64, 4, 4),
    Tile(256, 64, 32, 8, 3),
)


@triton.jit
def accumulate(
    total, x, w, scale, n, o, N, K, O, x_row, x_column, w_row, w_column,
    SCALED: tl.constexpr, UNIT: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add (x · diag(scale)) w to total, for one tile of rows n and columns o."""
    k = tl.arange(0, INNER)
    left = tile_of(x, n, k, x_row, x_column, UNIT)
    right = tile_of(w, k, o, w_row, w_column)
    # INNER times a large stride may overflow 32 bits.
    left_step = tl.full([], INNER, tl.int64) * x_column * UNIT
    right_step = tl.full([], INNER, tl.int64) * w_row
    for _ in range(0, K, INNER):
        a = tl.load(left, mask=(n < N)[:, None] & (k < K)[None, :], other=0.0)
        b = tl.load(right, mask=(k < K)[:, None] & (o < O)[None, :], other=0.0)
        if SCALED:
            # Scale the rows, not the matrix: this operand of the product may stay in registers.
            factor = tl.load(scale + k, mask=k < K, other=0.0).to(tl.float32)
            a = (a.to(tl.float32) * factor[None, :]).to(a.dtype)
        total = product(a, b, total, PRECISION)
        left += left_step
        right += right_step
        k += INNER
    return total


@triton.jit
def rows_times_columns(
    a, m, scale, x, s, y, N, K, L, O, across, down,
    a_batch, a_row, a_column, m_batch, m_row, m_column,
    x_batch, x_row, x_column, s_batch, s_row, s_column, y_batch, y_row, y_column,
    SCALED: tl.constexpr, PAIR: tl.constexpr, UNIT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute one tile of y; neighbouring tiles run together, so their rows come from the cache.

    Positions and channel strides of maps are counted in UNITs.
    """
    N = N * UNIT
    program = tl.program_id(0)
    batch = (program // across // down).to(tl.int64)
    n = (program // across) % down * ROWS + tl.arange(0, ROWS)
    o = program % across * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    total = accumulate(
        total, a + batch * a_batch, m + batch * m_batch, scale + batch * K, n, o, N, K, O,
        a_row, a_column, m_row, m_column, SCALED, UNIT, INNER, PRECISION,
    )  # fmt: skip
    if PAIR:
        total = accumulate(
            total, x + batch * x_batch, s + batch * s_batch, scale, n, o, N, L, O,
            x_row, x_column, s_row, s_column, False, UNIT, INNER, PRECISION,
        )  # fmt: skip
    inside = (n < N)[:, None] & (o < O)[None, :]
    tl.store(tile_of(y + batch * y_batch, n, o, y_row, y_column, UNIT), total.to(y.dtype.element_ty), mask=inside)


def _run(
    name: str, a: Tensor, m: Tensor, scale: Tensor | None, x: Tensor | None, s: Tensor | None, precision: str,
    tile: Tile | None,
) -> Tensor:  # fmt: skip
    batch, rows, inner = a.shape
    columns = m.shape[-1]
    y = runtime.rows_like(a, columns)
    how = runtime.input_precision(a.dtype, precision)
    # Unused arguments of the kernel still need pointers and strides: any tensor serves.
    other, matrix = (a, m) if x is None or s is None else (x, s)
    factor = a if scale is None else scale.contiguous()
    unit = runtime.unit(a, other, y)

    def launch(tile: Tile) -> None:
        if tile == TORCH:
            matrices = m if scale is None else m * scale[:, :, None]
            with runtime.sums_in_float32():
                torch.bmm(a, matrices.expand(batch, inner, columns), out=y)
            return
        across, down = triton.cdiv(columns, tile.columns), triton.cdiv(rows, tile.rows)
        rows_times_columns[(across * down * batch,)](
            a, m, factor, other, matrix, y, rows // unit, inner, other.shape[2], columns, across, down,
            *runtime.in_units(a, unit), *runtime.row_strides(m), *runtime.in_units(other, unit),
            *runtime.row_strides(matrix), *runtime.in_units(y, unit),
            SCALED=scale is not None, PAIR=x is not None, UNIT=unit,
            ROWS=tile.rows, COLUMNS=tile.columns, INNER=tile.inner, PRECISION=how, **tile.launch,
        )  # fmt: skip

    # For a pair, torch would round one product before adding the other.
    free = x is None and runtime.as_torch(a.dtype, precision)
    problem = (batch, rows, inner, other.shape[2], columns, how, a.stride(2) == 1, unit, scale is None, free)
    candidates = (*TILES, TORCH) if free else TILES
    launch(tile or best(name, problem, a, candidates, launch))
    return y


def project(x: Tensor, w: Tensor, scale: Tensor | None, precision: str, tile: Tile | None = None) -> Tensor:
    """Compute x (B, N, C) · diag(scale (B, C)) · w (C, O) or (B, C, O): (B, N, O)."""
    return _run("project", x, w, scale, None, None, precision, tile)


def project_pair(a: Tensor, m: Tensor, x: Tensor, s: Tensor, precision: str, tile: Tile | None = None) -> Tensor:
    """Compute a (B, N, C) · m + x (B, N, L) · s, where m and s are (C, O) or (B, C, O): (B, N, O)."""
    return _run("project_pair", a, m, None, x, s, precision, tile)
