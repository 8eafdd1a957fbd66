"""`DecodingPlan`: one step of a causal specification, with its states and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

from polyattn.algebra import Index, Spec
from polyattn.algebra.monomial import DEFINITION
from polyattn.algebra.order import ordered_sizes
from polyattn.errors import RecurrenceError, SizeError
from polyattn.language.syntax import is_fixed
from polyattn.planning.builder import BATCH_INDEX, Builder
from polyattn.planning.graph import ITEMSIZE, Graph, Step, table
from polyattn.planning.plan import in_whole_sizes
from polyattn.planning.recurrence import Local, Product, Recurrence, recurrence
from polyattn.planning.steps import BATCH, ONE, Coefficient, Operand, numel
from polyattn.planning.trees import ranked_orders

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True)
class DecodingPlan:
    """One step of a causal specification: a position of the output, and the states after it.

    Attributes:
        spec: the specification.
        order: the size whose positions come one by one (an atomic one, of a size of which only blocks are ordered).
        graph: the evaluation graph; its outputs are the position's output, then the states.
        channels: for each state by name, the atomic sizes of its axes behind the batch.
    """

    spec: Spec
    order: str
    graph: Graph
    channels: tuple[tuple[str, tuple[str, ...]], ...]

    objective = "decoding"

    @cached_property
    def state(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each state of one sample, by name."""
        known = self.graph.known
        return {name: tuple(numel([Index(0, s)], known) for s in sizes) for name, sizes in self.channels}

    @property
    def sizes(self) -> dict[str, int]:
        """Return the number of every size but the one that runs."""
        return {name: n for name, n in self.graph.sizes if name not in (BATCH, self.order)}

    @property
    def batch(self) -> int:
        return self.graph.known[BATCH]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one step of the whole batch."""
        return self.graph.macs

    @property
    def flops(self) -> int:
        """Floating-point operations of one step, two per multiply-accumulate."""
        return 2 * self.macs

    @property
    def state_numbers(self) -> int:
        """Return how many numbers the states of one sample hold."""
        return sum(map(prod, self.state.values()))

    @property
    def state_bytes(self) -> int:
        """Return the bytes of the states of the whole batch, in float32."""
        return ITEMSIZE * self.batch * self.state_numbers

    @property
    def bytes_per_token(self) -> int:
        """Return the bytes that one step reads and writes in float32: states twice, its inputs, output and parameters.

        Values between are not counted.
        """
        tensors = (*self.spec.inputs, *self.spec.parameters)
        batched = {*self.spec.inputs, self.spec.output}
        known = {**self.graph.known, self.order: 1}
        numbers = sum(
            (self.batch if t in batched else 1)
            * numel([Index(0, a) for slot in self.spec.shape(t) for a in slot], known)
            for t in (*tensors, self.spec.output)
        )
        return 2 * self.state_bytes + ITEMSIZE * numbers

    @cached_property
    def complexity(self) -> sympy.Expr:
        """The multiply-accumulates of a step as a sympy expression in the sizes, with B for the batch."""
        return in_whole_sizes(self.graph.complexity, self.spec.sizes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return self.graph.names((*self.spec.inputs, *self.spec.parameters))

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        return self.graph.steps(self.names)

    @property
    def title(self) -> str:
        """Return a line that says which plan this is."""
        sizes = " ".join(f"{name}={number}" for name, number in sorted(self.sizes.items()))
        return f"step of {self.spec.output} along {self.order}, for B={self.batch} {sizes}"

    def __repr__(self) -> str:
        return f"<{self.title}: {self.macs:,} MACs>"

    def __str__(self) -> str:
        shapes = ", ".join(f"{n} {'x'.join(map(str, s)) or 'scalar'}" for n, s in self.state.items())
        return "\n".join(
            [
                self.title,
                table(self.steps, self.macs),
                f"total {self.macs:,} MACs a step ({self.flops:,} FLOPs) = {self.complexity}",
                f"state {shapes or 'none'}: {self.state_numbers:,} numbers, {self.state_bytes:,} bytes in float32",
            ]
        )


def decoding_plan(
    spec: Spec | str, sizes: Mapping[str, int], order: str | None = None, batch: int | None = None
) -> DecodingPlan:
    """Return the plan of one step of a causal specification.

    Args:
        sizes: a number for every size but the ordered one; "B" for the batch (default 1).
        order: the size whose positions come one by one; needed if conditions compare positions of several.

    Raises:
        SizeError: a size is missing, unknown or contradictory, or `order` is not an ordered size.
        RecurrenceError: a specification without a recurrence.
    """
    spec = Spec(spec) if isinstance(spec, str) else spec
    running, known = step_sizes(spec, sizes, order, batch)
    return _Writer(spec, recurrence(spec, running, known), known).plan()


def step_sizes(
    spec: Spec, sizes: Mapping[str, int], order: str | None, batch: int | None
) -> tuple[str, dict[str, int]]:
    """Return the atomic size that runs, and the numbers of all atomic sizes for one position of it, with the batch."""
    running = ordered_size(spec, order)
    given = dict(sizes)
    if "B" not in spec.sizes.names and "B" in given:
        if batch is not None and batch != given["B"]:
            raise SizeError(f"the batch is given twice: B={given['B']} and batch={batch}")
        batch = given.pop("B")
    whole = spec.sizes.name((running,)) if running in spec.sizes.names else running
    for name in spec.sizes.names:
        # The length of what runs is open; a size that it is a part of follows from the other parts.
        if running in spec.sizes.atoms(name):
            given.pop(name, None)
    given.setdefault(whole, 1)
    return running, spec.sizes.solve(given, spec.sizes.names) | {BATCH: 1 if batch is None else int(batch)}


def ordered_size(spec: Spec, order: str | None = None) -> str:
    """Return the atomic size whose positions come one by one.

    Raises:
        SizeError: `order` does not name one of the sizes that conditions compare, or is needed and missing.
        RecurrenceError: no condition compares positions.
    """
    # Positions of a fixed range do not come one by one.
    found = sorted(filter(str.isidentifier, ordered_sizes(spec.expansion().terms)))
    if not found:
        raise RecurrenceError(
            f"{spec.output} has no recurrence: no condition such as '[e <= a]' orders its positions, so that every "
            f"position reads all others"
        )
    if order is not None:
        atoms = [a for a in (spec.sizes.atoms(order) if order in spec.sizes.names else (order,)) if a in found]
        if len(atoms) != 1:
            raise SizeError(f"`order` is {order!r}, but conditions compare positions of {', '.join(found)}: name one")
        return atoms[0]
    if len(found) > 1:
        raise SizeError(f"conditions compare positions of {', '.join(found)}: say with `order` which one runs")
    return found[0]


@dataclass
class _Writer:
    spec: Spec
    made: Recurrence
    sizes: dict[str, int]

    def plan(self) -> DecodingPlan:
        self.builder = Builder(self.sizes)
        taken = {*self.spec.inputs, *self.spec.parameters, self.spec.output}
        stem = "state" if not any(t.startswith("state") for t in taken) else "state_"
        names = [f"{stem}{k + 1}" for k in range(len(self.made.states))]
        self.order = ranked_orders(self.sizes)
        self.old: list[Operand] = []
        self.new: list[Operand] = []
        for name, state in zip(names, self.made.states, strict=True):
            axes = (BATCH_INDEX, *state.channels)
            self.old.append(self.builder.leaf(name, axes))
            added = self.product(state.added, frozenset(state.channels))
            decays = [self.local(d, state.added.at) for d in state.decays]
            kept = self.builder.product([self.old[-1], *decays], frozenset(axes), ONE, self.order)
            total = self.builder.sum([kept, added], axes)
            self.new.append(self.builder.permuted(total, axes))
        axes = (BATCH_INDEX, *self.made.output)
        total = self.sum(self.made.terms, frozenset(self.made.output), axes)
        outputs = [self.builder.permuted(total, axes), *self.new]
        graph = Graph.of(self.builder.nodes, outputs, self.sizes)
        channels = tuple((n, tuple(i.size for i in s.channels)) for n, s in zip(names, self.made.states, strict=True))
        return DecodingPlan(self.spec, self.made.size, graph, channels)

    def sum(self, terms: Sequence[Product], keep: frozenset[Index], axes: Sequence[Index] = ()) -> Operand:
        if not terms:
            return self.builder.sum([(self.builder.constant(), Coefficient(ONE.number * 0))])
        return self.builder.sum([self.product(t, keep) for t in terms], axes)

    def product(self, made: Product, keep: frozenset[Index]) -> tuple[Operand, Coefficient]:
        operands: list[Operand] = []
        for factor in made.tensors:
            if is_fixed(factor.tensor):
                operands.append(self.builder.identity(factor.indices, factor.tensor))
                continue
            lead = (BATCH_INDEX,) if factor.tensor in self.spec.inputs else ()
            # The step has no axis of positions.
            operands.append(self.builder.leaf(factor.tensor, (*lead, *(i for i in factor.indices if i != made.at))))
        operands += [self.local(f, made.at) for f in made.functions]
        for use in made.uses:
            value = (self.old if use.strict else self.new)[use.state]
            names = dict(
                zip((BATCH_INDEX, *self.made.states[use.state].channels), (BATCH_INDEX, *use.indices), strict=True)
            )
            operands.append(self.builder.again(value, tuple(names[i] for i in value.indices)))
        return self.builder.product(operands, keep, Coefficient(made.coefficient, made.powers), self.order)

    def local(self, function: Local, at: Index) -> Operand:
        free = tuple(i for i in function.free if i != at)
        argument = self.sum(function.terms, frozenset((*free, *function.over)))
        if function.function == DEFINITION:
            return argument
        needed = tuple(dict.fromkeys((*argument.indices, *function.over, *free)))
        argument = self.builder.permuted(argument, needed)
        gone = set(function.over) if function.reduces else set()
        output = tuple(i for i in needed if i not in gone)
        applied = self.builder.apply(function.function, function.over, argument, output)
        read = dict(zip(function.over, function.at, strict=False))
        return self.builder.again(applied, tuple(read.get(i, i) for i in applied.indices))
