"""Equations between positions in a product: `[p == i+u]*[q == i+u]` says that p is q; a free offset is without sign.

These are identities of conditions, whatever the tensors are; a question's terms are brought into this form first.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from polyattn.algebra import FunctionFactor, Index, Monomial, TensorFactor
from polyattn.algebra.conditions import condition_terms
from polyattn.algebra.monomial import Factor, contract_identities, multiply_powers, size_product
from polyattn.language.conditions import Comparison, comparison, is_condition, is_equation
from polyattn.language.syntax import IDENTITY


def simplified(term: Monomial, free: Collection[Index]) -> Monomial:
    """Return a term whose equations say each thing once, functions' arguments included.

    Args:
        free: indices that are not summed.
    """
    factors = tuple(_inside(f) for f in term.factors)
    if not any(isinstance(f, TensorFactor) and is_equation(f.tensor) for f in factors):
        return Monomial(term.coefficient, term.powers, factors)
    found = Monomial(term.coefficient, term.powers, factors)
    while (made := _joined(found, free) or _eliminated(found, free)) is not None:
        found = made
    return _turned(found, free)


def has_bounds(terms: Sequence[Monomial]) -> bool:
    """Return whether positions are within a number of others, as `[i-e < 3]` says, outside of functions."""
    names = {f.tensor for t in terms for f in t.factors if isinstance(f, TensorFactor)}
    return any(is_condition(n) and comparison(n).relation == "<=" and comparison(n).order is None for n in names)


def as_bounds(term: Monomial, free: Collection[Index]) -> list[Monomial]:
    """Return a term whose equations have no summed index of a known length to themselves: these say a bound each way.

    `[p == i+u-1]` summed over u of 0, 1 and 2 is `[p-i+1 >= 0]*[p-i-1 <= 0]`.
    """
    only = _only_in_equations(term, free)
    for place, factor in _equations(term):
        have, compared = _combination(factor), comparison(factor.tensor)
        own = [i for i in only if i in have and sum(i in f.indices for _, f in _equations(term)) == 1]
        if len(own) != 1 or abs(have[own[0]]) != 1 or compared.relation != "==" or len(have) < 2:
            continue
        sign = -have.pop(own[0])
        indices, slots = tuple(have), tuple(sign * c for c in have.values())
        sizes = tuple((s, sign * n) for s, n in compared.sizes)
        value = Comparison(slots, sizes, sign * compared.number, "<=")
        above = replace(value, number=value.number + 1 - int(own[0].size))
        below = value.opposite()
        rest = (*term.factors[:place], *term.factors[place + 1 :])
        found = [Monomial(term.coefficient, term.powers, rest)]
        for bound in (below, above):
            parts = condition_terms(bound.name, [(i,) for i in indices])
            found = [
                Monomial(t.coefficient * c.coefficient, t.powers, (*t.factors, *c.factors))
                for t in found
                for c in parts
            ]
        return [part for t in found for part in as_bounds(t, free)]
    return [term]


def _inside(factor: Factor) -> Factor:
    if not isinstance(factor, FunctionFactor):
        return factor
    terms = tuple(simplified(t, factor.local) for t in factor.terms)
    return replace(factor, terms=terms) if terms != factor.terms else factor


def _equations(term: Monomial) -> list[tuple[int, TensorFactor]]:
    return [(k, f) for k, f in enumerate(term.factors) if isinstance(f, TensorFactor) and is_equation(f.tensor)]


def _joined(term: Monomial, free: Collection[Index]) -> Monomial | None:
    """Return the term with one equation less, of two that are equal or that one position alone distinguishes."""
    equations = _equations(term)
    for n, (_, first) in enumerate(equations):
        for place, second in equations[n + 1 :]:
            if first.tensor != second.tensor:
                continue
            differ = [k for k, (i, j) in enumerate(zip(first.indices, second.indices, strict=True)) if i != j]
            if not differ:
                rest = (*term.factors[:place], *term.factors[place + 1 :])
                return Monomial(term.coefficient, term.powers, rest)
            if len(differ) > 1:
                continue
            i, j = first.indices[differ[0]], second.indices[differ[0]]
            # A position of another size may be outside of the first one's; two free ones stay as they are.
            if comparison(first.tensor).slots[differ[0]] and i.size == j.size and not (i in free and j in free):
                same = TensorFactor(IDENTITY, (i, j))
                rest = (*term.factors[:place], same, *term.factors[place + 1 :])
                return contract_identities(Monomial(term.coefficient, term.powers, rest), free)
    return None


def _only_in_equations(term: Monomial, free: Collection[Index]) -> list[Index]:
    """Return the summed indices of a known length that only equations have."""
    equations = _equations(term)
    elsewhere = {i for k, f in enumerate(term.factors) if all(k != n for n, _ in equations) for i in f.all_indices()}
    found = dict.fromkeys(i for _, f in equations for i in f.indices)
    return [i for i in found if i not in free and i not in elsewhere and i.size.isdigit()]


def _combination(factor: TensorFactor) -> dict[Index, int]:
    found: dict[Index, int] = {}
    for index, coefficient in zip(factor.indices, comparison(factor.tensor).slots, strict=True):
        found[index] = found.get(index, 0) + coefficient
    return {i: c for i, c in found.items() if c}


def _eliminated(term: Monomial, free: Collection[Index]) -> Monomial | None:
    """Return the term without a summed index that an equation gives, at places that are within its range."""
    for index in _only_in_equations(term, free):
        for place, factor in _equations(term):
            compared, have = comparison(factor.tensor), _combination(factor)
            if abs(have.get(index, 0)) != 1 or compared.sizes or compared.relation != "==":
                continue
            sign = -have.pop(index)
            value, number = {i: sign * c for i, c in have.items()}, sign * compared.number
            if not all(i.size.isdigit() for i in value):
                continue
            ends = [[c * n for n in (0, int(i.size) - 1)] for i, c in value.items()]
            if number + sum(map(min, ends)) < 0 or number + sum(map(max, ends)) >= int(index.size):
                continue
            return _put(term, place, index, value, number, free)
    return None


def _put(
    term: Monomial, place: int, index: Index, value: dict[Index, int], number: int, free: Collection[Index]
) -> Monomial:
    """Return the term without the equation at a place, and an index's value in the others."""
    factors: list[Factor] = []
    for k, factor in enumerate(term.factors):
        if k == place:
            continue
        if not isinstance(factor, TensorFactor) or index not in factor.indices:
            factors.append(factor)
            continue
        have, compared = _combination(factor), comparison(factor.tensor)
        times = have.pop(index, 0)
        total = {i: have.get(i, 0) + times * value.get(i, 0) for i in (*have, *value)}
        left = [i for i, c in total.items() if c]
        slots = tuple(total[i] for i in left)
        made = replace(compared, slots=slots, number=compared.number + times * number)
        alike = len(left) == 2 and left[0].size == left[1].size and sorted(slots) == [-1, 1]
        if alike and not made.number and not made.sizes:
            factors.append(TensorFactor(IDENTITY, (left[0], left[1])))
            continue
        normal, order, _ = made.normal()
        factors.append(TensorFactor(normal.name, tuple(left[n] for n in order)))
    # An index that no factor has any more counts places.
    gone = {i for i in value if i not in free} - {i for f in factors for i in f.all_indices()}
    lost, powers = size_product(i.size for i in gone)
    made = Monomial(term.coefficient * lost, multiply_powers(term.powers, powers), tuple(factors))
    return contract_identities(made, free)


