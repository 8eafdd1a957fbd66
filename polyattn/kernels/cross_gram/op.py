"""`cross_gram` as an operator of torch: dispatch, shapes, gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyattn.kernels import runtime
from polyattn.kernels.cross_gram import naive


def cross_gram(x: Tensor, y: Tensor, scale: float = 1.0, precision: str = "") -> Tensor:
    """Compute the products of the channels of two tall matrices, g[b,c,d] = scale * Σ_n x[b,n,c] y[b,n,d].

    The positions are cut into parts that run in parallel, so few channels fill a device too; sums are float32, and the
    scale is applied before the result is rounded. With y = dY it is the gradient of a matrix applied to every row of x.

    Args:
        x, y: (B, N, C) and (B, N, D) in any strides: channels-last memory, or (B, C, N) transposed.
        scale: factor of the sum, such as 1/N.
        precision: precision of float32 products: "ieee", "tf32", or "" for torch's setting.

    Returns:
        (B, C, D) in the inputs' dtype.

    Raises:
        SizeError: the shapes or dtypes do not fit.

    >>> cross_gram(torch.tensor([[[1.0, 2.0], [0.0, 1.0]]]), torch.tensor([[[1.0], [3.0]]]))
    tensor([[[1.],
             [5.]]])
    """
    fits = x.dim() == y.dim() == 3 and x.shape[:2] == y.shape[:2]
    runtime.expect(fits, "cross_gram", {"x": x, "y": y}, "x (B, N, C) and y (B, N, D)")
    x, y = runtime.one_dtype(x, y)
    if runtime.transformed():
        return naive.cross_gram(x, y, scale)
    return torch.ops.polyattn.cross_gram(x, y, scale, precision)


@torch.library.custom_op("polyattn::cross_gram", mutates_args=())
@runtime.without_autocast
def _cross_gram(x: Tensor, y: Tensor, scale: float, precision: str) -> Tensor:
    if runtime.runs_triton(x, y):
        from polyattn.kernels.cross_gram import triton

        return triton.cross_gram(x, y, scale, precision)
    return naive.cross_gram(x, y, scale)


@_cross_gram.register_fake
def _(x: Tensor, y: Tensor, scale: float, precision: str) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[2], y.shape[2]))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, y, ctx.scale, ctx.precision = inputs
    ctx.save_for_backward(x, y)


def _backward(ctx: Any, seed: Tensor) -> tuple[Tensor | None, ...]:
    x, y = ctx.saved_tensors
    left, right, *_ = ctx.needs_input_grad
    # The scale goes to the small (C, D) seed, not to the two maps of N positions.
    seed = seed * ctx.scale
    return torch.matmul(y, seed.mT) if left else None, torch.matmul(x, seed) if right else None, None, None


_cross_gram.register_autograd(_backward, setup_context=_setup)
