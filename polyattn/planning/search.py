"""The choice among candidates, for the objective, the cost model and the memory that is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Any

from polyattn.algebra import Spec
from polyattn.errors import BudgetError, SizeError
from polyattn.planning.accuracy import accuracy
from polyattn.planning.builder import Builder
from polyattn.planning.centring import STEPS, centred
from polyattn.planning.costs import COSTS, DEVICES, Device, cost_function
from polyattn.planning.from_definitions import follow_definitions, monomials
from polyattn.planning.from_joint import joint_graphs
from polyattn.planning.from_polynomial import contract_monomials
from polyattn.planning.graph import Graph
from polyattn.planning.memory import Allocations, memory_of_steps
from polyattn.planning.orders import written_order
from polyattn.planning.plan import Plan
from polyattn.planning.recognise import stable
from polyattn.planning.recomputing import keeping_less, keeping_little, with_backward
from polyattn.planning.steps import BATCH
from polyattn.planning.trees import ranked_orders

OBJECTIVES = ("forward", "training", "as_written")
ACCURACIES = ("written", "any")
BATCH_NAME = "B"
DEFINITION_RANKS = 4
EXPANDED_RANKS = 8
RANKED_UP_TO = 64
"""Factors in all monomials up to which each is contracted in several orders."""
EXPANDED_UP_TO = 64
"""Monomials up to which a text is multiplied out: of more, the definitions alone are candidates."""
TRAINED_CANDIDATES = 3
LEAN = 2
"""Candidates of the least memory that are compared under a memory limit, beside the cheapest."""


@dataclass(frozen=True)
class Question:
    """All that a plan depends on; see `polyattn.plan` for the meaning.

    Attributes:
        sizes: the number of every size, the batch included, as sorted pairs.
    """

    spec: Spec
    sizes: tuple[tuple[str, int], ...]
    objective: str
    memory_limit: int | None
    cost: str
    device: Device
    accuracy: str = "any"

    @property
    def narrow(self) -> bool:
        """Whether the device's figures are of 16-bit maps."""
        return self.device.itemsize <= 2

    def price(self, plan: Plan) -> float:
        """Return the objective's cost in the cost model: seconds, or multiply-accumulates."""
        cost = cost_function(self.cost, self.device)
        if self.objective != "training":
            return cost(plan.graph)
        return cost(plan.graph) + (2 * cost(plan.graph) if plan.backward is None else cost(plan.backward.graph))


def question(
    spec: Spec | str,
    sizes: Mapping[str, int],
    objective: str = "forward",
    *,
    batch: int | None = None,
    memory_limit: int | None = None,
    cost: str = "roofline",
    device: str | Device = "cpu",
    accuracy: str = "any",
) -> Question:
    """The arguments of `polyattn.plan`, checked.

    Raises:
        SizeError: a size is missing, unknown or contradictory, or an option is unknown or out of range.
    """
    spec = Spec(spec) if isinstance(spec, str) else spec
    words = (("objective", objective, OBJECTIVES), ("cost", cost, COSTS), ("accuracy", accuracy, ACCURACIES))
    for word, value, known in words:
        if value not in known:
            raise SizeError(f"unknown {word} {value!r}; there are {', '.join(known)}")
    if isinstance(device, str):
        if device not in DEVICES:
            raise SizeError(f"unknown device {device!r}; there are {', '.join(DEVICES)}, or give a Device")
        device = DEVICES[device]
    if not isinstance(sizes, Mapping):
        wanted = ", ".join(f"{name!r}: ..." for name in spec.sizes.atomic)
        raise SizeError(f"sizes must be a mapping such as {{{wanted}}}, not {sizes!r}")
    given = dict(sizes)
    if BATCH_NAME not in spec.sizes.names and BATCH_NAME in given:
        number = given.pop(BATCH_NAME)
        if batch is not None and batch != number:
            raise SizeError(f"the batch is given twice: B={number} and batch={batch}")
        batch = number
    batch = 1 if batch is None else batch
    if isinstance(batch, bool) or not hasattr(batch, "__index__") or int(batch) < 1:
        raise SizeError(f"the batch must be a positive whole number, not {batch!r}")
    memory_limit = checked_limit(memory_limit)
    known = spec.sizes.solve(given, spec.sizes.names) | {BATCH: int(batch)}
    return Question(spec, tuple(sorted(known.items())), objective, memory_limit, cost, device, accuracy)


