"""`hadamard_mean` as an operator of torch: dispatch, shapes, gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyattn.kernels import runtime
from polyattn.kernels.gram import gram
from polyattn.kernels.hadamard_mean import naive
from polyattn.kernels.project import project, project_pair


def hadamard_mean(x: Tensor, w1: Tensor, w2: Tensor, scale: float | None = None, precision: str = "") -> Tensor:
    """Compute the mean over positions of two projections' product, m[b,d] = 1/N Σ_n (x w1)[b,n,d] (x w2)[b,n,d].

    It is the global context of Poly-NL (Eq. 7) as written, without its two N x D products in memory. The sum and its
    scale are float32; only the result is rounded to the input's dtype.

    Args:
        x: (B, N, C) in any strides.
        w1, w2: (C, D).
        scale: factor of the sum, by default 1/N.
        precision: precision of float32 products: "ieee", "tf32", or "" for torch's setting.

    Returns:
        (B, D).

    Raises:
        SizeError: the shapes or dtypes do not fit.

    >>> hadamard_mean(torch.tensor([[[1.0], [3.0]]]), torch.tensor([[1.0]]), torch.tensor([[2.0]]))
    tensor([[10.]])
    """
    fits = x.dim() == 3 and w1.dim() == 2 and w1.shape == w2.shape and w1.shape[0] == x.shape[2]
    runtime.expect(fits, "hadamard_mean", {"x": x, "w1": w1, "w2": w2}, "x (B, N, C) and w1, w2 (C, D)")
    x, w1, w2 = runtime.one_dtype(x, w1, w2)
    factor = 1 / max(1, x.shape[1]) if scale is None else scale
    if runtime.transformed():
        return naive.hadamard_mean(x, w1, w2, factor)
    return torch.ops.polyattn.hadamard_mean(x, w1, w2, factor, precision)


@torch.library.custom_op("polyattn::hadamard_mean", mutates_args=())
@runtime.without_autocast
def _hadamard_mean(x: Tensor, w1: Tensor, w2: Tensor, scale: float, precision: str) -> Tensor:
    if runtime.runs_triton(x, w1):
        from polyattn.kernels.hadamard_mean import triton

        return triton.hadamard_mean(x, w1, w2, scale, precision)
    return naive.hadamard_mean(x, w1, w2, scale)


@_hadamard_mean.register_fake
def _(x: Tensor, w1: Tensor, w2: Tensor, scale: float, precision: str) -> Tensor:
    return x.new_empty((x.shape[0], w1.shape[1]))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, w1, w2, ctx.scale, ctx.precision = inputs
    ctx.save_for_backward(x, w1, w2)


def _backward(ctx: Any, seed: Tensor) -> tuple[Tensor | None, ...]:
    x, w1, w2 = ctx.saved_tensors
    rows = seed[:, None]
    of_x, of_w1, of_w2, *_ = ctx.needs_input_grad
    if x.shape[1] >= x.shape[2]:
        # With G = XᵀX / N, m = diag(W1ᵀ G W2): gradients need N only in G and in the last product with x.
        matrix = gram(x, ctx.scale, ctx.precision) if of_w1 or of_w2 else x
        dw1 = (torch.matmul(matrix, w2) * rows).sum(0) if of_w1 else None
        dw2 = (torch.matmul(matrix, w1) * rows).sum(0) if of_w2 else None
        if not of_x:
            return None, dw1, dw2, None, None
        # G is symmetric, so x occurs twice: the gradient is x times this matrix plus its transpose.
        half = torch.matmul(w2 * rows, w1.mT) * ctx.scale
        return project(x, half + half.mT, None, ctx.precision), dw1, dw2, None, None
    done, dtwo = torch.matmul(x, w2) * rows, torch.matmul(x, w1) * rows
    dw1 = torch.einsum("bnc,bnd->cd", x, done) * ctx.scale if of_w1 else None
    dw2 = torch.einsum("bnc,bnd->cd", x, dtwo) * ctx.scale if of_w2 else None
    dx = project_pair(done, w1.mT, dtwo, w2.mT, ctx.precision) * ctx.scale if of_x else None
    return dx, dw1, dw2, None, None


_hadamard_mean.register_autograd(_backward, setup_context=_setup)
