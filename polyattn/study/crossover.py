"""`crossover`: the sizes at which one plan overtakes another, from their symbolic multiply-accumulates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from math import ceil, floor
from typing import TYPE_CHECKING, Any

from polyattn.errors import SizeError
from polyattn.planning import Plan

if TYPE_CHECKING:
    import sympy

Number = Any
"""A `Fraction`, or an irrational algebraic number of sympy's."""
FORMULA_DEGREE = 2
"""Greatest degree in the varying size for which the points are also given as formulas in the other sizes."""


@dataclass(frozen=True)
class Crossover:
    """The sizes at which the cheaper of two plans changes as one size grows.

    Attributes:
        size: the varying size.
        others: the numbers of the other sizes.
        names: names of the plans.
        points: positive numbers of the size, in increasing order, at which the costs are equal and the sign of their
            difference changes: exact, as fractions or sympy's algebraic numbers.
        cheaper: the position (0 or 1) of the cheaper plan below the first point, between the points, and above the
            last; (None,) if both cost the same everywhere.
        formulas: solutions for the size in terms of the others, as sympy expressions, each one of `points` at the
            numbers of the others; empty if the costs' difference is of a higher degree than two.
        coefficients: those of the difference of the costs, first less second, from the highest power of the size on.
        touching: positive numbers at which the costs are equal, and the same plan is cheaper on both sides.
    """

    size: str
    others: tuple[tuple[str, int], ...]
    names: tuple[str, str]
    points: tuple[Number, ...]
    cheaper: tuple[int | None, ...]
    formulas: tuple[sympy.Expr, ...]
    coefficients: tuple[Fraction, ...] = ()
    touching: tuple[Number, ...] = ()

    def cheaper_at(self, number: float) -> int | None:
        """Return the position of the cheaper plan at a size; None if both cost the same."""
        # Exactly: the costs there, and not the place between rounded points.
        value = Fraction(0)
        for coefficient in self.coefficients:
            value = value * Fraction(number) + coefficient
        return None if not value else int(value > 0)

    def __str__(self) -> str:
        at = ", ".join(f"{name}={number}" for name, number in self.others)
        if self.cheaper == (None,):
            return f"{self.names[0]} and {self.names[1]} take the same at every {self.size}, for {at}"
        lines, start = [], 1
        equal = {int(p) for p in self.touching if isinstance(p, Fraction) and p.denominator == 1}
        for k, which in enumerate(self.cheaper):
            assert which is not None
            # Points may be fractions, sizes are whole: a stretch ends at the last whole number below its point.
            end = ceil(self.points[k]) - 1 if k < len(self.points) else None
            spans = [f"{a} to {b}" if b is not None else f"{a} on" for a, b in _without(equal, start, end)]
            if spans:
                lines.append(f"{self.names[which]} takes less for {self.size} = {' and '.join(spans)}")
            start = start if end is None else floor(self.points[k]) + 1
        lines = lines or [f"{self.names[0]} and {self.names[1]} take the same at {self.size} = 1"]
        text = "; ".join(lines) + f" (multiply-accumulates, {at})"
        return text + "".join(f"\n{self.size} = {formula}" for formula in self.formulas)


def crossover(first: Plan, second: Plan, size: str) -> Crossover:
    """Find the sizes at which one plan overtakes another in multiply-accumulates, the other sizes fixed.

    Plans for the objective "training" are compared with their backward passes. A split size, such as `C = G*M`, cannot
    vary by itself: name the varying part.

    Args:
        first, second: plans for the same numbers of their common sizes, but for `size`.
        size: the varying size; "B" is the batch.

    Raises:
        SizeError: neither plan has the size, it is split, or the plans are for different sizes or objectives.

    >>> from polyattn import plan
    >>> gram = plan("x[N,C]; s[d,f] = x[e,d]*x[e,f]; y[a,b] = x[a,d]*s[d,b]", {"N": 9, "C": 8}, "as_written")
    >>> maps = plan("x[N,C]; s[a,e] = x[a,d]*x[e,d]; y[a,b] = s[a,e]*x[e,b]", {"N": 9, "C": 8}, "as_written")
    >>> print(crossover(maps, gram, "N"))
    as written (1) takes less for N = 1 to 7; as written (2) takes less for N = 9 on (multiply-accumulates, B=1, C=8)
    N = C
    """
    import sympy

    others = _common_sizes(first, second, size)
    symbol = sympy.Symbol(size, positive=True, integer=True)
    training = first.objective == "training"
    costs = [p.training_complexity if training else p.complexity for p in (first, second)]
    if not any(symbol in c.free_symbols for c in costs):
        raise SizeError(f"no cost depends on size {size}")
    names = (first.strategy, second.strategy)
    if names[0] == names[1]:
        names = f"{names[0]} (1)", f"{names[1]} (2)"
    # Factored symbolically for the formulas; the numbers are put in only for the roots.
    difference = sympy.factor_terms(sympy.expand(costs[0] - costs[1]))
    numbers = {sympy.Symbol(name, positive=True, integer=True): value for name, value in others.items()}
    # A dummy cannot collide with a size's symbol, and carries no assumption about its sign.
    varying = sympy.Dummy(size)
    polynomial = sympy.Poly(sympy.expand(difference.subs({**numbers, symbol: varying})), varying, domain="QQ")
    pairs = tuple(sorted(others.items()))
    if polynomial.is_zero:
        return Crossover(size, pairs, names, (), (None,), ())
    points, cheaper, touching = _signs(polynomial)
    found = _formulas(difference, symbol, numbers, points) if points else ()
    whole: Any = polynomial.all_coeffs()
    coefficients = tuple(Fraction(int(c.p), int(c.q)) for c in whole)
    return Crossover(size, pairs, names, points, cheaper, found, coefficients, touching)


