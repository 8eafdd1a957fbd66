"""`project` and `project_pair` as operators of torch: dispatch, shapes, gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyattn.kernels import runtime
from polyattn.kernels.cross_gram import cross_gram
from polyattn.kernels.project import naive


def project(x: Tensor, w: Tensor, scale: Tensor | None = None, precision: str = "") -> Tensor:
    """Multiply rows by a matrix with scaled rows, y[b,n,o] = Σ_c x[b,n,c] scale[b,c] w[c,o], in one pass.

    The scaled matrices, one per batch element, are never written to memory.

    Args:
        x: (B, N, C) in any strides.
        w: (C, O), or (B, C, O).
        scale: (B, C), or None for ones.
        precision: of float32 products: "ieee", "tf32", or "" for torch's setting.

    Returns:
        (B, N, O) in the memory order of x.

    Raises:
        SizeError: the shapes or dtypes do not fit.

    >>> project(torch.ones(1, 2, 2), torch.eye(2), torch.tensor([[3.0, 4.0]]))
    tensor([[[3., 4.],
             [3., 4.]]])
    """
    fits = x.dim() == 3 and _matrix_fits(x, w) and (scale is None or scale.shape == (x.shape[0], x.shape[2]))
    named = {"x": x, "w": w} | ({} if scale is None else {"scale": scale})
    runtime.expect(fits, "project", named, "x (B, N, C), w (C, O) or (B, C, O), scale (B, C)")
    x, w, *rest = runtime.one_dtype(*named.values())
    factor = rest[0] if rest else None
    if runtime.transformed():
        return naive.project(x, w, factor)
    return torch.ops.polyattn.project(x, w, factor, precision)


def project_pair(a: Tensor, m: Tensor, x: Tensor, s: Tensor, precision: str = "") -> Tensor:
    """Compute two products in one accumulator, y[b,n,o] = Σ_c a[b,n,c] m[b,c,o] + Σ_c x[b,n,c] s[b,c,o].

    With a = dY and m = Mᵀ (a transposed view costs the same) it is the input's gradient of a layer in Gram form.

    Args:
        a, x: (B, N, C) and (B, N, L), in any strides.
        m, s: (C, O) and (L, O), or with the batch first.
        precision: of float32 products: "ieee", "tf32", or "" for torch's setting.

    Returns:
        (B, N, O) in the memory order of a.

    Raises:
        SizeError: the shapes or dtypes do not fit.
    """
    fits = a.dim() == x.dim() == 3 and a.shape[:2] == x.shape[:2] and _matrix_fits(a, m) and _matrix_fits(x, s)
    named = {"a": a, "m": m, "x": x, "s": s}
    wanted = "a (B, N, C), m (C, O) or (B, C, O), x (B, N, L), s (L, O) or (B, L, O)"
    runtime.expect(fits and m.shape[-1] == s.shape[-1], "project_pair", named, wanted)
    a, m, x, s = runtime.one_dtype(a, m, x, s)
    if runtime.transformed():
        return naive.project_pair(a, m, x, s)
    return torch.ops.polyattn.project_pair(a, m, x, s, precision)


def _matrix_fits(x: Tensor, w: Tensor) -> bool:
    return w.dim() in (2, 3) and w.shape[-2] == x.shape[2] and (w.dim() == 2 or w.shape[0] == x.shape[0])


@torch.library.custom_op("polyattn::project", mutates_args=())
@runtime.without_autocast
def _project(x: Tensor, w: Tensor, scale: Tensor | None, precision: str) -> Tensor:
    if runtime.runs_triton(x, w):
        from polyattn.kernels.project import triton

        return triton.project(x, w, scale, precision)
    return runtime.rows_like(x, w.shape[-1]).copy_(naive.project(x, w, scale))


@_project.register_fake
def _(x: Tensor, w: Tensor, scale: Tensor | None, precision: str) -> Tensor:
    return runtime.rows_like(x, w.shape[-1])


def _setup_project(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, w, scale, ctx.precision = inputs
    ctx.scaled = scale is not None
    ctx.save_for_backward(*(t for t in (x, w, scale) if t is not None))


def _backward_project(ctx: Any, seed: Tensor) -> tuple[Tensor | None, ...]:
    x, w, *rest = ctx.saved_tensors
    of_x, of_w, of_scale, _ = ctx.needs_input_grad
    dx = torch.matmul(seed, w.mT) if of_x else None
    if not ctx.scaled:
        return dx, _matrix_gradient(x, seed, w, ctx.precision) if of_w else None, None, None
    (scale,) = rest
    dx = None if dx is None else dx * scale[:, None]
    if not of_w and not of_scale:
        return dx, None, None, None
    # One product serves both gradients: that of w scales its rows, that of the scale sums it against w.
    cross = cross_gram(x, seed, 1.0, ctx.precision)
    dw = cross * scale[:, :, None]
    return dx, dw if w.dim() == 3 else dw.sum(0), (cross * w).sum(-1), None


def _matrix_gradient(x: Tensor, seed: Tensor, w: Tensor, precision: str) -> Tensor:
    """Compute Σ_n x[b,n,c] seed[b,n,o], summed over the batch too if one matrix serves it."""
    return cross_gram(x, seed, 1.0, precision) if w.dim() == 3 else torch.einsum("bnc,bno->co", x, seed)


_project.register_autograd(_backward_project, setup_context=_setup_project)


@torch.library.custom_op("polyattn::project_pair", mutates_args=())
@runtime.without_autocast
def _project_pair(a: Tensor, m: Tensor, x: Tensor, s: Tensor, precision: str) -> Tensor:
    if runtime.runs_triton(a, m, x, s):
        from polyattn.kernels.project import triton

        return triton.project_pair(a, m, x, s, precision)
    return runtime.rows_like(a, m.shape[-1]).copy_(naive.project_pair(a, m, x, s))


@_project_pair.register_fake
def _(a: Tensor, m: Tensor, x: Tensor, s: Tensor, precision: str) -> Tensor:
    return runtime.rows_like(a, m.shape[-1])


def _setup_pair(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    a, m, x, s, ctx.precision = inputs
    ctx.save_for_backward(a, m, x, s)


def _backward_pair(ctx: Any, seed: Tensor) -> tuple[Tensor | None, ...]:
    a, m, x, s = ctx.saved_tensors
    how, (of_a, of_m, of_x, of_s, _) = ctx.precision, ctx.needs_input_grad
    return (
        torch.matmul(seed, m.mT) if of_a else None,
        _matrix_gradient(a, seed, m, how) if of_m else None,
        torch.matmul(seed, s.mT) if of_x else None,
        _matrix_gradient(x, seed, s, how) if of_s else None,
        None,
    )


_project_pair.register_autograd(_backward_pair, setup_context=_setup_pair)
