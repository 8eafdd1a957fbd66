"""`gram` as an operator of torch: dispatch, shapes, gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyattn.kernels import runtime
from polyattn.kernels.gram import naive


def gram(x: Tensor, scale: float = 1.0, precision: str = "") -> Tensor:
    """Compute the Gram matrix of the channels of a tall matrix, g[b,c,d] = scale * Σ_n x[b,n,c] x[b,n,d].

    Only tiles on and above the diagonal are computed, in float32, with the positions cut into parallel parts. The scale
    is applied before the result is rounded to the input's dtype.

    Args:
        x: (B, N, C) in any strides: channels-last memory, or (B, C, N) transposed.
        scale: factor of the sum, such as 1/N.
        precision: precision of float32 products: "ieee", "tf32", or "" for torch's setting.

    Returns:
        (B, C, C), symmetric, in the input's dtype.

    Raises:
        SizeError: x does not have three axes.

    >>> gram(torch.tensor([[[1.0, 2.0], [0.0, 1.0]]]))
    tensor([[[1., 2.],
             [2., 5.]]])
    """
    runtime.expect(x.dim() == 3, "gram", {"x": x}, "x of shape (B, N, C)")
    (x,) = runtime.one_dtype(x)
    if runtime.transformed():
        return naive.gram(x, scale)
    return torch.ops.polyattn.gram(x, scale, precision)


@torch.library.custom_op("polyattn::gram", mutates_args=())
@runtime.without_autocast
def _gram(x: Tensor, scale: float, precision: str) -> Tensor:
    if runtime.runs_triton(x):
        from polyattn.kernels.gram import triton

        return triton.gram(x, scale, precision)
    return naive.gram(x, scale)


@_gram.register_fake
def _(x: Tensor, scale: float, precision: str) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[2], x.shape[2]))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.scale, ctx.precision = inputs
    ctx.save_for_backward(x)


def _backward(ctx: Any, seed: Tensor) -> tuple[Tensor, None, None]:
    (x,) = ctx.saved_tensors
    # x occurs twice in the symmetric product: the seed and its transpose, added before one product with x.
    return torch.matmul(x, (seed + seed.mT) * ctx.scale), None, None


_gram.register_autograd(_backward, setup_context=_setup)
