"""`Plan`: how a specification is computed at given sizes, with its cost, as a table a person can check."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from polyattn.algebra import Spec
from polyattn.errors import BudgetError, SizeError
from polyattn.planning.backward import Backward, differentiate
from polyattn.planning.builder import Builder
from polyattn.planning.costs import COSTS, CPU, DEVICES, Device, cost_function
from polyattn.planning.expanded import contract_monomials
from polyattn.planning.graph import Graph, Step, symbol, table
from polyattn.planning.orders import written_order
from polyattn.planning.steps import BATCH, Apply, Node, Operand
from polyattn.planning.trees import ranked_orders
from polyattn.planning.written import follow_definitions

if TYPE_CHECKING:
    import sympy

OBJECTIVES = ("forward", "training", "as_written")
BATCH_NAME = "B"
DEFINITION_RANKS = 4
EXPANDED_RANKS = 8
TRAINED_CANDIDATES = 3
CHEAP_SHARE = 0.02
"""A forward value is computed again for the backward pass where that adds at most this share of all."""


@dataclass(frozen=True)
class Plan:
    """How a specification is computed at given sizes.

    Attributes:
        spec: the specification.
        objective: what it was chosen for.
        strategy: which candidate was chosen, such as "as written", "definitions" or "expanded".
        graph: the evaluation graph.
        backward: the planned backward pass, for the objective "training" and specifications without functions.
        seed: the name of the output's gradient in it.
        kernels: what lowering put in the place of steps, by their names: a kernel, or the step whose kernel does them.
    """

    spec: Spec
    objective: str
    strategy: str
    graph: Graph
    backward: Backward | None = None
    seed: str = "dy"
    kernels: tuple[tuple[str, str], ...] = ()

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The number of every size of the specification."""
        return {name: number for name, number in self.graph.sizes if name != BATCH}

    @property
    def batch(self) -> int:
        """The batch size that the plan was made for; its graphs take any."""
        return self.graph.known[BATCH]

    @property
    def nodes(self) -> tuple[Node, ...]:
        return self.graph.nodes

    @property
    def output(self) -> Operand:
        return self.graph.outputs[0]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one forward evaluation of the whole batch."""
        return self.graph.macs

    @property
    def flops(self) -> int:
        """Floating-point operations of one forward evaluation, two per multiply-accumulate."""
        return 2 * self.macs

    @property
    def backward_macs(self) -> int:
        """Multiply-accumulates of the backward pass, recomputation included.

        Without a planned one, what autograd takes: two products for each of the forward pass.
        """
        return 2 * self.macs if self.backward is None else self.backward.graph.macs

    @property
    def training_macs(self) -> int:
        """Multiply-accumulates of a forward and a backward pass."""
        return self.macs + self.backward_macs

    @property
    def peak_bytes(self) -> int:
        """The most bytes that intermediates and the output take at once, in float32, inputs and parameters aside."""
        return self.graph.peak_bytes

    @property
    def kept_bytes(self) -> int:
        """Bytes of intermediates kept for the planned backward pass, in float32, inputs and parameters aside."""
        return 0 if self.backward is None else self.backward.kept_bytes(self.graph)

    @cached_property
    def complexity(self) -> sympy.Expr:
        """The forward multiply-accumulates as a sympy expression in the sizes, with B for the batch."""
        return self._in_whole_sizes(self.graph.complexity)

    @cached_property
    def training_complexity(self) -> sympy.Expr:
        """The multiply-accumulates of a forward and a backward pass, in the sizes."""
        if self.backward is None:
            return 3 * self.complexity
        return self._in_whole_sizes(self.graph.complexity + self.backward.graph.complexity)

    def _in_whole_sizes(self, expression: sympy.Expr) -> sympy.Expr:
        """Products of all parts of a split size written as that size, where they occur together."""
        import sympy

        result = sympy.expand(expression)
        for split in self.spec.sizes.splits:
            parts = sympy.Mul(*(symbol(a) for a in self.spec.sizes.atoms(split.size)))
            result = sympy.Add(*(_replace_product(t, parts, symbol(split.size)) for t in sympy.Add.make_args(result)))
        return sympy.expand(result)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """A name for every node: tensors keep theirs, steps are t1, t2, ... where no tensor is called so."""
        return self.graph.names((*self.spec.inputs, *self.spec.parameters, self.seed))

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The forward steps in the order in which they run; inputs and parameters are no steps."""
        return self._lowered(self.graph.steps(self.names))

    def _lowered(self, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        """The steps, each that a kernel does with its name as the operation."""
        by_name = dict(self.kernels)
        return tuple(replace(s, operation=by_name.get(s.name, s.operation)) for s in steps)

    def with_kernels(self, kernels: tuple[tuple[str, str], ...]) -> Plan:
        """The same plan, showing what lowering put in the place of steps."""
        return replace(self, kernels=kernels) if kernels else self

    @cached_property
    def backward_names(self) -> tuple[str, ...]:
        """A name for every node of the backward graph; its steps are g1, g2, ..."""
        assert self.backward is not None
        return self.backward.graph.names((*self.spec.inputs, *self.spec.parameters, *self.names), "g")

    @cached_property
    def backward_steps(self) -> tuple[Step, ...]:
        """The steps of the planned backward pass; none where there is no planned one."""
        if self.backward is None:
            return ()
        return self._lowered(self.backward.graph.steps(self.backward_names))

    def __str__(self) -> str:
        sizes = " ".join(f"{name}={number}" for name, number in sorted(self.sizes.items()))
        lines = [
            f"plan of {self.spec.output}, {self.strategy}, for B={self.batch} {sizes}",
            table(self.steps, self.macs),
            f"total {self.macs:,} MACs ({self.flops:,} FLOPs) = {self.complexity}",
            f"peak {self.peak_bytes:,} bytes of intermediates in float32",
        ]
        if self.backward is not None:
            kept = ", ".join(self.names[k] for k in self.backward.kept) or "no intermediate"
            lines += [
                "",
                f"backward pass, from {self.seed}, keeping {kept} ({self.kept_bytes:,} bytes)",
                table(self.backward_steps, self.backward_macs),
                f"total {self.backward_macs:,} MACs; with the forward pass {self.training_macs:,} MACs"
                f" = {self.training_complexity}",
            ]
        return "\n".join(lines)


def plan(
    spec: Spec | str,
    sizes: Mapping[str, int],
    objective: str = "forward",
    *,
    batch: int | None = None,
    memory_limit: int | None = None,
    cost: str = "roofline",
    device: str | Device = "cpu",
) -> Plan:
    """The cheapest known way to compute a specification at given sizes.

    The candidates are the definitions as written, the definitions with each product in one of its cheapest orders,
    and the expanded polynomial with each monomial in one of its cheapest orders. Of those that take no more
    multiply-accumulates than the text as written, the cheapest in the cost model is chosen.

    Args:
        spec: a specification or its text.
        sizes: a number for every size (split sizes through any parts that fix them), and "B" for the batch
            (default 1).
        objective: "forward" for one evaluation; "training" for an evaluation and a backward pass, which is planned
            with it; "as_written" follows the author.
        batch: the batch, for a specification that has a size B of its own.
        memory_limit: the most bytes, in float32, that intermediates may take at once, and that may be kept for the
            planned backward pass; what is too much is computed again.
        cost: "roofline" (seconds on the device) or "macs".
        device: "cpu", "cuda", or a `Device`.

    Raises:
        SizeError: a size is missing, unknown or contradictory, or an option is unknown.
        BudgetError: the expansion is too large, or no candidate keeps to the memory limit.
    """
    spec = Spec(spec) if isinstance(spec, str) else spec
    for word, value, known in (("objective", objective, OBJECTIVES), ("cost", cost, COSTS)):
        if value not in known:
            raise SizeError(f"unknown {word} {value!r}; there are {', '.join(known)}")
    if isinstance(device, str):
        if device not in DEVICES:
            raise SizeError(f"unknown device {device!r}; there are {', '.join(DEVICES)}, or give a Device")
        device = DEVICES[device]
    given = dict(sizes)
    if BATCH_NAME not in spec.sizes.names and BATCH_NAME in given:
        number = given.pop(BATCH_NAME)
        if batch is not None and batch != number:
            raise SizeError(f"the batch is given twice: B={number} and batch={batch}")
        batch = number
    batch = 1 if batch is None else batch
    if isinstance(batch, bool) or not hasattr(batch, "__index__") or int(batch) < 1:
        raise SizeError(f"the batch must be a positive whole number, not {batch!r}")
    known = spec.sizes.solve(given, spec.sizes.names) | {BATCH: int(batch)}
    return _plan(spec, tuple(sorted(known.items())), objective, memory_limit, cost, device)


@lru_cache(maxsize=4096)
def _plan(
    spec: Spec,
    sizes: tuple[tuple[str, int], ...],
    objective: str,
    memory_limit: int | None,
    cost: str,
    device: Device,
) -> Plan:
    written = Plan(spec, objective, "as written", _written(spec, dict(sizes)))
    if objective == "as_written":
        return written
    seconds = cost_function(cost, device)
    plans = [Plan(spec, objective, strategy, graph) for strategy, graph in _candidates(spec, dict(sizes))]
    plans = [p for p in plans if p.macs <= written.macs]
    plans.sort(key=lambda p: (seconds(p.graph), p.peak_bytes))
    if objective == "training":
        plans = _for_training(plans, written, seconds)
    for candidate in plans:
        chosen = _keeping_little(candidate, memory_limit, seconds)
        if memory_limit is None or max(chosen.peak_bytes, chosen.kept_bytes) <= memory_limit:
            return chosen
    raise BudgetError(f"no order of contraction keeps its intermediates within {memory_limit:,} bytes")


def _for_training(plans: list[Plan], written: Plan, seconds: Callable[[Graph], float]) -> list[Plan]:
    """The cheapest few plans and the author's with their backward passes, cheapest in both together first."""
    chosen = {p.graph: p for p in (*plans[:TRAINED_CANDIDATES], written)}
    trained = [_with_backward(p) for p in chosen.values()]
    most = min(p.training_macs for p in trained if p.graph == written.graph)

    def price(p: Plan) -> tuple[float, int]:
        back = 2 * seconds(p.graph) if p.backward is None else seconds(p.backward.graph)
        return seconds(p.graph) + back, p.peak_bytes + p.kept_bytes

    return sorted((p for p in trained if p.training_macs <= most), key=price)


def _written(spec: Spec, sizes: dict[str, int]) -> Graph:
    builder = Builder(sizes, sum_early=False, factor_sums=False)
    output = follow_definitions(spec, builder, written_order)
    return Graph.of(builder.nodes, [output], sizes)


def _candidates(spec: Spec, sizes: dict[str, int]) -> Iterator[tuple[str, Graph]]:
    """Evaluation graphs by strategy, each once."""
    seen: set[Graph] = set()
    for strategy, graph in _all_candidates(spec, sizes):
        if graph not in seen:
            seen.add(graph)
            yield strategy, graph


def _all_candidates(spec: Spec, sizes: dict[str, int]) -> Iterator[tuple[str, Graph]]:
    yield "as written", _written(spec, sizes)
    for rank in range(DEFINITION_RANKS):
        builder = Builder(sizes)
        output = follow_definitions(spec, builder, ranked_orders(sizes, rank))
        yield "definitions", Graph.of(builder.nodes, [output], sizes)
    try:
        polynomial = spec.polynomial()
    except BudgetError:
        return  # too large to expand; the definitions remain
    for rank in range(EXPANDED_RANKS):
        builder = Builder(sizes)
        output = contract_monomials(polynomial, builder, ranked_orders(sizes, rank))
        yield "expanded", Graph.of(builder.nodes, [output], sizes)


def _with_backward(plan: Plan) -> Plan:
    """The plan with its backward pass, keeping every forward value that it reads."""
    if any(isinstance(n, Apply) for n in plan.graph.nodes):
        return plan
    seed = "dy"
    while seed in (*plan.spec.inputs, *plan.spec.parameters, plan.spec.output):
        seed += "_"
    plan = replace(plan, seed=seed)
    return replace(plan, backward=_reverse(plan, set()))


def _reverse(plan: Plan, recomputed: Collection[int]) -> Backward:
    wanted = (*plan.spec.inputs, *plan.spec.parameters)
    return differentiate(plan.graph, plan.names, wanted, plan.seed, recomputed)


def _keeping_little(plan: Plan, memory_limit: int | None, seconds: Callable[[Graph], float]) -> Plan:
    """The plan with what is cheap to compute again not kept, and what the memory limit forbids."""
    if plan.backward is None or not plan.backward.kept:
        return plan
    graph, read = plan.graph, frozenset(plan.backward.kept)
    budget = CHEAP_SHARE * (seconds(graph) + seconds(plan.backward.graph))
    again: frozenset[int] = frozenset()
    for k in sorted(read, key=lambda k: -graph.bytes_of(k)):
        more = _computed_again(graph, read, again | {k})
        if _price(graph, more, seconds) <= budget:
            again = more

    def kept_bytes() -> int:
        return sum(graph.bytes_of(k) for k in read - again)

    while memory_limit is not None and read - again and kept_bytes() > memory_limit:
        dearer = {k: _computed_again(graph, read, again | {k}) for k in sorted(read - again)}
        again = min(dearer.items(), key=lambda d: _price(graph, d[1], seconds) / graph.bytes_of(d[0]))[1]
    return replace(plan, backward=_reverse(plan, again)) if again else plan


def _computed_again(graph: Graph, read: frozenset[int], dropped: frozenset[int]) -> frozenset[int]:
    """The dropped values with all that they need: inputs, parameters and kept values are there, others are not."""
    found = set(dropped)
    for k in range(len(graph.nodes) - 1, -1, -1):
        if k in found:
            found.update(
                o.value for o in graph.nodes[k].operands if o.value not in read and graph.nodes[o.value].operands
            )
    return frozenset(found)


def _price(graph: Graph, numbers: frozenset[int], seconds: Callable[[Graph], float]) -> float:
    """What some of a graph's nodes cost."""
    return seconds(replace(graph, nodes=tuple(graph.nodes[k] for k in sorted(numbers)))) if numbers else 0.0


def _replace_product(term: sympy.Expr, parts: sympy.Expr, whole: sympy.Expr) -> sympy.Expr:
    """A monomial with as many whole copies of a product of symbols as it holds replaced by one symbol."""
    powers = term.as_powers_dict()
    wanted = parts.as_powers_dict()
    if any(not p.is_Symbol for p in wanted):
        return term
    times = min(int(powers.get(p, 0)) // int(n) for p, n in wanted.items())
    return term / parts**times * whole**times if times > 0 else term


__all__ = ["CPU", "OBJECTIVES", "Plan", "Step", "plan"]
