"""Maxima over windows in a plan: places outside are left out, and no place is written once for each offset.

A text's `max[u](x[i+u])` is the maximum of a window, with the logarithm of the conditions that its places are within
the tensor added. Where these are the window's own bounds, the maximum is one step that reads the tensor itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from polyattn.algebra import Index
from polyattn.language.conditions import Comparison, comparison, is_condition
from polyattn.language.sizes import derived
from polyattn.planning.steps import ONE, Add, Apply, Contract, Convolve, Identity, Node, Operand, Relation, length

if TYPE_CHECKING:
    from polyattn.planning.builder import Builder

MOST = 128
"""Offsets up to which a maximum is taken offset by offset."""

SIGNS = {"max": 1, "min": -1}
"""The functions of windows, with the sign of the logarithm that leaves a place out."""


@dataclass(frozen=True)
class Bound:
    """A condition `sum(c*i) + sum(c*N) + number <= 0` on indices, whatever their order."""

    terms: frozenset[tuple[Index, int]]
    sizes: tuple[tuple[str, int], ...]
    number: int

    @classmethod
    def of(cls, terms: Iterable[tuple[Index, int]], sizes: Iterable[tuple[str, int]], number: int) -> Bound:
        pairs, total = [(i, c) for i, c in terms if c], dict[str, int]()
        for size, factor in sizes:
            total[size] = total.get(size, 0) + factor
        kept = tuple(sorted((s, n) for s, n in total.items() if n))
        made = Comparison(tuple(c for _, c in pairs), kept, number, "<=").reduced()
        return cls(frozenset(zip((i for i, _ in pairs), made.slots, strict=True)), made.sizes, made.number)

    @property
    def holds(self) -> bool:
        """Whether it holds everywhere, at every size."""
        if self.sizes or any(c > 0 and not i.size.isdigit() for i, c in self.terms):
            return False
        return self.number + sum(c * (int(i.size) - 1) for i, c in self.terms if c > 0) <= 0


def bounds(relation: Relation) -> tuple[Bound, Bound]:
    """Return the conditions that a relation's combination is not below 0, and below its position's length."""
    size = derived(relation.position.size)
    lower = Bound.of([(i, -c) for i, c in relation.terms], [(s, -c) for s, c in relation.sizes], -relation.number)
    sizes = [*relation.sizes, *((s, -c) for s, c in size.terms)]
    return lower, Bound.of(relation.terms, sizes, relation.number + 1 - size.constant)


def bound(operand: Operand, node: Node) -> Bound | None:
    """Return the condition that an operand is, if it is one between single indices."""
    if not isinstance(node, Identity) or not is_condition(node.tensor):
        return None
    compared = comparison(node.tensor)
    if compared.relation != "<=" or len(compared.slots) != len(set(operand.indices)):
        return None
    return Bound.of(zip(operand.indices, compared.slots, strict=True), compared.sizes, compared.number)


def pooled(
    function: str, over: tuple[Index, ...], operand: Operand, output: tuple[Index, ...], builder: Builder
) -> Apply | None:
    """Return a maximum over windows as one step; None if its argument is something else."""
    if function not in SIGNS:
        return None
    window, conditions = _parts(operand, SIGNS[function], builder)
    node = builder.nodes[window.value]
    if not isinstance(node, Convolve) or len(node.operands) != 1 or conditions is None:
        return None
    names = dict(zip(node.output, window.indices, strict=True))
    placed = tuple(_renamed(r, names, builder) for r in node.relations)
    # A position is an index of the tensor alone; every other index of the window is the result's or used up.
    (inner,) = node.operands
    if any(i not in names for i in node.loop) or any(r.position in node.output for r in node.relations):
        return None
    whole = names | {r.position: p.position for r, p in zip(node.relations, placed, strict=True)}
    read = Operand(inner.value, tuple(whole[i] for i in inner.indices))
    if not _fits(read, placed, over, builder) or not _leaves_out(placed, conditions):
        return None
    if not node.coefficient.is_one:
        read = builder.contract((read,), read.indices, node.coefficient)
    return Apply(function, over, (read,), output, placed)


def _fits(read: Operand, placed: tuple[Relation, ...], over: tuple[Index, ...], builder: Builder) -> bool:
    """Whether each index of the combinations is in one of them, once, and none is an axis of the tensor."""
    terms = [i for r in placed for i, _ in r.terms]
    once = len(set(terms)) == len(terms) and len(set(read.indices)) == len(read.indices)
    inside = set(over) <= set(terms) and not set(terms) & set(read.indices)
    single = all(sum(i not in over for i, _ in r.terms) <= 1 for r in placed)
    few = all(prod([length(i, builder.sizes) for i, _ in r.terms if i in over]) <= MOST for r in placed)
    return once and inside and single and few and all(r.position in read.indices for r in placed)


def _leaves_out(placed: tuple[Relation, ...], conditions: list[Bound]) -> bool:
    """Whether the conditions are the windows' bounds, all but those that hold everywhere."""
    own = {b for r in placed for b in bounds(r)}
    return set(conditions) <= own and all(b in conditions or b.holds for b in own)


def _parts(operand: Operand, sign: int, builder: Builder) -> tuple[Operand, list[Bound] | None]:
    """Return an argument's tensor, and the conditions whose logarithm is added to it; None for another argument."""
    node = builder.nodes[operand.value]
    if not isinstance(node, Add):
        return operand, []
    names = dict(zip(node.output, operand.indices, strict=True))
    terms = [
        (Operand(o.value, tuple(names[i] for i in o.indices)), c)
        for o, c in zip(node.operands, node.coefficients, strict=True)
    ]
    if len(terms) == 1 and terms[0][1].is_one and len(terms[0][0].indices) == len(operand.indices):
        # A permutation.
        return _parts(terms[0][0], sign, builder)
    if len(terms) != 2:
        return operand, None
    for (first, one), (second, two) in (terms, terms[::-1]):
        log = builder.nodes[second.value]
        if isinstance(log, Apply) and log.function == "log" and two == replace(ONE, number=ONE.number * sign):
            (argument,) = log.operands
            back = dict(zip(log.output, second.indices, strict=True))
            found = _conditions(Operand(argument.value, tuple(back[i] for i in argument.indices)), builder)
            if one.is_one and found is not None and set(first.indices) == set(operand.indices):
                return first, found
    return operand, None


def _conditions(operand: Operand, builder: Builder) -> list[Bound] | None:
    """Return the conditions that a value is the product of; None if it is something else."""
    node = builder.nodes[operand.value]
    if isinstance(node, Contract) and not node.summed and node.coefficient.is_one:
        names = dict(zip(node.output, operand.indices, strict=True))
        parts = [_conditions(Operand(o.value, tuple(names[i] for i in o.indices)), builder) for o in node.operands]
        return None if any(p is None for p in parts) else [b for p in parts for b in p or ()]
    found = bound(operand, node)
    return None if found is None else [found]


def _renamed(relation: Relation, names: Mapping[Index, Index], builder: Builder) -> Relation:
    position = Index(next(builder.fresh), relation.position.size)
    return replace(relation, position=position, terms=tuple((names.get(i, i), c) for i, c in relation.terms))
