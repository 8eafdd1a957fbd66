"""The programs of `linear_attention` and `projected_attention`: fused softmaxes, over positions with a running maximum.

Keys and queries are read, or projected tile by tile where they are used (PROJECTED). A batch index counts batch
elements and heads together. Positions and channel strides of maps are counted in UNITs.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
from __future__ import annotations

import triton
import triton.language as tl

from polyattn.kernels.blocks import product, tile_of
from polyattn.kernels.project.triton import accumulate


@triton.jit
def keys_at(
    k, w, n, r, last, C, R, k_row, k_column, w_row, w_column,
    PROJECTED: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, INNER: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Load a tile of k[n,r], or compute one of (k w)[n,r], in float32; 0 outside."""
    if PROJECTED:
        total = tl.zeros((ROWS, KEYS), tl.float32)
        total = accumulate(
            total, k, w, w, n, r, last, C, R, k_row, k_column, w_row, w_column, False, UNIT, INNER, PRECISION
        )
    else:
        inside = (n < last)[:, None] & (r < R)[None, :]
        total = tl.load(tile_of(k, n, r, k_row, k_column, UNIT), mask=inside, other=0.0).to(tl.float32)
    return total


@triton.jit
def softmax_of_rows(a, inside):
    """Compute the softmax of each row over the columns inside; 0 in the others."""
    # Padded columns must not count: exp(-inf) is 0.
    a = tl.where(inside[None, :], a, float("-inf"))
    a = tl.exp(a - tl.max(a, axis=1)[:, None])
    return a / tl.sum(a, axis=1)[:, None]


