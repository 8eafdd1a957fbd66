"""`Cost`: the least work of a kernel, and its roofline time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates and bytes to and from memory, each input read once and each output written once.

    >>> Cost(10, 4) + Cost(1, 2)
    Cost(macs=11, bytes=6)
    >>> Cost(1000, 10).seconds(macs_per_second=100, bytes_per_second=10)
    10.0
    """

    macs: int
    bytes: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.macs + other.macs, self.bytes + other.bytes)

    def seconds(self, macs_per_second: float, bytes_per_second: float) -> float:
        """Return the roofline time: the longer of the times for arithmetic and for memory traffic."""
        return max(self.macs / macs_per_second, self.bytes / bytes_per_second)
