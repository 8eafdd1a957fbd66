"""`Formulas`: the costs of one plan, as sympy expressions in the sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from polyattn.errors import SizeError
from polyattn.language import SizeTable
from polyattn.planning import Plan
from polyattn.planning.graph import ITEMSIZE
from polyattn.planning.plan import in_whole_sizes
from polyattn.study.counts import Counts, Terms, counts, expression

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True)
class Formulas:
    """The costs of one plan, for any sizes, with B for the batch. Bytes are those of float32.

    Attributes:
        layer: the name of the specification in the study.
        order: "as written", "opt_einsum" or "planned".
        strategy: the plan's own strategy.
        macs: multiply-accumulates; with those of the backward pass for the objective "training".
        traffic_bytes: bytes read and written by all steps.
        peak_bytes: peak bytes of intermediates: a `Max` over steps unless one step dominates everywhere.
        kept_bytes: bytes kept for the backward pass; 0 for the objective "forward".
        parameters: number of learnt entries.
        leading: the part of `macs` of the highest power of each size.
        points: the points of the study with this plan.
    """

    layer: str
    order: str
    strategy: str
    macs: sympy.Expr
    traffic_bytes: sympy.Expr
    peak_bytes: sympy.Expr
    kept_bytes: sympy.Expr
    parameters: sympy.Expr
    leading: dict[str, sympy.Expr]
    points: tuple[tuple[tuple[str, int], ...], ...]

    @property
    def flops_per_byte(self) -> sympy.Expr:
        """Return the arithmetic intensity: two FLOPs for each multiply-accumulate, over the traffic."""
        return 2 * self.macs / self.traffic_bytes

    @cached_property
    def _compiled(self) -> tuple[tuple[str, ...], dict[str, Callable[..., int]]]:
        """Return the sizes of all formulas by name, and each formula as a Python function of them."""
        import sympy

        expressions = {name: sympy.sympify(getattr(self, name)) for name in COSTS}
        symbols = sorted(set().union(*(e.free_symbols for e in expressions.values())), key=str)
        functions = {name: sympy.lambdify(symbols, e, "math") for name, e in expressions.items()}
        return tuple(map(str, symbols)), functions

    def at(self, **sizes: int) -> dict[str, int | float]:
        """Return the costs as numbers: microseconds, after the first call.

        Args:
            sizes: a number for each size of the formulas, B by default 1.

        Raises:
            SizeError: a size is missing, unknown, or not a positive whole number.

        >>> from polyattn.study import complexity
        >>> complexity("poly_nl", N=64, C=8).formulas["poly_nl"][0].at(N=196, C=64)["macs"]
        2433536
        """
        names, functions = self._compiled
        given = {"B": 1, **sizes}
        for name, number in sizes.items():
            if name != "B" and name not in names:
                raise SizeError(f"no formula has a size {name!r}; the sizes are {', '.join(names)}")
            if isinstance(number, bool) or not hasattr(number, "__index__") or int(number) < 1:
                raise SizeError(f"size {name} must be a positive whole number; found {number!r}")
        missing = [n for n in names if n not in given]
        if missing:
            raise SizeError(f"size {missing[0]} is missing; the formulas are in {', '.join(names)}")
        # Python's own numbers, which do not overflow.
        values = [int(given[n]) for n in names]
        found: dict[str, int | float] = {name: function(*values) for name, function in functions.items()}
        found["flops_per_byte"] = 2 * found["macs"] / found["traffic_bytes"] if found["traffic_bytes"] else 0.0
        return found

    def _repr_latex_(self) -> str:
        import sympy

        rows = {
            "MACs": self.macs,
            "bytes moved": self.traffic_bytes,
            "peak bytes": self.peak_bytes,
            "kept bytes": self.kept_bytes,
            "parameters": self.parameters,
        }
        lines = [rf"\text{{{name}}} &= {sympy.latex(expression)}" for name, expression in rows.items()]
        return r"$\displaystyle \begin{aligned} " + r" \\ ".join(lines) + r" \end{aligned}$"

    def __str__(self) -> str:
        lines = [f"{self.layer}, {self.order}" + (f" ({self.strategy})" if self.strategy != self.order else "")]
        lines += [f"  MACs         {self.macs}"]
        lines += [f"    in {size:<9} {expression}" for size, expression in self.leading.items()]
        lines += [f"  bytes moved  {self.traffic_bytes}", f"  peak bytes   {self.peak_bytes}"]
        lines += [f"  kept bytes   {self.kept_bytes}", f"  parameters   {self.parameters}"]
        return "\n".join(lines)


COSTS = ("macs", "traffic_bytes", "peak_bytes", "kept_bytes", "parameters")


def formulas(
    layer: str, order: str, plan: Plan, objective: str, points: tuple[tuple[tuple[str, int], ...], ...]
) -> Formulas:
    """Return the formulas of a plan."""
    macs, traffic, peak, kept, parameters = _expressions(counts(plan, objective), plan.spec.sizes)
    return Formulas(layer, order, plan.strategy, macs, traffic, peak, kept, parameters, leading(macs), points)


def leading(expression: sympy.Expr) -> dict[str, sympy.Expr]:
    """Return the terms of the highest power of each size, in the order of the sizes' names."""
    import sympy

    terms = sympy.Add.make_args(sympy.expand(expression))
    found = {}
    for size in sorted(expression.free_symbols, key=str):
        powers = [t.as_powers_dict()[size] for t in terms]
        found[str(size)] = sympy.Add(*(t for t, p in zip(terms, powers, strict=True) if p == max(powers)))
    return found


# Points of a sweep share counts, and sympy's expansion is the slow part.
@lru_cache(maxsize=1024)
def _expressions(found: Counts, sizes: SizeTable) -> tuple[sympy.Expr, ...]:
    import sympy

    def whole(terms: Terms) -> sympy.Expr:
        return in_whole_sizes(expression(terms), sizes)

    peaks = [ITEMSIZE * whole(t) for t in found.alive]
    # Unevaluated: sympy's `Max` compares its arguments in pairs, which is slow.
    peak = sympy.Max(*peaks, evaluate=False) if len(peaks) > 1 else (peaks or [sympy.Integer(0)])[0]
    return (
        whole(found.macs),
        sympy.expand(ITEMSIZE * whole(found.entries)),
        peak,
        sympy.expand(ITEMSIZE * whole(found.kept)),
        whole(found.parameters),
    )
