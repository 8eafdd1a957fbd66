"""Monomials with conditions, split by the weak orders of their indices.

A weak order of indices says which are equal and which come before which others; there are 1, 3, 13, 75, 541 for one to
five. Every place of the sum lies in one of them, so a monomial is the sum of its parts, and within a part each order
condition is 1 or 0. Equal indices become one, and the others a chain `[i<j]*[j<k]`, the ranks of the graph. An index in
no tensor stays in the chain, where it counts places; a power of an ordered size is made of such indices. Two sums
without functions, conditions with numbers, and sizes that are numbers are equal at every size exactly if these parts,
up to renaming, have equal coefficients: given the positions of all indices that tensors have, the others' counts are
products of binomial coefficients in the gaps between them, which are linearly independent (docs/mathematics.md).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise

from polyattn.algebra.conditions import conditions_in
from polyattn.algebra.monomial import (
    Factor,
    FunctionFactor,
    Index,
    Monomial,
    TensorFactor,
    contract_identities,
    multiply_powers,
)
from polyattn.errors import BudgetError
from polyattn.language.conditions import AT_MOST, LESS, is_equation
from polyattn.language.syntax import IDENTITY

MAX_ORDERS = 20_000
"""The most weak orders of one sum."""

Ranks = tuple[tuple[Index, ...], ...]
"""Indices in a weak order: those of one rank are equal, and the ranks increase."""


def ordered_sizes(terms: Iterable[Monomial]) -> frozenset[str]:
    """Return the atomic sizes whose positions conditions order, those inside functions included.

    Offsets are equations, or compare positions of different sizes: no weak order decides these.
    """
    found = (f for f in conditions_in(tuple(terms)) if not is_equation(f.tensor))
    # The two orders compare composites as well, whose parts have sizes of their own.
    kept = (f for f in found if f.tensor in (LESS, AT_MOST) or len({i.size for i in f.indices}) == 1)
    return frozenset(i.size for f in kept for i in f.indices)


def denominators(terms: Iterable[Monomial], sizes: Collection[str]) -> dict[str, int]:
    """Return, for each ordered size, the largest power that a term divides by."""
    found: dict[str, int] = {}
    for term in terms:
        for size, exponent in term.powers:
            if size in sizes and exponent < 0:
                found[size] = max(found.get(size, 0), -exponent)
    return found


def split_by_order(
    terms: Iterable[Monomial], free: Sequence[Index], sizes: Collection[str], scale: Mapping[str, int]
) -> tuple[Monomial, ...]:
    """Return the sum times these powers of sizes, split by the weak orders of the indices over these sizes.

    Raises:
        BudgetError: more than 20,000 weak orders.
    """
    found: list[Monomial] = []
    for term in terms:
        scaled = term.scaled(Fraction(1), scale.items())
        for part in parts(scaled, free, sizes):
            found.append(part)
            if len(found) > MAX_ORDERS:
                raise BudgetError(f"conditions split this sum into more than {MAX_ORDERS:,} weak orders")
    return tuple(found)


def parts(term: Monomial, free: Sequence[Index], sizes: Collection[str]) -> Iterator[Monomial]:
    """Yield a monomial's part in each weak order; those in which a condition is 0 are left out."""
    if not sizes:
        yield term
        return
    term = contract_identities(term, free)
    fresh = 1 + max((i.id for i in chain(free, term.all_indices())), default=-1)
    counting, powers = [], []
    for size, exponent in term.powers:
        if size in sizes and exponent > 0:
            counting += [Index(fresh + len(counting) + k, size) for k in range(exponent)]
        else:
            powers.append((size, exponent))
    orders, rest = [], []
    for factor in term.factors:
        if isinstance(factor, TensorFactor) and (
            factor.tensor in (LESS, AT_MOST) or (factor.tensor == IDENTITY and factor.indices[0].size in sizes)
        ):
            orders.append(_Order.of(factor))
        else:
            rest.append(_inside(factor, sizes))
    # The free ones first: every part has them.
    indices = [i for i in dict.fromkeys((*free, *term.indices(), *counting)) if i.size in sizes]
    for ranks in weak_orders(indices, orders):
        added: list[Factor] = []
        for chained in ranks.values():
            added += [TensorFactor(IDENTITY, (members[0], other)) for members in chained for other in members[1:]]
            added += [TensorFactor(LESS, (before[0], after[0])) for before, after in pairwise(chained)]
        made = Monomial(term.coefficient, multiply_powers(powers, ()), (*rest, *added))
        # A lone index that only counts places is a power of its size again.
        have = {i for f in made.factors for i in f.indices}
        lost = [(i.size, 1) for i in indices if i not in have and i not in free]
        yield contract_identities(made.scaled(Fraction(1), lost), free)


def _inside(factor: Factor, sizes: Collection[str]) -> Factor:
    """Return a factor with a function's argument split."""
    if not isinstance(factor, FunctionFactor):
        return factor
    terms = split_by_order(factor.terms, tuple(sorted(factor.local)), sizes, {})
    return FunctionFactor(factor.function, factor.over, factor.free, terms, factor.at)


@dataclass(frozen=True)
class _Order:
    """A condition that one index, or the parts of a composite slot, come before others, no later, or are equal."""

    first: tuple[Index, ...]
    second: tuple[Index, ...]
    kind: str

    @classmethod
    def of(cls, factor: TensorFactor) -> _Order:
        half = len(factor.indices) // 2
        return cls(factor.indices[:half], factor.indices[half:], factor.tensor)

    def holds(self, rank: Mapping[Index, int]) -> bool | None:
        """Return whether the condition holds where indices have these ranks; None where they do not decide it."""
        for i, j in zip(self.first, self.second, strict=True):
            if i == j:
                continue
            if i not in rank or j not in rank:
                return None
            if rank[i] != rank[j]:
                return rank[i] < rank[j] and self.kind != IDENTITY
        return self.kind != LESS


def weak_orders(indices: Sequence[Index], orders: Sequence[_Order]) -> Iterator[dict[str, Ranks]]:
    """Yield the weak orders of indices, those of each size by themselves, in which the conditions hold.

    The indices are inserted one after the other: before, into and behind each rank from the first on.
    """

    def insert(number: int, ranks: dict[str, Ranks], left: Sequence[_Order]) -> Iterator[dict[str, Ranks]]:
        place = {i: k for chained in ranks.values() for k, members in enumerate(chained) for i in members}
        decided = [order.holds(place) for order in left]
        if False in decided:
            return
        if number == len(indices):
            yield ranks
            return
        left = [order for order, holds in zip(left, decided, strict=True) if holds is None]
        index = indices[number]
        have = ranks.get(index.size, ())
        for k in range(len(have) + 1):
            yield from insert(number + 1, {**ranks, index.size: (*have[:k], (index,), *have[k:])}, left)
            if k < len(have):
                joined = (*have[:k], (*have[k], index), *have[k + 1 :])
                yield from insert(number + 1, {**ranks, index.size: joined}, left)

    yield from insert(0, {}, list(orders))
