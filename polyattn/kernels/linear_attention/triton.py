"""`linear_attention` and `projected_attention` in Triton: allocation and launches."""

# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
from __future__ import annotations

import triton
from torch import Tensor

from polyattn.kernels import runtime
from polyattn.kernels.linear_attention.programs import (
    add_parts,
    gradient_of_rows,
    gradients_of_context,
    rows_times_context,
    sums_over_positions,
    sums_over_rows,
)
from polyattn.kernels.tuning import Tile, best

TILES = (
    Tile(64, 64, 64, 4, 3),
    Tile(64, 128, 64, 8, 3),
    Tile(128, 64, 64, 8, 3),
    Tile(128, 128, 64, 8, 3),
    Tile(64, 256, 64, 8, 3),
)
"""Tiles of `sums_over_positions` and `sums_over_rows`: rows count positions, columns values, inner the channels of
projected keys, per step."""
ROW_TILES = (Tile(64, 64, 64, 4, 3), Tile(128, 64, 64, 8, 3), Tile(64, 32, 64, 4, 3), Tile(32, 64, 64, 4, 3))
"""Tiles of the programs with one row of results per position: rows count positions, columns values per step."""
ADDED = 32
"""Side of the tile of keys and values whose parts one program adds."""


def context(
    k: Tensor, v: Tensor, precision: str, tile: Tile | None = None, splits: int | None = None, w: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Compute (softmax over the positions of k)ᵀ v and the divisor's logarithm, for k (B, h, N, R) and v (B, h, N, S).

    With w (C, R), k is (B, h, N, C) times w.
    """
    made = Made(k, w, precision, k, v)
    batch, heads, positions, _ = k.shape
    keys, values = made.keys, v.shape[3]

    def launch(tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
        block = min(_padded(keys), tile.rows)
        across, down = triton.cdiv(values, tile.columns), triton.cdiv(keys, block)
        parts, share = _parts(splits, batch * heads * across * down, positions, tile.rows, k)
        sums = runtime.allocate((batch, heads, parts, keys, values), runtime.FLOAT32, k.device)
        top, weight = (runtime.allocate((batch, heads, parts, keys), runtime.FLOAT32, k.device) for _ in range(2))
        sums_over_positions[(across * down * parts * batch * heads,)](
            k, made.matrix, v, sums, top, weight, *made.lengths, values, heads, across, down, parts, share,
            *made.strides(k), *made.matrix.stride(), *made.strides(v), KEYS=block, **made.options(tile),
        )  # fmt: skip
        return sums, top, weight

    sums, top, weight = launch(tile or best(made.name("context"), (*made.problem, values), k, TILES, launch))
    c = runtime.allocate((batch, heads, keys, values), v.dtype, v.device)
    divisor = runtime.allocate((batch, heads, keys), runtime.FLOAT32, v.device)
    across, down = triton.cdiv(values, ADDED), triton.cdiv(keys, ADDED)
    add_parts[(across * down * batch * heads,)](
        sums, top, weight, c, divisor, keys, values, across, down, sums.shape[2], ROWS=ADDED, COLUMNS=ADDED
    )
    return c, divisor


def context_backward(
    k: Tensor, v: Tensor, c: Tensor, divisor: Tensor, dc: Tensor, precision: str, tile: Tile | None = None,
    w: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Compute the gradients of k, or of k w, and of v."""
    dk = runtime.allocate_like(k) if w is None else runtime.rows_like(k, w.shape[1])
    dv = runtime.allocate_like(v)
    made = Made(k, w, precision, k, v, dk, dv)
    batch, heads, positions, _ = k.shape
    # In float32: the kernel subtracts it from a sum of similar size.
    inner = (c.float() * dc.float()).sum(3)
    # The kernel reads dc with fixed strides; it is small, one matrix per head.
    dc = dc.contiguous()

    def launch(tile: Tile) -> None:
        down = triton.cdiv(positions, tile.rows)
        gradients_of_context[(down * batch * heads,)](
            k, made.matrix, v, dc, inner, divisor, dk, dv, *made.lengths, v.shape[3], heads, down,
            *made.strides(k), *made.matrix.stride(), *made.strides(v), *made.strides(dk), *made.strides(dv),
            KEYS=_padded(made.keys), **made.options(tile),
        )  # fmt: skip

    problem = (*made.problem, v.shape[3])
    launch(tile or best(made.name("context_backward"), problem, k, ROW_TILES, launch))
    return dk, dv


def query(q: Tensor, c: Tensor, precision: str, tile: Tile | None = None, w: Tensor | None = None) -> Tensor:
    """Compute softmax over the channels of q (B, h, N, R) times c (B, h, R, S): (B, h, N, S), in the memory order of q.

    With w (C, R), q is (B, h, N, C) times w.
    """
    y = runtime.rows_like(q, c.shape[3])
    made = Made(q, w, precision, q, y)
    batch, heads, positions, _ = q.shape

    def launch(tile: Tile) -> None:
        down = triton.cdiv(positions, tile.rows)
        rows_times_context[(down * batch * heads,)](
            q, made.matrix, c, y, *made.lengths, c.shape[3], heads, down,
            *made.strides(q), *made.matrix.stride(), *c.stride(), *made.strides(y),
            KEYS=_padded(made.keys), **made.options(tile),
        )  # fmt: skip

    launch(tile or best(made.name("query"), (*made.problem, c.shape[3]), q, ROW_TILES, launch))
    return y


def query_backward(
    q: Tensor, c: Tensor, dy: Tensor, precision: str, tile: Tile | None = None, splits: int | None = None,
    w: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Compute the gradients of q, or of q w, and of c."""
    dq = runtime.allocate_like(q) if w is None else runtime.rows_like(q, w.shape[1])
    made = Made(q, w, precision, q, dy, dq)
    batch, heads, positions, _ = q.shape
    keys, values = made.keys, c.shape[3]

    def rows(tile: Tile) -> None:
        down = triton.cdiv(positions, tile.rows)
        gradient_of_rows[(down * batch * heads,)](
            q, made.matrix, c, dy, dq, *made.lengths, values, heads, down,
            *made.strides(q), *made.matrix.stride(), *c.stride(), *made.strides(dy), *made.strides(dq),
            KEYS=_padded(keys), **made.options(tile),
        )  # fmt: skip

    def reduce(tile: Tile) -> Tensor:
        across = triton.cdiv(values, tile.columns)
        parts, share = _parts(splits, batch * heads * across, positions, tile.rows, q)
        sums = runtime.allocate((batch, heads, parts, keys, values), runtime.FLOAT32, q.device)
        sums_over_rows[(across * parts * batch * heads,)](
            q, made.matrix, dy, sums, *made.lengths, values, heads, across, parts, share,
            *made.strides(q), *made.matrix.stride(), *made.strides(dy), KEYS=_padded(keys), **made.options(tile),
        )  # fmt: skip
        return sums

    problem = (*made.problem, values)
    rows(tile or best(made.name("query_backward"), problem, q, ROW_TILES, rows))
    sums = reduce(tile or best(made.name("context_gradient"), problem, q, TILES, reduce))
    return dq, sums.sum(2).to(c.dtype)


class Made:
    """Keys or queries, read or projected, as arguments of all kernels.

    Attributes:
        matrix: matrix of the projection; without one, any tensor with two strides.
        keys: number of keys.
        lengths: positions in units, input channels of the projection, and keys.
        problem: cache key of the choice of a tile, without the values.
    """

    def __init__(self, k: Tensor, w: Tensor | None, precision: str, *maps: Tensor):
        batch, heads, positions, channels = k.shape
        self.projected = w is not None
        self.matrix = k[0, 0] if w is None else w
        self.keys = channels if w is None else w.shape[1]
        self.unit = runtime.unit(*maps)
        self.how = runtime.input_precision(k.dtype, precision)
        self.lengths = positions // self.unit, channels, self.keys
        self.problem = (batch * heads, positions, channels, self.keys, self.how, k.stride(3) == 1, self.unit)

    def name(self, what: str) -> str:
        return f"projected_{what}" if self.projected else f"linear_{what}"

    def strides(self, x: Tensor) -> tuple[int, ...]:
        return runtime.in_units(x, self.unit)

    def options(self, tile: Tile) -> dict[str, object]:
        return {
            "PROJECTED": self.projected, "UNIT": self.unit, "ROWS": tile.rows, "COLUMNS": tile.columns,
            "INNER": tile.inner, "PRECISION": self.how, **tile.launch,
        }  # fmt: skip


def _parts(splits: int | None, programs: int, rows: int, block: int, x: Tensor) -> tuple[int, int]:
    """Return the number of non-empty parts of the positions, and the length of a part."""
    parts = splits or runtime.splits_for(programs, rows, block, x.device)
    share = triton.cdiv(triton.cdiv(rows, parts), block) * block
    return triton.cdiv(rows, share), share


def _padded(keys: int) -> int:
    """Return the length of a tile that holds all keys."""
    # Triton's tiles have powers of two, and tl.dot at least 16.
    return max(16, triton.next_power_of_2(keys))