def _turned(term: Monomial, free: Collection[Index]) -> Monomial:
    """Return the term with summed indices of a known length, that only equations have, run one way: u or n-1-u."""
    for index in _only_in_equations(term, free):
        other = Monomial(term.coefficient, term.powers, tuple(_mirrored(f, index) for f in term.factors))
        term = min(term, other, key=_names)
    return term


def _names(term: Monomial) -> list[tuple[str, list[list[tuple[str, int]]]]]:
    """Return the equations, each with the tensors that read its positions."""
    reads: dict[Index, list[tuple[str, int]]] = {}
    equations = _equations(term)
    for factor in (f for k, f in enumerate(term.factors) if all(k != n for n, _ in equations)):
        name = factor.tensor if isinstance(factor, TensorFactor) else factor.function
        for slot, index in enumerate(factor.indices):
            reads.setdefault(index, []).append((name, slot))
    return sorted((f.tensor, [sorted(reads.get(i, [])) for i in f.indices]) for _, f in equations)


def _mirrored(factor: Factor, index: Index) -> Factor:
    """Return an equation with `length - 1 - index` in the place of an index."""
    if not isinstance(factor, TensorFactor) or not is_equation(factor.tensor) or index not in factor.indices:
        return factor
    compared = comparison(factor.tensor)
    number, slots = compared.number, list(compared.slots)
    for k, own in enumerate(factor.indices):
        if own == index:
            number += slots[k] * (int(index.size) - 1)
            slots[k] = -slots[k]
    normal, order, complement = replace(compared, slots=tuple(slots), number=number).normal()
    assert not complement
    return TensorFactor(normal.name, tuple(factor.indices[k] for k in order))
