"""`projected_context` and `projected_query` as operators of torch: dispatch, shapes, gradients.

The backward passes recompute the keys or queries and return their gradients; the rest are matrix products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyattn.kernels import runtime
from polyattn.kernels.cross_gram import cross_gram
from polyattn.kernels.linear_attention.op import MOST_KEYS
from polyattn.kernels.project import project
from polyattn.kernels.projected_attention import naive


def projected_context(x: Tensor, w: Tensor, v: Tensor, precision: str = "") -> Tensor:
    """Compute E-NL's context, c[b,r,s] = Σ_n softmax_n(x w)[b,n,r] v[b,n,s], without its keys x w in memory.

    The keys, their softmax and the sums are float32; only the result is rounded to the dtype of v.

    Args:
        x, v: (B, N, C) and (B, N, S), in any strides; v may be x.
        w: (C, R), R up to 256 in the kernel.
        precision: precision of float32 products: "ieee", "tf32", or "" for torch's setting.

    Returns:
        (B, R, S).

    Raises:
        SizeError: the shapes or dtypes do not fit.

    >>> x = torch.tensor([[[1.0], [3.0]]])
    >>> projected_context(x, torch.zeros(1, 1), x)
    tensor([[[2.]]])
    """
    fits = x.dim() == v.dim() == 3 and w.dim() == 2 and v.shape[:2] == x.shape[:2] and w.shape[0] == x.shape[2]
    wanted = "x (B, N, C), w (C, R) and v (B, N, S)"
    runtime.expect(fits, "projected_context", {"x": x, "w": w, "v": v}, wanted)
    x, w, v = runtime.one_dtype(x, w, v)
    if runtime.transformed():
        return naive.context(x, w, v)[0]
    return torch.ops.polyattn.projected_context(x, w, v, precision)[0]


def projected_query(x: Tensor, w: Tensor, c: Tensor, precision: str = "") -> Tensor:
    """Compute E-NL's result, y[b,n,s] = Σ_r softmax_r(x w)[b,n,r] c[b,r,s], without its queries x w in memory.

    Args:
        x: (B, N, C) in any strides.
        w: (C, R), R up to 256 in the kernel.
        c: (B, R, S).
        precision: as in `projected_context`.

    Returns:
        (B, N, S), in the memory order of x.

    Raises:
        SizeError: the shapes or dtypes do not fit.

    >>> projected_query(torch.ones(1, 2, 3), torch.zeros(3, 2), torch.tensor([[[1.0], [3.0]]]))
    tensor([[[2.],
             [2.]]])
    """
    fits = x.dim() == c.dim() == 3 and w.dim() == 2 and w.shape == (x.shape[2], c.shape[1]) and len(x) == len(c)
    runtime.expect(fits, "projected_query", {"x": x, "w": w, "c": c}, "x (B, N, C), w (C, R) and c (B, R, S)")
    x, w, c = runtime.one_dtype(x, w, c)
    if runtime.transformed():
        return naive.query(x, w, c)
    return torch.ops.polyattn.projected_query(x, w, c, precision)


def _fast(x: Tensor, w: Tensor, *rest: Tensor) -> bool:
    return w.shape[1] <= MOST_KEYS and runtime.runs_triton(x, w, *rest)


@torch.library.custom_op("polyattn::projected_context", mutates_args=())
@runtime.without_autocast
def _context(x: Tensor, w: Tensor, v: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    if _fast(x, w, v):
        from polyattn.kernels.linear_attention import triton

        c, divisor = triton.context(x[:, None], v[:, None], precision, w=w)
        return c[:, 0], divisor[:, 0]
    return naive.context(x, w, v)


@_context.register_fake
def _(x: Tensor, w: Tensor, v: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    keys = w.shape[1]
    wide = runtime.accumulator(x.dtype)
    return v.new_empty((x.shape[0], keys, v.shape[2])), x.new_empty((x.shape[0], keys), dtype=wide)


@torch.library.custom_op("polyattn::projected_context_backward", mutates_args=())
@runtime.without_autocast
def _context_backward(
    x: Tensor, w: Tensor, v: Tensor, c: Tensor, divisor: Tensor, dc: Tensor, precision: str
) -> tuple[Tensor, Tensor]:
    if _fast(x, w, v):
        from polyattn.kernels.linear_attention import triton

        key, value, c, divisor, dc = (t[:, None] for t in (x, v, c, divisor, dc))
        dkey, dv = triton.context_backward(key, value, c, divisor, dc, precision, w=w)
        return dkey[:, 0], dv[:, 0]
    dkey, dv = naive.context_backward(x, w, v, c, divisor, dc)
    return runtime.rows_like(x, w.shape[1]).copy_(dkey), torch.empty_like(v).copy_(dv)


@_context_backward.register_fake
def _(x: Tensor, w: Tensor, v: Tensor, c: Tensor, divisor: Tensor, dc: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    return runtime.rows_like(x, w.shape[1]), torch.empty_like(v)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, w, v, ctx.precision = inputs
    ctx.save_for_backward(x, w, v, *output)
    ctx.mark_non_differentiable(output[1])


def _backward_context(ctx: Any, dc: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    x, w, v, c, divisor = ctx.saved_tensors
    if torch.is_grad_enabled():
        dkey, dv = naive.context_backward(x, w, v, *naive.context(x, w, v), dc)
    else:
        dkey, dv = torch.ops.polyattn.projected_context_backward(x, w, v, c, divisor, dc, ctx.precision)
    return *_of_projection(x, w, dkey, ctx.precision), dv, None


_context.register_autograd(_backward_context, setup_context=_setup_context)


@torch.library.custom_op("polyattn::projected_query", mutates_args=())
@runtime.without_autocast
def _query(x: Tensor, w: Tensor, c: Tensor, precision: str) -> Tensor:
    if _fast(x, w, c):
        from polyattn.kernels.linear_attention import triton

        return triton.query(x[:, None], c[:, None], precision, w=w)[:, 0]
    return runtime.rows_like(x, c.shape[2]).copy_(naive.query(x, w, c))


@_query.register_fake
def _(x: Tensor, w: Tensor, c: Tensor, precision: str) -> Tensor:
    return runtime.rows_like(x, c.shape[2])


@torch.library.custom_op("polyattn::projected_query_backward", mutates_args=())
@runtime.without_autocast
def _query_backward(x: Tensor, w: Tensor, c: Tensor, dy: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    if _fast(x, w, c):
        from polyattn.kernels.linear_attention import triton

        dasked, dc = triton.query_backward(x[:, None], c[:, None], dy[:, None], precision, w=w)
        return dasked[:, 0], dc[:, 0]
    dasked, dc = naive.query_backward(x, w, c, dy)
    return runtime.rows_like(x, w.shape[1]).copy_(dasked), dc.contiguous()


@_query_backward.register_fake
def _(x: Tensor, w: Tensor, c: Tensor, dy: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    return runtime.rows_like(x, w.shape[1]), c.new_empty(c.shape)


def _setup_query(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, w, c, ctx.precision = inputs
    ctx.save_for_backward(x, w, c)


def _backward_query(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, w, c = ctx.saved_tensors
    if torch.is_grad_enabled():
        dasked, dc = naive.query_backward(x, w, c, dy)
    else:
        dasked, dc = torch.ops.polyattn.projected_query_backward(x, w, c, dy, ctx.precision)
    return *_of_projection(x, w, dasked, ctx.precision), dc, None


_query.register_autograd(_backward_query, setup_context=_setup_query)


def _of_projection(x: Tensor, w: Tensor, seed: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """Return the gradients of x (B, N, C) and w (C, R) in x w."""
    # One w serves the batch, so its gradient is summed over the batch.
    return project(seed, w.mT, None, precision), cross_gram(x, seed, 1.0, precision).sum(0)
