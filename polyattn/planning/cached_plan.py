"""`CachedPlan`: one step of a causal specification with the past kept, and its costs."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from polyattn.algebra import Spec
from polyattn.language import value_of
from polyattn.planning.graph import ITEMSIZE, Step, symbol, table
from polyattn.planning.past import Past
from polyattn.planning.plan import Plan
from polyattn.planning.steps import BATCH

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True)
class CachedPlan:
    """One step of a causal specification: a position of the output, from the kept tensors of the positions before it.

    Attributes:
        spec: the specification.
        order: the size whose positions come one by one.
        form: the equations.
        length: positions before the new one that are kept, at which the costs are counted: those of a window, else
            one fewer than the size given.
        plans: of the new position's kept tensors, then of its output.
    """

    spec: Spec
    order: str
    form: Past
    length: int
    plans: tuple[Plan, ...]

    objective = "decoding"

    @property
    def state(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of all that is kept of one sample, by name."""
        known = self.plans[-1].graph.known
        return {k.name: (self.length, *(value_of((a,), known) for a in k.channels)) for k in self.form.kept}

    @property
    def sizes(self) -> dict[str, int]:
        """Return the number of every size but the one that runs."""
        known = self.plans[-1].graph.known
        names = (n for n in self.spec.sizes.names if self.order not in self.spec.sizes.atoms(n))
        return {
            n: value_of(self.spec.sizes.atoms(n), known) for n in names if set(self.spec.sizes.atoms(n)) <= {*known}
        }

    @property
    def batch(self) -> int:
        return self.plans[-1].graph.known[BATCH]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one step of the whole batch."""
        return sum(p.macs for p in self.plans)

    @property
    def flops(self) -> int:
        """Floating-point operations of one step, two per multiply-accumulate."""
        return 2 * self.macs

    @property
    def state_numbers(self) -> int:
        """Return how many numbers are kept of one sample."""
        return sum(map(prod, self.state.values()))

    @property
    def state_bytes(self) -> int:
        """Return the bytes that are kept of the whole batch, in float32."""
        return ITEMSIZE * self.batch * self.state_numbers

    @property
    def bytes_per_token(self) -> int:
        """Return the bytes that are kept of each position of the whole batch, in float32."""
        return ITEMSIZE * self.batch * self.form.numbers(self.plans[-1].graph.known)

    @property
    def complexity(self) -> sympy.Expr:
        """The multiply-accumulates of a step as a sympy expression; the ordered size is the positions kept and one."""
        total: sympy.Expr = sum(p.complexity for p in self.plans)  # pyright: ignore[reportAssignmentType]
        return total.subs(symbol(self.form.row), 1)

    @property
    def steps(self) -> tuple[Step, ...]:
        """Return the steps of all parts, in order."""
        return tuple(s for p in self.plans for s in p.steps)

    @property
    def title(self) -> str:
        """Return a line that says which plan this is."""
        sizes = " ".join(f"{name}={number}" for name, number in sorted(self.sizes.items()))
        reach = "all positions before" if self.form.reach is None else f"the {self.form.reach} positions before"
        return f"step of {self.spec.output} along {self.order} with {reach} kept, for B={self.batch} {sizes}"

    def __repr__(self) -> str:
        return f"<{self.title}: {self.macs:,} MACs>"

    def __str__(self) -> str:
        shapes = ", ".join(f"{n} {'x'.join(map(str, s))}" for n, s in self.state.items())
        names = [f"{k.name}, kept of a position:" for k in self.form.kept] + ["the output:"]
        return "\n".join(
            [
                self.title,
                *(f"{n}\n{table(p.steps, p.macs)}" for n, p in zip(names, self.plans, strict=True)),
                f"total {self.macs:,} MACs a step ({self.flops:,} FLOPs) behind {self.length:,} positions",
                f"state {shapes or 'none'}: {self.bytes_per_token:,} bytes a position, {self.state_bytes:,} bytes in "
                f"float32",
            ]
        )
