"""Correspondence of monomials: gathering equal terms, with a witness that needs no search to check.

A witness lists, for each term, the number of the equal term, and for each of its factors the position of the own
factor; identities are not counted. For exchanged slots, and for functions, an entry is a list: the position, the order
of the slots, and the witness for the function's argument. `proofs/check.py` reads them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import repeat
from typing import Any

from polyattn.algebra import FunctionFactor, Index, Monomial
from polyattn.algebra.canonical import canonical_monomial, canonical_order, collect_arguments
from polyattn.proving.rewriting import proper
from polyattn.proving.symmetric import Encoded, Groups, encoded
from polyattn.proving.work import GRAPH, charge

Witness = list[list[Any]]

Key = tuple[Any, Any]


class NoWitnessError(Exception):
    """Terms are equal without a correspondence of their factors: a function's argument cancels along an index."""


@dataclass(frozen=True)
class Forms:
    """The criterion for equal terms: one canonical form, up to the symmetries of tensors."""

    free: tuple[Index, ...]
    groups: Groups

    def key(self, term: Monomial) -> Key:
        """Return a key that equal terms share, without their coefficients."""
        # Charged before the cached look-up, so that the count does not depend on earlier questions.
        charge(GRAPH * term.size)
        canonical = canonical_monomial(encoded(term, self.groups).term, self.free)
        return canonical.powers, canonical.factors

    def inside(self, factor: FunctionFactor) -> Forms:
        # Inside a function, its free indices and those it runs over play the role of the free ones.
        return Forms(tuple(sorted(factor.local)), self.groups)


def gathered(terms: Sequence[Monomial], forms: Forms) -> tuple[Monomial, ...]:
    """Return the sum with equal terms added up, each as it first occurs; cancelled ones stay with coefficient zero."""
    first: dict[Key, Monomial] = {}
    alike = Counter(t.names for t in terms)
    totals: dict[Key, Fraction] = {}
    for term in terms:
        # Terms of different names are never equal: only the others need a costly canonical form.
        key: Key = forms.key(moved(term, forms.free)) if alike[term.names] > 1 else ((), term.names)
        first.setdefault(key, term)
        totals[key] = totals.get(key, Fraction(0)) + term.coefficient
    found = []
    for key, term in first.items():  # no comprehension: it would double the depth of the recursion
        factors = tuple(map(_gathered_argument, term.factors, repeat(forms)))
        found.append(Monomial(totals[key], term.powers, factors))
    return tuple(found)


def _gathered_argument(factor, forms: Forms):
    if not isinstance(factor, FunctionFactor):
        return factor
    terms = gathered(factor.terms, forms.inside(factor))
    return FunctionFactor(factor.function, factor.over, factor.free, terms, factor.at)


def moved(term: Monomial, free: Sequence[Index]) -> Monomial:
    """Return the term with its own indices numbered above the free ones, as canonical forms need them."""
    start = 1 + max((i.id for i in free), default=-1)
    own = [i for i in dict.fromkeys(term.all_indices()) if i not in set(free)]
    return term.renamed({old: Index(start + k, old.size) for k, old in enumerate(own)})


def witness(terms: Sequence[Monomial], targets: Sequence[Monomial], forms: Forms) -> Witness:
    """Return how the terms add up to the targets; a cancelled term refers to the first of its form.

    Raises:
        NoWitnessError: no correspondence of factors exists.
    """
    terms, targets = [moved(t, forms.free) for t in terms], [moved(t, forms.free) for t in targets]
    # Reversed, so that the first target of a form wins.
    places = {forms.key(t): k for k, t in reversed(list(enumerate(targets)))}
    first: dict[Key, int] = {}
    found = []
    for number, term in enumerate(terms):
        key = forms.key(term)
        start = first.setdefault(key, number)
        if key in places:
            found.append([places[key], entries(term, targets[places[key]], forms)])
        else:
            # Negative numbers tell a reference to a term from one to a target.
            found.append([-1 - start, entries(term, terms[start], forms)])
    return found


def entries(term: Monomial, target: Monomial, forms: Forms) -> list[Any]:
    """Return, for each factor of the target but identities, its position in the term."""
    return Correspondence(term, target, forms).entries()


class Correspondence:
    """The isomorphism between two terms of one canonical form, from their canonical labellings.

    Attributes:
        indices: the target's index for each index of the term, those of function arguments not included.
    """

    def __init__(self, term: Monomial, target: Monomial, forms: Forms):
        self.term, self.target, self.forms = term, target, forms
        charge(GRAPH * (term.size + target.size))
        self.mine, self.theirs = encoded(term, forms.groups), encoded(target, forms.groups)
        order, names = _labelled(self.mine, forms)
        target_order, target_names = _labelled(self.theirs, forms)
        # Equal labels in two labellings of one canonical form mean corresponding indices.
        by_name = {name: index for index, name in target_names.items()}
        # Keys can agree where the labellings do not: an argument may cancel along an index.
        if len(order) != len(target_order) or set(names.values()) != set(by_name):
            raise NoWitnessError
        self.factors = dict(zip(target_order, order, strict=True))
        self.indices = {index: by_name[name] for index, name in names.items()}

    def entries(self) -> list[Any]:
        places = {position: k for k, position in enumerate(proper(self.term))}
        return [self._entry(position, places) for position in proper(self.target)]

    def _entry(self, position: int, places: dict[int, int]) -> Any:
        factor = self.target.factors[position]
        other = self.mine.origin[self.factors[self.theirs.place[position]]][0]
        mine = self.term.factors[other]
        if isinstance(factor, FunctionFactor) and isinstance(mine, FunctionFactor):
            return [places[other], *self._argument(mine, factor)]
        slots = self._slots(position)
        return places[other] if slots == sorted(slots) else [places[other], slots]

    def _slots(self, position: int) -> list[int]:
        """Return, for each slot of a target's tensor, the corresponding slot of the term's tensor."""
        found: dict[int, int] = {}
        # A symmetric tensor is several factors of the encoded term: their slots are put together again.
        for encoded_position, (origin, slots) in enumerate(self.theirs.origin):
            if origin == position:
                own = self.mine.origin[self.factors[encoded_position]][1]
                found |= dict(zip(slots, own, strict=True))
        return [found[k] for k in sorted(found)]

    def _argument(self, mine: FunctionFactor, factor: FunctionFactor) -> tuple[list[int], Witness]:
        left, right = (*mine.free, *mine.over), (*factor.free, *factor.over)
        back = {j: i for i, j in self.indices.items()}
        try:
            slots = [left.index(back[j]) for j in right]
        except (KeyError, ValueError):
            raise NoWitnessError from None
        if len(left) != len(right):
            raise NoWitnessError
        forms = self.forms.inside(factor)
        names = {i: self.indices[i] for i in left}
        terms = [renamed_apart(t, names) for t in mine.terms]
        return slots, witness(terms, factor.terms, forms)


def renamed_apart(term: Monomial, names: dict[Index, Index]) -> Monomial:
    """Return the term at other free indices, with its own indices moved out of their way."""
    start = 1 + max((i.id for i in (*names, *names.values(), *term.all_indices())), default=-1)
    own = [i for i in dict.fromkeys(term.all_indices()) if i not in names]
    apart = {old: Index(start + k, old.size) for k, old in enumerate(own)}
    return term.renamed(apart).renamed(names)


def _labelled(term: Encoded, forms: Forms) -> tuple[tuple[int, ...], dict[Index, int]]:
    return canonical_order(collect_arguments(term.term, frozenset(forms.free)), forms.free)
