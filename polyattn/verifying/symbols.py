"""Polynomials in many symbols with rational coefficients, made for some ten thousand multiplications.

A monomial is one integer with eight bits for each symbol's exponent, so that multiplying monomials is adding
integers. The ring counts products against a budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod

import numpy as np

from polyattn.errors import BudgetError

# Exponents up to 255 leave no carry into the next symbol's bits; `check_symbolic` refuses higher
# degrees.
BITS = 8
MAX_DEGREE = 2**BITS - 1
DEFAULT_BUDGET = 2_000_000
COPIED = 8
"""Copying this many terms takes as long as one product."""

Number = int | Fraction


@dataclass(eq=False)
class Ring:
    """The polynomials in symbols created on demand; at most 255 factors in a monomial."""

    budget: int = DEFAULT_BUDGET
    names: list[str] = field(default_factory=list)
    products: int = 0

    def symbol(self, name: str) -> Symbolic:
        self.names.append(name)
        return Symbolic(self, {1 << BITS * (len(self.names) - 1): 1})

    def symbols(self, name: str, shape: Sequence[int]) -> np.ndarray:
        """Return an array of symbols named after their place, such as w1[0,2]."""
        if prod(shape) > self.budget:
            raise BudgetError(f"'{name}' would be {prod(shape):,} symbols; the budget is {self.budget:,}")
        array = np.empty(tuple(shape), dtype=object)
        for place in np.ndindex(*array.shape):
            array[place] = self.symbol(f"{name}[{','.join(map(str, place))}]" if place else name)
        return array

    def number(self, value: Number) -> Symbolic:
        return Symbolic(self, {0: whole(value)})

    def affords(self, products: int) -> bool:
        """Count products; return False if the budget is spent. numpy's loops stop at no exception, so `settled` raises
        instead."""
        self.products += products
        return self.products <= self.budget

    def settled(self, array: np.ndarray) -> np.ndarray:
        """Return the array while the budget lasts.

        Raises:
            BudgetError: the budget is spent, so later values are not to be trusted.
        """
        if self.products > self.budget:
            raise BudgetError(
                f"the symbolic check takes more than {self.budget:,} products of monomials: choose smaller sizes, "
                f'level="modular", or a larger budget='
            )
        return array

    def exponents(self, monomial: int) -> dict[str, int]:
        found: dict[str, int] = {}
        # The highest bits belong to the last symbol: the exponents are read from there.
        while monomial:
            place = (monomial.bit_length() - 1) // BITS
            found[self.names[place]] = monomial >> BITS * place
            monomial &= (1 << BITS * place) - 1
        # Reversed, so that symbols print in the order of their creation.
        return dict(reversed(found.items()))


def whole(value: Number) -> Number:
    """Return an integer as such: fractions are ten times slower."""
    return value.numerator if value.denominator == 1 else value


class Symbolic:
    """A polynomial: `terms` maps monomials to coefficients, possibly zero."""

    __slots__ = ("ring", "terms")

    def __init__(self, ring: Ring, terms: Mapping[int, Number]):
        self.ring, self.terms = ring, terms

    def __add__(self, other: Symbolic | Number) -> Symbolic:
        if not isinstance(other, Symbolic):
            # Adding zero needs no copy.
            return self if not other else self + self.ring.number(other)
        # The smaller dictionary is added to a copy of the larger one.
        small, large = sorted((self.terms, other.terms), key=len)
        if not self.ring.affords(len(small) + len(large) // COPIED):
            # A wrong value on purpose: `settled` raises before anybody sees it.
            return self
        total = dict(large)
        for monomial, coefficient in small.items():
            total[monomial] = total.get(monomial, 0) + coefficient
        return Symbolic(self.ring, total)

    __radd__ = __add__

    def __neg__(self) -> Symbolic:
        return Symbolic(self.ring, {m: -c for m, c in self.terms.items()})

    def __sub__(self, other: Symbolic | Number) -> Symbolic:
        return self + -other

    def __mul__(self, other: Symbolic | Number) -> Symbolic:
        if not isinstance(other, Symbolic):
            return Symbolic(self.ring, {m: c * other for m, c in self.terms.items()})
        total: dict[int, Number] = {}
        if not self.ring.affords(len(self.terms) * len(other.terms)):
            return Symbolic(self.ring, total)
        for m, c in self.terms.items():
            for n, d in other.terms.items():
                # Adding the integers adds the exponents.
                total[m + n] = total.get(m + n, 0) + c * d
        return Symbolic(self.ring, total)

    __rmul__ = __mul__

    def __str__(self) -> str:
        if not self:
            return "0"
        parts = []
        for monomial, coefficient in sorted((m, c) for m, c in self.terms.items() if c):
            factors = [f"{n}**{e}" if e > 1 else n for n, e in self.ring.exponents(monomial).items()]
            size = abs(coefficient)
            text = "*".join(([str(size)] if size != 1 or not factors else []) + factors)
            parts.append(("- " if coefficient < 0 else "+ ") + text)
        first, *rest = parts
        return " ".join([first.removeprefix("+ ").replace("- ", "-"), *rest])

    def __bool__(self) -> bool:
        return any(self.terms.values())

    def nonzero(self) -> dict[int, Number]:
        """Return the terms with nonzero coefficients."""
        return {m: c for m, c in self.terms.items() if c}

    def derivative(self, symbol: Symbolic) -> Symbolic:
        """Return the partial derivative by one of the ring's symbols."""
        (unit,) = symbol.terms
        # The symbol is a power of two: its position tells where its exponent stands.
        shift = unit.bit_length() - 1
        return Symbolic(
            self.ring,
            # Subtracting the symbol lowers its exponent by one.
            {m - unit: c * e for m, c in self.terms.items() if c and (e := m >> shift & MAX_DEGREE)},
        )


def symbolic(ring: Ring, value: Symbolic | Number) -> Symbolic:
    """Return a value of the ring; numpy may have left a bare number in its place."""
    return value if isinstance(value, Symbolic) else ring.number(value)