def checked_limit(memory_limit: object) -> int | None:
    """Return a memory limit as a number of bytes, or None.

    Raises:
        SizeError: it is not a whole number of 0 or more.
    """
    if memory_limit is None:
        return None
    number: Any = memory_limit
    if isinstance(number, bool) or not hasattr(number, "__index__") or int(number) < 0:
        raise SizeError(f"memory_limit is a whole number of bytes, 0 or more, or None; not {memory_limit!r}")
    return int(number)


@lru_cache(maxsize=4096)
def ranked_plans(
    asked: Question,
    most: int,
    price: Callable[[Plan], float] | None = None,
    allocations: Allocations = memory_of_steps,
) -> tuple[Plan, ...]:
    """The cheapest plans that keep to the memory limit, cheapest first; one at least, `most` at most.

    Args:
        asked: the question.
        most: how many plans at most.
        price: of a plan, also of one whose backward pass is not planned yet; by default the cost model's.
        allocations: counts the memory of a plan.

    Raises:
        BudgetError: the expansion is too large, or no candidate keeps to the memory limit.
    """
    spec, limit = asked.spec, asked.memory_limit
    graph, plans = _ordered(replace(asked, memory_limit=None), most, limit is not None, price, allocations)
    if limit is not None and asked.objective == "as_written" and plans[0].peak_bytes > limit:
        raise BudgetError(
            f"the order as written does not keep its memory within {limit:,} bytes: "
            f"it needs memory_limit={plans[0].peak_bytes}; other objectives may need less"
        )
    found = plans if limit is None else _within(limit, plans, most)
    return tuple(p if p.accuracy else replace(p, accuracy=accuracy(p.graph, graph, spec, asked.narrow)) for p in found)


# The plans are the same for every limit, and so is their memory, which takes long to count.
@lru_cache(maxsize=256)
def _ordered(
    asked: Question, most: int, limited: bool, price: Callable[[Plan], float] | None, allocations: Allocations
) -> tuple[Graph, tuple[Plan, ...]]:
    """Return the graph of the text as written, and the plans in the order in which they are taken.

    Args:
        limited: whether a memory limit chooses among them; else only `most` are made.
        asked, most, price, allocations: see `ranked_plans`.
    """
    spec, sizes = asked.spec, dict(asked.sizes)
    # An author's own order stays as it is; other plans take exponentials with their normaliser.
    source = spec if asked.objective == "as_written" else stable(spec)
    graph = _written(source, sizes)
    loss = accuracy(graph, graph, spec, asked.narrow)
    written = Plan(spec, asked.objective, "as written", graph, accuracy=loss, allocations=allocations)
    if asked.objective == "as_written":
        return graph, (written,)
    graphs, lower = _candidates(source, sizes)
    plans = [
        Plan(spec, asked.objective, way, made, lower_bound=lower, allocations=allocations)
        for made, way in graphs.items()
    ]
    plans = [p for p in plans if p.macs <= written.macs]
    early = price or replace(asked, objective="forward").price
    price = price or asked.price

    def key(plan: Plan) -> tuple[float, int]:
        return early(plan), plan.step_peak_bytes

    def ranked() -> Iterator[Plan]:
        return iter(sorted(plans, key=key)) if asked.accuracy == "any" else _accurate(plans, written, asked.narrow, key)

    allowed = 3 * written.macs  # what autograd takes for the author's order
    few = max(most, TRAINED_CANDIDATES)
    ordered: Iterable[Plan] = ranked()
    if asked.objective == "training":
        ordered = _for_training(islice(ordered, few), written, price)
    if not limited:
        return graph, tuple(keeping_little(p, allowed, asked, price) for p in islice(ordered, most))
    if asked.objective == "training":
        several, lean = list(ordered), sorted(ranked(), key=lambda p: p.step_peak_bytes)[:LEAN]
        more = [p for p in _for_training(lean, written, price) if p not in several]
        ordered = _by_price([[*keeping_less(p, allowed, asked, price)] for p in (*several, *more)], price)
    return graph, tuple(ordered)


