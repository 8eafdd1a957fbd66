"""`shard`: an evaluation graph on one piece of the positions, with an exchange wherever pieces have to meet.

A value of the graph is, on each device, either the *whole* value, the shard of it at the device's own positions (it is
*split* along an axis), or a summand of it (*partial*: the sum over the devices is the value). A contraction over the
split index yields partial values; products with whole values and sums keep them partial, so the sum over devices can
happen at any later step, up to the first that needs the whole value. It happens where the fewest bytes cross: for the
Gram form of Poly-NL not at the C x C Gram matrix, but two steps later at the C numbers computed from it. Tensors of
the size of a map are never exchanged: a step that pairs positions of different devices is refused.

Reverse-mode differentiation needs no analysis of its own. The gradient of a split value is split, that of a partial
value whole, and that of a whole value partial; so each sum over devices in the forward pass becomes one of the same
size in the backward pass, and the gradients of parameters are summed once at the end.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from polyattn.algebra import Index
from polyattn.errors import ShardingError
from polyattn.language.conditions import is_condition
from polyattn.planning.centring import MINUS
from polyattn.planning.graph import ITEMSIZE, Graph, Step
from polyattn.planning.steps import (
    ONE,
    Add,
    Apply,
    Constant,
    Contract,
    Convolve,
    Identity,
    Leaf,
    Node,
    Operand,
    Pullback,
    numel,
    relation_indices,
)

LOCAL = "@local"
"""Suffix of a size's name for the length of one shard; sizes of a specification cannot contain it."""

ALL_REDUCE, SLICE = "all_reduce", "slice"
"""Functions of sharded graphs beside the language's: the sum over all shards, and a shard of a whole value."""

WHOLE, PARTIAL = -1, -2
State = int
"""WHOLE, PARTIAL, or the axis along which a value is split."""


@dataclass(frozen=True)
class Link:
    """The connection between devices.

    Attributes:
        bytes_per_second: rate at which one device sends.
        latency: seconds of one message.
    """

    bytes_per_second: float = 10e9
    latency: float = 20e-6

    def seconds(self, payload: float, devices: int, messages: int = 1) -> float:
        """Estimate all-reduces on a ring: each device sends 2 (P - 1) messages of a P-th of the payload.

        Args:
            payload: bytes to reduce.
            devices: P.
            messages: number of all-reduces.
        """
        rounds = 2 * (devices - 1)
        return rounds * (payload / devices / self.bytes_per_second + messages * self.latency)

    def dealing(self, payload: float, devices: int, times: int = 1) -> float:
        """Estimate all-to-alls: each device sends every other device its share of the shard.

        Args:
            payload: bytes of the whole map, all times together.
            devices: P, the number of shards.
            times: number of all-to-alls.
        """
        return (devices - 1) * (payload / devices**2 / self.bytes_per_second + times * self.latency)


@dataclass(frozen=True)
class Sharded:
    """A graph on one shard of the positions.

    Attributes:
        graph: its indices over positions have the size `local`; coefficients keep the size of all positions.
        size: the split size.
        exchanges: the nodes that exchange, each with the number of entries it reduces over the shards; one pair for
            each reduction.
    """

    graph: Graph
    size: str
    exchanges: tuple[tuple[int, int], ...]

    @property
    def local(self) -> str:
        return self.size + LOCAL

    @cached_property
    def entries(self) -> int:
        """Count the numbers reduced over the shards in one evaluation, for the batch of the graph."""
        return sum(entries for _, entries in self.exchanges)

    @property
    def payload(self) -> int:
        """Count the bytes reduced over the shards in one evaluation, in float32."""
        return ITEMSIZE * self.entries

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        return self.graph.steps(self.graph.names())


def shard(graph: Graph, names: Sequence[str], size: str, local: int, inputs: Collection[str]) -> Sharded:
    """Return the graph on one shard of a size, with the sums over shards where the fewest numbers cross.

    Args:
        graph: an evaluation graph at the sizes of the whole.
        names: names of its nodes, for messages.
        size: the atomic size to split.
        local: length of a shard, for the costs.
        inputs: the leaves that arrive as shards; others arrive whole.

    Raises:
        ShardingError: a step needs positions of different shards at once, or an axis is ambiguous; it is named.
    """

    def walked(places: frozenset[int]) -> tuple[Sharded, frozenset[int]]:
        return _Walk(graph, names, size, local, frozenset(inputs), places).run()

    # Two starts: moves of one place at a time can end in a local optimum.
    latest, partial = walked(frozenset())
    found = [(latest, frozenset[int]())]
    narrow = _narrow(graph, partial)
    if narrow:
        found.append((walked(narrow)[0], narrow))
    # Local search from both: move the place of one sum while that lowers the price.
    best: list[Sharded] = []
    for sharded, chosen in found:
        while True:
            tried = [(_price(walked(chosen ^ {k})[0]), k) for k in sorted(partial)]
            price, k = min(tried, default=((0, 0), -1))
            if k < 0 or price >= _price(sharded):
                break
            chosen ^= {k}
            sharded = walked(chosen)[0]
        best.append(sharded)
    return min(best, key=_price)


