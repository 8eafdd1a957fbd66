"""Conditions between positions as factors of monomials.

Guarantees: an order between two indices, or between the parts of two composite slots, is `[{0}<{1}]` or `[{0}<={1}]` of
first the one slot's indices, then the other's; an equation between such slots is a product of identities; any other
condition has a name in normal form, so that equal sets of places are one factor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

from polyattn.algebra.monomial import FunctionFactor, Index, Monomial, TensorFactor
from polyattn.errors import SizeError
from polyattn.language.conditions import AT_MOST, LESS, comparison, is_condition
from polyattn.language.syntax import IDENTITY

if TYPE_CHECKING:
    import numpy as np

ONE = Monomial(Fraction(1), (), ())


def condition_terms(tensor: str, slots: Sequence[tuple[Index, ...]]) -> list[Monomial]:
    """Return a condition on slots, each with its indices over atomic sizes, as a sum of monomials.

    Raises:
        SizeError: a condition with numbers or sizes, or of more than two slots, on a split size.
    """
    compared = comparison(tensor)
    alike = len({tuple(i.size for i in slot) for slot in slots}) == 1
    # Positions of different sizes are in no weak order, and an equation of theirs is no identity.
    if (order := compared.order) is not None and (alike or len(slots[0]) > 1):
        kind, exchanged = order
        first, second = reversed(slots) if exchanged else slots
        if kind in ("==", "!="):
            equal = tuple(TensorFactor(IDENTITY, pair) for pair in zip(first, second, strict=True))
            same = Monomial(Fraction(1), (), equal)
            return [same] if kind == "==" else [ONE, same.scaled(Fraction(-1))]
        return [Monomial(Fraction(1), (), (TensorFactor(LESS if kind == "<" else AT_MOST, (*first, *second)),))]
    for slot in slots:
        if len(slot) > 1:
            size = "*".join(i.size for i in slot)
            raise SizeError(
                f"the condition '{tensor.format(*(chr(97 + k) for k in range(len(slots))))}' has numbers or sizes and "
                f"compares positions of the split size {size}: write it between the parts, or leave the size unsplit"
            )
    return normal_terms(tensor, tuple(i for (i,) in slots))


def condition_factor(tensor: str, slots: Sequence[tuple[Index, ...]]) -> TensorFactor:
    """Return a condition on slots as one factor, as written but for the two orders."""
    order = comparison(tensor).order
    alike = len({tuple(i.size for i in slot) for slot in slots}) == 1
    if order is not None and order[0] in ("<", "<=") and (alike or len(slots[0]) > 1):
        first, second = reversed(slots) if order[1] else slots
        return TensorFactor(LESS if order[0] == "<" else AT_MOST, (*first, *second))
    return TensorFactor(tensor, tuple(i for slot in slots for i in slot))


def normal_terms(tensor: str, indices: tuple[Index, ...]) -> list[Monomial]:
    """Return a condition with numbers or sizes in normal form, or 1 minus its complement."""
    normal, order, complement = comparison(tensor).normal()
    found = Monomial(Fraction(1), (), (TensorFactor(normal.name, tuple(indices[k] for k in order)),))
    return [ONE, found.scaled(Fraction(-1))] if complement else [found]


def resized(tensor: str, atoms: Mapping[str, Sequence[str]]) -> str:
    """Return a condition's name with sizes replaced by products of others."""
    return re.sub(r"(?<![\w])[A-Z]\w*", lambda m: "*".join(atoms.get(m[0], (m[0],))), tensor)


def slot_lengths(factor: TensorFactor) -> list[tuple[Index, ...]]:
    """Return the indices of each slot of a condition."""
    count = len(comparison(factor.tensor).slots)
    width = len(factor.indices) // count if count else 0
    return [factor.indices[k * width : (k + 1) * width] for k in range(count)]


def conditions_in(terms: Sequence[Monomial]) -> Iterator[TensorFactor]:
    """Yield the conditions among the factors of monomials, those inside functions included."""
    for term in terms:
        for factor in term.factors:
            if isinstance(factor, FunctionFactor):
                yield from conditions_in(factor.terms)
            elif is_condition(factor.tensor):
                yield factor


@lru_cache(maxsize=512)
def _grid(tensor: str, lengths: tuple[int, ...], sizes: tuple[tuple[str, int], ...]) -> np.ndarray:
    import numpy as np

    compared, known = comparison(tensor), dict(sizes)
    count = len(compared.slots)
    width = len(lengths) // count if count else 0
    total: np.ndarray = np.full((1,) * len(lengths), compared.number, dtype=np.int64)
    for name, factor in compared.sizes:
        value = factor
        for size in name.split("*"):
            value *= int(size) if size.isdigit() else known[size]
        total = total + value
    for axis, length in enumerate(lengths):
        slot = axis // width
        stride = compared.slots[slot]
        # The outer part of a composite comes first.
        for inner in lengths[axis + 1 : (slot + 1) * width]:
            stride *= inner
        shape = [1] * len(lengths)
        shape[axis] = length
        total = total + stride * np.arange(length).reshape(shape)
    total = np.broadcast_to(total, lengths)
    holds = total <= 0 if compared.relation == "<=" else (total == 0) == (compared.relation == "==")
    found = holds.astype(np.int64)
    found.flags.writeable = False
    return found


def condition_array(tensor: str, lengths: Sequence[int], sizes: Mapping[str, int]) -> np.ndarray:
    """Return a condition as zeros and ones, with an axis for each index of its slots; `sizes` has the atomic sizes."""
    names = {s for name, _ in comparison(tensor).sizes for s in name.split("*") if not s.isdigit()}
    return _grid(tensor, tuple(lengths), tuple(sorted((s, sizes[s]) for s in names)))
