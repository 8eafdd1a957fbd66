"""Products over neighbourhoods in a plan: which operands meet first, and where their offsets are taken.

A factor `[p-i-u+1 == 0]` of a product places an index p of one operand at a combination of other indices. It is no
operand of its own: it goes with the product in which its indices meet, so `x[i+u,c]*w1[c,b]*w2[u,b]` is a product of
channels and then a convolution of each channel. The order of the operands is the one with the fewest
multiply-accumulates, of all orders for up to seven operands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

from polyattn.algebra import Index
from polyattn.language.affine import Affine
from polyattn.language.conditions import comparison, is_equation
from polyattn.planning.pooling import bound, bounds
from polyattn.planning.steps import ONE, Coefficient, Identity, Operand, Relation, Sizes, length

if TYPE_CHECKING:
    from polyattn.planning.builder import Builder

SEARCHED = 7
"""Operands up to which every order is tried."""

Tree = int | tuple["Tree", "Tree"]


def relations(
    operands: Sequence[Operand], kept: frozenset[Index], builder: Builder
) -> tuple[list[Operand], list[Relation]]:
    """Return the operands that stay, and the others as relations: equations that place one index each."""
    equations = [o for o in operands if _is_equation(o, builder)]
    implied = {b for o in equations for r in _readings(o, builder) for b in bounds(r)}
    plain = [o for o in operands if not _is_equation(o, builder)]
    # Where the equation holds, its combination is within the range of each index that it places.
    plain = [o for o in plain if bound(o, builder.nodes[o.value]) not in implied]
    if not plain:
        return list(operands), []
    found: list[Relation] = []
    for equation in equations:
        others = {i for o in equations if o is not equation for i in o.indices}
        # The longest index, and of two alike one that is summed, so that the fewest offsets are run over.
        ranked = sorted(
            (
                r
                for r in _readings(equation, builder)
                if r.position not in others and any(r.position in o.indices for o in plain)
            ),
            key=lambda r: (-length(r.position, builder.sizes), r.position in kept),
        )
        if ranked:
            found.append(ranked[0])
        else:
            plain.append(equation)
    return plain, found


def _readings(equation: Operand, builder: Builder) -> list[Relation]:
    """Return an equation solved for each of its indices that a whole number of steps places."""
    node = builder.nodes[equation.value]
    assert isinstance(node, Identity)
    compared = comparison(node.tensor)
    pairs = list(zip(equation.indices, compared.slots, strict=True))
    # c*p + rest = 0 says p = -c*rest, for c = 1 or -1.
    return [
        Relation(
            position,
            tuple((i, -sign * c) for k, (i, c) in enumerate(pairs) if k != place),
            tuple((s, -sign * c) for s, c in compared.sizes),
            -sign * compared.number,
        )
        for place, (position, sign) in enumerate(pairs)
        if abs(sign) == 1
    ]


def _is_equation(operand: Operand, builder: Builder) -> bool:
    node = builder.nodes[operand.value]
    if not isinstance(node, Identity) or not is_equation(node.tensor):
        return False
    # An equation between composites has several indices for one slot.
    return len(comparison(node.tensor).slots) == len(operand.indices)


def windowed(
    operands: Sequence[Operand],
    placed: Sequence[Relation],
    kept: frozenset[Index],
    scale: Coefficient,
    builder: Builder,
) -> Operand:
    """Return the product of operands over neighbourhoods, summed over all indices but the kept ones."""
    current = [_without_private(k, operands, placed, kept, builder) for k in range(len(operands))]
    groups = [frozenset(o.indices) for o in current]
    if builder.sum_early and len(current) <= SEARCHED:
        tree = _best(tuple(groups), tuple(placed), kept, tuple(sorted(builder.sizes.items())))
    else:
        tree = 0
        for k in range(1, len(current)):
            tree = (tree, k)
    everything = (1 << len(current)) - 1

    def build(tree: Tree) -> tuple[Operand, int]:
        if isinstance(tree, int):
            return current[tree], 1 << tree
        (a, one), (b, two) = build(tree[0]), build(tree[1])
        mask = one | two
        joined = _joined(one, two, groups, placed)
        needed = _needed(mask, groups, placed, kept)
        last = mask == everything and all(
            r in joined or _inside(one, r, groups) or _inside(two, r, groups) for r in placed
        )
        own = scale if last else ONE
        if not joined:
            return builder.contract((a, b), builder.pair_indices(a, b, needed), own), mask
        return builder.convolve((a, b), joined, _axes((a, b), joined, needed), own), mask

    result, _ = build(tree)
    rest = tuple(r for r in placed if not _inside(everything, r, groups))
    if rest:
        result = builder.convolve((result,), rest, _axes((result,), rest, kept), scale)
    elif len(current) == 1:
        result = builder.contract((result,), result.indices, scale)
    return result


def _axes(operands: tuple[Operand, ...], placed: tuple[Relation, ...], needed: frozenset[Index]) -> tuple[Index, ...]:
    """Return the axes of a product: those of the operands, with an operand's position replaced by its combination."""
    terms = {r.position: tuple(i for i, _ in r.terms) for r in placed}
    found = [j for o in operands for i in o.indices for j in (i, *terms.get(i, ()))]
    found += [i for r in placed for i in r.indices]
    return tuple(i for i in dict.fromkeys(found) if i in needed)


