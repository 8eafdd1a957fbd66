"""Decays: exponentials that join two positions, `exp(c[a,r] - c[e,r])` with running sums c, one position at a time.

Where e comes before a, the exponent is a sum over the positions f between them of one body g(f), with multiples of g
at both ends. Each step then multiplies the state by `exp(g)` of its own position; no exponential of a running sum is
taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from polyattn.algebra import FunctionFactor, Index, Monomial, TensorFactor
from polyattn.algebra.canonical import canonical_monomial, collect_arguments
from polyattn.algebra.monomial import Factor
from polyattn.language.conditions import AT_MOST, LESS, is_condition

BEFORE, FIRST, BETWEEN, LAST, BEHIND = range(5)
"""Where a position stands to the first and the last of a pair."""


@dataclass(frozen=True)
class Decay:
    """A decay from a position to a later one, as exponentials of a body at one position each.

    Attributes:
        mark: the position in the bodies.
        step: the body of each position strictly between the two.
        first: that of the first position.
        last: that of the last one.
        is_plain: whether the decay is Σ step over the positions behind the first one, up to the last one, also where
            the two are equal.
    """

    mark: Index
    step: tuple[Monomial, ...]
    first: tuple[Monomial, ...]
    last: tuple[Monomial, ...]
    is_plain: bool

    def of_step(self, at: Index) -> FunctionFactor:
        """Return the factor by which a step at a position multiplies the state."""
        return self._exponential(self.step, at)

    def at_first(self, at: Index) -> list[FunctionFactor]:
        """Return the factors at the first position."""
        return [self._exponential(self.first, at)] if self.first else []

    def at_last(self, at: Index) -> list[FunctionFactor]:
        """Return the factors at the last position, whose own step is not taken."""
        return [self._exponential(self.last, at)] if self.last else []

    def _exponential(self, terms: Sequence[Monomial], at: Index) -> FunctionFactor:
        free = dict.fromkeys(i for t in terms for i in t.indices() if i.id <= self.mark.id)
        return FunctionFactor("exp", (), tuple(free), tuple(terms)).renamed({self.mark: at})


def decay_of(factor: FunctionFactor, first: Index, last: Index) -> Decay | None:
    """Return an exponential of two positions, the first before the last, as a decay; None if it is not one."""
    if factor.function != "exp":
        return None
    # Ids of what is free have to be below all others.
    mark = Index(1 + max(i.id for i in factor.free), first.size)
    bodies: dict[object, Monomial] = {}
    apart: dict[object, list[Fraction]] = {}
    joined: dict[object, list[Fraction]] = {}
    for term in factor.terms:
        found = _body(term, factor.free, first, last, mark)
        if found is None:
            return None
        body, compared, at = found
        made = canonical_monomial(collect_arguments(body, frozenset((*factor.free, mark))), (*factor.free, mark))
        key = made.powers, made.factors
        bodies[key] = made
        for shares, ranks in ((apart, (FIRST, LAST)), (joined, (BETWEEN, BETWEEN))):
            places = range(5) if at not in (first, last) else ranks[at == last : 1 + (at == last)]
            total = shares.setdefault(key, [Fraction(0)] * 5)
            for place in places:
                if _hold(compared, {first: ranks[0], last: ranks[1], at: place}):
                    total[place] += made.coefficient
    if any(total[BEFORE] or total[BEHIND] for total in apart.values()):
        return None

    def part(place: int) -> tuple[Monomial, ...]:
        parts = (Monomial(apart[k][place], b.powers, b.factors) for k, b in bodies.items() if apart[k][place])
        return tuple(sorted(parts, key=repr))

    step, start, end = part(BETWEEN), part(FIRST), part(LAST)
    plain = not start and step == end and not any(t[BEFORE] or t[BETWEEN] or t[BEHIND] for t in joined.values())
    return Decay(mark, step, start, end, plain)


Compared = list[tuple[str, Index, Index]]


def _hold(compared: Compared, ranks: dict[Index, int]) -> bool:
    return all(ranks[i] < ranks[j] or (order == AT_MOST and ranks[i] == ranks[j]) for order, i, j in compared)


def _body(
    term: Monomial, free: Iterable[Index], first: Index, last: Index, mark: Index
) -> tuple[Monomial, Compared, Index] | None:
    """Return the factor of an exponent's term at one position, its conditions on the pair, and that position."""
    pair = {first, last}
    compared: Compared = []
    rest: list[Factor] = []
    for factor in term.factors:
        if isinstance(factor, TensorFactor) and is_condition(factor.tensor) and pair & set(factor.indices):
            if factor.tensor not in (LESS, AT_MOST) or len(factor.indices) != 2:
                return None
            compared.append((factor.tensor, *factor.indices))
        else:
            rest.append(factor)
    running = {i for _, *both in compared for i in both} - pair
    read = {i for f in rest for i in f.all_indices()} & pair
    if len(running) + len(read) > 1:
        return None
    # A term of neither position is a factor at any one of them.
    at = next(iter((*running, *read)), first)
    own = [i for i in dict.fromkeys(term.all_indices()) if i not in free and i != at]
    names = {i: Index(mark.id + 1 + k, i.size) for k, i in enumerate(own)} | {at: mark}
    return Monomial(term.coefficient, term.powers, tuple(rest)).renamed(names), compared, at
