"""Common denominators: the terms of both sides multiplied by `z * 1/z` until all have the same reciprocals.

Then the two sides are equal, as rational functions of the atoms, exactly if their terms are. A reciprocal at summed
indices is given to a term at those of its indices that are in most of the same slots: a guess, which can only lose a
proof.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from polyattn.algebra import Index, Monomial, TensorFactor
from polyattn.proving.certificate_terms import FlatSum
from polyattn.proving.lawful import LawfulProof, has_square

Pattern = tuple[Index | None, ...]
"""The indices of a reciprocal, None for a summed one."""


def cross_multiply(proof: LawfulProof) -> None:
    """Give the terms that one side alone has their common denominators."""
    kept: set[str] = set()
    while not done(proof):
        names = _reciprocals(proof) - kept
        if not names:
            return
        # The outermost first: its denominator may have reciprocals, too.
        order = list(proof.functions.sums)
        name = max(names, key=order.index)
        kept.add(name)
        _lift(proof, proof.functions.sums[name])
        for side in (proof.left, proof.right):
            proof.tidy(side, frozenset(kept))


def done(proof: LawfulProof) -> bool:
    return not any(rest(proof))


def rest(proof: LawfulProof) -> tuple[list[Monomial], list[Monomial]]:
    """Return the terms that one side alone has."""
    keyed = [{proof.key(t, total.letters): t for t in total.terms} for total in (proof.left, proof.right)]
    mine, theirs = keyed
    left = [t for key, t in mine.items() if key not in theirs or theirs[key].coefficient != t.coefficient]
    right = [t for key, t in theirs.items() if key not in mine or mine[key].coefficient != t.coefficient]
    return left, right


def _reciprocals(proof: LawfulProof) -> set[str]:
    """Return the reciprocals in terms of one side alone, but those of products of factors whose square has no law."""
    found = set()
    for term in (t for side in rest(proof) for t in side):
        for factor in term.factors:
            f = proof.function(factor)
            if f is not None and f.function == "reciprocal" and not _is_product(proof, f):
                found.add(f.name)
    return found


def _is_product(proof: LawfulProof, f: FlatSum) -> bool:
    if len(f.terms) != 1 or not set(f.terms[0].all_indices()) <= set(f.slots):
        return False
    return not any(has_square(proof, g) for g in map(proof.function, f.terms[0].factors) if g is not None)


def _lift(proof: LawfulProof, f: FlatSum) -> None:
    free = set(proof.left.letters)
    sides = rest(proof)
    wanted: dict[Pattern, tuple[int, Monomial]] = {}
    for term in (t for side in sides for t in side):
        for pattern, number in _patterns(term, f, free).items():
            if number > wanted.get(pattern, (0, term))[0]:
                wanted[pattern] = number, term
    for total, terms in zip((proof.left, proof.right), sides, strict=True):
        waiting = list(terms)
        for term in waiting:
            places = [k for k, t in enumerate(total.terms) if t is term]
            if places:
                _lift_term(proof, f, total, places[0], wanted)


def _lift_term(proof: LawfulProof, f: FlatSum, total: FlatSum, place: int, wanted) -> None:
    """Multiply a term, and the terms that come in its place, until they have all reciprocals that are wanted."""
    last = place + 1
    while place < last:
        have = _patterns(total.terms[place], f, set(total.letters))
        missing = next((p for p, (n, _) in wanted.items() if have[p] < n), None)
        at = None if missing is None else _indices(total.terms[place], missing, wanted[missing][1], f, total.letters)
        if at is None:
            place += 1
            continue
        before = len(total.terms)
        proof.insert(f, total, place, at)
        last += len(total.terms) - before


def _patterns(term: Monomial, f: FlatSum, free: set[Index]) -> Counter[Pattern]:
    own = [g for g in term.factors if isinstance(g, TensorFactor) and g.tensor == f.name]
    return Counter(tuple(i if i in free else None for i in g.indices) for g in own)


def _indices(term: Monomial, pattern: Pattern, model: Monomial, f: FlatSum, free: Sequence[Index]):
    """Return indices of a term at which to multiply it, new ones where it has a power of their size; or else None."""
    factor = next(
        g
        for g in model.factors
        if isinstance(g, TensorFactor)
        and g.tensor == f.name
        and tuple(i if i in free else None for i in g.indices) == pattern
    )
    found: list[Index] = []
    for index, wanted in zip(factor.indices, pattern, strict=True):
        if wanted is not None:
            found.append(wanted)
            continue
        alike = _slots(model, index)
        choices = [i for i in term.indices() if i not in free and i.size == index.size and i not in found]
        if not choices:
            if dict(term.powers).get(index.size, 0) < 1:
                return None
            top = max((i.id for i in (*term.all_indices(), *free, *found)), default=0)
            found.append(Index(top + 1, index.size))
            continue
        found.append(max(choices, key=lambda i: (sum((_slots(term, i) & alike).values()), -i.id)))
    return found


def _slots(term: Monomial, index: Index) -> Counter[tuple[str, int]]:
    return Counter(
        (g.tensor, k)
        for g in term.factors
        if isinstance(g, TensorFactor)
        for k, i in enumerate(g.indices)
        if i == index
    )