@triton.jit
def sums_over_positions(
    k, w, v, sums, top, weight, N, C, R, S, heads, across, down, splits, share,
    k_batch, k_head, k_row, k_column, w_row, w_column, v_batch, v_head, v_row, v_column,
    PROJECTED: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, KEYS: tl.constexpr,
    INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute one part's largest k[n,r], Σ exp(k - largest) and Σ exp(k - largest)[n,r] v[n,s].

    A part is a range of positions.
    """
    N = N * UNIT
    program = tl.program_id(0)
    s = program % across * COLUMNS + tl.arange(0, COLUMNS)
    r = (program // across) % down * KEYS + tl.arange(0, KEYS)
    split = (program // across // down) % splits
    both = (program // across // down // splits).to(tl.int64)
    first = split * share
    last = tl.minimum(first + share, N)
    k = k + both // heads * k_batch + both % heads * k_head
    v = v + both // heads * v_batch + both % heads * v_head
    largest = tl.full((KEYS,), float("-inf"), tl.float32)
    divisor = tl.zeros((KEYS,), tl.float32)
    total = tl.zeros((KEYS, COLUMNS), tl.float32)
    for start in range(first, last, ROWS):
        n = start + tl.arange(0, ROWS)
        a = keys_at(
            k, w, n, r, last, C, R, k_row, k_column, w_row, w_column, PROJECTED, UNIT, ROWS, KEYS, INNER, PRECISION
        )
        # Positions beyond the part load as 0, which may exceed the true maximum: they must be -inf.
        a = tl.where((n < last)[:, None], a, float("-inf"))
        inside = (n < last)[:, None] & (s < S)[None, :]
        b = tl.load(tile_of(v, n, s, v_row, v_column, UNIT), mask=inside, other=0.0)
        now = tl.maximum(largest, tl.max(a, axis=0))
        # Running maximum: earlier sums are rescaled whenever a larger key appears. exp(-inf) = 0 handles the first
        # tile.
        shrink = tl.exp(largest - now)
        share_of = tl.exp(a - now[None, :])
        divisor = divisor * shrink + tl.sum(share_of, axis=0)
        total = product(tl.trans(share_of.to(b.dtype)), b, total * shrink[:, None], PRECISION)
        largest = now
    part = both * splits + split
    tl.store(sums + part * R * S + r[:, None] * S + s[None, :], total, mask=(r < R)[:, None] & (s < S)[None, :])
    # Maximum and divisor are the same for all tiles of values: one program stores them.
    if program % across == 0:
        tl.store(top + part * R + r, largest, mask=r < R)
        tl.store(weight + part * R + r, divisor, mask=r < R)


@triton.jit
def add_parts(
    sums, top, weight, c, divisor, R, S, across, down, splits, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """Sum the parts of one tile of the context, rescaled to their largest key, and divide.

    The divisor's logarithm is stored for the backward pass.
    """
    program = tl.program_id(0)
    s = program % across * COLUMNS + tl.arange(0, COLUMNS)
    r = (program // across) % down * ROWS + tl.arange(0, ROWS)
    both = (program // across // down).to(tl.int64)
    first = both * splits
    largest = tl.full((ROWS,), float("-inf"), tl.float32)
    for part in range(splits):
        largest = tl.maximum(largest, tl.load(top + (first + part) * R + r, mask=r < R, other=0.0))
    inside = (r < R)[:, None] & (s < S)[None, :]
    below = tl.zeros((ROWS,), tl.float32)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for part in range(splits):
        place = (first + part) * R + r
        # Each part has its own maximum; factors bring all parts to the common one and cannot overflow.
        factor = tl.exp(tl.load(top + place, mask=r < R, other=0.0) - largest)
        below += factor * tl.load(weight + place, mask=r < R, other=1.0)
        total += factor[:, None] * tl.load(sums + place[:, None] * S + s[None, :], mask=inside, other=0.0)
    there = c + both * R * S + r[:, None] * S + s[None, :]
    tl.store(there, (total / below[:, None]).to(c.dtype.element_ty), mask=inside)
    if program % across == 0:
        # In logarithms, the backward pass gets the softmax as exp(k - divisor), without overflow.
        tl.store(divisor + both * R + r, tl.log(below) + largest, mask=r < R)


@triton.jit
def rows_times_context(
    q, w, c, y, N, C, R, S, heads, down,
    q_batch, q_head, q_row, q_column, w_row, w_column, c_batch, c_head, c_row, c_column,
    y_batch, y_head, y_row, y_column,
    PROJECTED: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, KEYS: tl.constexpr,
    INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute y[n,s] = Σ_r softmax_r(q)[n,r] c[r,s] for one tile of positions, one tile of values after the other."""
    N = N * UNIT
    program = tl.program_id(0)
    n = program % down * ROWS + tl.arange(0, ROWS)
    both = (program // down).to(tl.int64)
    batch, head = both // heads, both % heads
    r = tl.arange(0, KEYS)
    a = keys_at(
        q + batch * q_batch + head * q_head, w, n, r, N, C, R, q_row, q_column, w_row, w_column,
        PROJECTED, UNIT, ROWS, KEYS, INNER, PRECISION,
    )  # fmt: skip
    a = softmax_of_rows(a, r < R).to(c.dtype.element_ty)
    c = c + batch * c_batch + head * c_head
    for start in range(0, S, COLUMNS):
        s = start + tl.arange(0, COLUMNS)
        b = tl.load(tile_of(c, r, s, c_row, c_column), mask=(r < R)[:, None] & (s < S)[None, :], other=0.0)
        total = product(a, b, tl.zeros((ROWS, COLUMNS), tl.float32), PRECISION)
        there = tile_of(y + batch * y_batch + head * y_head, n, s, y_row, y_column, UNIT)
        tl.store(there, total.to(y.dtype.element_ty), mask=(n < N)[:, None] & (s < S)[None, :])


@triton.jit
def gradient_of_rows(
    q, w, c, dy, dq, N, C, R, S, heads, down,
    q_batch, q_head, q_row, q_column, w_row, w_column, c_batch, c_head, c_row, c_column,
    g_batch, g_head, g_row, g_column, d_batch, d_head, d_row, d_column,
    PROJECTED: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, KEYS: tl.constexpr,
    INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute dq = share * (dshare - Σ_r share dshare), where dshare = dy cᵀ."""
    N = N * UNIT
    program = tl.program_id(0)
    n = program % down * ROWS + tl.arange(0, ROWS)
    both = (program // down).to(tl.int64)
    batch, head = both // heads, both % heads
    r = tl.arange(0, KEYS)
    a = keys_at(
        q + batch * q_batch + head * q_head, w, n, r, N, C, R, q_row, q_column, w_row, w_column,
        PROJECTED, UNIT, ROWS, KEYS, INNER, PRECISION,
    )  # fmt: skip
    share = softmax_of_rows(a, r < R)
    slope = tl.zeros((ROWS, KEYS), tl.float32)
    for start in range(0, S, COLUMNS):
        s = start + tl.arange(0, COLUMNS)
        rows = tile_of(dy + batch * g_batch + head * g_head, n, s, g_row, g_column, UNIT)
        g = tl.load(rows, mask=(n < N)[:, None] & (s < S)[None, :], other=0.0)
        columns = tile_of(c + batch * c_batch + head * c_head, s, r, c_column, c_row)
        b = tl.load(columns, mask=(s < S)[:, None] & (r < R)[None, :], other=0.0)
        slope = product(g, b, slope, PRECISION)
    slope = share * (slope - tl.sum(share * slope, axis=1)[:, None])
    there = tile_of(dq + batch * d_batch + head * d_head, n, r, d_row, d_column, UNIT)
    tl.store(there, slope.to(dq.dtype.element_ty), mask=(n < N)[:, None] & (r < R)[None, :])


@triton.jit
def sums_over_rows(
    q, w, dy, sums, N, C, R, S, heads, across, splits, share,
    q_batch, q_head, q_row, q_column, w_row, w_column, g_batch, g_head, g_row, g_column,
    PROJECTED: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, KEYS: tl.constexpr,
    INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sum softmax_r(q)[n,r] dy[n,s] over one part of the positions."""
    N = N * UNIT
    program = tl.program_id(0)
    s = program % across * COLUMNS + tl.arange(0, COLUMNS)
    split = (program // across) % splits
    both = (program // across // splits).to(tl.int64)
    r = tl.arange(0, KEYS)
    first = split * share
    last = tl.minimum(first + share, N)
    q = q + both // heads * q_batch + both % heads * q_head
    dy = dy + both // heads * g_batch + both % heads * g_head
    total = tl.zeros((KEYS, COLUMNS), tl.float32)
    for start in range(first, last, ROWS):
        n = start + tl.arange(0, ROWS)
        a = keys_at(
            q, w, n, r, last, C, R, q_row, q_column, w_row, w_column, PROJECTED, UNIT, ROWS, KEYS, INNER, PRECISION
        )
        inside = (n < last)[:, None] & (s < S)[None, :]
        g = tl.load(tile_of(dy, n, s, g_row, g_column, UNIT), mask=inside, other=0.0)
        total = product(tl.trans(softmax_of_rows(a, r < R).to(g.dtype)), g, total, PRECISION)
    base = sums + (both * splits + split) * R * S
    tl.store(base + r[:, None] * S + s[None, :], total, mask=(r < R)[:, None] & (s < S)[None, :])


@triton.jit
def gradients_of_context(
    k, w, v, dc, inner, divisor, dk, dv, N, C, R, S, heads, down,
    k_batch, k_head, k_row, k_column, w_row, w_column, v_batch, v_head, v_row, v_column,
    a_batch, a_head, a_row, a_column, b_batch, b_head, b_row, b_column,
    PROJECTED: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, KEYS: tl.constexpr,
    INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute dk = share * (v dcᵀ - inner) and dv = share dc for a tile of positions; share = exp(k - divisor)."""
    N = N * UNIT
    program = tl.program_id(0)
    n = program % down * ROWS + tl.arange(0, ROWS)
    both = (program // down).to(tl.int64)
    batch, head = both // heads, both % heads
    r = tl.arange(0, KEYS)
    keys = (n < N)[:, None] & (r < R)[None, :]
    a = keys_at(
        k + batch * k_batch + head * k_head, w, n, r, N, C, R, k_row, k_column, w_row, w_column,
        PROJECTED, UNIT, ROWS, KEYS, INNER, PRECISION,
    )  # fmt: skip
    log = tl.load(divisor + both * R + r, mask=r < R, other=0.0)
    # A masked entry loads as 0, and exp(0 - log) is not 0.
    share = tl.where(keys, tl.exp(a - log[None, :]), 0.0)
    slope = tl.zeros((ROWS, KEYS), tl.float32)
    for start in range(0, S, COLUMNS):
        s = start + tl.arange(0, COLUMNS)
        values = (n < N)[:, None] & (s < S)[None, :]
        b = tl.load(tile_of(v + batch * v_batch + head * v_head, n, s, v_row, v_column, UNIT), mask=values, other=0.0)
        g = tl.load(tile_of(dc + both * R * S, r, s, S, 1), mask=(r < R)[:, None] & (s < S)[None, :], other=0.0)
        slope = product(b, tl.trans(g), slope, PRECISION)
        part = product(share.to(g.dtype), g, tl.zeros((ROWS, COLUMNS), tl.float32), PRECISION)
        there = tile_of(dv + batch * b_batch + head * b_head, n, s, b_row, b_column, UNIT)
        tl.store(there, part.to(dv.dtype.element_ty), mask=values)
    # inner = Σ_s c dc is the softmax's correction term, summed once per key outside.
    less = tl.load(inner + both * R + r, mask=r < R, other=0.0)
    slope = share * (slope - less[None, :])
    there = tile_of(dk + batch * a_batch + head * a_head, n, r, a_row, a_column, UNIT)
    tl.store(there, slope.to(dk.dtype.element_ty), mask=keys)
