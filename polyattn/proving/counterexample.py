"""Counterexamples: a point of the search as sizes and tensors for a person to check, verified with certainty.

The search works on the sums rewritten by the given equations; here the defined tensors are computed, every given
equation is checked at the point, and both original sides are evaluated. Values are exact or, behind an exponential,
decimals within one unit of their last digit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from polyattn.language import Atoms, value_of
from polyattn.language.sizes import is_name
from polyattn.proving.enclosure import Sides, first_difference
from polyattn.proving.evaluation import EXACT, Arithmetic, Point, evaluate
from polyattn.proving.given import Given, Rule, Substitution, Symmetry
from polyattn.proving.interval import Interval, gap
from polyattn.proving.question import Side
from polyattn.proving.sizes import sizes_text
from polyattn.proving.unknowns import holds, restricted


def counterexample(
    sides: tuple[Side, Side],
    shapes: Mapping[str, tuple[Atoms, ...]],
    splits: Sequence[tuple[str, tuple[str, ...]]],
    given: Sequence[Given],
    point: Point,
    entry: Sequence[int] | None = None,
) -> dict[str, Any] | None:
    """Return the counterexample at a point, or None if the two sides are not certainly different there.

    Args:
        point: sizes, and the tensors without a given definition; missing ones are zero, missing sizes 1.
        entry: the entry of the output that has to differ; None for the first one that does.
    """
    # Sizes may occur in tensors, inside expansions, or as coefficients only.
    atoms = {a for shape in shapes.values() for slot in shape for a in slot if is_name(a)}
    atoms |= {i.size for side in sides for t in side.terms for i in t.all_indices() if is_name(i.size)}
    atoms |= {s for side in sides for s in side.spec.sizes.atomic}
    sizes = {name: point.sizes.get(name, 1) for name in sorted(atoms | set(point.sizes))}
    grouped = [value_of(slot, sizes) for slot in sides[0].spec.shape(sides[0].spec.output)]

    def at(arithmetic: Arithmetic) -> Point:
        return Point(sizes, _all_tensors(sizes, shapes, given, point.tensors, arithmetic))

    def values(arithmetic: Arithmetic) -> Sides | None:
        here = at(arithmetic)
        # A point that violates a given equation shows nothing.
        if not all(_satisfied(g, here) for g in given):
            return None
        left, right = (evaluate(s.terms, s.output, here, arithmetic).reshape(grouped) for s in sides)
        return left, right

    found = first_difference(values, wanted=lambda place: entry is None or list(place) == list(entry))
    if found is None:
        return None
    # Evaluated again in the arithmetic that told the sides apart, so that all numbers belong together.
    tensors = at(found.arithmetic).tensors
    distance = gap(found.left, found.right)
    shown = {t for side in sides for t in side.shapes}.union(*(g.mentioned for g in given))
    enclosed = [found.left, found.right, *(n for t in shown & set(shapes) for n in tensors[t].flat)]
    return {
        "sizes": _named_sizes(sizes, splits),
        "tensors": {t: _nested(tensors[t], shapes[t], sizes) for t in shapes if t in shown},
        "entry": list(found.place),
        "left": _number(found.left, distance),
        "right": _number(found.right, distance),
        "values": "enclosed" if any(isinstance(n, Interval) for n in enclosed) else "exact",
        "shapes": {t: ["*".join(atoms) for atoms in shapes[t]] for t in sorted(shown)},
        "indices": {s.name: [sizes_text(i) for i in s.spec.resolved.index_sizes] for s in sides}
        | {"given": [sizes_text(g.letters) for g in given]},
    }


def satisfiable(shapes: Mapping[str, tuple[Atoms, ...]], given: Sequence[Given]) -> bool:
    """Return whether simple tensors at small sizes satisfy all given equations."""
    defined = {g.tensor for g in given if isinstance(g, Substitution)}
    rules = [g for g in given if isinstance(g, Rule)]
    bound = {t for rule in rules for t in rule.tensors} - defined
    atoms = {a for shape in shapes.values() for slot in shape for a in slot if is_name(a)}
    for number in (1, 2, 3):
        sizes = dict.fromkeys(atoms, number)
        lengths = {t: tuple(value_of((a,), sizes) for slot in shapes[t] for a in slot) for t in shapes}
        # Rules about defined tensors are checked at the end, when these have values.
        direct = [rule for rule in rules if not rule.tensors & defined]
        for fixed in restricted({t: lengths[t] for t in bound}, direct, sizes):
            for value in (1, 0):
                others = {t: np.full(lengths[t], value, dtype=object) for t in shapes if t not in bound | defined}
                point = Point(sizes, _all_tensors(sizes, shapes, given, {**others, **fixed}, EXACT))
                if all(_satisfied(g, point) for g in given):
                    return True
    return False


def _all_tensors(
    sizes: Mapping[str, int],
    shapes: Mapping[str, tuple[Atoms, ...]],
    given: Sequence[Given],
    known: Mapping[str, np.ndarray],
    arithmetic: Arithmetic,
) -> dict[str, np.ndarray]:
    """Return every tensor with one axis per atomic slot: known ones, zeros, and defined ones."""
    definitions = {g.tensor: g for g in given if isinstance(g, Substitution)}
    tensors: dict[str, np.ndarray] = {}

    def value(tensor: str) -> np.ndarray:
        if tensor in tensors:
            return tensors[tensor]
        shape = [value_of((a,), sizes) for slot in shapes[tensor] for a in slot]
        if tensor in definitions:
            definition = definitions[tensor]
            # Depth first: a definition may use tensors with definitions of their own, never itself.
            for other in definition.tensors:
                value(other)
            tensors[tensor] = evaluate(definition.terms, definition.target, Point(sizes, tensors), arithmetic)
        elif tensor in known:
            numbers = [arithmetic.number(Fraction(v)) for v in known[tensor].ravel()]
            tensors[tensor] = np.array(numbers, dtype=arithmetic.dtype).reshape(shape)
        else:
            tensors[tensor] = np.zeros(shape, dtype=int).astype(arithmetic.dtype)
        return tensors[tensor]

    for tensor in shapes:
        value(tensor)
    return tensors


def _satisfied(given: Given, point: Point) -> bool:
    if isinstance(given, Rule):
        return holds(given, point)
    if isinstance(given, Symmetry):
        array = point.tensors[given.tensor]
        # The entry at i is compared with the entry at i[order]: the inverse permutation, hence argsort.
        return bool(np.all(array == given.sign * np.transpose(array, np.argsort(given.order))))
    return True


def _named_sizes(sizes: Mapping[str, int], splits: Sequence[tuple[str, tuple[str, ...]]]) -> dict[str, int]:
    named = dict(sizes)
    for size, atoms in splits:
        named[size] = value_of(atoms, sizes)
    return dict(sorted(named.items()))


def _nested(array: np.ndarray, shape: tuple[Atoms, ...], sizes: Mapping[str, int]) -> Any:
    """Return nested lists, one level per slot."""
    grouped = array.reshape([value_of(slot, sizes) for slot in shape])
    return _listed(grouped)


def _listed(array: Any) -> Any:
    if isinstance(array, np.ndarray) and array.ndim:
        return [_listed(part) for part in array]
    return _number(array.item() if isinstance(array, np.ndarray) else array)


def _number(value: Any, distance: Decimal | None = None) -> int | str:
    """Return an integer as it is, a fraction as text, and an enclosed value as a decimal with certain digits."""
    if isinstance(value, Interval):
        return value.text(distance)
    return int(value) if value == int(value) else str(value)
