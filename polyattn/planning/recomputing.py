"""Values that a training plan keeps for its backward pass, and values that it computes again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from polyattn.planning.backward import Backward, differentiate
from polyattn.planning.centring import centred
from polyattn.planning.costs import cost_function
from polyattn.planning.graph import Graph
from polyattn.planning.plan import Plan
from polyattn.planning.steps import Leaf

if TYPE_CHECKING:
    from polyattn.planning.search import Question

CHEAP_SHARE = 0.02
"""A forward value is computed again for the backward pass where that adds at most this share of all."""
VARIANTS = 6
"""Choices of kept values that are compared under a memory limit, for each order of contraction."""


def with_backward(plan: Plan, wanted: Collection[str] | None = None) -> Plan:
    """The plan with its backward pass, keeping every forward value that it reads.

    Args:
        wanted: the tensors whose gradients it computes, default all.
    """
    return replace(plan, backward=_reverse(plan, set(), wanted))


def _reverse(plan: Plan, recomputed: Collection[int], only: Collection[str] | None = None) -> Backward:
    wanted = [t for t in (*plan.spec.inputs, *plan.spec.parameters) if only is None or t in only]
    made = differentiate(plan.graph, plan.names, wanted, plan.seed, recomputed)
    return _centred_backward(plan, made, recomputed) if plan.means else made


def _centred_backward(plan: Plan, backward: Backward, recomputed: Collection[int]) -> Backward:
    """The backward pass of a centred plan, with the mean's part of each value a product of vectors there too."""
    parts = {}
    for k, mean in plan.deviations.items():
        if mean not in recomputed:
            parts[plan.names[plan.nodes[k].operands[0].value]] = (plan.names[mean], plan.names[k])
    graph = centred(backward.graph, plan.spec, "sums", parts)
    leaves = {n.tensor for n in graph.nodes if isinstance(n, Leaf)}
    return replace(
        backward,
        graph=graph,
        kept=tuple(k for k, name in enumerate(plan.names) if name in leaves and plan.nodes[k].operands),
    )


def keeping_little(plan: Plan, allowed: int, asked: Question, price: Callable[[Plan], float] | None = None) -> Plan:
    """The plan without kept values that are cheap to compute again or exceed the memory limit, by its steps.

    Args:
        allowed: the most multiply-accumulates of both passes that computing again for cheapness may lead to.
        asked: the question.
        price: of both passes, of which computing again may take its share; by default the cost model's.
    """
    if plan.backward is None or not plan.backward.kept:
        return plan
    limit, read = asked.memory_limit, frozenset(plan.backward.kept)
    for again in _recomputed(plan, allowed, asked, price):
        if limit is None or sum(plan.graph.bytes_of(k) for k in read - again) <= limit:
            break
    return _recomputing(plan, again)


def keeping_less(
    plan: Plan, allowed: int, asked: Question, price: Callable[[Plan], float] | None = None
) -> Iterator[Plan]:
    """Yield the plan as `keeping_little` makes it without a limit, then with fewer and fewer kept values, down to none.

    The plans do not depend on a limit, so a smaller one never leads to more memory.
    """
    if plan.backward is None or not plan.backward.kept:
        yield plan
        return
    found = list(_recomputed(plan, allowed, asked, price))
    steps = min(VARIANTS, len(found)) - 1
    # At even distances, the first and the last among them.
    for k in dict.fromkeys(round(n * (len(found) - 1) / max(steps, 1)) for n in range(steps + 1)):
        yield _recomputing(plan, found[k])


def _recomputing(plan: Plan, again: frozenset[int]) -> Plan:
    return replace(plan, backward=_reverse(plan, again)) if again else plan


def _recomputed(
    plan: Plan, allowed: int, asked: Question, price: Callable[[Plan], float] | None
) -> Iterator[frozenset[int]]:
    """Yield the values to compute again: those that are cheap, then one after the other the cheapest for its bytes."""
    assert plan.backward is not None
    graph, read = plan.graph, frozenset(plan.backward.kept)
    cost = cost_function(asked.cost, asked.device)
    budget = CHEAP_SHARE * (price or asked.price)(plan)
    slack = allowed - plan.training_macs
    again: frozenset[int] = frozenset()
    for k in sorted(read, key=lambda k: -graph.bytes_of(k)):
        more = _computed_again(graph, read, again | {k})
        part = _part(graph, more)
        if part.macs <= slack and cost(part) <= budget:
            again = more

    def price_by_byte(choice: tuple[int, frozenset[int]]) -> float:
        return cost(_part(graph, choice[1])) / graph.bytes_of(choice[0])

    yield again
    while read - again:
        dearer = {k: _computed_again(graph, read, again | {k}) for k in sorted(read - again)}
        again = min(dearer.items(), key=price_by_byte)[1]
        yield again


def _computed_again(graph: Graph, read: frozenset[int], dropped: frozenset[int]) -> frozenset[int]:
    """The dropped values with all that they need: inputs, parameters and kept values are there, others are not."""
    found = set(dropped)
    for k in range(len(graph.nodes) - 1, -1, -1):
        if k in found:
            found.update(
                o.value for o in graph.nodes[k].operands if o.value not in read and graph.nodes[o.value].operands
            )
    return frozenset(found)


def _part(graph: Graph, numbers: frozenset[int]) -> Graph:
    """Some of a graph's nodes, to be costed; no graph that could be evaluated."""
    return replace(graph, nodes=tuple(graph.nodes[k] for k in sorted(numbers)))
