"""The orders of contraction compared on a page: each is the cheapest somewhere around the given sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from polyattn.algebra import Spec
from polyattn.planning import BATCH, Graph, Plan, question, ranked_plans
from polyattn.planning.search import with_backward
from polyattn.study.report.formulas import Formula
from polyattn.study.report.sizes import Freedom, follow, freedom

FACTOR = 16
"""Ratio by which each size is raised and lowered."""
MOST = 7
"""Greatest number of compared orders."""
NEAR = 1.1


@dataclass(frozen=True)
class Candidate:
    """One order of contraction.

    Attributes:
        label: name such as "as written", or "order 2".
        plan: the plan, with its figures at the page's sizes.
        formula: its multiply-accumulates: of one evaluation, or with the backward pass.
    """

    label: str
    plan: Plan
    formula: Formula


def candidates(spec: Spec, sizes: Mapping[str, int], objective: str) -> tuple[Candidate, ...]:
    """Return the author's order, the cheapest at the sizes, and further ones until all probes are near their cheapest.

    Probes have one size, or all but one, `FACTOR` times larger or smaller; near is within `NEAR` times the fewest
    multiply-accumulates of any order found.

    Args:
        sizes: a number for every size, with B for the batch.
        objective: "forward" or "training".
    """
    (written,) = ranked_plans(question(spec, sizes, "as_written"), 1)
    if objective == "training":
        written = with_backward(replace(written, objective="training"))
    probes = list(_probes(freedom(spec), sizes, every=objective == "forward"))
    best = [ranked_plans(question(spec, probe, objective, cost="macs"), 1)[0] for probe in probes]
    costs = {plan.graph: [_macs(_at(plan, probe)) for probe in probes] for plan in (written, *best)}
    plans = {plan.graph: plan for plan in (written, *best)}
    chosen = list(dict.fromkeys([written.graph, best[0].graph]))
    fewest = [min(column) for column in zip(*costs.values(), strict=True)]
    # Greedy: add the best order of the probe at which the chosen ones do worst.
    while len(chosen) < MOST:
        excess = [min(costs[g][k] for g in chosen) / max(1, fewest[k]) for k in range(len(probes))]
        worst = max(range(len(probes)), key=lambda k: excess[k])
        if excess[worst] <= NEAR:
            break
        chosen.append(best[worst].graph)
    # Different graphs may have equal costs at all sizes; the page shows one of them.
    found: dict[Formula, Plan] = {}
    for graph in chosen:
        plan = _at(plans[graph], sizes)
        found.setdefault(_formula(plan), plan)
    labels = ["as written", *(f"order {k}" for k in range(1, len(found)))]
    return tuple(Candidate(label, plan, formula) for label, (formula, plan) in zip(labels, found.items(), strict=True))


def _macs(plan: Plan) -> int:
    return plan.training_macs if plan.objective == "training" else plan.macs


def _formula(plan: Plan) -> Formula:
    return Formula.of(plan.training_complexity if plan.objective == "training" else plan.complexity)


def _probes(here: Freedom, sizes: Mapping[str, int], every: bool) -> Iterator[dict[str, int]]:
    """Yield the given sizes; each free size but the batch, smaller and larger; and all others so in one go."""
    free = {name: sizes[name] for name in here.free}
    seen = []
    varied = [n for n in here.free if n != "B"]
    # Plans for training take long, so fewer sizes are varied.
    for size in [None, *(varied if every else varied[:3])]:
        for up in (True, False):
            for others in (False, True) if every else (False,):
                changed = {n: _moved(free[n], up == (n == size)) for n in varied if n == size or (others and size)}
                probe = follow(here, free | changed)
                if probe is not None and probe not in seen:
                    seen.append(probe)
                    yield probe


def _moved(number: int, up: bool) -> int:
    return number * FACTOR if up else max(1, number // FACTOR)


def _at(plan: Plan, sizes: Mapping[str, int]) -> Plan:
    """Return the same order with its figures at other sizes."""
    numbers = {**sizes, BATCH: sizes["B"]}

    def moved(graph: Graph) -> Graph:
        return replace(graph, sizes=tuple((name, numbers[name]) for name, _ in graph.sizes))

    backward = None if plan.backward is None else replace(plan.backward, graph=moved(plan.backward.graph))
    return replace(plan, graph=moved(plan.graph), backward=backward)
