"""The tensors of a counterexample at fixed sizes, with as few unknown numbers as the given equations allow.

A tensor with a given symmetry has one unknown per orbit of entries; a tensor restricted by other equations takes its
values from a list of simple arrays, filtered by these equations exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, permutations, product
from math import prod

import numpy as np

from polyattn.errors import BudgetError
from polyattn.proving.evaluation import EXACT, MAX_AXES, Arithmetic, Point, evaluate
from polyattn.proving.given import Rule, Symmetry
from polyattn.proving.work import charge

# The first bounds the tests of an equation, the second the trials of the search with its results.
MAX_CHOICES = 2000
MAX_KEPT = 24
MAX_UNKNOWNS = 2**15
"""The most entries of all tensors together."""


@dataclass(frozen=True)
class Unknown:
    """One number: its entries in a tensor, each with a sign."""

    tensor: str
    entries: tuple[tuple[tuple[int, ...], int], ...]


def unknowns(shapes: Mapping[str, tuple[int, ...]], symmetries: Sequence[Symmetry]) -> list[Unknown]:
    """Return the independent numbers of tensors of the given shapes; entries made zero by an antisymmetry are left out.

    Raises:
        BudgetError: the tensors have more than 2^15 entries.
    """
    _guard(shapes)
    found = []
    # Sorted, so that random values fall on the same entries in every run.
    for tensor, shape in sorted(shapes.items()):
        mine = [s for s in symmetries if s.tensor == tensor]
        seen: set[tuple[int, ...]] = set()
        for position in np.ndindex(*shape):
            if position in seen:
                continue
            orbit, free = _orbit(position, mine)
            seen.update(orbit)
            if free:
                found.append(Unknown(tensor, tuple(orbit.items())))
    return found


def _orbit(position: tuple[int, ...], symmetries: Sequence[Symmetry]) -> tuple[dict[tuple[int, ...], int], bool]:
    orbit, queue, free = {position: 1}, [position], True
    while queue:
        old = queue.pop()
        for symmetry in symmetries:
            new = tuple(old[k] for k in symmetry.order)
            sign = orbit[old] * symmetry.sign
            if new not in orbit:
                orbit[new] = sign
                queue.append(new)
            # An entry reached with both signs is its own negative: zero.
            free &= orbit[new] == sign
    return orbit, free


def filled(
    shapes: Mapping[str, tuple[int, ...]],
    known: Sequence[Unknown],
    values: Sequence[int] | Sequence[Fraction],
    arithmetic: Arithmetic,
) -> dict[str, np.ndarray]:
    """Return the tensors with the given values of their unknowns."""
    charge(2 * len(known))
    tensors = {tensor: np.zeros(shape, dtype=arithmetic.dtype) for tensor, shape in shapes.items()}
    for unknown, value in zip(known, values, strict=True):
        for position, sign in unknown.entries:
            tensors[unknown.tensor][position] = arithmetic.number(Fraction(sign * value))
    return tensors


def restricted(
    shapes: Mapping[str, tuple[int, ...]], rules: Sequence[Rule], sizes: Mapping[str, int]
) -> Iterator[dict[str, np.ndarray]]:
    """Yield choices of exact arrays for the tensors of the rules, the simplest first, that satisfy all rules.

    Raises:
        BudgetError: the tensors have more than 2^15 entries.
    """
    _guard(shapes)
    names = sorted(shapes)
    options = [list(islice(_simple_arrays(shapes[name]), MAX_CHOICES)) for name in names]
    kept = 0
    for arrays in islice(product(*options), MAX_CHOICES):
        tensors = dict(zip(names, arrays, strict=True))
        if all(holds(rule, Point(sizes, tensors)) for rule in rules):
            yield tensors
            kept += 1
            if kept == MAX_KEPT:
                return


def holds(rule: Rule, point: Point) -> bool:
    """Return whether the tensors satisfy a given equation exactly, at every entry."""
    left = evaluate((rule.left,), rule.free, point, EXACT)
    right = evaluate(rule.right, rule.free, point, EXACT)
    return bool(np.all(left == right))


def _simple_arrays(shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yield zeros, ones, one-hot rows, permutations, rotations, normalised rows and small integers, as exact
    numbers."""
    zeros = np.zeros(shape, dtype=int).astype(object)
    yield zeros
    yield np.ones(shape, dtype=int).astype(object)
    for axis in range(len(shape)):
        for step in range(shape[axis]):
            yield _one_hot(shape, axis, step)
    for rows, columns in permutations(range(len(shape)), 2):
        yield from _matrices(shape, rows, columns)
    generator = np.random.default_rng(0)
    for axis in range(len(shape)):
        for _ in range(4):
            numbers = generator.integers(0, 4, size=shape).astype(object) + Fraction(0)
            total = numbers.sum(axis=axis, keepdims=True)
            # A row of zeros stays one, without a division by zero.
            total[total == 0] = Fraction(1)
            yield numbers / total
    # At most 3^6 arrays.
    if prod(shape) <= 6:
        for values in product((0, 1, -1), repeat=prod(shape)):
            yield np.array(values, dtype=object).reshape(shape)


def _guard(shapes: Mapping[str, tuple[int, ...]]) -> None:
    if (entries := sum(map(prod, shapes.values()))) > MAX_UNKNOWNS:
        raise BudgetError(f"a counterexample would have {entries:,} entries; the limit is {MAX_UNKNOWNS:,}")
    if (axes := max(map(len, shapes.values()), default=0)) > MAX_AXES:
        raise BudgetError(f"a counterexample would have a tensor of {axes} axes; the limit is {MAX_AXES}")


def _one_hot(shape: tuple[int, ...], axis: int, step: int) -> np.ndarray:
    """Return ones along `axis`, at a place that moves by `step` for each step along the other axes."""
    charge(prod(shape))
    array = np.zeros(shape, dtype=int).astype(object)
    for position in np.ndindex(*shape):
        others = sum(position) - position[axis]
        array[position] = int(position[axis] == others * step % shape[axis])
    return array


def _matrices(shape: tuple[int, ...], rows: int, columns: int) -> Iterator[np.ndarray]:
    """Yield identities, reflections, shifts and a rotation in the plane of two axes, the same along the others."""
    charge(prod(shape))
    height, width = shape[rows], shape[columns]
    eye = np.eye(height, width, dtype=int).astype(object)
    reflected = eye.copy()
    reflected[-1] *= -1
    matrices = [eye, reflected, -eye, np.roll(eye, 1, axis=1)]
    if min(height, width) >= 2:
        # The triple 3, 4, 5 makes a rotation with rational entries.
        turned = eye * Fraction(1)
        turned[:2, :2] = [[Fraction(3, 5), Fraction(4, 5)], [Fraction(-4, 5), Fraction(3, 5)]]
        matrices.append(turned)
    for matrix in matrices:
        aligned = matrix if rows < columns else matrix.T
        # A copy, since the broadcast view is read-only and shares memory.
        yield np.array(
            np.broadcast_to(aligned.reshape([n if k in (rows, columns) else 1 for k, n in enumerate(shape)]), shape)
        )
