"""`layer_crossover`: the sizes at which one layer costs less than another, each by its own best plan there."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from polyattn.algebra import Spec
from polyattn.errors import SizeError
from polyattn.planning import Device
from polyattn.study.complexity import complexity
from polyattn.study.study import QUANTITIES

COMPARED = tuple(q for q in QUANTITIES if q not in ("measured_seconds", "flops_per_byte"))
PROBES = 4
"""Sizes compared in each doubling."""


@dataclass(frozen=True)
class LayerCrossover:
    """The sizes at which the cheaper of two layers changes as one size grows.

    Attributes:
        size: the varying size.
        quantity: the compared cost.
        names: names of the layers.
        points: the first whole number of the size of each stretch but the first.
        cheaper: the position (0 or 1) of the cheaper layer in each stretch; None where both cost the same.
        last: the greatest number of the size that was compared.
    """

    size: str
    quantity: str
    names: tuple[str, str]
    points: tuple[int, ...]
    cheaper: tuple[int | None, ...]
    last: int

    def cheaper_at(self, number: int) -> int | None:
        """Return the position of the cheaper layer at a size, None if both cost the same.

        Raises:
            SizeError: the number is beyond those that were compared.
        """
        if not 1 <= number <= self.last:
            raise SizeError(f"`number` {number} is not from 1 to {self.last:,}, where {self.size} was compared")
        return self.cheaper[sum(p <= number for p in self.points)]

    def __str__(self) -> str:
        ends = [*(p - 1 for p in self.points), self.last]
        lines = []
        for which, first, end in zip(self.cheaper, (1, *self.points), ends, strict=True):
            span = f"{self.size} = {first:,}" + (f" to {end:,}" if end > first else "")
            what = "both take the same" if which is None else f"{self.names[which]} takes less"
            lines.append(f"{what} for {span}")
        return "; ".join(lines) + f" ({QUANTITIES[self.quantity]})"


def layer_crossover(
    first: Spec | str,
    second: Spec | str,
    size: str,
    *,
    quantity: str = "macs",
    up_to: int = 65536,
    objective: str = "forward",
    device: str | Device = "cpu",
    **sizes: int | str,
) -> LayerCrossover:
    """Find the sizes at which one layer overtakes another, each on the best plan for each size.

    Four sizes in each doubling are compared, and between two with different winners the change is found by bisection:
    exactly, but for changes back and forth between two neighbours of these.

    Args:
        first, second: specifications, texts or names of the catalogue.
        size: the varying size.
        quantity: "macs", "traffic_bytes", "peak_bytes", "kept_bytes", "parameters" or "predicted_seconds".
        up_to: the greatest number of the size.
        objective, device: as in `complexity`.
        sizes: the others, as in `complexity`; products of others, such as `R="C/8"`, may contain the varying one.

    Raises:
        SizeError: an unknown quantity, a varying size that is given, or an error of `complexity`.

    >>> print(layer_crossover("poly_nl", "e_nl", "C", up_to=64, N=16, R=8, V=8))
    poly_nl takes less for C = 1 to 13; e_nl takes less for C = 14 to 64 (multiply-accumulates)
    """
    if quantity not in COMPARED:
        raise SizeError(f"`quantity` is one of {', '.join(COMPARED)}; found {quantity!r}")
    if size in sizes:
        raise SizeError(f"`size` {size!r} varies, and is given as {sizes[size]!r}; leave it out of the sizes")
    if isinstance(up_to, bool) or not hasattr(up_to, "__index__") or up_to < 1:
        raise SizeError(f"`up_to` is a positive whole number; found {up_to!r}")
    known: dict[int, int | None] = {}

    def winner(number: int) -> int | None:
        if number not in known:
            found = complexity(
                {"first": first, "second": second}, objective, orders=["planned"], device=device,
                **{**sizes, size: number},
            )  # fmt: skip
            costs = [getattr(case, quantity) for case in found.cases]
            known[number] = None if costs[0] == costs[1] else int(costs[1] < costs[0])
        return known[number]

    steps = range(PROBES * up_to.bit_length() + 1)
    probes = sorted({min(up_to, round(2 ** (k / PROBES))) for k in steps})
    points, cheaper = [], [winner(1)]
    for low, high in pairwise(probes):
        # Several changes within a stretch: each bisection finds one, from the left end on.
        start = low
        while winner(high) != winner(start):
            below, above = start, high
            while above - below > 1:
                middle = (below + above) // 2
                below, above = (middle, above) if winner(middle) == winner(start) else (below, middle)
            points.append(above)
            cheaper.append(winner(above))
            start = above
    names = tuple(s if isinstance(s, str) and "[" not in s else f"layer {k}" for k, s in enumerate((first, second), 1))
    return LayerCrossover(size, quantity, (names[0], names[1]), tuple(points), tuple(cheaper), up_to)
