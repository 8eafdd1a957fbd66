"""Bounds for the degree and the coefficients of the entries of a tensor, for the chance of a false yes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, lcm

from polyattn.verifying.ring.field import meaning


@dataclass(frozen=True)
class Size:
    """Bounds for quotients of polynomials with integer coefficients, one bound for all entries of a tensor.

    Attributes:
        degree, bits: of the numerators: the degree, and the logarithm to base 2 of the sum of absolute coefficients.
        common: bits of an integer that all entries have as a denominator.
        divisor, divisor_bits: of polynomial denominators, which may differ from entry to entry.
    """

    degree: int = 0
    bits: int = 0
    common: int = 0
    divisor: int = 0
    divisor_bits: int = 0

    def __mul__(self, other: Size) -> Size:
        return Size(
            self.degree + other.degree,
            self.bits + other.bits,
            self.common + other.common,
            self.divisor + other.divisor,
            self.divisor_bits + other.divisor_bits,
        )

    def __add__(self, other: Size) -> Size:
        return Size(
            max(self.degree + other.divisor, other.degree + self.divisor),
            max(self.bits + other.common + other.divisor_bits, other.bits + self.common + self.divisor_bits) + 1,
            self.common + other.common,
            self.divisor + other.divisor,
            self.divisor_bits + other.divisor_bits,
        )

    def join(self, other: Size) -> Size:
        """Return bounds for tensors put side by side, over a common denominator of both."""
        return Size(
            max(self.degree, other.degree),
            max(self.bits + other.common, other.bits + self.common),
            self.common + other.common,
            max(self.divisor, other.divisor),
            max(self.divisor_bits, other.divisor_bits),
        )

    def inverse(self) -> Size:
        return Size(self.divisor, self.common + self.divisor_bits, 0, self.degree, self.bits)

    def summed(self, terms: int) -> Size:
        """Return bounds for a sum of entries: polynomial denominators are multiplied, common ones are not."""
        others = max(terms - 1, 0)
        return Size(
            self.degree + others * self.divisor,
            self.bits + others * self.divisor_bits + terms.bit_length(),
            self.common,
            terms * self.divisor,
            terms * self.divisor_bits,
        )

    @classmethod
    def number(cls, number: Fraction) -> Size:
        return cls(0, abs(number.numerator).bit_length(), number.denominator.bit_length())

    @classmethod
    def float(cls, value: float, bits: int = 53) -> Size:
        """Return the bound of the number that a float stands for; a root is bounded as a variable."""
        return cls.floats([value], bits)

    @classmethod
    def floats(cls, values: Iterable[float], bits: int = 53) -> Size:
        """Return the bound of the numbers that floats stand for, over their least common denominator."""
        largest, denominator, degree = Fraction(0), 1, 0
        for value in values:
            rational, roots = meaning(value, bits)
            largest, denominator = max(largest, abs(rational)), lcm(denominator, rational.denominator)
            degree = 1 if roots else degree
        return cls(degree, ceil(largest * denominator).bit_length(), denominator.bit_length())


VARIABLE = Size(degree=1)
