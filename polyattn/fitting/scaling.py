"""Powers of two that bring values of any magnitude near one, so that no method sees their scale.

Products of four parameters, squares in norms and thresholds all leave the range of floats long before the values do.
Powers of two change no digit, so a result is the same for a core times any power of ten, up to that product's rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyattn.errors import FittingError


def as_array(given: Any, name: str) -> np.ndarray:
    """Return real numbers as an array in float64, from numpy or torch, in any precision, with gradients or without.

    Raises:
        FittingError: they are not real numbers.
    """
    if isinstance(given, Tensor):
        if given.is_complex():
            raise FittingError(f"`{name}` has real numbers; found {given.dtype}")
        return given.detach().cpu().double().numpy()
    array = np.asarray(given)
    if array.dtype.kind not in "fiu":
        raise FittingError(f"`{name}` has real numbers; found {array.dtype}")
    return array.astype(float)


def finite(array: np.ndarray, name: str) -> np.ndarray:
    """Return the array.

    Raises:
        FittingError: an entry is not finite; names the first.
    """
    wrong = ~np.isfinite(array)
    if wrong.any():
        place = tuple(map(int, np.argwhere(wrong)[0]))
        raise FittingError(
            f"`{name}` is to be finite; {int(wrong.sum())} of {array.size} entries are not finite, the first at "
            f"{place}: {array[place]}"
        )
    return array


def exponent(array: np.ndarray | Tensor) -> int:
    """Return k with the largest magnitude in [2^(k-1), 2^k); 0 for zeros."""
    values = array.detach().numpy() if isinstance(array, Tensor) else array
    largest = np.abs(values).max(initial=0.0)
    return int(np.frexp(largest)[1]) if np.isfinite(largest) else 0


def normalised(array: np.ndarray) -> tuple[np.ndarray, int]:
    """Divide by the power of two above the largest magnitude; return it, too."""
    k = exponent(array)
    return np.ldexp(array, -k), k


def times_power(array: np.ndarray, k: int) -> np.ndarray:
    """Multiply by 2^k, in two steps, since 2^k itself may leave the range of floats."""
    return np.ldexp(np.ldexp(array, k // 2), k - k // 2)


def spread(factors: list[Tensor], k: int) -> list[Tensor]:
    """Multiply the product of the factors by 2^k, evenly, so that each stays in the range of its precision."""
    each, rest = divmod(k, len(factors))
    # The output's factor takes the remainder: key and value may be one.
    powers = [each] * (len(factors) - 1) + [each + rest]
    return [torch.from_numpy(times_power(f.numpy(), p)) for f, p in zip(factors, powers, strict=True)]
