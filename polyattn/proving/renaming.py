"""Renaming: parameters that one side alone has, matched with those that the other side alone has.

Guarantees: a renaming is one to one, between tensors of one shape, and leaves names on both sides alone; under it the
two sums are equal. The search refines classes of tensors by the terms that contain them, and tries the tensors of a
class one after the other where several are left. Beyond its budget it finds none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

from polyattn.algebra import FunctionFactor, Monomial, TensorFactor
from polyattn.language import Atoms
from polyattn.proving.derivation import Derivation
from polyattn.proving.given import tensors_of
from polyattn.proving.isomorphism import Forms
from polyattn.proving.work import Meter, SpentError

MAX_SEARCH = 2_000_000
"""The steps of the search for a renaming."""
MOST = 64
"""The parameters that are renamed at most."""

Colours = Mapping[str, int]


def renaming(
    left: Derivation, right: Derivation, shapes: Mapping[str, tuple[Atoms, ...]], fixed: Collection[str]
) -> dict[str, str]:
    """Return the name on the right for each tensor that the left sum alone has; empty if no renaming makes them equal.

    Args:
        left, right: the two sums.
        shapes: of the tensors.
        fixed: tensors that keep their names.
    """
    sides = [[t for t in d.terms if t.coefficient] for d in (left, right)]
    mine, theirs = (tensors_of(terms) for terms in sides)
    own = [[n for n in shapes if n in one - other - set(fixed)] for one, other in ((mine, theirs), (theirs, mine))]
    if not 0 < len(own[0]) == len(own[1]) <= MOST or len(sides[0]) != len(sides[1]):
        return {}
    if mine ^ theirs != {*own[0], *own[1]}:
        return {}  # a tensor that keeps its name is on one side only
    known: dict[Hashable, int] = {}
    colours = [{n: _number(known, shapes[n]) for n in names} for names in own]
    try:
        with Meter(MAX_SEARCH).running():
            return _Search(_Terms(sides[0], left.forms), _Terms(sides[1], right.forms)).run(*colours)
    except SpentError:
        return {}


def _number(known: dict[Hashable, int], value: Hashable) -> int:
    return known.setdefault(value, len(known))


@dataclass(frozen=True)
class _Terms:
    terms: Sequence[Monomial]
    forms: Forms

    def keys(self, colours: Colours, marked: str = "") -> Counter:
        """Count the canonical forms of the terms (that contain the marked tensor), with colours for names."""
        names = {name: f":{colour}" for name, colour in colours.items()}
        if marked:
            names[marked] = ":marked"
        return Counter(
            (self.forms.key(_recoloured(t, names)), t.coefficient)
            for t in self.terms
            if not marked or marked in tensors_of([t])
        )


@dataclass(frozen=True)
class _Search:
    left: _Terms
    right: _Terms

    def run(self, mine: Colours, theirs: Colours) -> dict[str, str]:
        """Return a renaming between tensors of equal colours, or {}."""
        refined = self.refined(mine, theirs)
        if refined is None:
            return {}
        mine, theirs = refined
        classes = Counter(mine.values())
        if len(classes) == len(mine):
            back = {colour: name for name, colour in theirs.items()}
            return {name: back[colour] for name, colour in mine.items()}
        # The first tensor of a class with several, with each of the other side's: fresh colours set the two apart.
        one = next(name for name, colour in mine.items() if classes[colour] > 1)
        fresh = max(mine.values()) + 1
        for other in (name for name, colour in theirs.items() if colour == mine[one]):
            found = self.run({**mine, one: fresh}, {**theirs, other: fresh})
            if found:
                return found
        return {}

    def refined(self, mine: Colours, theirs: Colours) -> tuple[Colours, Colours] | None:
        """Split colours by the terms that tensors occur in, until none splits; None if the sides come apart."""
        while True:
            known: dict[Hashable, int] = {}
            new = []
            for side, colours in ((self.left, mine), (self.right, theirs)):
                seen = {n: (colours[n], frozenset(side.keys(colours, n).items())) for n in colours}
                new.append({n: _number(known, value) for n, value in seen.items()})
            if Counter(new[0].values()) != Counter(new[1].values()):
                return None
            if len(known) == len(set(mine.values())):
                return (mine, theirs) if self.left.keys(mine) == self.right.keys(theirs) else None
            mine, theirs = new


def _recoloured(term: Monomial, names: Mapping[str, str]) -> Monomial:
    factors = []
    for factor in term.factors:
        if isinstance(factor, FunctionFactor):
            inner = tuple(_recoloured(t, names) for t in factor.terms)
            factors.append(FunctionFactor(factor.function, factor.over, factor.free, inner, factor.at))
        else:
            factors.append(TensorFactor(names.get(factor.tensor, factor.tensor), factor.indices))
    return Monomial(term.coefficient, term.powers, tuple(factors))
