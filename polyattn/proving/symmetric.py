"""Symmetric tensors as graphs: exchangeable slots hang on the tensor by edges of one kind.

`adj[k,l] = adj[l,k]` makes the two slots of `adj` one kind, so `adj[k,l]` is written as `adj#[t]*adj#0[t,k]*adj#0[t,l]`
with an index t of its own: monomials equal by the symmetry then have one canonical form. Slots are exchanged freely
among the kinds, so only symmetries that together allow all orders of some slots are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import factorial, prod

from polyattn.algebra import FunctionFactor, Index, Monomial, TensorFactor
from polyattn.algebra.monomial import Factor
from polyattn.proving.given import Symmetry

Groups = Mapping[str, tuple[int, ...]]
"""For each symmetric tensor, the kind of each slot."""

CENTRE = "#"
"""The size of the index between a symmetric tensor's slots; not a name of the language."""

# 7!: all orders of seven slots.
MAX_GROUP = 5040


@dataclass(frozen=True)
class Encoded:
    """A term with its symmetric tensors in parts.

    Attributes:
        origin: for each factor, the position of its original, and the slots of the original in it.
        place: for each position of the original, one of its factors here.
    """

    term: Monomial
    origin: tuple[tuple[int, tuple[int, ...]], ...]
    place: Mapping[int, int]


def slot_kinds(symmetries: Iterable[Symmetry]) -> tuple[Groups, set[str]]:
    """Return the kinds of slots of each tensor, and the texts of the symmetries expressed by these kinds."""
    by_tensor: dict[str, list[Symmetry]] = {}
    for symmetry in symmetries:
        # A graph cannot express a sign, so antisymmetries are left out.
        if symmetry.sign == 1:
            by_tensor.setdefault(symmetry.tensor, []).append(symmetry)
    groups: dict[str, tuple[int, ...]] = {}
    used: set[str] = set()
    for tensor, mine in by_tensor.items():
        group = _closure([s.order for s in mine])
        kinds = tuple(min(g[k] for g in group) for k in range(len(mine[0].order)))
        # The group is the full product of permutations of each kind exactly if its order is theirs.
        if len(group) == prod(factorial(kinds.count(kind)) for kind in set(kinds)):
            groups[tensor] = kinds
            used |= {s.text for s in mine}
    return groups, used


def _closure(generators: list[tuple[int, ...]]) -> set[tuple[int, ...]]:
    group = {tuple(range(len(generators[0])))}
    queue = list(group)
    while queue and len(group) <= MAX_GROUP:
        old = queue.pop()
        for generator in generators:
            new = tuple(old[k] for k in generator)
            if new not in group:
                group.add(new)
                queue.append(new)
    return group


def encoded(term: Monomial, groups: Groups) -> Encoded:
    """Return the term with its symmetric tensors in parts, those inside functions included."""
    if not groups:
        slots = [tuple(range(len(f.indices))) if isinstance(f, TensorFactor) else () for f in term.factors]
        return Encoded(term, tuple(enumerate(slots)), {k: k for k in range(len(slots))})
    factors: list[Factor] = []
    origin: list[tuple[int, tuple[int, ...]]] = []
    place: dict[int, int] = {}
    # Centres are numbered above all indices, so that they meet none.
    start = 1 + max((i.id for i in term.all_indices()), default=-1)
    for position, factor in enumerate(term.factors):
        place[position] = len(factors)
        if isinstance(factor, FunctionFactor):
            inner = tuple(encoded(t, groups).term for t in factor.terms)
            parts: list[tuple[Factor, tuple[int, ...]]] = [
                (FunctionFactor(factor.function, factor.over, factor.free, inner, factor.at), ())
            ]
        elif factor.tensor in groups:
            parts = _parts(factor, groups[factor.tensor], Index(start + position, CENTRE))
        else:
            parts = [(factor, tuple(range(len(factor.indices))))]
        factors += [part for part, _ in parts]
        origin += [(position, slots) for _, slots in parts]
    return Encoded(Monomial(term.coefficient, term.powers, tuple(factors)), tuple(origin), place)


def _parts(factor: TensorFactor, kinds: tuple[int, ...], centre: Index) -> list[tuple[Factor, tuple[int, ...]]]:
    alone = tuple(k for k, kind in enumerate(kinds) if kinds.count(kind) == 1)
    # Slots that are alone in their kind stay on the head, in their order.
    head = TensorFactor(f"{factor.tensor}#", (centre, *(factor.indices[k] for k in alone)))
    parts: list[tuple[Factor, tuple[int, ...]]] = [(head, alone)]
    for k, kind in enumerate(kinds):
        if k not in alone:
            parts.append((TensorFactor(f"{factor.tensor}#{kind}", (centre, factor.indices[k])), (k,)))
    return parts
