"""Crossings of a study's curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import exp, log

from polyattn.planning import BATCH
from polyattn.planning.graph import ITEMSIZE
from polyattn.study.counts import value
from polyattn.study.study import MODULE, Case


@dataclass(frozen=True)
class Crossing:
    """A crossing of two curves.

    Attributes:
        x, y: the point: exact for counts, between the points of the study, too; else on the curves as drawn.
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
    for (first, second), pair in zip(combinations(drawn, 2), combinations(curves, 2), strict=True):
        ahead = dict(second)
        both = [(float(x), log(y), log(ahead[x])) for x, y in first if x in ahead]
        last: tuple[float, float, float] | None = None
        for point in both:
            # Equal values belong to neither side: compare the points before and after the stretch.
            if point[1] == point[2]:
                continue
            if last is not None and (last[1] < last[2]) != (point[1] < point[2]):
                found.append(_exact(pair, last[0], point[0], over, quantity) or _between(last, point, both))
            last = point
    # A tolerance, since the crossing itself lies on two of the curves up to rounding.
    heights = [[_height(curve, x) for curve in drawn] for x, _ in found]
    return [
        # The two that cross are the two nearest to the ring; straight pieces may pass below it.
        Crossing(x, y, sum(h < y * (1 - LEEWAY) for h in own) == 0)
        for (x, y), own in zip(found, heights, strict=True)
    ]


LEEWAY = 0.05
"""How far below an exact crossing straight pieces between the study's points may pass."""
COUNTED = {"macs": 1, "traffic_bytes": ITEMSIZE, "step_peak_bytes": ITEMSIZE, "kept_bytes": ITEMSIZE, "parameters": 1}


def _exact(
    pair: tuple[Sequence[Case], Sequence[Case]], low: float, high: float, over: str, quantity: str
) -> tuple[float, float] | None:
    """Return where two costs change sides between two points, by their counts; None where these do not say.

    Between two points a layer costs as much as the cheaper of its plans at either end.
    """
    ends = [[c for c in curve if dict(c.point)[over] in (low, high)] for curve in pair]
    cases = [case for curve in ends for case in curve]
    if any(c.order == MODULE for c in cases):
        return None
    fixed = [{n: v for n, v in c.point if n != over} for c in cases]
    split = any(over != "B" and (over not in c._known or c._known[over] != dict(c.point)[over]) for c in cases)
    # A size that follows from the varying one, or is made of parts, is not in the counts by its name.
    if quantity not in COUNTED or split or any(f != fixed[0] for f in fixed):
        return None

    def cost(curve: list[Case], number: int) -> int:
        found = []
        for case in curve:
            known = {**case._known, (BATCH if over == "B" else over): number}
            counts = case.counts
            terms = {"macs": counts.macs, "traffic_bytes": counts.entries, "kept_bytes": counts.kept}
            peak = quantity == "step_peak_bytes"
            own = counts.peak(known) if peak else value(terms.get(quantity, counts.parameters), known)
            found.append(COUNTED[quantity] * own)
        return min(found)

    def difference(number: int) -> int:
        return cost(ends[0], number) - cost(ends[1], number)

    below, above = int(low), int(high)
    side = difference(below) > 0
    while above - below > 1:
        middle = (below + above) // 2
        own = difference(middle)
        if not own:
            return float(middle), float(cost(ends[0], middle))
        below, above = (middle, above) if (own > 0) == side else (below, middle)
    first, last = difference(below), difference(above)
    share = first / (first - last) if first != last else 0.0
    return below + share, cost(ends[0], below) + share * (cost(ends[0], above) - cost(ends[0], below))


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
