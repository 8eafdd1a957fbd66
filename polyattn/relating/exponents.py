"""The smallest power of each size in the cost of a layer, over the plans that the planner finds, with the plan."""

from __future__ import annotations

from dataclasses import dataclass, field

from polyattn.algebra import Spec
from polyattn.errors import PolyattnError
from polyattn.planning import Plan, question, ranked_plans

LARGE, SMALL = 2**20, 4
"""The number of the size whose power is asked for, and of the others."""


@dataclass(frozen=True)
class Exponent:
    """The power of a size in the multiply-accumulates of the plan that is cheapest where that size is large."""

    power: int
    plan: Plan = field(repr=False)


def exponents(spec: Spec) -> dict[str, Exponent]:
    """Return the smallest power of each size of the inputs, unless it is split or no plan is found.

    The cheapest plan where one size is a million times larger than all others has its smallest power.
    """
    found = {}
    for size in dict.fromkeys(s for shape in spec.inputs.values() for s in shape):
        if size.isdigit() or spec.sizes.parts(size):
            continue
        numbers = dict.fromkeys(spec.sizes.atomic, SMALL) | {size: LARGE}
        try:
            known = spec.sizes.solve({s: n for s, n in numbers.items() if s in spec.sizes.names}, spec.sizes.names)
            plan = ranked_plans(question(spec, {**known, "B": 1}, "forward", cost="macs"), 1)[0]
        except PolyattnError:
            continue
        found[size] = Exponent(_power(plan, size), plan)
    return found


def _power(plan: Plan, size: str) -> int:
    import sympy

    expression = sympy.expand(plan.complexity)
    symbols = [s for s in expression.free_symbols if str(s) == size]
    return int(sympy.degree(expression, symbols[0])) if symbols else 0
