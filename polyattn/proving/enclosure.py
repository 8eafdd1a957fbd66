"""Where two sides are certainly different: at a place where they are exact, or where their enclosures are apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from polyattn.errors import BudgetError
from polyattn.proving.evaluation import Arithmetic, enclosing
from polyattn.proving.interval import Interval, Number, gap

DIGITS = (30, 100, 300, 1000)
"""The digits of the intervals, which are raised until a difference is certain."""

Sides = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Apart:
    """Two values that are certainly different.

    Attributes:
        place: where in the arrays.
        arithmetic: that told them apart.
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
    """The first entry at which two sides certainly differ; None where none does, or where nothing can be said.

    Args:
        sides: both as arrays, at the precision of an arithmetic; None where they have no values.
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
        except BudgetError:
            return None
        except ArithmeticError:  # an interval without bound
            continue
        if not any(isinstance(side.item(place), Interval) for side in found for place in places):
            return None
    return None
