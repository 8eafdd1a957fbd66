"""Functions of one number on integers, fractions and intervals: exact where the result is rational, else enclosed.

`exp`, `ln` and the root of `decimal` are correctly rounded, so the neighbours of a result enclose the value. The sine,
the cosine and the normal distribution are Taylor series at the middle of an interval; the radius grows by the rest of
the series, by its rounding, and by half the interval's width times a bound of the derivative.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from fractions import Fraction
from functools import cache
from math import isqrt

from polyattn.proving.interval import Interval, Number, exponential, larger, roundings

LARGEST_ARGUMENT = 60
"""The largest argument of a series: its terms grow like the exponential of the argument, or of its square."""


def logarithm(number: Number, digits: int) -> Number:
    """Return the logarithm: exact only at 1.

    Raises:
        ArithmeticError: the number may be 0 or less.
    """
    if not isinstance(number, Interval) and number == 1:
        return 0
    inside = Interval.around(number, digits)
    if inside.low <= 0:
        raise ArithmeticError("a logarithm of what may be 0 or less")
    down, up = roundings(digits)
    return Interval(down.next_minus(down.ln(inside.low)), up.next_plus(up.ln(inside.high)), digits)


def root(number: Number, digits: int) -> Number:
    """Return the square root: exact for squares of fractions.

    Raises:
        ArithmeticError: the number may be below 0.
    """
    if not isinstance(number, Interval):
        value = Fraction(number)
        if value >= 0:
            top, bottom = isqrt(value.numerator), isqrt(value.denominator)
            if top * top == value.numerator and bottom * bottom == value.denominator:
                return Fraction(top, bottom)
    inside = Interval.around(number, digits)
    if inside.low < 0:
        raise ArithmeticError("a root of what may be below 0")
    down, up = roundings(digits)
    low = down.next_minus(down.sqrt(inside.low)) if inside.low else Decimal(0)
    return Interval(max(low, Decimal(0)), up.next_plus(up.sqrt(inside.high)), digits)


def reciprocal(number: Number) -> Number:
    """Return 1 over a number.

    Raises:
        ArithmeticError: the number may be 0.
    """
    return 1 / (number if isinstance(number, Interval) else Fraction(number))


def step(number: Number) -> Number:
    """Return 1 for a positive number, else 0.

    Raises:
        ArithmeticError: an interval has numbers of both kinds.
    """
    if not isinstance(number, Interval):
        return int(number > 0)
    if number.low <= 0 < number.high:
        raise ArithmeticError("a step at what may be 0")
    return int(number.low > 0)


def smaller(a: Number, b: Number) -> Number:
    return -larger(-a, -b)


def sine(number: Number, digits: int) -> Number:
    return 0 if _is_zero(number) else _series(number, digits, _odd_terms)


def cosine(number: Number, digits: int) -> Number:
    return 1 if _is_zero(number) else _series(number, digits, _even_terms)


def normal_pdf(number: Number, digits: int) -> Number:
    """Return the density of the standard normal distribution."""
    square = number * number
    bell = exponential(-square / 2 if isinstance(square, Interval) else Fraction(-square) / 2, digits)
    return Interval.around(bell, digits) / root(2 * pi(digits), digits)


def normal_cdf(number: Number, digits: int) -> Number:
    """Return the standard normal distribution: 1/2 + the integral of its density from 0."""
    if _is_zero(number):
        return Fraction(1, 2)
    total = _series(number, digits, _normal_terms)
    return Fraction(1, 2) + total / root(2 * pi(digits), digits)


@cache
def pi(digits: int) -> Interval:
    """Return pi by Machin's formula, in integers of `digits` and 10 more digits."""
    unit = 10 ** (digits + 10)

    def arctangent(n: int) -> tuple[int, int]:
        total, power, k = 0, unit // n, 0
        while power:
            total += (-1) ** k * (power // (2 * k + 1))
            power //= n * n
            k += 1
        return total, 2 * k + 2  # each term is off by less than 2 units, and so is the rest

    (first, off), (second, more) = arctangent(5), arctangent(239)
    middle, radius = 16 * first - 4 * second, 16 * off + 4 * more
    low, high = (Interval.around(Fraction(middle + sign * radius, unit), digits) for sign in (-1, 1))
    return Interval(low.low, high.high, digits)


def _is_zero(number: Number) -> bool:
    return not isinstance(number, Interval) and number == 0


def _odd_terms(x: Decimal, square: Decimal, context: Context) -> Iterator[Decimal]:
    term, k = x, 1
    while True:
        yield term
        term = context.divide(context.multiply(term.copy_negate(), square), Decimal((k + 1) * (k + 2)))
        k += 2


def _even_terms(x: Decimal, square: Decimal, context: Context) -> Iterator[Decimal]:
    term, k = Decimal(1), 0
    while True:
        yield term
        term = context.divide(context.multiply(term.copy_negate(), square), Decimal((k + 1) * (k + 2)))
        k += 2


def _normal_terms(x: Decimal, square: Decimal, context: Context) -> Iterator[Decimal]:
    power, k = x, 0
    while True:
        yield context.divide(power, Decimal(2 * k + 1))
        power = context.divide(context.multiply(power.copy_negate(), square), Decimal(2 * (k + 1)))
        k += 1


def _series(number: Number, digits: int, terms) -> Interval:
    """Return the sum of a series at a number, for a function whose derivative is at most 1 in absolute value."""
    inside = Interval.around(number, digits)
    largest = max(abs(inside.low), abs(inside.high))
    if not largest < LARGEST_ARGUMENT:
        raise ArithmeticError(f"a series at an argument beyond {LARGEST_ARGUMENT}")
    # No term is above e^(x²/2), nor above e^x: this many digits more make up for it.
    bound = int(largest) + 1
    more = bound * bound // 4 + 1 if terms is _normal_terms else bound // 2 + 1
    context = Context(digits + more + 20, Emin=MIN_EMIN, Emax=MAX_EMAX)
    middle = context.divide(context.add(inside.low, inside.high), Decimal(2))
    width = context.subtract(inside.high, inside.low)
    square, total, count = context.multiply(middle, middle), Decimal(0), 0
    end = Decimal(10) ** -(digits + 8)
    for term in terms(middle, square, context):
        total = context.add(total, term)
        count += 1
        # Past this point each term is less than half of the one before: the rest is below the last.
        if abs(term) < end and count > bound * bound:
            break
    # An operation is off by 10^-(digits + 20) of the largest term at most, and term k has fewer than 20 k of them.
    down, up = roundings(digits)
    radius = up.add(end * 2 + Decimal(count * count) * Decimal(10) ** -(digits + 17), width)
    return Interval(down.subtract(total, radius), up.add(total, radius), digits)
