"""`linear_attention` as operators of torch: two halves, each with its gradient.

The gradients are operators too; for second derivatives, torch's own operations compute them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyattn.kernels import runtime
from polyattn.kernels.linear_attention import naive

MOST_KEYS = 256
"""Most key channels of the kernel: a row of q is one tile. With more, the definition runs."""


def linear_attention(q: Tensor, k: Tensor, v: Tensor, precision: str = "") -> Tensor:
    """Compute efficient attention, softmax_channels(q) · (softmax_positions(k)ᵀ v), the published softmax form of E-NL.

    The softmaxes and the products are float32; neither softmax is written to memory.

    Args:
        q, k: (B, heads, N, R) in any strides, R up to 256 in the kernel.
        v: (B, heads, N, S).
        precision: precision of float32 products: "ieee", "tf32", or "" for torch's setting.

    Returns:
        (B, heads, N, S).

    Raises:
        SizeError: the shapes or dtypes do not fit.

    >>> q = k = torch.zeros(1, 1, 2, 3)
    >>> linear_attention(q, k, torch.tensor([[[[1.0], [3.0]]]]))
    tensor([[[[2.],
              [2.]]]])
    """
    fits = q.dim() == v.dim() == 4 and q.shape == k.shape and v.shape[:3] == k.shape[:3]
    wanted = "q and k (B, heads, N, R), v (B, heads, N, S)"
    runtime.expect(fits, "linear_attention", {"q": q, "k": k, "v": v}, wanted)
    return linear_query(q, linear_context(k, v, precision), precision)


def linear_context(k: Tensor, v: Tensor, precision: str = "") -> Tensor:
    """Compute the first half, c[b,h,r,s] = Σ_n softmax_n(k)[b,h,n,r] v[b,h,n,s], with a running maximum.

    Args:
        k, v: (B, heads, N, R) and (B, heads, N, S), in any strides.
        precision: as in `linear_attention`.

    Returns:
        (B, heads, R, S).
    """
    fits = k.dim() == v.dim() == 4 and v.shape[:3] == k.shape[:3]
    runtime.expect(fits, "linear_context", {"k": k, "v": v}, "k (B, heads, N, R) and v (B, heads, N, S)")
    k, v = runtime.one_dtype(k, v)
    if runtime.transformed():
        return naive.context(k, v)[0]
    return torch.ops.polyattn.linear_context(k, v, precision)[0]


def linear_query(q: Tensor, c: Tensor, precision: str = "") -> Tensor:
    """Compute the second half, y[b,h,n,s] = Σ_r softmax_r(q)[b,h,n,r] c[b,h,r,s].

    Args:
        q, c: (B, heads, N, R) in any strides, and (B, heads, R, S).
        precision: as in `linear_attention`.

    Returns:
        (B, heads, N, S), in the memory order of q.
    """
    fits = q.dim() == c.dim() == 4 and q.shape[:2] == c.shape[:2] and q.shape[3] == c.shape[2]
    runtime.expect(fits, "linear_query", {"q": q, "c": c}, "q (B, heads, N, R) and c (B, heads, R, S)")
    q, c = runtime.one_dtype(q, c)
    if runtime.transformed():
        return naive.query(q, c)
    return torch.ops.polyattn.linear_query(q, c, precision)


def _fast(first: Tensor, *rest: Tensor) -> bool:
    return first.shape[3] <= MOST_KEYS and runtime.runs_triton(first, *rest)


@torch.library.custom_op("polyattn::linear_context", mutates_args=())
@runtime.without_autocast
def _context(k: Tensor, v: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    if _fast(k, v):
        from polyattn.kernels.linear_attention import triton

        return triton.context(k, v, precision)
    return naive.context(k, v)


@_context.register_fake
def _(k: Tensor, v: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    divisor = k.new_empty((*k.shape[:2], k.shape[3]), dtype=runtime.accumulator(k.dtype))
    return v.new_empty((*k.shape[:2], k.shape[3], v.shape[3])), divisor


@torch.library.custom_op("polyattn::linear_context_backward", mutates_args=())
@runtime.without_autocast
def _context_backward(
    k: Tensor, v: Tensor, c: Tensor, divisor: Tensor, dc: Tensor, precision: str
) -> tuple[Tensor, Tensor]:
    if _fast(k, v):
        from polyattn.kernels.linear_attention import triton

        return triton.context_backward(k, v, c, divisor, dc, precision)
    dk, dv = naive.context_backward(k, v, c, divisor, dc)
    return torch.empty_like(k).copy_(dk), torch.empty_like(v).copy_(dv)


@_context_backward.register_fake
def _(k: Tensor, v: Tensor, c: Tensor, divisor: Tensor, dc: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    return torch.empty_like(k), torch.empty_like(v)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    k, v, ctx.precision = inputs
    ctx.save_for_backward(k, v, *output)
    # The divisor is saved for the backward pass only; it is not a result of the layer.
    ctx.mark_non_differentiable(output[1])


def _backward_context(ctx: Any, dc: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    k, v, c, divisor = ctx.saved_tensors
    if torch.is_grad_enabled():
        # Recomputed with a graph: the saved divisor has no gradient, but a second derivative needs it.
        c, divisor = naive.context(k, v)
        return *naive.context_backward(k, v, c, divisor, dc), None
    return *torch.ops.polyattn.linear_context_backward(k, v, c, divisor, dc, ctx.precision), None


_context.register_autograd(_backward_context, setup_context=_setup_context)


@torch.library.custom_op("polyattn::linear_query", mutates_args=())
@runtime.without_autocast
def _query(q: Tensor, c: Tensor, precision: str) -> Tensor:
    if _fast(q, c):
        from polyattn.kernels.linear_attention import triton

        return triton.query(q, c, precision)
    return runtime.rows_like(q, c.shape[3]).copy_(naive.query(q, c))


@_query.register_fake
def _(q: Tensor, c: Tensor, precision: str) -> Tensor:
    return runtime.rows_like(q, c.shape[3])


@torch.library.custom_op("polyattn::linear_query_backward", mutates_args=())
@runtime.without_autocast
def _query_backward(q: Tensor, c: Tensor, dy: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    if _fast(q, c):
        from polyattn.kernels.linear_attention import triton

        return triton.query_backward(q, c, dy, precision)
    dq, dc = naive.query_backward(q, c, dy)
    return torch.empty_like(q).copy_(dq), dc.contiguous()


@_query_backward.register_fake
def _(q: Tensor, c: Tensor, dy: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), c.new_empty(c.shape)


def _setup_query(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, c, ctx.precision = inputs
    ctx.save_for_backward(q, c)


def _backward_query(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    q, c = ctx.saved_tensors
    if torch.is_grad_enabled():
        return *naive.query_backward(q, c, dy), None
    return *torch.ops.polyattn.linear_query_backward(q, c, dy, ctx.precision), None


_query.register_autograd(_backward_query, setup_context=_setup_query)
