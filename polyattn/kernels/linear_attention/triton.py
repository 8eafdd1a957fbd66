"""`linear_attention` in Triton: softmaxes taken on the way, over positions with a running maximum.

A batch index counts batch elements and heads together.
"""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from polyattn.kernels import runtime
from polyattn.kernels.blocks import product, tile_of
from polyattn.kernels.tuning import Tile, best

TILES = (
    Tile(64, 64, 64, 4, 3),
    Tile(64, 64, 128, 4, 3),
    Tile(128, 64, 64, 8, 3),
    Tile(128, 128, 64, 8, 2),
)
"""Of `sums_over_positions` and `sums_over_rows`: rows are keys, columns values, inner positions."""
ROW_TILES = (Tile(64, 64, 64, 4, 2), Tile(128, 64, 64, 8, 2), Tile(64, 32, 64, 4, 2), Tile(32, 64, 64, 4, 2))
"""Of what makes rows of results: rows are positions, columns values at a time."""
ADDED = 32
"""Keys and values whose parts one program adds."""


@triton.jit
def sums_over_positions(
    k, v, sums, top, weight, N, R, S, heads, across, down, splits, share,
    k_batch, k_head, k_row, k_column, v_batch, v_head, v_row, v_column,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Over one part of the positions: the largest k[n,r], Σ exp(k - largest), and Σ exp(k - largest)[n,r] v[n,s]."""
    program = tl.program_id(0)
    s = program % across * COLUMNS + tl.arange(0, COLUMNS)
    r = (program // across) % down * ROWS + tl.arange(0, ROWS)
    split = (program // across // down) % splits
    both = (program // across // down // splits).to(tl.int64)
    first = split * share
    last = tl.minimum(first + share, N)
    n = first + tl.arange(0, INNER)
    left = tile_of(k + both // heads * k_batch + both % heads * k_head, n, r, k_row, k_column)
    right = tile_of(v + both // heads * v_batch + both % heads * v_head, n, s, v_row, v_column)
    left_step = tl.full([], INNER, tl.int64) * k_row
    right_step = tl.full([], INNER, tl.int64) * v_row
    largest = tl.full((ROWS,), float("-inf"), tl.float32)
    divisor = tl.zeros((ROWS,), tl.float32)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for _ in range(first, last, INNER):
        inside = (n < last)[:, None]
        a = tl.load(left, mask=inside & (r < R)[None, :], other=0.0).to(tl.float32)
        a = tl.where(inside, a, float("-inf"))
        b = tl.load(right, mask=inside & (s < S)[None, :], other=0.0)
        now = tl.maximum(largest, tl.max(a, axis=0))
        shrink = tl.exp(largest - now)
        share_of = tl.exp(a - now[None, :])
        divisor = divisor * shrink + tl.sum(share_of, axis=0)
        total = product(tl.trans(share_of.to(b.dtype)), b, total * shrink[:, None], PRECISION)
        largest = now
        left += left_step
        right += right_step
        n += INNER
    part = both * splits + split
    tl.store(sums + part * R * S + r[:, None] * S + s[None, :], total, mask=(r < R)[:, None] & (s < S)[None, :])
    if program % across == 0:
        tl.store(top + part * R + r, largest, mask=r < R)
        tl.store(weight + part * R + r, divisor, mask=r < R)


@triton.jit
def add_parts(
    sums, top, weight, c, divisor, R, S, across, down, splits, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """The parts of one tile of the context brought to their largest key, added and divided; the divisor's logarithm."""
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
        factor = tl.exp(tl.load(top + place, mask=r < R, other=0.0) - largest)
        below += factor * tl.load(weight + place, mask=r < R, other=1.0)
        total += factor[:, None] * tl.load(sums + place[:, None] * S + s[None, :], mask=inside, other=0.0)
    there = c + both * R * S + r[:, None] * S + s[None, :]
    tl.store(there, (total / below[:, None]).to(c.dtype.element_ty), mask=inside)
    if program % across == 0:
        tl.store(divisor + both * R + r, tl.log(below) + largest, mask=r < R)


@triton.jit
def softmax_of_rows(q, n, r, N, R, q_row, q_column):
    """The softmax over channels of some rows, in float32; 0 beyond the last channel."""
    a = tl.load(tile_of(q, n, r, q_row, q_column), mask=(n < N)[:, None] & (r < R)[None, :], other=0.0)
    a = tl.where((r < R)[None, :], a.to(tl.float32), float("-inf"))
    a = tl.exp(a - tl.max(a, axis=1)[:, None])
    return a / tl.sum(a, axis=1)[:, None]


@triton.jit
def rows_times_context(
    q, c, y, N, R, S, heads, across, down,
    q_batch, q_head, q_row, q_column, c_batch, c_row, c_column, y_batch, y_row, y_column,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y[n,s] = Σ_r softmax_r(q)[n,r] c[r,s] for one tile of positions and values."""
    program = tl.program_id(0)
    s = program % across * COLUMNS + tl.arange(0, COLUMNS)
    n = (program // across) % down * ROWS + tl.arange(0, ROWS)
    both = (program // across // down).to(tl.int64)
    r = tl.arange(0, KEYS)
    share = softmax_of_rows(q + both // heads * q_batch + both % heads * q_head, n, r, N, R, q_row, q_column)
    b = tl.load(tile_of(c + both * c_batch, r, s, c_row, c_column), mask=(r < R)[:, None] & (s < S)[None, :], other=0.0)
    total = product(share.to(b.dtype), b, tl.zeros((ROWS, COLUMNS), tl.float32), PRECISION)
    inside = (n < N)[:, None] & (s < S)[None, :]
    tl.store(tile_of(y + both * y_batch, n, s, y_row, y_column), total.to(y.dtype.element_ty), mask=inside)


@triton.jit
def gradient_of_rows(
    q, c, dy, dq, N, R, S, heads, down,
    q_batch, q_head, q_row, q_column, c_batch, c_row, c_column, g_batch, g_head, g_row, g_column,
    d_batch, d_head, d_row, d_column,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq = share * (dshare - Σ_r share dshare), where dshare = dy cᵀ."""
    program = tl.program_id(0)
    n = program % down * ROWS + tl.arange(0, ROWS)
    both = (program // down).to(tl.int64)
    r = tl.arange(0, KEYS)
    batch, head = both // heads, both % heads
    share = softmax_of_rows(q + batch * q_batch + head * q_head, n, r, N, R, q_row, q_column)
    slope = tl.zeros((ROWS, KEYS), tl.float32)
    for start in range(0, S, COLUMNS):
        s = start + tl.arange(0, COLUMNS)
        rows = tile_of(dy + batch * g_batch + head * g_head, n, s, g_row, g_column)
        g = tl.load(rows, mask=(n < N)[:, None] & (s < S)[None, :], other=0.0)
        b = tl.load(
            tile_of(c + both * c_batch, s, r, c_column, c_row), mask=(s < S)[:, None] & (r < R)[None, :], other=0.0
        )
        slope = product(g, b, slope, PRECISION)
    slope = share * (slope - tl.sum(share * slope, axis=1)[:, None])
    there = tile_of(dq + batch * d_batch + head * d_head, n, r, d_row, d_column)
    tl.store(there, slope.to(dq.dtype.element_ty), mask=(n < N)[:, None] & (r < R)[None, :])


@triton.jit
def sums_over_rows(
    q, dy, sums, N, R, S, heads, across, splits, share,
    q_batch, q_head, q_row, q_column, g_batch, g_head, g_row, g_column,
    COLUMNS: tl.constexpr, KEYS: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Over one part of the positions: Σ_n softmax_r(q)[n,r] dy[n,s]."""
    program = tl.program_id(0)
    s = program % across * COLUMNS + tl.arange(0, COLUMNS)
    split = (program // across) % splits
    both = (program // across // splits).to(tl.int64)
    r = tl.arange(0, KEYS)
    first = split * share
    last = tl.minimum(first + share, N)
    rows = q + both // heads * q_batch + both % heads * q_head
    seed = dy + both // heads * g_batch + both % heads * g_head
    total = tl.zeros((KEYS, COLUMNS), tl.float32)
    for start in range(first, last, INNER):
        n = start + tl.arange(0, INNER)
        part = softmax_of_rows(rows, n, r, last, R, q_row, q_column)
        g = tl.load(tile_of(seed, n, s, g_row, g_column), mask=(n < last)[:, None] & (s < S)[None, :], other=0.0)
        total = product(tl.trans(part.to(g.dtype)), g, total, PRECISION)
    base = sums + (both * splits + split) * R * S
    tl.store(base + r[:, None] * S + s[None, :], total, mask=(r < R)[:, None] & (s < S)[None, :])


@triton.jit
def gradients_of_context(
    k, v, dc, inner, divisor, dk, dv, N, R, S, heads, down,
    k_batch, k_head, k_row, k_column, v_batch, v_head, v_row, v_column,
    a_batch, a_head, a_row, a_column, b_batch, b_head, b_row, b_column,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dk = share * (v dcᵀ - inner) and dv = share dc for one tile of positions, where share = exp(k - divisor)."""
    program = tl.program_id(0)
    n = program % down * ROWS + tl.arange(0, ROWS)
    both = (program // down).to(tl.int64)
    batch, head = both // heads, both % heads
    r = tl.arange(0, KEYS)
    keys = (n < N)[:, None] & (r < R)[None, :]
    a = tl.load(tile_of(k + batch * k_batch + head * k_head, n, r, k_row, k_column), mask=keys, other=0.0)
    log = tl.load(divisor + both * R + r, mask=r < R, other=0.0)
    share = tl.where(keys, tl.exp(a.to(tl.float32) - log[None, :]), 0.0)
    slope = tl.zeros((ROWS, KEYS), tl.float32)
    for start in range(0, S, COLUMNS):
        s = start + tl.arange(0, COLUMNS)
        values = (n < N)[:, None] & (s < S)[None, :]
        b = tl.load(tile_of(v + batch * v_batch + head * v_head, n, s, v_row, v_column), mask=values, other=0.0)
        g = tl.load(tile_of(dc + both * R * S, r, s, S, 1), mask=(r < R)[:, None] & (s < S)[None, :], other=0.0)
        slope = product(b, tl.trans(g), slope, PRECISION)
        part = product(share.to(g.dtype), g, tl.zeros((ROWS, COLUMNS), tl.float32), PRECISION)
        there = tile_of(dv + batch * b_batch + head * b_head, n, s, b_row, b_column)
        tl.store(there, part.to(dv.dtype.element_ty), mask=values)
    less = tl.load(inner + both * R + r, mask=r < R, other=0.0)
    slope = share * (slope - less[None, :])
    there = tile_of(dk + batch * a_batch + head * a_head, n, r, a_row, a_column)
    tl.store(there, slope.to(dk.dtype.element_ty), mask=keys)


def context(
    k: Tensor, v: Tensor, precision: str, tile: Tile | None = None, splits: int | None = None
) -> tuple[Tensor, Tensor]:
    """softmax over the positions of k (B, h, N, R), transposed, times v (B, h, N, S); with the divisor's logarithm."""
    batch, heads, positions, keys = k.shape
    values = v.shape[3]
    how = runtime.input_precision(k.dtype, precision)

    def launch(tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
        across, down = triton.cdiv(values, tile.columns), triton.cdiv(keys, tile.rows)
        parts, share = _parts(splits, batch * heads * across * down, positions, tile.inner, k)
        sums = runtime.allocate((batch, heads, parts, keys, values), runtime.FLOAT32, k.device)
        top = runtime.allocate((batch, heads, parts, keys), runtime.FLOAT32, k.device)
        weight = runtime.allocate((batch, heads, parts, keys), runtime.FLOAT32, k.device)
        sums_over_positions[(across * down * parts * batch * heads,)](
            k, v, sums, top, weight, positions, keys, values, heads, across, down, parts, share,
            *k.stride(), *v.stride(),
            ROWS=tile.rows, COLUMNS=tile.columns, INNER=tile.inner, PRECISION=how, **tile.launch,
        )  # fmt: skip
        return sums, top, weight

    problem = (batch * heads, positions, keys, values, how, k.stride(3) == 1)
    sums, top, weight = launch(tile or best("linear_context", problem, k, TILES, launch))
    c = runtime.allocate((batch, heads, keys, values), v.dtype, v.device)
    divisor = runtime.allocate((batch, heads, keys), runtime.FLOAT32, v.device)
    across, down = triton.cdiv(values, ADDED), triton.cdiv(keys, ADDED)
    add_parts[(across * down * batch * heads,)](
        sums, top, weight, c, divisor, keys, values, across, down, sums.shape[2], ROWS=ADDED, COLUMNS=ADDED
    )
    return c, divisor


def context_backward(
    k: Tensor, v: Tensor, c: Tensor, divisor: Tensor, dc: Tensor, precision: str, tile: Tile | None = None
) -> tuple[Tensor, Tensor]:
    """The gradients of k and v."""
    batch, heads, positions, keys = k.shape
    how = runtime.input_precision(k.dtype, precision)
    inner = (c.float() * dc.float()).sum(3)
    dc = dc.contiguous()
    dk, dv = runtime.allocate_like(k), runtime.allocate_like(v)

    def launch(tile: Tile) -> None:
        down = triton.cdiv(positions, tile.rows)
        gradients_of_context[(down * batch * heads,)](
            k, v, dc, inner, divisor, dk, dv, positions, keys, v.shape[3], heads, down,
            *k.stride(), *v.stride(), *dk.stride(), *dv.stride(),
            ROWS=tile.rows, COLUMNS=tile.columns, KEYS=_padded(keys), PRECISION=how, **tile.launch,
        )  # fmt: skip

    problem = (batch * heads, positions, keys, v.shape[3], how, k.stride(3) == 1)
    launch(tile or best("linear_context_backward", problem, k, ROW_TILES, launch))
    return dk, dv


def query(q: Tensor, c: Tensor, precision: str, tile: Tile | None = None) -> Tensor:
    """softmax over the channels of q (B, h, N, R) times c (B, h, R, S): (B, h, N, S)."""
    batch, heads, positions, keys = q.shape
    values = c.shape[3]
    how = runtime.input_precision(q.dtype, precision)
    c = c.contiguous()
    y = runtime.allocate((batch, heads, positions, values), c.dtype, c.device)

    def launch(tile: Tile) -> None:
        across, down = triton.cdiv(values, tile.columns), triton.cdiv(positions, tile.rows)
        rows_times_context[(across * down * batch * heads,)](
            q, c, y, positions, keys, values, heads, across, down, *q.stride(), *c.stride()[1:], *y.stride()[1:],
            ROWS=tile.rows, COLUMNS=tile.columns, KEYS=_padded(keys), PRECISION=how, **tile.launch,
        )  # fmt: skip

    problem = (batch * heads, positions, keys, values, how, q.stride(3) == 1)
    launch(tile or best("linear_query", problem, q, ROW_TILES, launch))
    return y


def query_backward(
    q: Tensor, c: Tensor, dy: Tensor, precision: str, tile: Tile | None = None, splits: int | None = None
) -> tuple[Tensor, Tensor]:
    """The gradients of q and c."""
    batch, heads, positions, keys = q.shape
    values = c.shape[3]
    how = runtime.input_precision(q.dtype, precision)
    c = c.contiguous()
    dq = runtime.allocate_like(q)

    def rows(tile: Tile) -> None:
        down = triton.cdiv(positions, tile.rows)
        gradient_of_rows[(down * batch * heads,)](
            q, c, dy, dq, positions, keys, values, heads, down,
            *q.stride(), *c.stride()[1:], *dy.stride(), *dq.stride(),
            ROWS=tile.rows, COLUMNS=tile.columns, KEYS=_padded(keys), PRECISION=how, **tile.launch,
        )  # fmt: skip

    def reduce(tile: Tile) -> Tensor:
        across = triton.cdiv(values, tile.columns)
        parts, share = _parts(splits, batch * heads * across, positions, tile.inner, q)
        sums = runtime.allocate((batch, heads, parts, keys, values), runtime.FLOAT32, q.device)
        sums_over_rows[(across * parts * batch * heads,)](
            q, dy, sums, positions, keys, values, heads, across, parts, share, *q.stride(), *dy.stride(),
            COLUMNS=tile.columns, KEYS=_padded(keys), INNER=tile.inner, PRECISION=how, **tile.launch,
        )  # fmt: skip
        return sums

    problem = (batch * heads, positions, keys, values, how, q.stride(3) == 1)
    rows(tile or best("linear_query_backward", problem, q, ROW_TILES, rows))
    sums = reduce(tile or best("linear_context_gradient", problem, q, TILES, reduce))
    return dq, sums.sum(2).to(c.dtype)


def _parts(splits: int | None, programs: int, rows: int, block: int, x: Tensor) -> tuple[int, int]:
    """How many parts the positions are cut into, none of them empty, and how long a part is."""
    parts = splits or runtime.splits_for(programs, rows, block, x.device)
    share = triton.cdiv(triton.cdiv(rows, parts), block) * block
    return triton.cdiv(rows, share), share


def _padded(keys: int) -> int:
    return max(16, triton.next_power_of_2(keys))
