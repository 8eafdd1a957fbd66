"""Symbolic costs as data: exact polynomials that a page evaluates, and their MathML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from polyattn.language.mathml import index_mathml

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True)
class Monomial:
    """A whole number times powers of sizes, sorted by name."""

    coefficient: int
    powers: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Formula:
    """A polynomial in the sizes with whole coefficients, the highest degree first."""

    terms: tuple[Monomial, ...]

    @classmethod
    def of(cls, expression: sympy.Expr) -> Formula:
        """Convert a sympy expression.

        >>> import sympy
        >>> B, N, C = sympy.symbols("B N C")
        >>> Formula.of(2 * B * C * N + C**3).data()
        [['2', {'B': 1, 'C': 1, 'N': 1}], ['1', {'C': 3}]]

        Raises:
            sympy.PolynomialError, sympy.CoercionFailed: it is not a polynomial with whole coefficients.
        """
        import sympy

        symbols = sorted(expression.free_symbols, key=str)
        # `Poly` needs a generator at least.
        if not symbols:
            return cls((Monomial(int(expression), ()),) if expression != 0 else ())
        polynomial = sympy.Poly(expression, *symbols, domain="ZZ")
        found = []
        for exponents, coefficient in polynomial.terms():
            powers = tuple((str(s), int(e)) for s, e in zip(symbols, exponents, strict=True) if e)
            found.append(Monomial(int(coefficient), powers))
        return cls(tuple(sorted(found, key=lambda m: (-sum(e for _, e in m.powers), m.powers))))

    def data(self) -> list[list[object]]:
        """Return the terms for JSON: coefficients as text, since a browser's numbers are exact only up to 2**53."""
        return [[str(m.coefficient), dict(m.powers)] for m in self.terms]

    def mathml(self) -> str:
        """Return the sum as one inline `math` element."""
        parts = []
        for k, term in enumerate(self.terms):
            negative = term.coefficient < 0
            parts.append("<mo>−</mo>" if negative else "<mo>+</mo>" if k else "")
            parts.append(_product(abs(term.coefficient), term.powers))
        return f"<math>{''.join(parts) or '<mn>0</mn>'}</math>"


def _product(coefficient: int, powers: tuple[tuple[str, int], ...]) -> str:
    number = f"<mn>{coefficient}</mn>" if coefficient != 1 or not powers else ""
    sizes = [
        index_mathml(name) if power == 1 else f"<msup><mrow>{index_mathml(name)}</mrow><mn>{power}</mn></msup>"
        for name, power in powers
    ]
    return f"<mrow>{number}{''.join(sizes)}</mrow>"
