"""Checks of lowered graphs: sizes that they were made for, coefficients that a float holds; dtypes."""

from __future__ import annotations

from fractions import Fraction
from math import log10

import torch
from torch import Tensor

from polyattn.errors import SizeError


def expect_shape(tensor: Tensor, name: str, shape: tuple[int, ...], batched: bool) -> Tensor:
    """The tensor itself, if its shape (behind the batch axis, if it is batched) is the one the plan was made for."""
    have = tensor.shape
    if (have[1:] if batched else have) != shape or (batched and not have):
        wanted = ", ".join(["B", *map(str, shape)] if batched else map(str, shape))
        raise SizeError(f"'{name}' has shape {tuple(tensor.shape)}, but this graph was planned for ({wanted})")
    return tensor


NARROW = (torch.float16, torch.bfloat16)


def widened(tensor: Tensor) -> Tensor:
    """The tensor in float32 where it has 16 bits."""
    return tensor.float() if tensor.dtype in NARROW else tensor


def summable(tensor: Tensor) -> Tensor:
    """A map as an operand of a product that is summed over positions: in float32, but as it is on a GPU.

    Matrix units there take 16 bits and add in 32, many times faster than they take float32; the sum is rounded once.
    """
    return tensor if tensor.is_cuda else widened(tensor)


def refined_mean(mean: Tensor, deviations: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The mean in float64: its rounding to the tensors' dtype is the mean of the deviations from that."""
    return mean.double() + deviations.mean(axes).double()


def identity(like: Tensor, length: int) -> Tensor:
    """The identity matrix in the dtype of a tensor, made on its device: a copy would make a GPU wait for the host."""
    return torch.eye(length, dtype=like.dtype, device=like.device)


def as_float(coefficient: Fraction) -> float:
    """The nearest float64; SizeError for a coefficient that is too large for one, or so small that it would be zero."""
    try:
        value = float(coefficient)
        if value or not coefficient:
            return value
    except OverflowError:
        pass
    magnitude = (abs(coefficient.numerator).bit_length() - coefficient.denominator.bit_length()) * log10(2)
    raise SizeError(f"a coefficient of about 10^{magnitude:.0f} cannot be held by a float64: scale the specification")
