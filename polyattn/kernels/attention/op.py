"""`attention` on torch's fused operators: dispatch, one width for all, second derivatives.

The map of similarities is not stored where torch has a fused operator, forward and backward: on the CPU, where queries,
keys and values have one width and no mask asks for a gradient. Narrower ones are filled up with zeros.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from polyattn.kernels import runtime
from polyattn.kernels.attention import naive


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *masks: Tensor,
    scale: float = 1.0,
    where: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """Compute softmax attention, y[b,h,n,s] = Σ_m softmax_m(scale * q[b,h,n] · k[b,h,m] + masks) v[b,h,m,s].

    Under transforms of `torch.func` and in forward mode the definition in torch runs, and second derivatives go through
    it.

    Args:
        q, k, v: (B, H, N, R), (B, H, M, R) and (B, H, M, S); lengths B and H may be 1 in some.
        masks: added to the scaled products, each broadcast to (B, H, N, M). A row of minus infinities gives 0.
        scale: factor of the products.
        where: booleans, broadcast to (B, H, N, M): the m that each softmax runs over. A row without any is 0.
        causal: only m <= n; not together with `where`.

    Returns:
        (B, H, N, S).

    Raises:
        SizeError: the shapes or dtypes do not fit.

    >>> attention(torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 2, 2), torch.tensor([[[[1.0], [3.0]]]]))
    tensor([[[[2.]]]])
    """
    fits = q.dim() == k.dim() == v.dim() == 4 and q.shape[3] == k.shape[3] and k.shape[2] == v.shape[2]
    runtime.expect(fits, "attention", {"q": q, "k": k, "v": v}, "q (B, H, N, R), k (B, H, M, R) and v (B, H, M, S)")
    q, k, v, *added = runtime.one_dtype(q, k, v, *masks)
    mask = sum(added[1:], start=added[0]) if added else None
    if mask is not None and (where is not None or causal):
        # Torch's operators take either booleans or numbers.
        mask = mask.masked_fill(~(naive.before(q, k) if where is None else where), -torch.inf)
    elif where is not None:
        mask = where
    causal = causal and mask is None
    if runtime.transformed():
        return naive.attention(q, k, v, mask, scale, causal)
    y = _fused(q, k, v, mask, scale, causal)
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or not y.requires_grad:
        return y
    return _Twice.apply(q, k, v, mask, scale, causal, y)


def _fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, causal: bool) -> Tensor:
    width, values = q.shape[3], v.shape[3]
    most = max(width, values)
    lead = torch.broadcast_shapes(q.shape[:2], k.shape[:2], v.shape[:2])
    filled = (_filled(t, most).expand(*lead, -1, -1) for t in (q, k, v))
    if mask is not None:
        mask = mask.expand(*(1,) * (4 - mask.dim()), *mask.shape)
        mask = mask.expand(-1, -1, q.shape[2], k.shape[2])
    y = F.scaled_dot_product_attention(*filled, attn_mask=mask, is_causal=causal, scale=scale)
    return y if values == most else y[..., :values]


def _filled(t: Tensor, width: int) -> Tensor:
    """Return the tensor with zeros up to a width, and its last axis contiguous, as torch's fused operators need."""
    t = t if t.stride(-1) == 1 else t.contiguous()
    return t if t.shape[-1] == width else F.pad(t, (0, width - t.shape[-1]))


class _Twice(torch.autograd.Function):
    """The result of a fused operator, whose gradient can itself be differentiated; torch's own cannot."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, causal: bool, y: Tensor
    ) -> Tensor:
        ctx.save_for_backward(q, k, v, mask)
        ctx.scale, ctx.causal = scale, causal
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, seed: Tensor) -> tuple[Tensor | None, ...]:
        if not torch.is_grad_enabled() and not runtime.transformed():
            return *(None,) * 6, seed
        tensors = ctx.saved_tensors
        wanted = [k for k, t in enumerate(tensors) if t is not None and ctx.needs_input_grad[k]]
        with torch.enable_grad():
            given = [t if k not in wanted else t.view_as(t) for k, t in enumerate(tensors)]
            q, k, v, mask = given
            y = naive.attention(q, k, v, mask, ctx.scale, ctx.causal)
        found = torch.autograd.grad(y, [given[k] for k in wanted], seed, create_graph=torch.is_grad_enabled())
        gradients: list[Tensor | None] = [None] * 4
        for k, gradient in zip(wanted, found, strict=True):
            gradients[k] = gradient
        return *gradients, None, None, None
