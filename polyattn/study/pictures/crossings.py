"""Crossings of a study's curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import exp, log

from polyattn.study.study import Case


@dataclass(frozen=True)
class Crossing:
    """A crossing of two curves.

    Attributes:
        x, y: the point, on the curves as drawn.
        lowest: whether all other curves are above it.
    """

    x: float
    y: float
    lowest: bool


def crossings(curves: Sequence[Sequence[Case]], over: str, quantity: str) -> list[Crossing]:
    """Find the crossings of curves drawn as straight pieces on logarithmic axes.

    Curves that only touch or coincide do not cross; nor do they where one leaves the other.
    """
    drawn = [[(dict(c.point)[over], float(getattr(c, quantity))) for c in curve] for curve in curves]
    # A logarithmic axis cannot show zeros.
    drawn = [[(x, y) for x, y in curve if y > 0] for curve in drawn]
    found = []
    for first, second in combinations(drawn, 2):
        ahead = dict(second)
        both = [(float(x), log(y), log(ahead[x])) for x, y in first if x in ahead]
        last: tuple[float, float, float] | None = None
        for point in both:
            # Equal values belong to neither side: compare the points before and after the stretch.
            if point[1] == point[2]:
                continue
            if last is not None and (last[1] < last[2]) != (point[1] < point[2]):
                found.append(_between(last, point, both))
            last = point
    # A tolerance, since the crossing itself lies on two of the curves up to rounding.
    return [Crossing(x, y, all(_height(curve, x) >= y * (1 - 1e-9) for curve in drawn)) for x, y in found]


def _between(
    low: tuple[float, float, float], high: tuple[float, float, float], both: list[tuple[float, float, float]]
) -> tuple[float, float]:
    """Return the change of sides between two points; the middle of a stretch of equal values."""
    equal = [p for p in both if low[0] < p[0] < high[0]]
    if equal:
        middle = equal[len(equal) // 2]
        return middle[0], exp(middle[1])
    # Straight pieces on logarithmic axes: interpolate logarithms.
    a, b = low[1] - low[2], high[1] - high[2]
    share = a / (a - b)
    x = exp(log(low[0]) + share * (log(high[0]) - log(low[0])))
    return x, exp(low[1] + share * (high[1] - low[1]))


def _height(curve: list[tuple[int, float]], x: float) -> float:
    """Return the curve's height at x; infinite beyond its ends."""
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 <= x <= x1:
            share = log(x / x0) / log(x1 / x0)
            return exp(log(y0) + share * (log(y1) - log(y0)))
    return float("inf")