def _accurate(
    plans: list[Plan], written: Plan, narrow: bool, key: Callable[[Plan], tuple[float, int]]
) -> Iterator[Plan]:
    """Yield the plans with error bounds, on deviations from the mean where they lose more than the author's order.

    The few products of vectors that this takes more are not held against a plan. Bounds and deviations take longer than
    prices, so each plan gets them in its turn, the cheapest first.
    """
    # The number of the plan keeps plans of one price in their order.
    queue = [(*key(p), k, 0, p) for k, p in enumerate(plans)]
    heapify(queue)
    met: set[Graph] = set()
    while queue:
        *_, number, centred_steps, plan = heappop(queue)
        loss = accuracy(plan.graph, written.graph, plan.spec, narrow)
        if loss.kept:
            if plan.graph not in met:
                met.add(plan.graph)
                yield replace(plan, accuracy=loss)
        elif centred_steps < len(STEPS):
            # More and more of the first graph's steps.
            graph = centred(plans[number].graph, plan.spec, STEPS[centred_steps])
            after = replace(plan, strategy=f"{plans[number].strategy}, centred", graph=graph)
            heappush(queue, (*key(after), number, centred_steps + 1, after))


def _for_training(plans: Iterable[Plan], written: Plan, price: Callable[[Plan], float]) -> list[Plan]:
    """The plans and the author's with their backward passes, cheapest first in both together."""
    chosen = {p.graph: p for p in (*plans, written)}
    trained = [with_backward(p) for p in chosen.values()]
    allowed = min(p.training_macs for p in trained if p.graph == written.graph)
    return sorted(
        (p for p in trained if p.training_macs <= allowed),
        key=lambda p: (price(p), p.step_peak_bytes + p.step_kept_bytes),
    )


def _by_price(variants: list[list[Plan]], price: Callable[[Plan], float]) -> list[Plan]:
    """Return the plan that is taken without a limit, then all others, cheapest first."""
    free, *rest = (p for group in variants for p in group)
    return [free, *sorted(rest, key=price)]


def _within(limit: int, plans: tuple[Plan, ...], most: int) -> list[Plan]:
    """Return the first plans that keep to a memory limit.

    Neither the plans nor their order depend on the limit: a smaller one never leads to more memory, and one that the
    first plan keeps to leads to it.

    Raises:
        BudgetError: no plan keeps to the limit.
    """
    found = list(islice((p for p in plans if p.peak_bytes <= limit), most))
    if not found:
        least = min(p.peak_bytes for p in plans)
        raise BudgetError(
            f"no order of contraction keeps its memory within {limit:,} bytes: "
            f"the smallest limit that one keeps to is memory_limit={least}"
        )
    return found


def _written(spec: Spec, sizes: dict[str, int]) -> Graph:
    builder = Builder(sizes, sum_early=False, factor_sums=False)
    output = follow_definitions(spec, builder, written_order)
    return Graph.of(builder.nodes, [output], sizes)


def _candidates(spec: Spec, sizes: dict[str, int]) -> tuple[dict[Graph, str], int]:
    """Return evaluation graphs with their strategies, and a lower bound on the multiply-accumulates of any."""
    found = {_written(spec, sizes): "as written"}
    for rank in range(DEFINITION_RANKS):
        builder = Builder(sizes)
        output = follow_definitions(spec, builder, ranked_orders(sizes, rank))
        found.setdefault(Graph.of(builder.nodes, [output], sizes), "definitions")
    if monomials(spec) > EXPANDED_UP_TO:
        return found, 0  # so many products cannot pay; the definitions remain
    try:
        polynomial = spec.polynomial()
    except BudgetError:
        return found, 0  # too large to expand
    long = sum(len(term.factors) for term in polynomial.terms) > RANKED_UP_TO
    for rank in range(1 if long else EXPANDED_RANKS):
        builder = Builder(sizes)
        output = contract_monomials(polynomial, builder, ranked_orders(sizes, rank))
        found.setdefault(Graph.of(builder.nodes, [output], sizes), "expanded")
    made, lower = joint_graphs(polynomial, sizes, min(g.macs for g in found))
    for builder, output in made:
        found.setdefault(Graph.of(builder.nodes, [output], sizes), "joint")
    return found, lower
