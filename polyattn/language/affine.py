"""Integer combinations of indices, sizes and numbers: `2*i+u-1`, `a-e`, `N-1`.

A slot holds one (`x[2*i+u]`), and a condition compares two (`a-e < W`). A combination is kept in normal form: every
name once, none with the coefficient 0; names that are added stand before those that are subtracted, each in the order
of the alphabet, and the number comes last. So combinations that are equal as sums compare equal and print alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lark import Token, Tree

from polyattn.errors import SpecError
from polyattn.language.syntax import is_size_name

LARGEST = 10**9 - 1
"""The largest number in a combination, the largest that a size can be."""


@dataclass(frozen=True)
class Affine:
    """`sum(coefficient * name) + constant`; make one with `Affine.of`, which brings it into normal form.

    >>> print(Affine.of({"u": 1, "i": 2}, -1))
    2*i+u-1
    """

    terms: tuple[tuple[str, int], ...]
    constant: int = 0

    @classmethod
    def of(cls, terms: Mapping[str, int] | Iterable[tuple[str, int]], constant: int = 0) -> Affine:
        """Return the sum of `coefficient * name` and a number, in normal form; a name may occur several times."""
        total: dict[str, int] = {}
        pairs: Any = terms.items() if isinstance(terms, Mapping) else terms
        for name, coefficient in pairs:
            total[name] = total.get(name, 0) + coefficient
        kept = ((name, c) for name, c in total.items() if c)
        return cls(tuple(sorted(kept, key=lambda term: (term[1] < 0, term[0]))), constant)

    @property
    def names(self) -> tuple[str, ...]:
        """Return every name: indices and sizes."""
        return tuple(name for name, _ in self.terms)

    @property
    def indices(self) -> tuple[str, ...]:
        return tuple(name for name in self.names if not is_size_name(name))

    @property
    def sizes(self) -> tuple[str, ...]:
        return tuple(name for name in self.names if is_size_name(name))

    def coefficient(self, name: str) -> int:
        return dict(self.terms).get(name, 0)

    def __add__(self, other: Affine | int) -> Affine:
        if isinstance(other, int):
            return Affine(self.terms, self.constant + other)
        return Affine.of((*self.terms, *other.terms), self.constant + other.constant)

    def __neg__(self) -> Affine:
        return self * -1

    def __sub__(self, other: Affine | int) -> Affine:
        return self + -other

    def __mul__(self, factor: int) -> Affine:
        return Affine.of(((name, c * factor) for name, c in self.terms), self.constant * factor)

    def substitute(self, values: Mapping[str, Affine | int | str]) -> Affine:
        """Return the combination with names replaced, all at once: by combinations, numbers or other names.

        >>> print(Affine.of({"i": 2, "u": 1}).substitute({"i": Affine.of({"i": 1}, 1), "u": "v"}))
        2*i+v+2
        """
        total = Affine((), self.constant)
        for name, coefficient in self.terms:
            value = values.get(name, name)
            if isinstance(value, int):
                total += coefficient * value
            else:
                total += (Affine(((value, 1),)) if isinstance(value, str) else value) * coefficient
        return total

    def value(self, at: Mapping[str, Any]) -> Any:
        """Return the value where each name has one: a whole number, or an array of them."""
        return sum((c * at[name] for name, c in self.terms), self.constant)

    def least(self, ranges: Mapping[str, tuple[Affine, Affine]]) -> Affine:
        """Return the least value where the names run over ranges (least, greatest); other names stay as they are.

        >>> n = Affine.of({"N": 1}, -1)
        >>> print(Affine.of({"a": 1, "e": -1}).least({"a": (Affine(()), n), "e": (Affine(()), n)}))
        -N+1
        """
        return self.substitute({name: ranges[name][c < 0] for name, c in self.terms if name in ranges})

    def greatest(self, ranges: Mapping[str, tuple[Affine, Affine]]) -> Affine:
        """Return the greatest value where the names run over ranges (least, greatest); see `least`."""
        return -(-self).least(ranges)

    def __str__(self) -> str:
        text = ""
        for name, coefficient in self.terms:
            sign = "-" if coefficient < 0 else "+" if text else ""
            text += sign + (name if abs(coefficient) == 1 else f"{abs(coefficient)}*{name}")
        if not text:
            return str(self.constant)
        return text + (f"{self.constant:+d}" if self.constant else "")


def affine(tree: Any, source: str = "") -> Affine:
    """Return the combination that the grammar's rule `affine` has read.

    Args:
        tree: a tree or, of a name or a number alone, its token.
        source: the text, for the caret of an error.

    Raises:
        SpecError: a product has two names, or a number is not whole or above 999999999.
    """
    total, sign = Affine(()), 1
    for child in tree.children if isinstance(tree, Tree) and tree.data == "affine" else [tree]:
        if isinstance(child, Token) and child.type == "SIGN":
            sign = -1 if child == "-" else 1
        else:
            factors: list[Any] = list(child.children) if isinstance(child, Tree) else [child]
            total, sign = total + _multiple([f for f in factors if f.type != "STAR"], source) * sign, 1
    return total


def place(tree: Any) -> Token:
    """Return the first token of the text read by the grammar's rule `affine`."""
    while isinstance(tree, Tree):
        tree = tree.children[0]
    return tree


def _multiple(factors: list[Token], source: str) -> Affine:
    name, number = "", 1
    for factor in factors:
        if factor.type == "NUMBER":
            if not factor.isdigit() or len(factor) > len(str(LARGEST)):
                raise _error("numbers here are whole, from 0 to 999999999", factor, source)
            number *= int(factor)
        elif name:
            reason = (
                f"'{factor}' is multiplied by '{name}': only sums of whole multiples, such as '2*i+u-1', stand here"
            )
            raise _error(reason, factor, source)
        else:
            name = str(factor)
    return Affine.of({name: number}) if name else Affine((), number)


def _error(reason: str, token: Token, source: str) -> SpecError:
    return SpecError(reason, source, token.line or 0, token.column or 0)
