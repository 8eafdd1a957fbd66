"""Numbers of the code as exact numbers: a float is the simplest number that rounds to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite, sqrt

from polyattn.reading.sizes import Size, UnsayableError
from polyattn.reading.values import Coefficient, power_of

MAX_ROOT = 1 << 20
MAX_DENOMINATOR = 1 << 20
MAX_SIMPLE = 4096


@dataclass(frozen=True)
class Measured:
    """A number of the code that is computed from lengths, at each assignment; `sizes` are the symbolic ones."""

    values: tuple[float, ...]
    sizes: tuple[Size, ...]


def exact(value: object) -> Coefficient:
    """Return a number of the code exactly.

    Raises:
        UnsayableError: it is not finite, or not a real number.
    """
    if isinstance(value, Coefficient):
        return value
    if isinstance(value, Measured):
        return of_sizes(value.values, value.sizes)
    if isinstance(value, bool | int):
        return Coefficient(Fraction(value))
    if not isinstance(value, float) or not isfinite(value):
        raise UnsayableError(f"the number {value}")
    for root in (square_root(abs(value)), inverse_root(abs(value))):
        if root is not None:
            return root * Coefficient(Fraction(-1 if value < 0 else 1))
    decimal = Fraction(repr(value))
    simple = decimal.limit_denominator(MAX_DENOMINATOR)
    # A short decimal such as 1e-5 is meant as it is written.
    return Coefficient(simple if float(simple) == value and len(repr(value)) > 12 else decimal)


def square_root(value: float) -> Coefficient | None:
    square = round(value * value)
    if not 2 <= square <= MAX_ROOT or value == round(value) or sqrt(square) != value:
        return None
    return Coefficient(Fraction(1), ((square, Fraction(1, 2)),))


def inverse_root(value: float) -> Coefficient | None:
    if value == 0 or value >= 1:
        return None
    square = round(1 / (value * value))
    if not 2 <= square <= MAX_ROOT or round(sqrt(square)) ** 2 == square:
        return None
    if value not in (square**-0.5, 1 / sqrt(square), sqrt(1 / square)):
        return None
    return Coefficient(Fraction(1, square), ((square, Fraction(1, 2)),))


def of_sizes(values: Sequence[float], sizes: Iterable[Size]) -> Coefficient:
    """Return a number that depends on the symbolic sizes: a constant times a power of one or two of them.

    Args:
        values: the number at each assignment of lengths.
        sizes: the sizes it may be made of.

    Raises:
        UnsayableError: it is not of this form.
    """
    if len(set(values)) == 1:
        return exact(values[0])
    known = [s for s in sizes if not s.fixed]
    powers = [Fraction(p) for p in (1, -1, Fraction(1, 2), Fraction(-1, 2), 2, -2)]
    singles = [(power_of(s, p), tuple(float(v) ** float(p) for v in s.values)) for s in known for p in powers]
    for coefficient, at in singles:
        if (found := _ratio(values, at)) is not None:
            return found * coefficient
    for k, (first, at) in enumerate(singles):
        for second, also in singles[k + 1 :]:
            product = tuple(a * b for a, b in zip(at, also, strict=True))
            if (found := _ratio(values, product)) is not None:
                return found * first * second
    raise UnsayableError("a number that depends on sizes")


def _ratio(values: Sequence[float], at: Sequence[float]) -> Coefficient | None:
    ratios = [v / a for v, a in zip(values, at, strict=True)]
    if not ratios[0] or any(abs(r - ratios[0]) > 1e-12 * abs(ratios[0]) for r in ratios):
        return None
    # A constant factor is a small fraction, or the root of one: anything else is no power of these sizes.
    for value, root in ((abs(ratios[0]), False), (ratios[0] ** 2, True)):
        simple = Fraction(value).limit_denominator(MAX_SIMPLE)
        if simple.numerator <= MAX_SIMPLE and abs(float(simple) - value) <= 1e-12 * value:
            sign = Coefficient(Fraction(-1 if ratios[0] < 0 else 1))
            if not root:
                return sign * Coefficient(simple)
            under = simple.numerator * simple.denominator
            return sign * Coefficient(Fraction(1, simple.denominator), ((under, Fraction(1, 2)),))
    return None
