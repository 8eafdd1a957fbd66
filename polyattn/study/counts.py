"""What a plan takes, counted in the sizes: multiply-accumulates, bytes read and written, peak and kept memory.

Everything is a sum of products of sizes with whole coefficients, counted from the graph's nodes once for all sizes;
numbers and sympy formulas are two readings of the same counts. Bytes are those of float32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import TYPE_CHECKING

from polyattn.algebra import Index, Spec
from polyattn.planning import Add, Apply, Constant, Contract, Identity, Leaf, Plan
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
        macs: multiply-accumulates, of the backward pass as well where the objective is "training".
        entries: entries read and written by all steps; a product that is written out counts twice.
        alive: for each step, the entries of intermediates that are there at once.
        kept: entries of intermediates that are kept for the backward pass.
        parameters: numbers that are learnt.
    """

    macs: Terms
    entries: Terms
    alive: tuple[Terms, ...]
    kept: Terms
    parameters: Terms

    def peak(self, sizes: Mapping[str, int]) -> int:
        return max((value(t, sizes) for t in self.alive), default=0)


def counts(plan: Plan, objective: str) -> Counts:
    """The counts of a plan.

    Without a planned backward pass, "training" counts what autograd does with the forward graph: two products for each
    product, and kept are the operands of products and what functions need of their results or arguments.
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

    @cached_property
    def _hash(self) -> int:
        return hash((self.nodes, self.outputs))

    def __hash__(self) -> int:
        return self._hash


@lru_cache(maxsize=2048)
def _counts(spec: Spec, forward: _Nodes, backward: _Nodes | None, kept: tuple[int, ...], training: bool) -> Counts:
    parameters = Counter(tuple(sorted(a for slot in spec.shape(t) for a in slot)) for t in spec.parameters)
    macs, entries, held = _macs(forward), _entries(forward), Counter()
    if training and backward is None:
        kept = _kept_by_autograd(forward)
        macs, entries = _times(macs, 3), _times(entries, 3)
    alive = _alive(forward, kept)
    if training and backward is None:
        alive += _alive_in_autograd(forward, kept)
    if training:
        held = _total(_numel(forward.nodes[k].output) for k in kept)
    if training and backward is not None:
        macs, entries = macs + _macs(backward), entries + _entries(backward)
        alive += [a + held for a in _alive(backward, ())]
    return Counts(_sorted(macs), _sorted(entries), _largest(alive), _sorted(held), _sorted(parameters))


def _numel(indices: Iterable[Index]) -> tuple[str, ...]:
    return tuple(sorted(i.size for i in indices))


def _total(products: Iterable[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
    return Counter(products)


def _times(terms: Counter[tuple[str, ...]], number: int) -> Counter[tuple[str, ...]]:
    return Counter({k: number * n for k, n in terms.items()})


def _sorted(terms: Counter[tuple[str, ...]]) -> Terms:
    """The sum with sizes that are numbers multiplied out."""
    found: Counter[tuple[str, ...]] = Counter()
    for sizes, number in terms.items():
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
        if materialises_product(node):
            found[_numel(loop_indices(node))] += 2
    return found


def _alive(graph: _Nodes, kept: Iterable[int]) -> list[Counter[tuple[str, ...]]]:
    """After each step the values, leaves aside, that are there; `kept` ones stay to the end."""
    nodes, end = graph.nodes, len(graph.nodes)
    last = {o.value: k for k, node in enumerate(nodes) for o in node.operands}
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
    """During autograd's backward pass: what is still kept, with the gradients that wait; those of leaves stay.

    A value that several steps read has its gradients added up one by one, each beside the sum so far.
    """
    nodes, stays = graph.nodes, set(kept)
    first: dict[int, int] = {}
    for k, node in enumerate(nodes):
        for operand in node.operands:
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
            here[size] += 1
            found.append(here)
            if operand.value not in waiting:
                waiting.add(operand.value)
                alive[size] += 1
        alive[_numel(nodes[k].output)] -= 1
        for v in {v for v in stays if first.get(v, v) == k}:
            stays.remove(v)
            alive[_numel(nodes[v].output)] -= 1
    return found


def _largest(sums: list[Counter[tuple[str, ...]]]) -> tuple[Terms, ...]:
    """The sums without those that another one has at least as much of in every term."""
    distinct = sorted({_sorted(s) for s in sums})
    known = [dict(s) for s in distinct]
    return tuple(
        s
        for k, s in enumerate(distinct)
        if not any(n != k and all(known[n].get(p, 0) >= c for p, c in s) for n in range(len(distinct)))
    )


def _kept_by_autograd(graph: _Nodes) -> tuple[int, ...]:
    """Values, leaves aside, that autograd keeps: both operands of a product, and what functions' derivatives need.

    relu, sigmoid and softmax need their results, normalize and max their arguments as well.
    """
    found: set[int] = set()
    for k, node in enumerate(graph.nodes):
        if multiplies(node):
            found.update(o.value for o in node.operands)
        elif isinstance(node, Apply):
            found.add(k)
            if node.function in ("normalize", "max"):
                found.update(o.value for o in node.operands)
    return tuple(sorted(v for v in found if isinstance(graph.nodes[v], Contract | Add | Apply)))


def value(terms: Terms, sizes: Mapping[str, int]) -> int:
    """The number of a sum; `sizes` has the batch by its own name."""
    return sum(n * prod(sizes[s] for s in names) for names, n in terms)


def expression(terms: Terms) -> sympy.Expr:
    """A sum in sympy, with B for the batch."""
    import sympy

    return sympy.Add(*(n * sympy.Mul(*map(symbol, names)) for names, n in terms))
