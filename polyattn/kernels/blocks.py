"""Functions that several Triton kernels share."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
from __future__ import annotations

import triton
import triton.language as tl

from polyattn.kernels.runtime import interpreting

INTERPRETED = tl.constexpr(interpreting())


@triton.jit
def product(a, b, total, PRECISION: tl.constexpr):
    """total + a @ b in float32. The interpreter would multiply the bits of bfloat16 as whole numbers."""
    if INTERPRETED:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=PRECISION)


@triton.jit
def tile_of(base, rows, columns, row_stride, column_stride, UNIT: tl.constexpr = 1):
    """Pointers to a tile, with 64-bit offsets; steps from column to column are counted in UNITs."""
    return base + rows.to(tl.int64)[:, None] * row_stride + columns.to(tl.int64)[None, :] * column_stride * UNIT
