"""Each kernel as a case: what it takes, its Triton form with a tile of its own, and its definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyattn.kernels.bilinear import naive as bilinear
from polyattn.kernels.cross_gram import naive as cross_gram
from polyattn.kernels.gram import naive as gram
from polyattn.kernels.hadamard_mean import naive as hadamard_mean
from polyattn.kernels.linear_attention import naive as linear_attention
from polyattn.kernels.project import naive as project
from polyattn.kernels.projected_attention import naive as projected_attention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
LAYOUTS = ("rows", "columns", "gaps")


@dataclass(frozen=True)
class Sizes:
    b: int = 2
    n: int = 37
    c: int = 21
    d: int = 19
    g: int = 2
    s: int = 3
    t: int = 2
    splits: int = 2
    u: int = 0
    v: int = 0
    """Positions of a block of a map, if the map is to be made up of whole blocks."""

    @property
    def height(self) -> int:
        return self.s * self.u or max(1, self.n // 5)

    @property
    def width(self) -> int:
        return self.t * self.v or min(5, self.n)


@dataclass(frozen=True)
class Case:
    """Shapes of the tensors, and functions of the tensors, the sizes, and the Triton form's tile."""

    shapes: Callable[[Sizes], dict[str, tuple[int, ...]]]
    triton: Callable[..., Any]
    naive: Callable[..., Any]
    rows: tuple[str, ...] = ("x",)
    """The tensors whose layout varies: (B, ..., C) with positions between."""


def _triton(name: str) -> Any:
    """Imported when it is used: the interpreter has to be chosen before."""
    from importlib import import_module

    return import_module(f"polyattn.kernels.{name}.triton")


def _of_one_head(name: str, *arguments: Any, w: Tensor) -> Any:
    """A kernel of linear attention on keys or queries that are made of a map and a matrix."""
    heads = [a[:, None] if isinstance(a, Tensor) else a for a in arguments]
    found = getattr(_triton("linear_attention"), name)(*heads, w=w)
    return found[:, 0] if isinstance(found, Tensor) else tuple(t[:, 0] for t in found)


def _matrices(z: Sizes) -> dict[str, tuple[int, ...]]:
    return {"x": (z.b, z.n, z.c), "w1": (z.c, z.d), "w2": (z.c, z.d)}


def _heads(z: Sizes) -> dict[str, tuple[int, ...]]:
    return {"k": (z.b, z.g, z.n, z.c), "v": (z.b, z.g, z.n, z.d)}


def _query(z: Sizes) -> dict[str, tuple[int, ...]]:
    return {"q": (z.b, z.g, z.n, z.c), "c": (z.b, z.g, z.c, z.d)}


def _maps(z: Sizes) -> tuple[int, int, int, int]:
    return z.b, z.height, z.width, z.g * z.d