def _without_private(
    k: int, operands: Sequence[Operand], placed: Sequence[Relation], kept: frozenset[Index], builder: Builder
) -> Operand:
    others = {i for n, o in enumerate(operands) if n != k for i in o.indices} | {i for r in placed for i in r.indices}
    wanted = tuple(i for i in operands[k].indices if i in kept or i in others)
    return operands[k] if wanted == operands[k].indices else builder.contract((operands[k],), wanted)


Groups = Sequence[frozenset[Index]]


def _touching(mask: int, relation: Relation, groups: Groups) -> int:
    """Return the operands of a mask that have an index of a relation, as a mask."""
    return sum(1 << k for k, g in enumerate(groups) if mask >> k & 1 and g & relation.index_set)


def _inside(mask: int, relation: Relation, groups: Groups) -> bool:
    """Return whether a relation is taken in the product of the operands of a mask: where two of them meet in it."""
    return _touching(mask, relation, groups).bit_count() > 1


def _joined(one: int, two: int, groups: Groups, placed: Sequence[Relation]) -> tuple[Relation, ...]:
    return tuple(
        r
        for r in placed
        if _inside(one | two, r, groups) and not _inside(one, r, groups) and not _inside(two, r, groups)
    )


def _needed(mask: int, groups: Groups, placed: Sequence[Relation], kept: frozenset[Index]) -> frozenset[Index]:
    """Return the indices that the product of the operands of a mask keeps, if it has them."""
    outside = [g for k, g in enumerate(groups) if not mask >> k & 1]
    open_ = [r.index_set for r in placed if not _inside(mask, r, groups)]
    return kept.union(*outside, *open_)


@lru_cache(maxsize=4096)
def _best(
    groups: tuple[frozenset[Index], ...],
    placed: tuple[Relation, ...],
    kept: frozenset[Index],
    known: tuple[tuple[str, int], ...],
) -> Tree:
    """Return the order with the fewest multiply-accumulates; of equal ones, that of the smallest intermediates."""
    sizes: Sizes = dict(known)

    def entries(indices: Iterable[Index]) -> int:
        return prod(length(i, sizes) for i in indices)

    have: dict[int, frozenset[Index]] = {1 << k: g for k, g in enumerate(groups)}
    best: dict[int, tuple[int, int, Tree]] = {1 << k: (0, 0, k) for k in range(len(groups))}
    for mask in range(1, 1 << len(groups)):
        if mask in best:
            continue
        found: tuple[int, int, Tree] | None = None
        part = (mask - 1) & mask
        while part:
            rest = mask ^ part
            if part > rest:
                joined = _joined(part, rest, groups, placed)
                every = have[part] | have[rest] | frozenset(i for r in joined for i in r.indices)
                out = every & _needed(mask, groups, placed, kept)
                have[mask] = out
                loop = entries(every - {r.position for r in joined})
                one, two = best[rest], best[part]
                cost = one[0] + two[0] + loop, one[1] + two[1] + entries(out)
                if found is None or cost < found[:2]:
                    found = (*cost, (one[2], two[2]))
            part = (part - 1) & mask
        assert found is not None
        best[mask] = found
    return best[(1 << len(groups)) - 1][2]


def relation_text(relation: Relation, letters: dict[Index, str]) -> str:
    """Return a relation as a condition, `[p == 2*i+u-1]`."""
    form = Affine.of([*((letters[i], c) for i, c in relation.terms), *relation.sizes], relation.number)
    return f"[{letters[relation.position]} == {form}]"
