"""Squares of sums: `sqrt(q*q) = abs(q)`, `log(q*q) = 2*log(abs(q))`, and `relu(q*q) = q*q`, for a polynomial q.

The root of a polynomial is taken term by term, the highest first: each next term is that of the remainder divided by
twice the first. Only polynomials of entries at the function's own indices are tried, since their products commute.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import product
from math import isqrt

from polyattn.algebra import Monomial, TensorFactor
from polyattn.language.sizes import ROOT
from polyattn.proving.certificate_terms import FlatSum
from polyattn.proving.given import access
from polyattn.proving.lawful import LawfulProof, powers_json
from polyattn.proving.work import charge

Term = tuple[tuple[TensorFactor | str, int], ...]
"""The exponents of factors and, in halves, of sizes."""


def root(proof: LawfulProof, f: FlatSum) -> list[FlatSum] | None:
    """sqrt(q*q) = abs(q), log(q*q) = 2*log(abs(q)), relu(q*q) = q*q, relu(-q*q) = 0"""
    sign = Fraction(-1 if f.function == "relu" and f.terms[0].coefficient < 0 else 1)
    found = _root([t.scaled(sign) for t in f.terms], f) if len(f.terms) > 1 else None
    if found is None:
        return None
    places = {g: [k, j] for k, t in enumerate(f.terms) for j, g in enumerate(t.factors)}
    q = [Monomial(n, p, tuple(g for g, e in factors for _ in range(e))) for n, p, factors in found]
    made: list[FlatSum] = []
    products = list(f.terms) if sign > 0 else []
    if f.function != "relu":
        made.append(proof.new("abs", f.slots, q))
        products = [access(made[0].name, f.slots)]
    if f.function == "log":
        made.append(proof.new("log", f.slots, products))
        products = [access(made[1].name, f.slots).scaled(Fraction(2))]
    said = [[str(t.coefficient), powers_json(t.powers), [places[g] for g in t.factors]] for t in q]
    proof.law("root", f, made, terms=said)
    if f.function == "sqrt":  # a square is never below 0
        proof.needed.discard(f.name)
    proof.put(f, products)
    return made


def _root(terms: Sequence[Monomial], f: FlatSum):
    """Return the polynomial whose square a sum is, as numbers, powers of sizes and factors; None if there is none."""
    whole: dict[Term, Fraction] = {}
    for term in terms:
        exponents: Counter[TensorFactor | str] = Counter()
        for factor in term.factors:
            if not isinstance(factor, TensorFactor) or factor.tensor == "I" or not set(factor.indices) <= set(f.slots):
                return None
            exponents[factor] += 1
        for size, e in term.powers:
            exponents[size.lstrip(ROOT)] += e if size[0] == ROOT else 2 * e
        whole[_term(exponents)] = term.coefficient
    order = sorted({name for term in whole for name, _ in term}, key=repr)

    def rank(term: Term) -> list[int]:
        have = dict(term)
        return [have.get(name, 0) for name in order]

    first = max(whole, key=rank)
    number = _number_root(whole[first])
    if number is None or any(e % 2 for _, e in first):
        return None
    lead = _term({name: e // 2 for name, e in first})
    found = {lead: number}
    for _ in range(len(whole)):
        left = defaultdict[Term, Fraction](Fraction, whole)
        charge(10 * len(found) ** 2)
        for (a, m), (b, n) in product(found.items(), repeat=2):
            left[_times(a, b)] -= m * n
        rest = {t: n for t, n in left.items() if n}
        if not rest:
            return [_split(term, n) for term, n in found.items()] if _are_whole(found) else None
        top = max(rest, key=rank)
        below = _times(top, _term({name: -e for name, e in lead}))
        if below in found or any(e < 0 for name, e in below if isinstance(name, TensorFactor)):
            return None
        found[below] = rest[top] / (2 * number)
    return None


def _are_whole(terms: Iterable[Term]) -> bool:
    return not any(isinstance(name, str) and e % 2 for term in terms for name, e in term)


def _split(term: Term, number: Fraction):
    powers = tuple((name, e // 2) for name, e in term if isinstance(name, str))
    return number, powers, [(name, e) for name, e in term if isinstance(name, TensorFactor)]


def _term(exponents: Mapping[TensorFactor | str, int]) -> Term:
    return tuple(sorted(((name, e) for name, e in exponents.items() if e), key=repr))


def _times(first: Term, second: Term) -> Term:
    exponents = Counter(dict(first))
    for name, e in second:
        exponents[name] += e
    return _term(exponents)


def _number_root(number: Fraction) -> Fraction | None:
    if number <= 0:
        return None
    found = Fraction(isqrt(number.numerator), isqrt(number.denominator))
    return found if found * found == number else None
