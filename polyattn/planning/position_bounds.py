"""How far positions are apart: the differences that conditions such as `[e <= a]` and `[a-e < W]` allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from polyattn.algebra import FunctionFactor, Index, Monomial, TensorFactor
from polyattn.algebra.monomial import Factor
from polyattn.errors import RecurrenceError
from polyattn.language import value_of
from polyattn.language.conditions import comparison, is_condition
from polyattn.planning.steps import Sizes

Bounds = dict[tuple[Index, Index], int]
"""The most that one position is behind another one: i - j <= bound."""


def bounds_of(conditions: Sequence[Factor], sizes: Sizes) -> Bounds:
    """Return the bounds that conditions say."""
    found: Bounds = {}
    for condition in conditions:
        assert isinstance(condition, TensorFactor)
        compared = comparison(condition.tensor)
        if len(condition.indices) != len(compared.slots):
            raise RecurrenceError("a condition compares parts of a composite: order its outer part by itself")
        if sorted(compared.slots) != [-1, 1] or compared.relation == "!=":
            continue
        total = compared.number + sum(c * value_of(tuple(n.split("*")), sizes) for n, c in compared.sizes)
        up, down = sorted(condition.indices, key=lambda i: -compared.slots[condition.indices.index(i)])
        found[up, down] = min(found.get((up, down), -total), -total)
        if compared.relation == "==":
            found[down, up] = min(found.get((down, up), total), total)
    return found


def chosen(factor: FunctionFactor, sizes: Sizes) -> Bounds:
    """Return the bounds of the places that a function runs over."""
    found = bounds_of([c for t in factor.terms for c in _log_of_conditions(t)], sizes)
    every = [bounds_of([f for f in t.factors if _orders(f)], sizes) for t in factor.terms]
    for pair in set.intersection(*map(set, every)) if every else ():
        found[pair] = max(e[pair] for e in every)
    return found


def closed(bounds: Bounds) -> Bounds:
    """Return all bounds that follow."""
    found = dict(bounds)
    nodes = dict.fromkeys(i for pair in bounds for i in pair)
    for k, i, j in product(nodes, nodes, nodes):
        if (i, k) in found and (k, j) in found and i != j:
            total = found[i, k] + found[k, j]
            found[i, j] = min(found.get((i, j), total), total)
    return found


def _orders(factor: Factor) -> bool:
    return isinstance(factor, TensorFactor) and is_condition(factor.tensor)


def _log_of_conditions(term: Monomial) -> Iterator[TensorFactor]:
    """Yield the conditions of a term that is the logarithm of their product: minus infinity where one is 0."""
    if len(term.factors) == 1 and isinstance(factor := term.factors[0], FunctionFactor) and factor.function == "log":
        (inner, *more) = factor.terms
        if not more and all(map(_orders, inner.factors)):
            yield from (f for f in inner.factors if isinstance(f, TensorFactor))
