"""`crossover`: the sizes at which one plan overtakes another, from their symbolic multiply-accumulates."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor
from typing import TYPE_CHECKING, Any

from polyattn.errors import SizeError
from polyattn.planning import Plan

if TYPE_CHECKING:
    import sympy

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
            difference changes.
        cheaper: the position (0 or 1) of the cheaper plan below the first point, between the points, and above the
            last; (None,) if both cost the same everywhere.
        formulas: the positive solutions for the size in terms of the others, as sympy expressions; empty if the costs'
            difference is of a higher degree than two.
    """

    size: str
    others: tuple[tuple[str, int], ...]
    names: tuple[str, str]
    points: tuple[float, ...]
    cheaper: tuple[int | None, ...]
    formulas: tuple[sympy.Expr, ...]

    def cheaper_at(self, number: float) -> int | None:
        """Return the position of the cheaper plan at a size; None if both cost the same."""
        if number in self.points:
            return None
        # The number of points below it is the position of its stretch.
        return self.cheaper[sum(p < number for p in self.points)]

    def __str__(self) -> str:
        at = ", ".join(f"{name}={number}" for name, number in self.others)
        if self.cheaper == (None,):
            return f"{self.names[0]} and {self.names[1]} take the same at every {self.size}, for {at}"
        lines, start = [], 1
        for k, which in enumerate(self.cheaper):
            assert which is not None
            # Points may be fractions, sizes are whole: a stretch ends at the last whole number below its point.
            end = ceil(self.points[k]) - 1 if k < len(self.points) else None
            if end is None or end >= start:
                span = f"{self.size} = {start} to {end}" if end is not None else f"{self.size} = {start} on"
                lines.append(f"{self.names[which]} takes less for {span}")
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
    points, cheaper = _signs(polynomial)
    return Crossover(size, pairs, names, points, cheaper, _formulas(difference, symbol) if points else ())


def _common_sizes(first: Plan, second: Plan, size: str) -> dict[str, int]:
    """Return the numbers of all sizes but the varying one and those that contain it."""
    if (first.objective == "training") != (second.objective == "training"):
        raise SizeError("one of the plans is for training and the other is not: compare plans of one objective")
    found: dict[str, int] = {}
    for plan in (first, second):
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


def _signs(polynomial: sympy.Poly) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Find the positive roots with a change of sign, and the cheaper plan around them."""
    found: Any = polynomial.real_roots()
    roots = sorted({float(r) for r in found if r > 0})
    ends = [0.0, *roots]
    # The sign is constant between roots, so one probe in each stretch decides.
    probes = [(a + b) / 2 for a, b in pairwise(ends)] + [2 * ends[-1] + 1]
    # Exact arithmetic: close to a root, float rounding could flip the sign.
    values: list[Any] = [polynomial.eval(_exact(p)) for p in probes]
    positions = [1 if v > 0 else 0 for v in values]
    points, cheaper = [], [positions[0]]
    for root, position in zip(roots, positions[1:], strict=True):
        # A root of even multiplicity touches zero without a change of sides.
        if position != cheaper[-1]:
            points.append(root)
            cheaper.append(position)
    return tuple(points), tuple(cheaper)


def _exact(number: float) -> sympy.Expr:
    import sympy

    above, below = number.as_integer_ratio()
    return sympy.Integer(above) / below


def _formulas(difference: sympy.Expr, symbol: sympy.Symbol) -> tuple[sympy.Expr, ...]:
    import sympy

    # The least power of the size divides all of it and has no positive root.
    polynomial = sympy.Poly(sympy.expand(difference), symbol)
    (least,) = min(polynomial.monoms())
    reduced = sympy.Poly(sympy.expand(difference / symbol**least), symbol)
    if not 0 < reduced.degree() <= FORMULA_DEGREE:
        return ()
    free = sympy.Dummy("t")
    solutions = sympy.solve(reduced.as_expr().subs(symbol, free), free)
    return tuple(sympy.simplify(s) for s in solutions if s.is_positive is not False)
