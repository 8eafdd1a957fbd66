"""Every kernel against its definition in float64, values and gradients, before anything is timed."""

from __future__ import annotations

import os
from collections.abc import Callable
from math import inf
from typing import Any

import torch

from _gpu.bench import Bench, Sizes
from polyattn import kernels
from polyattn.kernels.bilinear import block_cross
from polyattn.kernels.bilinear import naive as bilinear_naive
from polyattn.kernels.cross_gram import naive as cross_naive
from polyattn.kernels.gram import naive as gram_naive
from polyattn.kernels.hadamard_mean import naive as hadamard_naive
from polyattn.kernels.linear_attention import naive as attention_naive
from polyattn.kernels.project import naive as project_naive
from polyattn.kernels.projected_attention import naive as projected_naive

TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
TF32 = 5e-3
"""Of keys in tf32, whose errors an exponential makes relative ones."""

Size = tuple[int, int, int, int]
"""Batch, positions, channels and columns."""

CHECKED: tuple[Size, ...] = ((2, 333, 47, 65), (3, 1000, 128, 96))
REHEARSED: tuple[Size, ...] = ((1, 23, 9, 10),)

Case = tuple[Callable[..., Any], Callable[..., Any], list[tuple[int, ...]]]


def cases(b: int, n: int, c: int, d: int) -> dict[str, Case]:
    """Each kernel, its definition, and the shapes of its arguments."""
    h, w, g, s, t = max(1, n // 20), 20, 2, 7, 5
    return {
        "gram": (lambda x: kernels.gram(x, 1 / n), lambda x: gram_naive.gram(x, 1 / n), [(b, n, c)]),
        "cross_gram": (
            lambda x, y: kernels.cross_gram(x, y, 1 / n),
            lambda x, y: cross_naive.cross_gram(x, y, 1 / n),
            [(b, n, c), (b, n, d)],
        ),
        "hadamard_mean": (
            kernels.hadamard_mean,
            lambda x, v, u: hadamard_naive.hadamard_mean(x, v, u, 1 / n),
            [(b, n, c), (c, d), (c, d)],
        ),
        "project": (kernels.project, project_naive.project, [(b, n, c), (c, d), (b, c)]),
        "project_pair": (
            kernels.project_pair,
            project_naive.project_pair,
            [(b, n, c), (b, c, d), (b, n, d), (d, d)],
        ),
        "bilinear": (kernels.bilinear, bilinear_naive.bilinear, [(b, h, w, g * c), (b, g, s, s), (b, g, t, t)]),
        "bilinear, whole blocks": (
            kernels.bilinear,
            bilinear_naive.bilinear,
            [(b, 2 * s, 8 * t, g * c), (b, g, s, s), (b, g, t, t)],
        ),
        "block_cross": (
            lambda y, x: block_cross(y, x, g, s, t),
            lambda y, x: bilinear_naive.block_cross(y, x, g, s, t),
            [(b, h, w, g * c), (b, h, w, g * c)],
        ),
        "linear_attention": (
            kernels.linear_attention,
            attention_naive.linear_attention,
            [(b, g, n, c), (b, g, n, c), (b, g, n, d)],
        ),
        # Keys and queries of about 1: an exponential makes a relative error of their absolute one.
        "projected_context": (
            lambda x, w, v: kernels.projected_context(x, w / 8, v),
            lambda x, w, v: projected_naive.context(x, w / 8, v)[0],
            [(b, n, c), (c, d), (b, n, c)],
        ),
        "projected_query": (
            lambda x, w, c: kernels.projected_query(x, w / 8, c),
            lambda x, w, c: projected_naive.query(x, w / 8, c),
            [(b, n, c), (c, d), (b, d, c)],
        ),
    }


Way = tuple[Size, torch.dtype, str, str, int]
"""Sizes, dtype, layout, precision of float32 products, and the number of the tile."""

MOST_TILES = 6


def ways(timed: bool) -> list[Way]:
    """Two sizes and both layouts with each tile; the other dtypes and precisions with the first."""
    sizes = CHECKED if timed else REHEARSED
    found: list[Way] = [
        (size, torch.bfloat16, layout, "highest", tile)
        for tile in range(MOST_TILES if timed else 1)
        for size in sizes
        for layout in ("rows", "columns")
    ]
    found.append((sizes[0], torch.float16, "rows", "highest", 0))
    found += [(sizes[0], torch.float32, "rows", precision, 0) for precision in ("highest", "high")]
    return found


def correctness(device: str, way: Way) -> list[dict[str, Any]]:
    """The relative errors of values and gradients, and whether they are small enough; all arguments are random."""
    bench = Bench(device, inf, Sizes())
    before = os.environ.get("POLYATTN_TUNING")
    os.environ["POLYATTN_TUNING"] = str(way[4])
    try:
        return [check(bench, name, *way) for name in cases(*way[0])]
    finally:
        torch.set_float32_matmul_precision("highest")
        if before is None:
            del os.environ["POLYATTN_TUNING"]
        else:
            os.environ["POLYATTN_TUNING"] = before


def check(
    bench: Bench, name: str, size: Size, dtype: torch.dtype, layout: str, precision: str, tile: int
) -> dict[str, Any]:
    """One kernel against its definition in float64."""
    torch.set_float32_matmul_precision(precision)
    function, naive, shapes = cases(*size)[name]
    inputs = [bench.draw(*shape, dtype=dtype) for shape in shapes]
    if layout == "columns":
        inputs[0] = inputs[0].movedim(-1, 1).contiguous().movedim(1, -1)
    inputs = [t.requires_grad_() for t in inputs]
    exact = [t.detach().double().requires_grad_() for t in inputs]
    y, reference = function(*inputs), naive(*exact)
    seed = torch.randn_like(reference)
    have = [y, *torch.autograd.grad(y, inputs, seed.to(y))]
    want = [reference, *torch.autograd.grad(reference, exact, seed)]
    pairs = [(p.detach().double(), q.detach()) for p, q in zip(have, want, strict=True)]
    errors = [float((p - q).norm() / q.norm().clamp_min(1e-3)) for p, q in pairs]
    most = TF32 if precision == "high" else TOLERANCES[dtype]
    right = all(e < most for e in errors)
    return {
        "kernel": name, "sizes": size, "dtype": str(dtype), "layout": layout, "precision": precision, "tile": tile,
        "errors": errors, "right": right,
    }  # fmt: skip
