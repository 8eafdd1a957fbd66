"""The search for a counterexample: the smallest sizes first, then as many zeros and ones as possible.

A difference between polynomials is never zero at every size, so sizes as large as the number of indices suffice; in
practice one or two of them are 2. Sizes are tried modulo a prime at random points; a point found there is shrunk
part by part, down to single entries. With functions, floats only pass over points at which both sides seem to agree: a
difference counts if the sides are exact, or if their enclosures are disjoint. Nothing here is trusted:
`counterexample` evaluates both texts again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations_with_replacement
from random import Random
from typing import Any, TypeVar

import numpy as np

from polyattn.algebra import FunctionFactor, Index, Monomial
from polyattn.algebra.conditions import conditions_in
from polyattn.errors import BudgetError
from polyattn.language.conditions import comparison, sizes_in
from polyattn.language.sizes import is_name, names_in, number_of
from polyattn.proving.enclosure import DIGITS, Sides, first_difference
from polyattn.proving.evaluation import EXACT, FLOATING, Arithmetic, Point, evaluate, modular, prime_beside
from polyattn.proving.given import Rule, Symmetry
from polyattn.proving.unknowns import Unknown, filled, restricted, unknowns
from polyattn.proving.work import MAX_CONFIRMING, PER_MONOMIAL, Meter, SpentError

T = TypeVar("T")

MAX_TRIED = 1500
"""The number of assignments of sizes to try."""

MAX_TRIED_FUNCTIONS = 40
"""The same with functions: two forms of one function may differ, and a search without a result is long."""

MAX_WORK = 60_000
"""The number of evaluated monomials in all, unless the caller says otherwise."""

FILTER = 1e-14
"""Sides that differ by less than this in float64, relative to the largest entry, are not enclosed."""

QUICK = DIGITS[:2]
"""The digits that the search encloses the sides with."""

ENCLOSING = 10
"""How many evaluations of all monomials it counts as to enclose them."""

Values = Sequence[int] | Sequence[Fraction]
PARTS, FINE = (7, 1000), (1, 2, 3, -1, -2)
"""Fractions tried where functions seem equal at whole numbers: their denominators, and their numerators."""

UNFILTERED = 12
"""The assignments of sizes at which a fraction is enclosed although floats see no difference there."""

# Small values first, so that a person can follow the result; large ones last, for sides that agree at
# small ones.
RANGES = ((0, 1), (0, 1), (0, 1), (-1, 1), (0, 2), (-2, 2), (-3, 3), (-9, 9), (-99, 99), (-9999, 9999))


@dataclass(frozen=True)
class Difference:
    """The two sums whose difference is to be made nonzero.

    Attributes:
        left, right: the monomials of one side only.
        output: the indices on the left of both.
        shapes: the atomic slots of the tensors.
        symmetries, rules: the given equations that the tensors have to satisfy.
    """

    left: tuple[Monomial, ...]
    right: tuple[Monomial, ...]
    output: tuple[Index, ...]
    shapes: Mapping[str, tuple[str, ...]]
    symmetries: tuple[Symmetry, ...] = ()
    rules: tuple[Rule, ...] = ()

    @property
    def explanation(self) -> str:
        """Return a reason why functions may be equal although their forms differ."""
        if self.applies_functions:
            return "; functions count as equal only where their arguments are"
        if self.rules:
            return "; the given equations are used from left to right only"
        if any(i.size.isdigit() for t in (*self.left, *self.right) for i in (*self.output, *t.all_indices())):
            return "; where a size is a number, different forms may be equal"
        return ""

    @property
    def applies_functions(self) -> bool:
        return any(isinstance(f, FunctionFactor) for t in (*self.left, *self.right) for f in t.factors)


def search(
    difference: Difference, confirm: Callable[[Point], T | None], effort: int = MAX_WORK
) -> tuple[T | None, str]:
    """Return a point at which the two sides differ, as small as possible, or None and the extent of the search.

    Args:
        confirm: called with a point; None if the sides are not certainly different there.
        effort: largest number of monomials to evaluate.
    """
    hunt, confirming = _Hunt(difference, effort), Meter(MAX_CONFIRMING)
    try:
        for sizes in hunt.assignments():
            # Metered apart: the search's effort is for trials only.
            with hunt.meter.running():
                point = hunt.at(sizes)
            if point is not None:
                with confirming.running():
                    confirmed = confirm(point)
                if confirmed is not None:
                    return confirmed, ""
    except (_OutOfBudgetError, SpentError):
        found = f"the budget of {effort:,} evaluated monomials is used up, at sizes up to {hunt.reached()}"
    else:
        found = f"no difference was found at {hunt.tried} assignments of sizes, up to {hunt.reached()}"
    too_large = f"; {hunt.too_large}" if hunt.too_large else ""
    return None, f"the forms differ, but {found}{too_large}{difference.explanation}"


class _OutOfBudgetError(Exception):
    """The search has spent its effort."""


class _Hunt:
    def __init__(self, difference: Difference, effort: int):
        self.difference, self.effort = difference, effort
        # A fixed seed: the same question gets the same counterexample.
        self.random = Random(0)
        self.work = self.tried = 0
        self.largest: dict[str, int] = {}
        self.meter = Meter(effort * PER_MONOMIAL)
        self.too_large = ""
        # One prime for the whole search: no coefficient of either side vanishes modulo it.
        self.prime = prime_beside((*difference.left, *difference.right))

    def spend(self, times: int = 1) -> None:
        """Count all monomials as evaluated `times` more."""
        self.work += times * (len(self.difference.left) + len(self.difference.right))
        if self.work > self.effort:
            raise _OutOfBudgetError

    def reached(self) -> str:
        return ", ".join(f"{size} = {n}" for size, n in sorted(self.largest.items())) or "no size at all"

    def assignments(self) -> Iterator[dict[str, int]]:
        """Yield sizes in the order of their sum; last, if the search stops early, the sizes that suffice."""
        bounds = self.bounds()
        names = sorted(bounds)
        top = sum(bounds[n] - 1 for n in names)
        # All sizes start at 1; `extra` is the sum of the steps above it.
        for extra in range(top + 1):
            for more in combinations_with_replacement(names, extra):
                sizes = {n: 1 + more.count(n) for n in names}
                if any(sizes[n] > bounds[n] for n in names):
                    continue
                if self.tried == (MAX_TRIED_FUNCTIONS if self.difference.applies_functions else MAX_TRIED):
                    yield bounds
                    return
                self.tried += 1
                yield sizes

    def bounds(self) -> dict[str, int]:
        """Return, for each size, the number of its indices, with room for its powers to come apart."""
        terms = (*self.difference.left, *self.difference.right)
        bounds: dict[str, int] = {}
        for term in terms:
            indices = {*self.difference.output, *term.all_indices()}
            for size in {i.size for i in indices if is_name(i.size)}:
                # At these sizes all indices can take different values, so different monomials are
                # different functions.
                bounds[size] = max(bounds.get(size, 1), sum(i.size == size for i in indices))
        for size in {s for t in terms for s in _powers(t)}:
            # N^2 - 3N has roots: its exponents' spread bounds how many sizes may be roots.
            exponents = [_powers(t).get(size, 0) for t in terms]
            bounds[size] = bounds.get(size, 1) + max(exponents) - min(exponents)
        for factor in conditions_in(terms):
            compared = comparison(factor.tensor)
            for size in {i.size for i in factor.indices if not i.size.isdigit() and compared.order is None}:
                # Room for the numbers of a condition to count.
                bounds[size] = bounds.get(size, 1) + min(abs(compared.number), 8) + len(compared.sizes)
            for size in sizes_in(factor.tensor):
                bounds[size] = max(bounds.get(size, 1), 3)
        most = max(bounds.values(), default=1)
        for rule in self.difference.rules:  # may need as many entries along their own sizes
            indices = {i for t in (rule.left, *rule.right) for i in t.all_indices()}
            bounds = {i.size: most for i in indices if is_name(i.size)} | bounds
        if self.difference.applies_functions:
            # One more for functions: a softmax over a size of 1 is constant.
            return {size: bound + 1 for size, bound in (dict.fromkeys(_sizes_inside(terms), 1) | bounds).items()}
        return bounds

    def at(self, sizes: dict[str, int]) -> Point | None:
        """Return a small point at the given sizes where the sides differ, if one is found."""
        shapes = {
            # Sizes on neither side of the difference have one entry.
            t: tuple(number_of(a, {**dict.fromkeys(names_in(a), 1), **sizes}) for a in atoms)
            for t, atoms in self.difference.shapes.items()
        }
        # Tensors that rules restrict cannot be filled freely: their arrays come from a list.
        bound = {t for rule in self.difference.rules for t in rule.tensors} & set(shapes)
        free = {t: shape for t, shape in shapes.items() if t not in bound}
        try:
            unknown = unknowns(free, self.difference.symmetries)
            choices: Iterator[dict[str, np.ndarray]] = iter([{}])
            if bound:
                choices = restricted({t: shapes[t] for t in bound}, self.difference.rules, sizes)
            for fixed in choices:
                trial = _Trial(self, sizes, free, unknown, fixed)
                values = trial.differing()
                self.largest = {s: max(n, self.largest.get(s, 1)) for s, n in sizes.items()}
                if values is not None:
                    return trial.point(trial.shrunk(values))
        except BudgetError as error:
            # Remembered rather than raised: other sizes may still fit.
            self.too_large = str(error)
        return None


@dataclass
class _Trial:
    """The hunt at fixed sizes, with fixed arrays for the tensors that rules restrict."""

    hunt: _Hunt
    sizes: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    unknown: list[Unknown]
    fixed: dict[str, np.ndarray]

    def point(self, values: Values, arithmetic: Arithmetic = EXACT) -> Point:
        fixed = {t: _converted(array, arithmetic) for t, array in self.fixed.items()}
        return Point(self.sizes, {**filled(self.shapes, self.unknown, values, arithmetic), **fixed})

    def sides(self, values: Values, arithmetic: Arithmetic) -> Sides:
        point, difference = self.point(values, arithmetic), self.hunt.difference
        left = evaluate(difference.left, difference.output, point, arithmetic)
        return left, evaluate(difference.right, difference.output, point, arithmetic)

    def differs(self, values: Values, seen: bool = False) -> bool:
        """Return whether the sides certainly differ.

        Args:
            seen: whether to enclose them although floats see no difference.
        """
        # Counted before it is computed, so that the effort bounds the time.
        self.hunt.spend()
        if not self.hunt.difference.applies_functions:
            left, right = self.sides(values, modular(self.hunt.prime))
            return bool(np.any(left != right))
        # Floats are cheap and nearly always decide; only a likely difference is worth its enclosure.
        if not seen and self.seem_equal(values):
            return False
        self.hunt.spend(ENCLOSING)
        return first_difference(lambda arithmetic: self.sides(values, arithmetic), QUICK) is not None

    def seem_equal(self, values: Values) -> bool:
        """Return whether the sides agree in float64, if it can hold them."""
        try:
            with np.errstate(all="ignore"):
                left, right = self.sides(values, FLOATING)
                # Below 1e-3 the tolerance is absolute.
                scale = max(float(np.abs(left).max()), float(np.abs(right).max()), 1e-3)
                return bool(np.all(np.abs(left - right) <= FILTER * scale)) and np.isfinite(scale)
        except OverflowError:
            return False

    def differing(self) -> list[int] | list[Fraction] | None:
        """Return values at which the sides differ: ones, random ones from growing ranges, for functions fractions."""
        count = len(self.unknown)
        # Polynomials without a difference at a random point modulo the prime have almost surely none at
        # these sizes: no need to try small values.
        if not self.hunt.difference.applies_functions and not self.differs(
            [self.hunt.random.randrange(self.hunt.prime) for _ in range(count)]
        ):
            return None
        if self.differs([1] * count):
            return [1] * count
        for low, high in RANGES:
            values = [self.hunt.random.randint(low, high) for _ in range(count)]
            if self.differs(values):
                return values
        return self.fine(count) if self.hunt.difference.applies_functions else None

    def fine(self, count: int) -> list[Fraction] | None:
        """Return small fractions at which functions differ that are constant in float64 at whole numbers.

        The last point is enclosed even where floats see no difference: it may be of 20 digits less than the values.
        """
        values: list[Fraction] = []
        for parts in PARTS:
            values = [Fraction(self.hunt.random.choice(FINE), parts) for _ in range(count)]
            if self.differs(values):
                return values
        return values if self.hunt.tried <= UNFILTERED and self.differs(values, seen=True) else None

    def shrunk(self, values: list[int] | list[Fraction]) -> Values:
        """Set values to zero and then to one while the sides differ: whole tensors first, then halves, down to
        entries."""
        tensors = dict.fromkeys(u.tensor for u in self.unknown)
        groups = [[k for k, u in enumerate(self.unknown) if u.tensor == t] for t in tensors]
        try:
            # Twice, because a later change may make an earlier one possible.
            for _ in range(2):
                before = list(values)
                for new in (0, 1):
                    for group in (*groups, list(range(len(values)))):
                        self.simplify(values, group, new)
                if values == before:
                    break
        except (_OutOfBudgetError, SpentError):  # larger than it need be, but found
            pass
        return values

    def simplify(self, values: list[Any], group: Sequence[int], new: int) -> None:
        """Set as many of a group's values as possible to a simpler number, the last ones first."""
        queue = [group]
        while queue:
            part = [k for k in queue.pop() if _simpler(new, values[k])]
            changed = list(values)
            for k in part:
                changed[k] = new
            if part and self.differs(changed):
                values[:] = changed
            # Bisection: a group that cannot be simplified as a whole is tried in halves.
            elif len(part) > 1:
                queue += [part[: len(part) // 2], part[len(part) // 2 :]]


def _simpler(new: int, old: int | Fraction) -> bool:
    # Smaller in absolute value first, then positive before negative.
    return (abs(new), new < 0) < (abs(old), old < 0)


def _sizes_inside(terms: Iterable[Monomial]) -> set[str]:
    """Return the sizes in powers, inside functions too."""
    found: set[str] = set()
    for term in terms:
        found |= {size for size, _ in term.powers}
        for factor in term.factors:
            if isinstance(factor, FunctionFactor):
                found |= _sizes_inside(factor.terms)
    return found


def _powers(term: Monomial) -> dict[str, int]:
    return dict(term.powers)


def _converted(array: np.ndarray, arithmetic: Arithmetic) -> np.ndarray:
    flat = [arithmetic.number(Fraction(v)) for v in array.ravel()]
    return np.array(flat, dtype=arithmetic.dtype).reshape(array.shape)
