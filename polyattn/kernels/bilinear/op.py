"""`bilinear` as operators of torch: two linear operations, each the gradient of the other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyattn.kernels import runtime
from polyattn.kernels.bilinear import naive

MOST_BLOCKS = 256
"""Number of blocks above which two matrix products cost less than their Kronecker product."""


def bilinear(x: Tensor, p: Tensor, q: Tensor, precision: str = "") -> Tensor:
    """Compute the bilinear attentional transform by blocks, Y = (P ⊗ I) X (Q ⊗ I) (BA-Transform, Eq. 1, Figure 3).

    y[b,(i u),(j v),(g n)] = Σ_kl p[b,g,i,k] x[b,(k u),(l v),(g n)] q[b,g,l,j], where a map of H x W positions is cut
    into S x T blocks of ceil(H / S) x ceil(W / T) positions. If a side is not a multiple, the map counts as padded with
    zeros, without a copy. P ⊗ I and Q ⊗ I are never expanded, and X is read once.

    Args:
        x: (B, H, W, C) in any strides: channels-last memory, or (B, C, H, W) with its channels moved.
        p: (B, G, S, S), one matrix over rows for each group of C / G channels.
        q: (B, G, T, T), one over columns.
        precision: precision of float32 products: "ieee", "tf32", or "" for torch's setting.

    Returns:
        (B, H, W, C) in the memory order of x.

    Raises:
        SizeError: the shapes or dtypes do not fit.
    """
    fits = x.dim() == p.dim() == q.dim() == 4 and p.shape[:2] == q.shape[:2] and p.shape[0] == x.shape[0]
    fits = fits and p.shape[2] == p.shape[3] and q.shape[2] == q.shape[3] and x.shape[3] % max(1, p.shape[1]) == 0
    runtime.expect(fits, "bilinear", {"x": x, "p": p, "q": q}, "x (B, H, W, G M), p (B, G, S, S), q (B, G, T, T)")
    x, p, q = runtime.one_dtype(x, p, q)
    s, t = p.shape[2], q.shape[2]
    if s * t > MOST_BLOCKS:
        return _two_products(x, p, q)
    # The Kronecker product is stored per sample and group: at most MOST_BLOCKS² weights.
    weights = torch.einsum("bgik,bglj->bgijkl", p, q).flatten(4).flatten(2, 3)
    return block_mix(x, weights, s, t, precision)


def _two_products(x: Tensor, p: Tensor, q: Tensor) -> Tensor:
    rows = torch.einsum("bgik,bgmkulv->bgmiulv", p, naive.blocks(x, p, q))
    return naive.joined(torch.einsum("bgmiulv,bglj->bgmiujv", rows, q), x.shape)


def block_mix(x: Tensor, k: Tensor, s: int, t: int, precision: str = "") -> Tensor:
    """Compute every block as a sum of blocks, y[b,(i u),(j v),(g m)] = Σ_kl k[b,g,(i j),(k l)] x[b,(k u),(l v),(g m)].

    Args:
        x: (B, H, W, C) in any strides, cut into S x T blocks as in `bilinear`.
        k: (B, G, S T, S T).
        s, t: number of blocks along the height and along the width.
        precision: as in `bilinear`.
    """
    if runtime.transformed():
        return naive.block_mix(x, k, s, t)
    return torch.ops.polyattn.block_mix(x, k, s, t, precision)


def block_cross(y: Tensor, x: Tensor, groups: int, s: int, t: int, precision: str = "") -> Tensor:
    """Compute inner products of blocks, c[b,g,(i j),(k l)] = Σ_uvm y[b,(i u),(j v),(g m)] x[b,(k u),(l v),(g m)].

    Returns:
        (B, G, S T, S T): the gradient of `block_mix` with respect to its weights.
    """
    if runtime.transformed():
        return naive.block_cross(y, x, groups, s, t)
    return torch.ops.polyattn.block_cross(y, x, groups, s, t, precision)


@torch.library.custom_op("polyattn::block_mix", mutates_args=())
@runtime.without_autocast
def _block_mix(x: Tensor, k: Tensor, s: int, t: int, precision: str) -> Tensor:
    if runtime.runs_triton(x, k):
        from polyattn.kernels.bilinear import triton

        return triton.block_mix(x, k, s, t, precision)
    # The operator promises x's strides, as its fake version does: a compiler plans memory by them.
    return torch.empty_like(x).copy_(naive.block_mix(x, k, s, t))


@_block_mix.register_fake
def _(x: Tensor, k: Tensor, s: int, t: int, precision: str) -> Tensor:
    return torch.empty_like(x)


def _setup_mix(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, k, ctx.s, ctx.t, ctx.precision = inputs
    ctx.save_for_backward(x, k)


def _backward_mix(ctx: Any, seed: Tensor) -> tuple[Tensor | None, ...]:
    x, k = ctx.saved_tensors
    s, t, how = ctx.s, ctx.t, ctx.precision
    # The public functions are differentiable again, so second derivatives need no further rule.
    of_x, of_k, *_ = ctx.needs_input_grad
    dx = block_mix(seed, k.mT, s, t, how) if of_x else None
    return dx, block_cross(seed, x, k.shape[1], s, t, how) if of_k else None, None, None, None


_block_mix.register_autograd(_backward_mix, setup_context=_setup_mix)


@torch.library.custom_op("polyattn::block_cross", mutates_args=())
@runtime.without_autocast
def _block_cross(y: Tensor, x: Tensor, groups: int, s: int, t: int, precision: str) -> Tensor:
    if runtime.runs_triton(y, x):
        from polyattn.kernels.bilinear import triton

        return triton.block_cross(y, x, groups, s, t, precision)
    return naive.block_cross(y, x, groups, s, t)


@_block_cross.register_fake
def _(y: Tensor, x: Tensor, groups: int, s: int, t: int, precision: str) -> Tensor:
    return x.new_empty((x.shape[0], groups, s * t, s * t))


def _setup_cross(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    y, x, ctx.groups, ctx.s, ctx.t, ctx.precision = inputs
    ctx.save_for_backward(y, x)


def _backward_cross(ctx: Any, seed: Tensor) -> tuple[Tensor | None, ...]:
    y, x = ctx.saved_tensors
    s, t, how = ctx.s, ctx.t, ctx.precision
    of_y, of_x, *_ = ctx.needs_input_grad
    dy = block_mix(x, seed, s, t, how) if of_y else None
    return dy, block_mix(y, seed.mT, s, t, how) if of_x else None, None, None, None, None


_block_cross.register_autograd(_backward_cross, setup_context=_setup_cross)
