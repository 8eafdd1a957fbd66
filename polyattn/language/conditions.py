"""Conditions between positions, `[e <= a]` or `[a-e < W]`: factors of a product, 1 where they hold and 0 elsewhere.

In the syntax tree a condition is an access of a reserved tensor, whose name is the condition with numbered slots,
`[{0}<={1}]`: its slots have one size, it is known at every size, and it is not a tensor of the user's. Positions count
from 0; between composite slots the order is that of the whole, outer part first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import gcd

RELATIONS = ("<=", ">=", "==", "!=", "<", ">")
LESS, AT_MOST = "[{0}<{1}]", "[{0}<={1}]"
"""The two orders: of an index (or the indices of a composite slot, outer first) before another."""

_PART = r"([+-]?)(?:(\d+)\*)?(\{\d+\}|[A-Z][\w*]*|\d+)"


def is_condition(tensor: str) -> bool:
    """Return whether a tensor's name is that of a condition."""
    return tensor[:1] == "["


def is_equation(tensor: str) -> bool:
    """Return whether a tensor's name is that of an equation, which may compare positions of different sizes."""
    return is_condition(tensor) and "==" in tensor


def measures(tensor: str) -> bool:
    """Return whether a condition says more than the order of two positions: these may be of different sizes."""
    return is_condition(tensor) and ("==" in tensor or comparison(tensor).order is None)


@dataclass(frozen=True)
class Comparison:
    """An integer combination of slots, sizes and a number, compared with 0.

    Attributes:
        slots: the coefficient of each slot's position.
        sizes: coefficients of sizes, sorted; a product of sizes is written `S*U`.
        number: constant term.
        relation: "<=", "==" or "!=".
    """

    slots: tuple[int, ...]
    sizes: tuple[tuple[str, int], ...]
    number: int
    relation: str

    @property
    def order(self) -> tuple[str, bool] | None:
        """Return "<", "<=", "==" or "!=" of two slots and whether they are exchanged; None for another comparison."""
        if sorted(self.slots) != [-1, 1] or self.sizes:
            return None
        exchanged = self.slots[0] < 0
        if self.relation == "<=":
            # A difference is whole: at most -1 is less than 0.
            return ({0: "<=", 1: "<"}[self.number], exchanged) if self.number in (0, 1) else None
        return (self.relation, False) if not self.number else None

    def reduced(self) -> Comparison:
        """Return the comparison without the slots' common divisor, if it divides the sizes' coefficients as well."""
        divisor = gcd(*self.slots, *(n for _, n in self.sizes)) if any(self.slots) else 1
        if divisor < 2 or (self.relation != "<=" and self.number % divisor):
            return self
        sizes = tuple((s, n // divisor) for s, n in self.sizes)
        # d*t + n <= 0 says t <= -n/d, and t is whole.
        return Comparison(tuple(c // divisor for c in self.slots), sizes, -(-self.number // divisor), self.relation)

    def negated(self) -> Comparison:
        """Return the complement of "<=": 1 minus this one."""
        return Comparison(tuple(-c for c in self.slots), _minus(self.sizes), 1 - self.number, "<=")

    def opposite(self) -> Comparison:
        """Return an equation with both sides exchanged."""
        return Comparison(tuple(-c for c in self.slots), _minus(self.sizes), -self.number, self.relation)

    def normal(self) -> tuple[Comparison, tuple[int, ...], bool]:
        """Return a form that equal sets of places share, the order of its slots, and whether it is the complement.

        The slots are sorted by their coefficients. Of a condition and its complement, and of an equation and its
        opposite, one is chosen; "!=" is the complement of "==".
        """
        found, complement = self.reduced(), False
        if found.relation == "!=":
            found, complement = Comparison(found.slots, found.sizes, found.number, "=="), True
        other = found.negated() if found.relation == "<=" else found.opposite()
        if other._rank < found._rank:
            complement ^= found.relation == "<="
            found = other
        order = tuple(sorted(range(len(found.slots)), key=lambda k: -found.slots[k]))
        return (
            Comparison(tuple(found.slots[k] for k in order), found.sizes, found.number, found.relation),
            order,
            complement,
        )

    @property
    def _rank(self) -> tuple:
        return sorted(self.slots), self.sizes, self.number

    @property
    def name(self) -> str:
        """Return the name of the condition as a reserved tensor, with 0 on the right."""
        parts = [(f"{{{k}}}", c) for k, c in enumerate(self.slots)] + list(self.sizes)
        text = combination_text(parts, self.number)
        return f"[{text}{self.relation}0]"

    def holds(self, positions: Sequence[int], sizes: dict[str, int]) -> bool:
        """Return whether the condition holds at these positions of its slots."""
        total = self.number + sum(c * p for c, p in zip(self.slots, positions, strict=True))
        for name, factor in self.sizes:
            product = factor
            for size in name.split("*"):
                product *= int(size) if size.isdigit() else sizes[size]
            total += product
        return total <= 0 if self.relation == "<=" else (total == 0) == (self.relation == "==")


def _minus(sizes: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    return tuple((s, -n) for s, n in sizes)


def combination_text(parts: Sequence[tuple[str, int]], number: int) -> str:
    """Return an integer combination as text, `a-2*e+W-1`."""
    text = ""
    for name, factor in parts:
        if factor:
            scale = "" if abs(factor) == 1 else f"{abs(factor)}*"
            text += ("-" if factor < 0 else "+" if text else "") + scale + name
    if number or not text:
        text += f"{number:+d}" if text else str(number)
    return text


@lru_cache(maxsize=4096)
def comparison(tensor: str) -> Comparison:
    """Return the comparison that a condition's name states."""
    sides = re.split("<=|>=|==|!=|<|>", tensor[1:-1])
    relation = tensor[1:-1][len(sides[0]) : len(tensor) - 2 - len(sides[1])]
    left, right = sides if relation not in (">", ">=") else reversed(sides)
    slots: dict[int, int] = {}
    sizes: dict[str, int] = {}
    number = int(relation in ("<", ">"))
    for side, sign in ((left, 1), (right, -1)):
        for minus, factor, what in re.findall(_PART, side, re.A):
            value = sign * (-1 if minus == "-" else 1) * int(factor or 1)
            if what[0] == "{":
                slots[int(what[1:-1])] = slots.get(int(what[1:-1]), 0) + value
            elif what.isdigit():
                number += value * int(what)
            else:
                sizes[what] = sizes.get(what, 0) + value
    coefficients = tuple(slots.get(k, 0) for k in range(1 + max(slots, default=-1)))
    kept = tuple(sorted((s, n) for s, n in sizes.items() if n))
    return Comparison(coefficients, kept, number, relation if relation in ("==", "!=") else "<=")


def symbols(tensor: str) -> list[str]:
    """Return the parts of a condition's name in the order of the text: slots `{0}`, sizes, numbers, signs, relation."""
    return re.findall(r"\{\d+\}|[A-Za-z]\w*|\d+|<=|>=|==|!=|[<>+*-]", tensor[1:-1], re.A)


def sizes_in(tensor: str) -> tuple[str, ...]:
    """Return the sizes that a condition's name mentions, in the order of the text."""
    return tuple(dict.fromkeys(re.findall(r"[A-Z]\w*", tensor, re.A))) if is_condition(tensor) else ()
