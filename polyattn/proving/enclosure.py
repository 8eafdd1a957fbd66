"""Certain differences of two sides: at a place where they are exact, or where their enclosures are apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from polyattn.errors import BudgetError
from polyattn.proving.evaluation import Arithmetic, enclosing
from polyattn.proving.interval import Interval, Number, gap

DIGITS = (30, 100, 300, 1000)
"""The digits of the intervals, raised until a difference is certain."""

Sides = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Apart:
    """Two values that are certainly different.

    Attributes:
        place: the position in the arrays.
        arithmetic: the arithmetic that told them apart.
    """

    place: tuple[int, ...]
    left: Number
    right: Number
    arithmetic: Arithmetic


def first_difference(
    sides: Callable[[Arithmetic], Sides | None],
    ladder: Sequence[int] = DIGITS,
    wanted: Callable[[tuple[int, ...]], bool] = lambda place: True,
) -> Apart | None:
    """Return the first entry at which two sides certainly differ; None if all may be equal.

    Args:
        sides: both as arrays, at the precision of an arithmetic; None if they cannot be evaluated.
        ladder: the numbers of digits to try in turn, for as long as an entry is not exact.
        wanted: the places that count.
    """
    for digits in ladder:
        arithmetic = enclosing(digits)
        try:
            found = sides(arithmetic)
            if found is None:
                return None
            places = [place for place in np.ndindex(*found[0].shape) if wanted(place)]
            for place in places:
                left, right = (side.item(place) for side in found)
                if gap(left, right) is not None:
                    return Apart(place, left, right, arithmetic)
        # More digits only cost more, so there is no point in going on.
        except BudgetError:
            return None
        except ArithmeticError:  # an interval without bound
            continue
        # Exact entries that agree will agree with any number of digits.
        if not any(isinstance(side.item(place), Interval) for side in found for place in places):
            return None
    return None
