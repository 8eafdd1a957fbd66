"""`Plan`: the evaluation of a specification at given sizes, with its cost, as a table a person can check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from polyattn import display
from polyattn.algebra import Spec
from polyattn.planning.accuracy import Accuracy
from polyattn.planning.backward import Backward
from polyattn.planning.centring import deviations
from polyattn.planning.graph import Graph, Step, batch_name, symbol, table
from polyattn.planning.memory import Allocations, Memory, memory_of_steps
from polyattn.planning.steps import BATCH, Leaf, Node, Operand

if TYPE_CHECKING:
    import sympy

    from polyattn.language import SizeTable


@dataclass(frozen=True)
class Plan:
    """The evaluation of a specification at given sizes.

    Attributes:
        spec: the specification.
        objective: the objective of the search.
        strategy: the chosen candidate, such as "as written", "definitions" or "expanded".
        graph: the evaluation graph.
        backward: the planned backward pass, for the objective "training".
        kernels: replaced steps by name: the kernel, or the step whose kernel computes them. The search assumed these;
            the plan in a lowered graph's `meta` has the kernels it runs.
        accuracy: its error on maps with a mean, beside the author's order.
        lower_bound: multiply-accumulates that every forward evaluation takes at least: of all that multiply sums of
            products out of the tensors, factored or not, with equal values made once; sums are free, and neither
            symmetry nor cancellation is used. 0 where none is known.
        allocations: counts the memory of the lowered plan; by default that of the steps is known. Plans that differ in
            it alone are equal.
    """

    spec: Spec
    objective: str
    strategy: str
    graph: Graph
    backward: Backward | None = None
    kernels: tuple[tuple[str, str], ...] = ()
    accuracy: Accuracy | None = None
    lower_bound: int = 0
    allocations: Allocations = field(default=memory_of_steps, compare=False, repr=False)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Return the number of every size of the specification."""
        return {name: number for name, number in self.graph.sizes if name != BATCH}

    def at(self, sizes: Mapping[str, int]) -> Plan:
        """Return the same steps for other numbers of the atomic sizes, the batch included."""
        graph, backward = self.graph.at(sizes), self.backward
        if backward is not None:
            backward = replace(backward, graph=backward.graph.at(sizes))
        return replace(self, graph=graph, backward=backward)

    @property
    def batch(self) -> int:
        """Return the batch size assumed in planning; the graphs take any."""
        return self.graph.known[BATCH]

    @property
    def nodes(self) -> tuple[Node, ...]:
        return self.graph.nodes

    @cached_property
    def seed(self) -> str:
        """Return the name of the output's gradient: "dy", with underscores added if a tensor has that name."""
        taken, seed = {*self.spec.inputs, *self.spec.parameters, self.spec.output}, "dy"
        while seed in taken:
            seed += "_"
        return seed

    @cached_property
    def means(self) -> frozenset[int]:
        """Return the nodes that are means of an input, subtracted from it to take deviations."""
        return frozenset(self.deviations.values())

    @cached_property
    def deviations(self) -> dict[int, int]:
        """Return the nodes that are an input less its mean, each with the mean."""
        return deviations(self.nodes, self.spec)

    @cached_property
    def backward_means(self) -> frozenset[int]:
        """Return such means among the nodes of the backward pass, kept or recomputed."""
        if self.backward is None or not self.means:
            return frozenset()
        wholes = {mean: self.nodes[k].operands[0].value for k, mean in self.deviations.items()}
        names = {self.names[mean]: self.names[whole] for mean, whole in wholes.items()}
        nodes = self.backward.graph.nodes
        # A kept mean is a leaf under its forward name; a recomputed one is recognised by its use.
        kept = {k for k, n in enumerate(nodes) if isinstance(n, Leaf) and n.tensor in names}
        return frozenset(kept | set(deviations(nodes, self.spec, names).values()))

    @property
    def output(self) -> Operand:
        return self.graph.outputs[0]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one forward evaluation of the whole batch."""
        return self.graph.macs

    @property
    def optimal(self) -> bool:
        """Return whether no forward evaluation takes fewer multiply-accumulates, by `lower_bound`."""
        return self.macs <= self.lower_bound

    @property
    def flops(self) -> int:
        """Floating-point operations of one forward evaluation, two per multiply-accumulate."""
        return 2 * self.macs

    @property
    def backward_macs(self) -> int:
        """Multiply-accumulates of the backward pass, recomputation included.

        Without a planned one: autograd's two products for each of the forward pass.
        """
        return 2 * self.macs if self.backward is None else self.backward.graph.macs

    @property
    def training_macs(self) -> int:
        """Multiply-accumulates of a forward and a backward pass."""
        return self.macs + self.backward_macs

    @property
    def macs_as_run(self) -> int:
        """Return the multiply-accumulates of the lowered forward pass.

        They are those of the steps, and the zeros that lowering multiplies by to spare the copy of a large operand.
        """
        return self.memory.macs

    @property
    def training_macs_as_run(self) -> int:
        """Return the multiply-accumulates of both lowered passes; without a planned backward pass three times one."""
        return 3 * self.memory.macs if self.backward is None else self.memory.macs + self.memory.backward_macs

    @cached_property
    def memory(self) -> Memory:
        """Return memory and products of both passes: as the lowered graphs run, or as the steps say without torch."""
        return self.allocations(self)

    @property
    def peak_bytes(self) -> int:
        """Return the most bytes allocated at once, in float32, without inputs and parameters.

        Counted on the lowered graphs: results, intermediates, copies and temporaries; for the objective "training" the
        larger of both passes, with the kept values and the returned gradients.
        """
        return self.memory.peak

    @property
    def kept_bytes(self) -> int:
        """Return the bytes kept for the planned backward pass, in float32, counted on the lowered graphs."""
        return self.memory.kept

    @property
    def step_peak_bytes(self) -> int:
        """Return the peak bytes of the forward steps' values, in float32, without copies made by the lowering.

        Values that a kernel holds inside, such as the similarities of fused attention, are not stored.
        """
        return self.graph.peak(self.inside)

    @cached_property
    def inside(self) -> dict[int, int]:
        """Return the forward nodes that kernels hold inside, each with the node that its kernel makes."""
        numbers = {name: k for k, name in enumerate(self.names)}
        found = ((name, kernel.removeprefix("in ")) for name, kernel in self.kernels if kernel.startswith("in "))
        return {numbers[name]: numbers[whole] for name, whole in found if name in numbers and whole in numbers}

    @property
    def step_kept_bytes(self) -> int:
        """Return the bytes of the steps' values kept for the planned backward pass, in float32.

        Values that a kernel holds inside are not kept.
        """
        if self.backward is None:
            return 0
        hidden = sum(self.graph.bytes_of(k) for k in {*self.backward.kept} & {*self.inside})
        return self.backward.kept_bytes(self.graph) - hidden

    @cached_property
    def complexity(self) -> sympy.Expr:
        """The forward multiply-accumulates as a sympy expression in the sizes, with B for the batch."""
        return in_whole_sizes(self.graph.complexity, self.spec.sizes)

    @cached_property
    def training_complexity(self) -> sympy.Expr:
        """Return the multiply-accumulates of a forward and a backward pass, in the sizes."""
        if self.backward is None:
            # Autograd's two products for each of the forward pass, as in `backward_macs`.
            return 3 * self.complexity
        return in_whole_sizes(self.graph.complexity + self.backward.graph.complexity, self.spec.sizes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return a name for every node: tensors keep theirs, steps are t1, t2, ... unless a tensor has that name."""
        return self.graph.names((*self.spec.inputs, *self.spec.parameters))

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Return the forward steps in the order of execution, without inputs and parameters."""
        return self._lowered(self.graph.steps(self.names))

    def _lowered(self, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        """Return the steps, with the kernel's name as operation where a kernel replaces them."""
        by_name = dict(self.kernels)
        return tuple(replace(s, operation=by_name.get(s.name, s.operation)) for s in steps)

    def with_kernels(self, kernels: tuple[tuple[str, str], ...]) -> Plan:
        """Return the same plan with these kernels."""
        return self if kernels == self.kernels else replace(self, kernels=kernels)

    @cached_property
    def backward_names(self) -> tuple[str, ...]:
        """Return a name for every node of the backward graph; its steps are g1, g2, ..."""
        assert self.backward is not None
        return self.backward.graph.names((*self.spec.inputs, *self.spec.parameters, *self.names), "g")

    @cached_property
    def backward_steps(self) -> tuple[Step, ...]:
        """Return the steps of the planned backward pass; empty without one."""
        if self.backward is None:
            return ()
        return self._lowered(self.backward.graph.steps(self.backward_names))

    def _repr_html_(self) -> str:
        head, *_ = str(self).splitlines()
        parts = [display.heading(head), _html(self.steps, self.macs)]
        parts.append(display.note(f"{self.macs:,} MACs = {self.complexity}; peak {self.peak_bytes:,} bytes in float32"))
        if self.backward is not None:
            total = f"{self.backward_macs:,} MACs, {self.kept_bytes:,} bytes kept for it"
            backward = _html(self.backward_steps, self.backward_macs) + display.note(total)
            parts.append(display.folded(f"backward pass, from {self.seed}", backward))
        return "".join(parts)

    def _repr_svg_(self) -> str | None:
        """Return the contraction tree as SVG, or None without matplotlib."""
        return display.svg(self)

    @property
    def title(self) -> str:
        """Return a line that says which plan this is."""
        sizes = " ".join(f"{name}={number}" for name, number in sorted(self.sizes.items()))
        return f"plan of {self.spec.output}, {self.strategy}, for {batch_name(self.sizes)}={self.batch} {sizes}"

    def __repr__(self) -> str:
        return f"<{self.title}: {self.macs:,} MACs, objective {self.objective!r}>"

    def __str__(self) -> str:
        lines = [
            self.title,
            table(self.steps, self.macs),
            f"total {self.macs:,} MACs ({self.flops:,} FLOPs) = {self.complexity}",
            *_symmetric(self.graph),
            *_as_run(self.macs, self.memory.macs),
            f"peak {self.peak_bytes:,} bytes of intermediates in float32",
            *([str(self.accuracy)] if self.accuracy else []),
        ]
        if self.backward is not None:
            kept = ", ".join(self.names[k] for k in self.backward.kept) or "no intermediate"
            lines += [
                "",
                f"backward pass, from {self.seed}, keeping {kept} ({self.kept_bytes:,} bytes)",
                table(self.backward_steps, self.backward_macs),
                f"total {self.backward_macs:,} MACs; with the forward pass {self.training_macs:,} MACs"
                f" = {self.training_complexity}",
                *_symmetric(self.backward.graph),
                *_as_run(self.backward_macs, self.memory.backward_macs),
            ]
        return "\n".join(lines)