CASES = {
    "gram": Case(
        lambda z: {"x": (z.b, z.n, z.c)},
        lambda z, tile, x: _triton("gram").gram(x, 0.3, "ieee", tile, z.splits),
        lambda z, x: gram.gram(x, 0.3),
    ),
    "cross_gram": Case(
        lambda z: {"x": (z.b, z.n, z.c), "y": (z.b, z.n, z.d)},
        lambda z, tile, x, y: _triton("cross_gram").cross_gram(x, y, 0.3, "ieee", tile, z.splits),
        lambda z, x, y: cross_gram.cross_gram(x, y, 0.3),
        ("x", "y"),
    ),
    "hadamard_mean": Case(
        _matrices,
        lambda z, tile, *t: _triton("hadamard_mean").hadamard_mean(*t, 0.3, "ieee", tile, z.splits),
        lambda z, *t: hadamard_mean.hadamard_mean(*t, 0.3),
    ),
    "project": Case(
        lambda z: {"x": (z.b, z.n, z.c), "w": (z.c, z.d), "scale": (z.b, z.c)},
        lambda z, tile, *t: _triton("project").project(*t, "ieee", tile),
        lambda z, *t: project.project(*t),
    ),
    "project, a matrix each": Case(
        lambda z: {"x": (z.b, z.n, z.c), "w": (z.b, z.c, z.d)},
        lambda z, tile, *t: _triton("project").project(*t, None, "ieee", tile),
        lambda z, *t: project.project(*t),
    ),
    "project_pair": Case(
        lambda z: {"x": (z.b, z.n, z.c), "m": (z.b, z.c, z.d), "y": (z.b, z.n, z.d), "s": (z.d, z.d)},
        lambda z, tile, *t: _triton("project").project_pair(*t, "ieee", tile),
        lambda z, *t: project.project_pair(*t),
        ("x", "y"),
    ),
    "project_pair, matrices each": Case(
        lambda z: {"x": (z.b, z.n, z.c), "m": (z.b, z.c, z.d), "y": (z.b, z.n, z.d), "s": (z.b, z.d, z.d)},
        lambda z, tile, *t: _triton("project").project_pair(*t, "ieee", tile),
        lambda z, *t: project.project_pair(*t),
        ("x", "y"),
    ),
    "block_mix": Case(
        lambda z: {"x": _maps(z), "k": (z.b, z.g, z.s * z.t, z.s * z.t)},
        lambda z, tile, x, k: _triton("bilinear").block_mix(x, k, z.s, z.t, "ieee", tile, z.splits),
        lambda z, x, k: bilinear.block_mix(x, k, z.s, z.t),
    ),
    "block_cross": Case(
        lambda z: {"x": _maps(z), "y": _maps(z)},
        lambda z, tile, x, y: _triton("bilinear").block_cross(x, y, z.g, z.s, z.t, "ieee", tile, z.splits),
        lambda z, x, y: bilinear.block_cross(x, y, z.g, z.s, z.t),
        ("x", "y"),
    ),
    "linear_context": Case(
        _heads,
        lambda z, tile, *t: _triton("linear_attention").context(*t, "ieee", tile, z.splits),
        lambda z, *t: linear_attention.context(*t),
        ("k", "v"),
    ),
    "linear_query": Case(
        _query,
        lambda z, tile, *t: _triton("linear_attention").query(*t, "ieee", tile),
        lambda z, *t: linear_attention.query(*t),
        ("q",),
    ),
    "projected_context": Case(
        lambda z: {"x": (z.b, z.n, z.c), "w": (z.c, z.d), "v": (z.b, z.n, z.c)},
        lambda z, tile, x, w, v: _of_one_head("context", x, v, "ieee", tile, z.splits, w=w),
        lambda z, *t: projected_attention.context(*t),
        ("x", "v"),
    ),
    "projected_query": Case(
        lambda z: {"x": (z.b, z.n, z.c), "w": (z.c, z.d), "c": (z.b, z.d, z.c)},
        lambda z, tile, x, w, c: _of_one_head("query", x, c, "ieee", tile, w=w),
        lambda z, *t: projected_attention.query(*t),
    ),
    "projected_query_backward": Case(
        lambda z: {"x": (z.b, z.n, z.c), "w": (z.c, z.d), "c": (z.b, z.d, z.c), "dy": (z.b, z.n, z.c)},
        lambda z, tile, x, w, c, dy: _of_one_head("query_backward", x, c, dy, "ieee", tile, z.splits, w=w),
        lambda z, *t: projected_attention.query_backward(*t),
        ("x", "dy"),
    ),
    "projected_context_backward": Case(  # one tensor: at one position the gradient of keys is 0, but for rounding
        lambda z: {"x": (z.b, z.n, z.c), "w": (z.c, z.d), "v": (z.b, z.n, z.c), "dc": (z.b, z.d, z.c)},
        lambda z, tile, x, w, v, dc: torch.cat(
            _of_one_head("context_backward", x, v, *projected_attention.context(x, w, v), dc, "ieee", tile, w=w), 2
        ),
        lambda z, x, w, v, dc: torch.cat(
            projected_attention.context_backward(x, w, v, *projected_attention.context(x, w, v), dc), 2
        ),
        ("x", "v"),
    ),
    "linear_query_backward": Case(
        lambda z: _query(z) | {"dy": (z.b, z.g, z.n, z.d)},
        lambda z, tile, *t: _triton("linear_attention").query_backward(*t, "ieee", tile, z.splits),
        lambda z, *t: linear_attention.query_backward(*t),
        ("q", "dy"),
    ),
    "linear_context_backward": Case(
        lambda z: _heads(z) | {"dc": (z.b, z.g, z.c, z.d)},
        lambda z, tile, k, v, dc: _triton("linear_attention").context_backward(
            k, v, *linear_attention.context(k, v), dc, "ieee", tile
        ),
        lambda z, k, v, dc: linear_attention.context_backward(k, v, *linear_attention.context(k, v), dc),
        ("k", "v"),
    ),
}


def tensors(case: Case, sizes: Sizes, dtype: torch.dtype, layout: str, seed: int = 0) -> dict[str, Tensor]:
    """Random inputs; those that have positions in the layout, with NaN wherever the buffer holds no element."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in case.shapes(sizes).items():
        values = torch.randn(shape, generator=generator).to(dtype)
        made[name] = within_nan(values, layout if name in case.rows else "rows").to(DEVICE)
        if DEVICE != "cpu":
            made[name] = within_nan(made[name], layout if name in case.rows else "rows")
    return made


def within_nan(values: Tensor, layout: str) -> Tensor:
    """The values in one of the layouts, in the midst of a buffer of NaN."""
    shape = values.shape
    if layout == "gaps":
        buffer = values.new_full([2 * n + 3 for n in shape], float("nan"))
        view = buffer[tuple(slice(1, 2 * n + 1, 2) for n in shape)]
    else:
        order = list(range(len(shape)))
        if layout == "columns":
            order = [0, len(shape) - 1, *range(1, len(shape) - 1)]  # channels before positions
        moved = [shape[k] for k in order]
        count = values.numel()
        flat = values.new_full((count + 64,), float("nan"))
        view = flat[32 : 32 + count].view(moved).permute([order.index(k) for k in range(len(shape))])
    view.copy_(values)
    return view


def distance(have: Any, want: Any) -> float:
    """The largest relative error, in the Euclidean norm, of one result or of several; NaN stays NaN."""
    pairs = zip(have, want, strict=True) if isinstance(want, tuple | list) else [(have, want)]
    worst = 0.0
    for mine, theirs in pairs:
        assert mine.shape == theirs.shape
        error = (mine.detach().double() - theirs.detach().double()).norm() / theirs.detach().double().norm().clamp_min(
            1e-3
        )
        worst = max(worst, error.item()) if error == error else float("nan")
    return worst
