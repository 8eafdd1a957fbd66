"""Exponentials with their normaliser: softmax and logsumexp, for numerics.

`exp(s[e]) / sum[e](exp(s[e]))` overflows where its value is an ordinary number; softmax is computed with the maximum of
s. In the expanded polynomial every spelling is one monomial: an exponential times the reciprocal of the sum of the same
exponential over some of its indices. `log(sum[e](exp(s[e])))` is logsumexp.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import count, permutations

from polyattn.algebra import FunctionFactor, Index, Monomial, Polynomial, Spec
from polyattn.algebra.canonical import canonical_monomial
from polyattn.algebra.monomial import Factor
from polyattn.errors import BudgetError
from polyattn.language.functions import RECIPROCAL
from polyattn.language.syntax import Call

MAX_SUMMED = 4
"""Normalisers over more indices stay as they are: their orders are tried one by one."""


@lru_cache(maxsize=512)
def stable(spec: Spec) -> Spec:
    """Return the same specification with softmax and logsumexp for their exponentials; itself if it has none."""
    applied = {d.body.function for d in spec.core if isinstance(d.body, Call)}
    if "exp" not in applied or not applied & {RECIPROCAL, "log"}:
        return spec
    try:
        polynomial = spec.polynomial()
        found = Polynomial.of(polynomial.signature, map(recognised, polynomial.terms))
    except BudgetError:
        return spec  # too large to expand
    return spec if found.terms == polynomial.terms or not found.terms else Spec.of(found)


def recognised(term: Monomial) -> Monomial:
    """Return a monomial with softmax and logsumexp recognised, in its functions' arguments as well."""
    factors: list[Factor] = []
    for factor in term.factors:
        if isinstance(factor, FunctionFactor):
            inside = tuple(map(recognised, factor.terms))
            factor = FunctionFactor(factor.function, factor.over, factor.free, inside, factor.at)
            factor = _logsumexp(factor)
        factors.append(factor)
    start = 1 + max((i.id for i in term.all_indices()), default=0)
    fresh = count(start)
    for normaliser in [f for f in factors if isinstance(f, FunctionFactor) and f.function == RECIPROCAL]:
        summed = _summed_exponential(normaliser)
        if summed is None or len(summed[1]) > MAX_SUMMED:
            continue
        exponential, over = summed
        for power in [f for f in factors if isinstance(f, FunctionFactor) and f.function == "exp"]:
            at = _read_at(power, exponential, over)
            if at is None:
                continue
            bound = {i: Index(next(fresh), i.size) for i in over}
            share = FunctionFactor(
                "softmax",
                tuple(bound[i] for i in over),
                normaliser.free,
                tuple(t.renamed(bound) for t in exponential.terms),
                at,
            )
            factors[factors.index(power)] = share
            factors.remove(normaliser)
            break
    return Monomial(term.coefficient, term.powers, tuple(factors))


def _summed_exponential(factor: FunctionFactor) -> tuple[FunctionFactor, tuple[Index, ...]] | None:
    """Return the exponential whose sum is a function's argument, and the indices of the sum."""
    if len(factor.terms) != 1:
        return None
    (term,) = factor.terms
    if term.coefficient != 1 or term.powers or len(term.factors) != 1:
        return None
    (inner,) = term.factors
    if not isinstance(inner, FunctionFactor) or inner.function != "exp":
        return None
    over = tuple(i for i in inner.free if i not in factor.free)
    return (inner, over) if over else None


def _logsumexp(factor: FunctionFactor) -> FunctionFactor:
    summed = _summed_exponential(factor) if factor.function == "log" else None
    if summed is None:
        return factor
    exponential, over = summed
    return FunctionFactor("logsumexp", over, factor.free, exponential.terms)


def _read_at(power: FunctionFactor, summed: FunctionFactor, over: tuple[Index, ...]) -> tuple[Index, ...] | None:
    """Return the indices at which an exponential is the summed one; None if it is another."""
    rest = [i for i in power.free if i not in summed.free]
    shared = [i for i in summed.free if i not in over]
    if len(rest) != len(over) or any(i not in power.free for i in shared):
        return None
    wanted = _canonical(power, power.free)
    for at in _orders(rest, over):
        if _canonical(summed.renamed(dict(zip(over, at, strict=True))), power.free) == wanted:
            return at
    return None


def _orders(rest: list[Index], over: tuple[Index, ...]) -> Iterator[tuple[Index, ...]]:
    for order in permutations(rest):
        if all(i.size == j.size for i, j in zip(order, over, strict=True)):
            yield order


def _canonical(factor: FunctionFactor, free: tuple[Index, ...]) -> Monomial:
    """Return the canonical form of a factor with its free indices told apart."""
    start = len(free) + 1 + max((i.id for i in factor.all_indices()), default=0)
    # Ids of free indices have to be below all others.
    others = (i for i in factor.all_indices() if i not in free)
    names = {i: Index(k, i.size) for k, i in enumerate(free)} | {i: Index(start + i.id, i.size) for i in others}
    moved = factor.renamed(names)
    return canonical_monomial(Monomial(Fraction(1), (), (moved,)), [names[i] for i in free])
