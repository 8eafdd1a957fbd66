"""Functions shared by several Triton kernels."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
from __future__ import annotations

import triton
import triton.language as tl

from polyattn.kernels.runtime import interpreting

INTERPRETED = tl.constexpr(interpreting())


@triton.jit
def product(a, b, total, PRECISION: tl.constexpr):
    """Compute total + a @ b in float32."""
    if INTERPRETED:
        # Triton's interpreter would multiply the bits of bfloat16 as integers.
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=PRECISION)


@triton.jit
def tile_of(base, rows, columns, row_stride, column_stride, UNIT: tl.constexpr = 1):
    """Compute pointers to a tile, with 64-bit offsets and columns counted in UNITs."""
    # 32-bit offsets would overflow on maps of more than 2^31 elements.
    return base + rows.to(tl.int64)[:, None] * row_stride + columns.to(tl.int64)[None, :] * column_stride * UNIT
