"""The logarithm of a condition where it does not hold: minus infinity, exactly.

`softmax[e](s where c)` is the softmax of `s + log(c)`. A number added to an infinity leaves it as it is; the
exponential of minus infinity is 0, and it is never the maximum; any other operation has no value.
"""

from __future__ import annotations

from functools import total_ordering
from typing import Any

import numpy as np


@total_ordering
class LeftOut:
    """Minus infinity, or infinity where `sign` is 1."""

    __slots__ = ("sign",)
    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __init__(self, sign: int = -1):
        self.sign = sign

    def __repr__(self) -> str:
        return "inf" if self.sign > 0 else "-inf"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LeftOut) and self.sign == other.sign

    def __lt__(self, other: Any) -> bool:
        return self.sign < (other.sign if isinstance(other, LeftOut) else 0)

    def __neg__(self) -> LeftOut:
        return LeftOut(-self.sign)

    def __add__(self, other: Any) -> LeftOut:
        if isinstance(other, LeftOut) and other.sign != self.sign:
            raise ArithmeticError("the difference of two infinities")
        return self

    __radd__ = __add__

    def __sub__(self, other: Any) -> LeftOut:
        return self + -other

    def __rsub__(self, other: Any) -> LeftOut:
        return -self + other

    def __mul__(self, other: Any) -> LeftOut:
        if isinstance(other, LeftOut) or not (other > 0 or other < 0):
            raise ArithmeticError("an infinity times what may be 0")
        return self if other > 0 else -self

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> LeftOut:
        raise ArithmeticError("the quotient of an infinity")

    __rtruediv__ = __truediv__


def logarithms(array: np.ndarray) -> np.ndarray:
    """Return the logarithms of zeros and ones, of floats or of exact numbers."""
    if array.dtype == object:
        return np.array([LeftOut() if n == 0 else 0 for n in array.flat], dtype=object).reshape(array.shape)
    return np.where(array == 0, -np.inf, 0.0)


def present(array: np.ndarray) -> np.ndarray:
    """Return maxima with 0 in the place of those over no place at all."""
    if array.dtype == object:
        return np.array([0 if isinstance(n, LeftOut) else n for n in array.flat], dtype=object).reshape(array.shape)
    return np.where(np.isinf(array), 0.0, array)
