"""Intervals of decimals around a real number: certain bounds of values made irrational by exponentials.

Every operation rounds its lower bound down and its upper bound up, so the result encloses the operation's value for all
numbers in the operands; with more digits the bounds close in. Python's `decimal` rounds in a chosen direction, and its
`exp` is correctly rounded, so the two neighbours of its result enclose the exponential. An operation of an interval and
an integer or a fraction encloses that first; values without exponentials stay exact.
"""

from __future__ import annotations

from decimal import MAX_EMAX, MIN_EMIN, ROUND_CEILING, ROUND_FLOOR, Context, Decimal, DivisionByZero, InvalidOperation
from fractions import Fraction
from functools import cache
from typing import Any

from polyattn.proving.left_out import LeftOut

SHOWN = 9
"""The digits of an enclosed value in print, unless more are needed to tell it from the other side's."""

APART = 10**SHOWN
"""The least ratio of a certain difference to its uncertainty."""


class Interval:
    """All numbers from `low` to `high`, computed with `digits` digits."""

    __slots__ = ("digits", "high", "low")
    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __init__(self, low: Decimal, high: Decimal, digits: int):
        self.low, self.high, self.digits = low, high, digits

    @classmethod
    def around(cls, number: Number, digits: int) -> Interval:
        if isinstance(number, Interval):
            return number
        # Decimals of integers are exact; only the division rounds.
        top, bottom = (Decimal(n) for n in number.as_integer_ratio())
        down, up = roundings(digits)
        return cls(down.divide(top, bottom), up.divide(top, bottom), digits)

    @classmethod
    def read(cls, text: str) -> Interval:
        """Return the numbers within one unit of a decimal's last digit."""
        number = Decimal(text)
        # Two more digits than the text, so that adding the unit does not round.
        exponent, digits = number.as_tuple().exponent, len(number.as_tuple().digits) + 2
        unit = Decimal((0, (1,), int(exponent)))
        down, up = roundings(digits)
        return cls(down.subtract(number, unit), up.add(number, unit), digits)

    def __repr__(self) -> str:
        return f"[{self.low}, {self.high}]"

    def __eq__(self, other: object) -> bool:
        """Return whether the two are certainly equal."""
        if isinstance(other, Interval):
            return self.low == self.high == other.low == other.high
        return self.low == self.high == other

    def __neg__(self) -> Interval:
        # `copy_negate` does not round, as the unary minus would by the current context.
        return Interval(self.high.copy_negate(), self.low.copy_negate(), self.digits)

    def __abs__(self) -> Interval:
        if self.low >= 0:
            return self
        return -self if self.high <= 0 else Interval(Decimal(0), max(self.high, self.low.copy_negate()), self.digits)

    def __add__(self, other: Any) -> Interval:
        if isinstance(other, LeftOut):
            return NotImplemented
        other = Interval.around(other, self.digits)
        down, up = roundings(self.digits)
        return Interval(down.add(self.low, other.low), up.add(self.high, other.high), self.digits)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Interval:
        return self + -other

    def __rsub__(self, other: Number) -> Interval:
        return -self + other

    def __mul__(self, other: Number) -> Interval:
        other = Interval.around(other, self.digits)
        # The extremes of a product are at the corners; rounding outwards keeps the enclosure.
        pairs = [(a, b) for a in (self.low, self.high) for b in (other.low, other.high)]
        down, up = roundings(self.digits)
        return Interval(min(down.multiply(*p) for p in pairs), max(up.multiply(*p) for p in pairs), self.digits)

    __rmul__ = __mul__

    def __truediv__(self, other: Number) -> Interval:
        """Divide; raise ZeroDivisionError if the divisor may be zero."""
        other = Interval.around(other, self.digits)
        if other.low <= 0 <= other.high:
            raise ZeroDivisionError("the divisor may be zero")
        pairs = [(a, b) for a in (self.low, self.high) for b in (other.low, other.high)]
        down, up = roundings(self.digits)
        return Interval(min(down.divide(*p) for p in pairs), max(up.divide(*p) for p in pairs), self.digits)

    def __rtruediv__(self, other: Number) -> Interval:
        return Interval.around(other, self.digits) / self

    def exp(self) -> Interval:
        down, up = roundings(self.digits)
        # `exp` rounds to nearest whatever the context says, so its neighbours are the bounds.
        low = down.next_minus(down.exp(self.low))
        # Its neighbour may be below zero, the exponential is not.
        return Interval(max(low, Decimal(0)), up.next_plus(up.exp(self.high)), self.digits)

    def text(self, gap: Decimal | None = None) -> str:
        """Return the value as a decimal within one unit of its last digit.

        Args:
            gap: a distance to resolve by the digits.
        """
        nearest = Context(self.digits + 2, Emin=MIN_EMIN, Emax=MAX_EMAX)
        middle = nearest.divide(nearest.add(self.low, self.high), Decimal(2))
        width = nearest.subtract(self.high, self.low)
        last = middle.adjusted() + 1 - SHOWN
        if gap is not None:
            last = gap.adjusted() + 1 - SHOWN if abs(middle) <= width else min(last, gap.adjusted() - 1)
        if width:
            # No digit is written that the enclosure leaves open.
            last = max(last, width.adjusted() + 2)
        rounded = nearest.quantize(middle, Decimal((0, (1,), last)))
        return format(rounded, "f") if -20 < last <= 0 else str(rounded)


Number = int | Fraction | Interval


def exponential(number: Number, digits: int) -> Number:
    """Return the exponential: exact only at 0, elsewhere an interval."""
    if isinstance(number, LeftOut):
        return 0
    if not isinstance(number, Interval) and number == 0:
        return 1
    return Interval.around(number, digits).exp()


def larger(a: Number, b: Number) -> Number:
    """Return the maximum of two numbers; if either may be larger, the maxima of the bounds."""
    (low, high), (other_low, other_high) = _bounds(a), _bounds(b)
    if low >= other_high:
        return a
    if other_low >= high:
        return b
    digits = a.digits if isinstance(a, Interval) else b.digits  # pyright: ignore[reportAttributeAccessIssue]
    first, second = Interval.around(a, digits), Interval.around(b, digits)
    return Interval(max(first.low, second.low), max(first.high, second.high), digits)


def gap(a: Number, b: Number) -> Decimal | None:
    """Return the least distance of two numbers; None for equal ones, or if it is not far above their uncertainty."""
    if isinstance(a, LeftOut) or isinstance(b, LeftOut):
        return None
    difference = a - b
    if not isinstance(difference, Interval):
        return abs(Interval.around(difference, 2 * SHOWN)).low if difference else None
    down, up = roundings(difference.digits)
    least = max(difference.low, difference.high.copy_negate())
    width = up.subtract(difference.high, difference.low)
    return least if down.divide(least, Decimal(APART)) > width else None


def _bounds(number: Number) -> tuple[Any, Any]:
    return (number.low, number.high) if isinstance(number, Interval) else (number, number)


@cache
def roundings(digits: int) -> tuple[Context, Context]:
    """Return contexts that round down and up; overflow gives an infinite bound."""
    # Overflow is not trapped: infinity is a correct, if useless, bound.
    traps = [InvalidOperation, DivisionByZero]
    limits = {"Emin": MIN_EMIN, "Emax": MAX_EMAX, "traps": traps}
    return Context(digits, ROUND_FLOOR, **limits), Context(digits, ROUND_CEILING, **limits)
