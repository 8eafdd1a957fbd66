"""The costs of a plan, counted in the sizes: multiply-accumulates, memory traffic, peak and kept memory.

Each is a sum of products of sizes with whole coefficients, counted from the graph's nodes once for all sizes; numbers
and sympy formulas are two readings of the same counts. Bytes are those of float32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import TYPE_CHECKING

from polyattn.algebra import Index, Spec
from polyattn.language.sizes import number_of
from polyattn.planning import Add, Apply, Constant, Contract, Convolve, Identity, Leaf, Plan
from polyattn.planning.graph import symbol
from polyattn.planning.steps import Node, loop_indices, materialises_product, multiplies

if TYPE_CHECKING:
    import sympy

Terms = tuple[tuple[tuple[str, ...], int], ...]
"""A sum: products of sizes, each with its coefficient, sorted."""


@dataclass(frozen=True)
class Counts:
    """The counts of one plan, in the atomic sizes.

    Attributes:
        macs: multiply-accumulates, with those of the backward pass for the objective "training".
        entries: entries read and written by all steps; a written-out product counts twice.
        alive: for each step, the entries of intermediates alive at once.
        kept: entries of intermediates kept for the backward pass.
        parameters: number of learnt entries.
    """

    macs: Terms
    entries: Terms
    alive: tuple[Terms, ...]
    kept: Terms
    parameters: Terms

    def peak(self, sizes: Mapping[str, int]) -> int:
        return max((value(t, sizes) for t in self.alive), default=0)


def counts(plan: Plan, objective: str) -> Counts:
    """Return the counts of a plan.

    Without a planned backward pass, "training" counts autograd on the forward graph: two products for each product; it
    keeps the operands of products and the results or arguments of functions that their derivatives need.
    """
    backward = plan.backward
    return _counts(
        plan.spec,
        _Nodes(plan.graph.nodes, tuple(o.value for o in plan.graph.outputs)),
        None if backward is None else _Nodes(backward.graph.nodes, tuple(o.value for o in backward.graph.outputs)),
        () if backward is None else backward.kept,
        objective == "training",
    )


@dataclass(frozen=True)
class _Nodes:
    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]

    # The cache below hashes graphs at every point of a sweep: hash their nodes once.
    @cached_property
    def _hash(self) -> int:
        return hash((self.nodes, self.outputs))

    def __hash__(self) -> int:
        return self._hash


# Keyed by nodes without sizes: points of a sweep with the same order share one entry.
@lru_cache(maxsize=2048)
def _counts(spec: Spec, forward: _Nodes, backward: _Nodes | None, kept: tuple[int, ...], training: bool) -> Counts:
    parameters = Counter(tuple(sorted(a for slot in spec.shape(t) for a in slot)) for t in spec.parameters)
    macs, entries, held = _macs(forward), _entries(forward), Counter()
    if training and backward is None:
        # Autograd's backward pass: two products of the same size for each product, twice the traffic.
        kept = _kept_by_autograd(forward)
        macs, entries = _times(macs, 3), _times(entries, 3)
    alive = _alive(forward, kept)
    if training and backward is None:
        alive += _alive_in_autograd(forward, kept)
    if training:
        held = _total(_numel(forward.nodes[k].output) for k in kept)
    if training and backward is not None:
        macs, entries = macs + _macs(backward), entries + _entries(backward)
        # Kept values are leaves of the backward graph, which `_alive` leaves out; they are counted to its end.
        alive += [a + held for a in _alive(backward, ())]
    return Counts(_sorted(macs), _sorted(entries), _largest(alive), _sorted(held), _sorted(parameters))


def _numel(indices: Iterable[Index]) -> tuple[str, ...]:
    return tuple(sorted(i.size for i in indices))


def _total(products: Iterable[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
    return Counter(products)


def _times(terms: Counter[tuple[str, ...]], number: int) -> Counter[tuple[str, ...]]:
    return Counter({k: number * n for k, n in terms.items()})


def _sorted(terms: Counter[tuple[str, ...]]) -> Terms:
    """Return the sum with numeric sizes multiplied out."""
    found: Counter[tuple[str, ...]] = Counter()
    for sizes, number in terms.items():
        # Terms that differ in a numeric size become equal here, so they are added up.
        found[tuple(s for s in sizes if not s.isdigit())] += number * prod(int(s) for s in sizes if s.isdigit())
    return tuple(sorted((k, n) for k, n in found.items() if n))


def _macs(graph: _Nodes) -> Counter[tuple[str, ...]]:
    return _total(_numel(loop_indices(n)) for n in graph.nodes if multiplies(n))


def _entries(graph: _Nodes) -> Counter[tuple[str, ...]]:
    found: Counter[tuple[str, ...]] = Counter()
    for node in graph.nodes:
        if isinstance(node, Leaf | Constant | Identity):
            continue
        found[_numel(node.output)] += 1
        found.update(_numel(o.indices) for o in node.operands)
        # The product is written once and read once before its sum.
        if materialises_product(node):
            found[_numel(loop_indices(node))] += 2
    return found


def _alive(graph: _Nodes, kept: Iterable[int]) -> list[Counter[tuple[str, ...]]]:
    """Return, after each step, the values alive without leaves; `kept` ones stay to the end."""
    nodes, end = graph.nodes, len(graph.nodes)
    last = {o.value: k for k, node in enumerate(nodes) for o in node.operands}
    # Outputs and kept values outlive every step.
    last |= dict.fromkeys((*graph.outputs, *kept), end)
    alive: Counter[tuple[str, ...]] = Counter()
    found = []
    for k, node in enumerate(nodes):
        if isinstance(node, Leaf):
            continue
        alive[_numel(node.output)] += 1
        here = alive.copy()
        if materialises_product(node):
            here[_numel(loop_indices(node))] += 1
        found.append(here)
        for v in {o.value for o in node.operands if last[o.value] == k and not isinstance(nodes[o.value], Leaf)}:
            alive[_numel(nodes[v].output)] -= 1
    return found


def _alive_in_autograd(graph: _Nodes, kept: Iterable[int]) -> list[Counter[tuple[str, ...]]]:
    """Return the values alive during autograd's backward pass: kept ones, and gradients in flight; leaves' stay.

    The gradients of a value with several readers are added up one by one, each beside the sum so far.
    """
    nodes, stays = graph.nodes, set(kept)
    first: dict[int, int] = {}
    for k, node in enumerate(nodes):
        for operand in node.operands:
            # In reverse order the first reader is the last to need the value.
            first.setdefault(operand.value, k)
    alive = _total(_numel(nodes[k].output) for k in stays)
    waiting = set(graph.outputs)
    alive.update(_numel(nodes[k].output) for k in waiting)
    found = [alive.copy()]
    for k in range(len(nodes) - 1, -1, -1):
        if k not in waiting or not nodes[k].operands:
            continue
        for operand in nodes[k].operands:
            if isinstance(nodes[operand.value], Constant | Identity):
                continue
            size = _numel(nodes[operand.value].output)
            here = alive.copy()
            # The new contribution exists beside the sum so far.
            here[size] += 1
            found.append(here)
            if operand.value not in waiting:
                waiting.add(operand.value)
                alive[size] += 1
        alive[_numel(nodes[k].output)] -= 1
        # No step before this one reads the value: autograd frees it.
        for v in {v for v in stays if first.get(v, v) == k}:
            stays.remove(v)
            alive[_numel(nodes[v].output)] -= 1
    return found


def _largest(sums: list[Counter[tuple[str, ...]]]) -> tuple[Terms, ...]:
    """Drop sums that another sum dominates term by term."""
    distinct = sorted({_sorted(s) for s in sums})
    known = [dict(s) for s in distinct]
    return tuple(
        s
        for k, s in enumerate(distinct)
        # A dominated sum is nowhere the maximum, since sizes are positive.
        if not any(n != k and all(known[n].get(p, 0) >= c for p, c in s) for n in range(len(distinct)))
    )


def _kept_by_autograd(graph: _Nodes) -> tuple[int, ...]:
    """Return the values that autograd keeps, without leaves: operands of products, tensors of functions' derivatives.

    relu, sigmoid and softmax keep their results, normalize and max their arguments as well.
    """
    found: set[int] = set()
    for k, node in enumerate(graph.nodes):
        if multiplies(node):
            found.update(o.value for o in node.operands)
        elif isinstance(node, Apply):
            found.add(k)
            if node.function in ("normalize", "max"):
                found.update(o.value for o in node.operands)
    return tuple(sorted(v for v in found if isinstance(graph.nodes[v], Contract | Convolve | Add | Apply)))


def value(terms: Terms, sizes: Mapping[str, int]) -> int:
    """Evaluate a sum; `sizes` has the batch by its own name."""
    return sum(n * prod(number_of(s, sizes) for s in names) for names, n in terms)


def expression(terms: Terms) -> sympy.Expr:
    """Return a sum in sympy, with B for the batch."""
    import sympy

    return sympy.Add(*(n * sympy.Mul(*map(symbol, names)) for names, n in terms))