def _narrow(graph: Graph, partial: frozenset[int]) -> frozenset[int]:
    """Return partial values with fewer entries than their partial operands, and at most as many as their users."""
    entries = {k: numel(graph.nodes[k].output, graph.known) for k in partial}
    made = {k: [entries[o.value] for o in graph.nodes[k].operands if o.value in partial] for k in partial}
    users = {k: [n for n in partial if any(o.value == k for o in graph.nodes[n].operands)] for k in partial}
    return frozenset(
        k for k in partial if entries[k] < min(made[k], default=entries[k] + 1)
        and entries[k] <= min((entries[n] for n in users[k]), default=entries[k])
    )  # fmt: skip


def _price(sharded: Sharded) -> tuple[int, int]:
    return sharded.entries, len(sharded.exchanges)


@dataclass
class _Walk:
    """One pass over the nodes, with given places of early sums."""

    source: Graph
    names: Sequence[str]
    size: str
    local: int
    inputs: frozenset[str]
    places: frozenset[int]
    nodes: list[Node] = field(default_factory=list)
    values: dict[int, int] = field(default_factory=dict)
    states: dict[int, State] = field(default_factory=dict)
    partial: set[int] = field(default_factory=set)
    slices: dict[tuple[int, int], int] = field(default_factory=dict)

    def run(self) -> tuple[Sharded, frozenset[int]]:
        """Return the sharded graph, and the values that were partial when computed."""
        for k, node in enumerate(self.source.nodes):
            made, state = self.visit(k, node)
            self.values[k], self.states[k] = self.add(made), state
            if state == PARTIAL:
                self.partial.add(k)
                if k in self.places:
                    self.reduce(k)
        outputs = [self.output(o) for o in self.source.outputs]
        sizes = self.source.known | {self.size + LOCAL: self.local}
        graph = Graph.of(self.nodes, outputs, sizes)
        return Sharded(graph, self.size, tuple(exchanges(graph, self.size))), frozenset(self.partial)

    def add(self, node: Node) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1

    def moved(self, indices: Sequence[Index], split: Index | None) -> tuple[Index, ...]:
        return tuple(Index(i.id, self.size + LOCAL) if i == split else i for i in indices)

    def reduce(self, k: int) -> None:
        """Reduce a partial value to the whole one."""
        # Later readers find the reduced value in its place, so each value crosses at most once.
        if self.states[k] == PARTIAL:
            output = self.source.nodes[k].output
            self.values[k] = self.add(Apply(ALL_REDUCE, (), (Operand(self.values[k], output),), output))
            self.states[k] = WHOLE

    def piece(self, operand: Operand, axis: int) -> int:
        """Return this device's shard of a whole value."""
        key = (self.values[operand.value], axis)
        if key not in self.slices:
            output = self.source.nodes[operand.value].output
            index = output[axis]
            node = Apply(SLICE, (index,), (Operand(key[0], output),), self.moved(output, index))
            self.slices[key] = self.add(node)
        return self.slices[key]

    def split_index(self, k: int, node: Node) -> Index | None:
        """Return the node's split index, if it has one."""
        split: set[Index] = set()
        for o in node.operands:
            state = self.states[o.value]
            if state >= 0:
                split.add(o.indices[state])
                if o.indices.count(o.indices[state]) > 1:
                    self.refuse(k, "takes a diagonal of positions, which lie on different devices")
        if len(split) > 1:
            self.refuse(k, f"pairs every position with every other along {self.size}, which lie on different devices")
        return split.pop() if split else None

    def operand(self, operand: Operand, split: Index | None) -> Operand:
        value, state = self.values[operand.value], self.states[operand.value]
        if split is not None and state == WHOLE and split in operand.indices:
            if operand.indices.count(split) > 1:
                diagonal = "a diagonal along the split positions"
                raise ShardingError(f"'{self.names[operand.value]}' is read at {diagonal}, which is not supported")
            value = self.piece(operand, operand.indices.index(split))
        return Operand(value, self.moved(operand.indices, split))

    def visit(self, k: int, node: Node) -> tuple[Node, State]:
        if isinstance(node, Leaf):
            return self.leaf(node)
        if isinstance(node, Identity) and is_condition(node.tensor) and any(i.size == self.size for i in node.output):
            self.refuse(k, "compares positions, which lie on different devices")
        if isinstance(node, Identity | Constant):
            return node, WHOLE
        assert not isinstance(node, Pullback), "backward passes are not cut; autograd goes through the pieces"
        if any(i.size == self.size for i in relation_indices(node)):
            self.refuse(k, "reads the neighbours of positions, which lie on different devices")
        split = self.split_index(k, node)
        states = [self.states[o.value] for o in node.operands]
        # A function needs its whole argument, and a product with a split operand the whole of a partial one.
        if isinstance(node, Apply) or split is not None:
            keep: set[int] = set()
        elif isinstance(node, Add):
            keep = {o.value for o in node.operands} if all(s == PARTIAL for s in states) else set()
        else:
            # A sum may stay partial only if all its terms are: a whole term would be added once on every device.
            keep = self.kept_partial(node)
        for o in node.operands:
            if o.value not in keep:
                self.reduce(o.value)
        partial = any(self.states[o.value] == PARTIAL for o in node.operands)
        operands = tuple(self.operand(o, split) for o in node.operands)
        output = self.moved(node.output, split)
        state = PARTIAL if partial else WHOLE
        if split is not None:
            state = node.output.index(split) if split in node.output else PARTIAL
        if isinstance(node, Apply):
            over = self.moved(node.over, split)
            # The maximum over all pieces is whole already.
            return replace(node, over=over, operands=operands, output=output), WHOLE if state == PARTIAL else state
        if isinstance(node, Add):
            return Add(operands, node.coefficients, output), state
        if isinstance(node, Convolve):
            return Convolve(operands, node.relations, output, node.coefficient), state
        return Contract(operands, output, node.coefficient), state

    def leaf(self, node: Leaf) -> tuple[Node, State]:
        if node.tensor not in self.inputs:
            return node, WHOLE
        axes = [a for a, i in enumerate(node.output) if i.size == self.size]
        if not axes:
            return node, WHOLE
        if len(axes) > 1:
            raise ShardingError(f"input '{node.tensor}' has two axes of size {self.size}: which one is split?")
        return Leaf(node.tensor, self.moved(node.output, node.output[axes[0]])), axes[0]

    def kept_partial(self, node: Contract | Convolve) -> set[int]:
        """Return the operand of a product that may stay partial: one at most, the larger.

        A product of two sums over devices is not the sum of the products.
        """
        partial = [o for o in node.operands if self.states[o.value] == PARTIAL]
        if len(partial) == 2:
            if partial[0].value == partial[1].value:
                return set()
            partial.sort(key=lambda o: numel(o.indices, self.source.known))
        return {partial[-1].value} if partial else set()

    def output(self, operand: Operand) -> Operand:
        axes = [a for a, i in enumerate(operand.indices) if i.size == self.size]
        if len(axes) > 1:
            raise ShardingError(f"the output has two axes of size {self.size}, and can be split along one only")
        self.reduce(operand.value)
        state = self.states[operand.value]
        split = operand.indices[axes[0]] if axes else None
        value = self.values[operand.value]
        if state == WHOLE and axes:
            value = self.piece(operand, axes[0])
        return Operand(value, self.moved(operand.indices, split))

    def refuse(self, k: int, reason: str) -> None:
        numbers = [n for n, node in enumerate(self.source.nodes) if not isinstance(node, Leaf)]
        equation = self.source.steps(self.names)[numbers.index(k)].equation
        raise ShardingError(f"{self.names[k]}{equation} {reason}: each device would need the whole map")


