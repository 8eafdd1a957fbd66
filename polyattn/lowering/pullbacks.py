"""Softmax with masks, and vector-Jacobian products of the language's functions, as differentiable torch operations.

Each takes the gradient of the function's result, of length 1 along axes in which it is constant or that the function
reduced, and the value named by `planning.steps.NEEDS`; the result has the shape of the function's argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

L1_EPSILON = 1e-12
"""`normalize` divides by the larger of the L1 norm and this, in the tensor's own precision."""


def masked_softmax(argument: Tensor, axis: int) -> Tensor:
    """Compute a softmax in which a row of minus infinities, with all places masked out, is 0 and not nan."""
    # Not torch's `_safe_softmax`: the legacy ONNX exporter does not know it.
    out = (argument == -torch.inf).all(axis, keepdim=True)
    return torch.softmax(argument.masked_fill(out, 0.0), axis).masked_fill(out, 0.0)


def softmax_backward(gradient: Tensor, result: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Compute dx = s * (ds - Σ ds * s), the sum over the axes."""
    gradient = gradient.expand_as(result).to(result.dtype)
    if len(axes) == 1:
        return torch.ops.aten._softmax_backward_data(gradient, result, axes[0], result.dtype)
    # The fused operation has one axis: move the axes to the end and flatten them.
    order = [k for k in range(result.dim()) if k not in axes] + list(axes)
    inside = result.dim() - len(axes)
    moved = result.permute(order)
    both = (t.permute(order).flatten(inside) for t in (gradient, result))
    flat = torch.ops.aten._softmax_backward_data(*both, -1, result.dtype)
    return flat.view_as(moved).permute([order.index(k) for k in range(result.dim())])


def relu_backward(gradient: Tensor, result: Tensor) -> Tensor:
    """Return the gradient where the result is positive, else 0."""
    return torch.ops.aten.threshold_backward(gradient.expand_as(result).to(result.dtype), result, 0)


def sigmoid_backward(gradient: Tensor, result: Tensor) -> Tensor:
    """Compute dx = ds * s * (1 - s)."""
    return torch.ops.aten.sigmoid_backward(gradient.expand_as(result).to(result.dtype), result)


def normalize_backward(gradient: Tensor, argument: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Compute dx = (dy - sign(x) * Σ dy * x / n) / n with n = Σ |x|; dy / n below the least norm, a constant.

    `addcmul` multiplies and adds in one pass over the entries.
    """
    gradient = gradient.to(argument.dtype)
    norm = argument.abs().sum(axes, keepdim=True)
    least = norm.clamp_min(L1_EPSILON)
    along = torch.addcmul(gradient.new_zeros(()), gradient, argument).sum(axes, keepdim=True) / least
    # Below the least norm the divisor is a constant, without a derivative of its own.
    along = torch.where(norm >= L1_EPSILON, along, 0.0)
    return torch.addcmul(gradient, argument.sign(), along, value=-1) / least


def max_backward(gradient: Tensor, argument: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the gradient at the largest entries, in equal parts among ties.

    The maximum is recomputed: if the argument was itself recomputed, with other rounding, a kept maximum would not
    occur among its entries.
    """
    largest = argument == argument.amax(axes, keepdim=True)
    parts = gradient.to(argument.dtype) / largest.sum(axes, keepdim=True)
    return torch.where(largest, parts, 0.0)


PULLBACKS: Mapping[str, Callable[..., Any]] = {
    "softmax": softmax_backward,
    "relu": relu_backward,
    "sigmoid": sigmoid_backward,
    "normalize": normalize_backward,
    "max": max_backward,
}
ELEMENTWISE = frozenset({"relu", "sigmoid"})
"""The functions without axes."""
