"""Shapes of lowered graphs: their checks, sizes read from them, and factors of these; dtypes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fractions import Fraction
from functools import reduce
from math import log10, prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from polyattn.algebra import Spec
from polyattn.errors import SizeError


def expect_shape(tensor: Tensor, name: str, shape: tuple[int, ...], batched: bool) -> Tensor:
    """The tensor itself, if its shape (behind the batch axis, if it is batched) is the one the plan was made for."""
    have = tensor.shape
    if (have[1:] if batched else have) != shape or (batched and not have):
        wanted = ", ".join(["B", *map(str, shape)] if batched else map(str, shape))
        raise SizeError(f"'{name}' has shape {tuple(tensor.shape)}, but this graph was planned for ({wanted})")
    return tensor


NARROW = (torch.float16, torch.bfloat16)


class Read(NamedTuple):
    """Where an atomic size is read: from the length of an input's axis, divided by the other sizes of that slot."""

    size: str
    tensor: str
    slot: int
    others: tuple[str, ...]


def readings(spec: Spec, free: Collection[str]) -> tuple[Read, ...]:
    """Return where each of some atomic sizes is read, in an order in which divisors are known before they are needed.

    Raises:
        SizeError: a size does not follow from the shapes of the inputs and the other sizes.
    """
    found: list[Read] = []
    left = set(free)
    while left:
        before = len(left)
        for tensor in spec.inputs:
            for slot, atoms in enumerate(spec.shape(tensor)):
                unknown = [a for a in atoms if a in left]
                if len(unknown) == 1:
                    found.append(Read(unknown[0], tensor, slot, tuple(a for a in atoms if a != unknown[0])))
                    left.remove(unknown[0])
        if len(left) == before:
            raise SizeError(f"size {min(left)} cannot be read from the shapes of {', '.join(spec.inputs)}: fix it")
    return tuple(found)


def divided(value: Any, length: Any) -> Any:
    """A factor divided by a length; in float64 where `torch.jit.trace` follows lengths as tensors."""
    return value / (length.double() if isinstance(length, Tensor) else length)


def multiplied(value: Any, length: Any) -> Any:
    """A factor times a length; in float64 where `torch.jit.trace` follows lengths as tensors."""
    return value * (length.double() if isinstance(length, Tensor) else length)


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


def condition(
    like: Tensor,
    relation: str,
    slots: tuple[int, ...],
    lengths: tuple[int, ...],
    number: int,
    sizes: tuple[tuple[int, ...], ...] = (),
) -> Tensor:
    """A condition between positions as zeros and ones, in the dtype of a tensor.

    Args:
        relation: "<=", "==" or "!=", to 0.
        slots: the coefficient of each slot.
        lengths: the length of each axis, the same number of axes for each slot.
        number: constant term.
        sizes: products that are added, as their factors.
    """
    return _holds(like, relation, slots, lengths, number, sizes, range(len(lengths)), len(lengths)).to(like.dtype)


Condition = tuple[str, tuple[int, ...], tuple[int, ...], int, tuple[tuple[int, ...], ...], tuple[int, ...]]
"""The arguments of `condition` after the first, and the place of each axis in a larger tensor."""


def choices(like: Tensor, rank: int, conditions: Sequence[Condition]) -> Tensor:
    """Return where all conditions hold, as booleans, of length 1 along axes of which none of them speaks.

    Args:
        like: a tensor on the device of the result.
        rank: number of axes of the result.
        conditions: at least one.
    """
    holds = (_holds(like, *condition, rank) for condition in conditions)
    return reduce(torch.logical_and, holds)


def _holds(
    like: Tensor,
    relation: str,
    slots: tuple[int, ...],
    lengths: tuple[int, ...],
    number: int,
    sizes: tuple[tuple[int, ...], ...],
    axes: Sequence[int],
    rank: int,
) -> Tensor:
    """Return where a condition holds, as booleans, its axes at the places `axes` among `rank`."""
    width = len(lengths) // max(1, len(slots))
    total: Any = number
    for factors in sizes:
        total = total + prod(factors)
    parts: list[Tensor] = []
    for axis, length in enumerate(lengths):
        slot = axis // width
        # The outer part of a composite slot comes first.
        stride = slots[slot] * prod(lengths[axis + 1 : (slot + 1) * width])
        shape = [1] * rank
        shape[axes[axis]] = -1
        parts.append(stride * torch.arange(length, device=like.device).reshape(shape))
    # The last axis is compared with the sum of the others: no tensor of whole numbers has all axes of two.
    last = -parts.pop() if parts else torch.zeros((1,) * rank, dtype=torch.int64, device=like.device)
    total = sum(parts, start=total)
    return last >= total if relation == "<=" else (last == total if relation == "==" else last != total)


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