def exchanges(graph: Graph, size: str) -> list[tuple[int, int]]:
    """Return the nodes of a sharded graph that exchange, with the entries of each of their reductions."""
    found: list[tuple[int, int]] = []
    for k, node in enumerate(graph.nodes):
        if not isinstance(node, Apply):
            continue
        if node.function == ALL_REDUCE:
            found.append((k, numel(node.output, graph.known)))
        # A function over the split size reduces across the shards inside its own step.
        elif any(i.size == size + LOCAL for i in node.over):
            entries = numel([i for i in node.operands[0].indices if i not in node.over], graph.known)
            found += [(k, entries)] * (2 if node.function == "softmax" else 1)  # its maximum and its sum
    return found


def reduced_means(graph: Graph) -> frozenset[int]:
    """Return the means of inputs in a sharded graph that are subtracted from them, with the shards' parts of each."""
    found: set[int] = set()
    for node in graph.nodes:
        if isinstance(node, Add) and node.coefficients == (ONE, MINUS):
            whole, mean = node.operands
            total = graph.nodes[mean.value]
            part = total.operands[0].value if isinstance(total, Apply) and total.function == ALL_REDUCE else mean.value
            summed = graph.nodes[part]
            if isinstance(summed, Contract) and [o.value for o in summed.operands] == [whole.value]:
                found |= {mean.value, part} if isinstance(graph.nodes[whole.value], Leaf) else set()
    return frozenset(found)