def _html(steps: tuple[Step, ...], macs: int) -> str:
    rows = [
        (s.name, s.operation, s.equation, "x".join(map(str, s.shape)) or "scalar", f"{s.macs:,}", s.complexity)
        + ((f"{100 * s.macs / macs:.1f} %",) if macs else ("",))
        for s in steps
    ]
    return display.table(("step", "operation", "equation", "shape", "MACs", "in sizes", "of all"), rows, right=(4, 6))


def in_whole_sizes(expression: sympy.Expr, sizes: SizeTable) -> sympy.Expr:
    """Rewrite products of all parts of a split size as that size, where they occur together."""
    import sympy

    # Expanded first: `as_powers_dict` sees the sizes of single monomials only.
    result = sympy.expand(expression)
    for split in sizes.splits:
        parts = sympy.Mul(*(symbol(a) for a in sizes.atoms(split.size)))
        result = sympy.Add(*(_replace_product(t, parts, symbol(split.size)) for t in sympy.Add.make_args(result)))
    return sympy.expand(result)


def _symmetric(graph: Graph) -> list[str]:
    """Return the line with the multiply-accumulates of distinct entries, if a step is symmetric."""
    if graph.distinct_macs == graph.macs:
        return []
    return [f"{graph.distinct_macs:,} MACs if symmetric steps made each entry once"]


def _as_run(macs: int, run: int) -> list[str]:
    """Return the line with the multiply-accumulates of the lowered graph, where they are not those of the steps."""
    return (
        []
        if run == macs
        else [f"{run:,} MACs as run: lowering multiplies by zeros to spare copies, and once where factors repeat"]
    )


def _replace_product(term: sympy.Expr, parts: sympy.Expr, whole: sympy.Expr) -> sympy.Expr:
    """Replace each whole copy of a product of symbols in a monomial by one symbol."""
    powers = term.as_powers_dict()
    wanted = parts.as_powers_dict()
    # A part of fixed length is merged into the coefficient, so the product cannot be recognised.
    if any(not p.is_Symbol for p in wanted):
        return term
    times = min(int(powers.get(p, 0)) // int(n) for p, n in wanted.items())
    return term / parts**times * whole**times if times > 0 else term
