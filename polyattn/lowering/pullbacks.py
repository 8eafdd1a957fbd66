"""Softmax with masks, and vector-Jacobian products of the language's functions, as differentiable torch operations.

Each takes the gradient of the function's result, of length 1 along axes in which it is constant or that the function
reduced, and the value that the function's row `reads`; the result has the shape of the function's argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from polyattn.lowering.operations import gelu_gate, normal_pdf

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
        # Copies that the operation would make inside are made here, where they are counted.
        both = (gradient.contiguous(), result.contiguous())
        return torch.ops.aten._softmax_backward_data(*both, axes[0], result.dtype)
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


def min_backward(gradient: Tensor, argument: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the gradient at the smallest entries, in equal parts among ties."""
    return max_backward(gradient, -argument, axes)


def logsumexp_backward(gradient: Tensor, argument: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Compute dx = dy * softmax(x), by the maximum, which is finite however large x is."""
    powers = torch.exp(argument - argument.amax(axes, keepdim=True))
    return gradient.to(argument.dtype) * powers / powers.sum(axes, keepdim=True)


def zero_backward(gradient: Tensor, read: Tensor, *axes: tuple[int, ...]) -> Tensor:
    """Return 0: the function is constant but for jumps."""
    return torch.zeros_like(read)


def exp_backward(gradient: Tensor, result: Tensor) -> Tensor:
    return gradient.to(result.dtype) * result


def log_backward(gradient: Tensor, argument: Tensor) -> Tensor:
    return gradient.to(argument.dtype) / argument


def sqrt_backward(gradient: Tensor, result: Tensor) -> Tensor:
    return gradient.to(result.dtype) / (2 * result)


def abs_backward(gradient: Tensor, argument: Tensor) -> Tensor:
    return gradient.to(argument.dtype) * argument.sign()


def tanh_backward(gradient: Tensor, result: Tensor) -> Tensor:
    return torch.ops.aten.tanh_backward(gradient.expand_as(result).to(result.dtype), result)


def silu_backward(gradient: Tensor, argument: Tensor) -> Tensor:
    gradient = gradient.expand_as(argument).to(argument.dtype)
    # Torch's one operation has no derivative of its own.
    if not torch.is_grad_enabled():
        return torch.ops.aten.silu_backward(gradient, argument)
    gate = torch.sigmoid(argument)
    return gradient * gate * (1 + argument * (1 - gate))


def gelu_backward(gradient: Tensor, argument: Tensor) -> Tensor:
    return torch.ops.aten.gelu_backward(gradient.expand_as(argument).to(argument.dtype), argument)


def gelu_tanh_backward(gradient: Tensor, argument: Tensor) -> Tensor:
    spread = gradient.expand_as(argument).to(argument.dtype)
    return torch.ops.aten.gelu_backward(spread, argument, approximate="tanh")


def softplus_backward(gradient: Tensor, argument: Tensor) -> Tensor:
    return gradient.to(argument.dtype) * torch.sigmoid(argument)


def elu_backward(gradient: Tensor, argument: Tensor) -> Tensor:
    return gradient.to(argument.dtype) * torch.exp(argument.clamp_max(0))


def sin_backward(gradient: Tensor, argument: Tensor) -> Tensor:
    return gradient.to(argument.dtype) * torch.cos(argument)


def cos_backward(gradient: Tensor, argument: Tensor) -> Tensor:
    return -gradient.to(argument.dtype) * torch.sin(argument)


def reciprocal_backward(gradient: Tensor, result: Tensor) -> Tensor:
    return -gradient.to(result.dtype) * result * result


def normal_cdf_backward(gradient: Tensor, argument: Tensor) -> Tensor:
    return gradient.to(argument.dtype) * normal_pdf(argument)


def normal_pdf_backward(gradient: Tensor, argument: Tensor) -> Tensor:
    return -gradient.to(argument.dtype) * argument * normal_pdf(argument)


def gelu_gate_backward(gradient: Tensor, argument: Tensor) -> Tensor:
    gate, scale = gelu_gate(argument), math.sqrt(8 / math.pi)
    return gradient.to(argument.dtype) * scale * (1 + 0.134145 * argument * argument) * (gate - gate * gate)


PULLBACKS: Mapping[str, Callable[..., Any]] = {
    "softmax": softmax_backward,
    "relu": relu_backward,
    "sigmoid": sigmoid_backward,
    "normalize": normalize_backward,
    "max": max_backward,
    "min": min_backward,
    "logsumexp": logsumexp_backward,
    "largest": zero_backward,
    "step": zero_backward,
    "exp": exp_backward,
    "log": log_backward,
    "sqrt": sqrt_backward,
    "abs": abs_backward,
    "tanh": tanh_backward,
    "silu": silu_backward,
    "gelu": gelu_backward,
    "gelu_tanh": gelu_tanh_backward,
    "softplus": softplus_backward,
    "elu": elu_backward,
    "sin": sin_backward,
    "cos": cos_backward,
    "reciprocal": reciprocal_backward,
    "normal_cdf": normal_cdf_backward,
    "normal_pdf": normal_pdf_backward,
    "gelu_gate": gelu_gate_backward,
}