def _common_sizes(first: Plan, second: Plan, size: str) -> dict[str, int]:
    """Return the numbers of all sizes but the varying one and those that contain it."""
    if (first.objective == "training") != (second.objective == "training"):
        raise SizeError("one of the plans is for training and the other is not: compare plans of one objective")
    found: dict[str, int] = {}
    for plan in (first, second):
        if "B" in plan.spec.sizes.names:
            raise SizeError("a comparison calls the batch B: give the size B of the specification another name")
        if any(split.size == size for split in plan.spec.sizes.splits):
            raise SizeError(f"size {size} is split in this specification: name the part of it that varies")
        if size != "B" and size not in plan.sizes and all(size not in p.sizes for p in (first, second)):
            raise SizeError(f"there is no size {size!r} in either plan; they have B, {', '.join(sorted(plan.sizes))}")
        # A whole size follows from its varying part, so its number may differ between the plans.
        whole = {split.size for split in plan.spec.sizes.splits if size in plan.spec.sizes.atoms(split.size)}
        for name, number in {"B": plan.batch, **plan.sizes}.items():
            if name != size and name not in whole and found.setdefault(name, number) != number:
                raise SizeError(
                    f"the plans are for different sizes: {name} is {found[name]} in one and {number} in the other"
                )
    return found


def _without(equal: set[int], start: int, end: int | None) -> list[tuple[int, int | None]]:
    """Return the stretches of start to end between the sizes of equal cost."""
    found: list[tuple[int, int | None]] = []
    for place in sorted(e for e in equal if e >= start and (end is None or e <= end)):
        if place > start:
            found.append((start, place - 1))
        start = place + 1
    return [*found, (start, end)] if end is None or end >= start else found


def _signs(polynomial: sympy.Poly) -> tuple[tuple[Number, ...], tuple[int, ...], tuple[Number, ...]]:
    """Find the positive roots with a change of sign, the cheaper plan around them, and the roots without a change."""
    found: Any = polynomial.real_roots()
    # Equal roots stand side by side; all are in increasing order.
    roots = [(root, len(list(several))) for root, several in groupby(found)]
    positive = [(_number(root), times) for root, times in roots if root.is_positive]
    # Just above 0 the lowest power decides.
    lowest: Any = next(c for c in reversed(polynomial.all_coeffs()) if c)
    points, cheaper, touching = [], [1 if lowest > 0 else 0], []
    for root, times in positive:
        # A root of even multiplicity touches zero without a change of sides.
        if times % 2:
            points.append(root)
            cheaper.append(1 - cheaper[-1])
        else:
            touching.append(root)
    return tuple(points), tuple(cheaper), tuple(touching)


def _number(root: Any) -> Number:
    return Fraction(int(root.p), int(root.q)) if root.is_Rational else root


def _formulas(
    difference: sympy.Expr, symbol: sympy.Symbol, numbers: Mapping[sympy.Symbol, int], points: tuple[Number, ...]
) -> tuple[sympy.Expr, ...]:
    """Solve for the size, without the powers whose coefficients vanish at the numbers of the others."""
    import sympy

    polynomial = sympy.Poly(sympy.expand(difference), symbol)
    # A general solution divides by the highest coefficient, which is 0 at such sizes (B = 1, V = C): they are a case of
    # their own, of a lower degree.
    kept = [(power, c) for (power,), c in polynomial.terms() if c.subs(numbers) != 0]
    # The least power of the size divides all of it and has no positive root.
    least = min(power for power, _ in kept)
    free = sympy.Dummy("t")
    reduced = sympy.Poly(sympy.Add(*(c * free ** (power - least) for power, c in kept)), free)
    if not 0 < reduced.degree() <= FORMULA_DEGREE:
        return ()
    wanted = [sympy.Rational(p.numerator, p.denominator) if isinstance(p, Fraction) else p for p in points]
    found = []
    for solution in sympy.solve(reduced.as_expr(), free):
        at: Any = solution.subs(numbers)
        # The other solution of a quadratic equation is negative, or no number, at these sizes.
        if any(abs(sympy.N(at - p, 30)) < sympy.Rational(1, 10**20) * (1 + abs(p)) for p in wanted):
            found.append(sympy.simplify(solution))
    return tuple(found)
