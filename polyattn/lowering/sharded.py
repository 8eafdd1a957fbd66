"""`lower_sharded`: a sharded graph as a `torch.fx.GraphModule` with an `exchange` for the other shards.

The module's first argument is an object with the methods `sum(value)`, `amax(value, axes)`, `softmax(value, axes)` and
`normalize(value, axes)`, each over all shards (see `polyattn.runtime.communicator`); the rest is as in `lower`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn

from polyattn.algebra import Index
from polyattn.lowering.emit import Emitter
from polyattn.lowering.graphs import argument_names, is_narrow, placeholder
from polyattn.lowering.shapes import expect_shape
from polyattn.planning import BATCH, Apply, Coefficient, Contract, Leaf, Plan, Sharded
from polyattn.planning.accuracy import maps
from polyattn.planning.sharding import ALL_REDUCE, SLICE, reduced_means
from polyattn.planning.steps import numel


@dataclass
class ShardedEmitter(Emitter):
    """Emitter of a sharded graph's nodes.

    Attributes:
        exchange: placeholder of the object that reduces over the shards.
        local: name of the size of a shard.
        piece: the shard's first position and its length, possibly 0.
    """

    exchange: fx.Node | None = None
    local: str = ""
    piece: tuple[int, int] = (0, 0)

    def size(self, index: Index) -> int | fx.Node:
        return self.piece[1] if index.size == self.local else super().size(index)

    def reduce(self, number: int, node: Contract) -> fx.Node:
        """As for whole positions; the positions of a mean are summed in float64, on a shard and over the shards.

        The whole map's graphs refine the mean by that of the deviations, which would be one more reduction here.
        """
        if self.narrow or number not in self.means:
            return super().reduce(number, node)
        (operand,) = node.operands
        over = [i for i in operand.indices if i not in node.output]
        kept = [i for i in operand.indices if i in node.output]
        memory = self.side(operand).memory
        value = self.values[operand.value]
        total = self.summed(value, operand.indices, memory, over, node.coefficient, dtype=torch.float64)
        self.memory[number] = node.output
        self.exact[number] = self.permuted(total, kept, node.output)
        return self.method("type_as", self.exact[number], self.reference)

    def keep_exact(self, number: int) -> None:
        """Round the mean of all shards for all readers but products with vectors."""
        if number in self.means and number not in self.exact and not self.narrow:
            self.exact[number] = self.values[number]
            self.values[number] = self.method("type_as", self.values[number], self.reference)

    def ungrouped(self, value: fx.Node, axis: int, group: Sequence[Index]) -> fx.Node:
        """Split an axis as for whole positions, with the batch's own length if an empty shard leaves -1 ambiguous."""
        if len(group) > 1 and not all(map(self.size, group)):
            lengths = (self.method("size", self.reference, 0) if i.size == BATCH else self.size(i) for i in group)
            return self.method("unflatten", value, axis, tuple(lengths))
        return super().ungrouped(value, axis, group)

    def apply(self, node: Apply) -> fx.Node:
        (operand,) = node.operands
        value = self.values[operand.value]
        if node.function == ALL_REDUCE:
            # A mean's sums stay in float64 until they are added up.
            return self.method("sum", self.exchange, self.exact.get(operand.value, value))
        if node.function == SLICE:
            return self.call(torch.narrow, value, operand.indices.index(node.over[0]), *self.piece)
        # Functions over other axes need no exchange.
        if not any(i.size == self.local for i in node.over):
            return super().apply(node)
        axes = tuple(operand.indices.index(i) for i in node.over)
        # The exchange has torch's name for the maximum over axes.
        return self.method({"max": "amax"}.get(node.function, node.function), self.exchange, value, axes)

    def summed(
        self,
        value: fx.Node,
        indices: Sequence[Index],
        memory: Sequence[Index],
        over: Sequence[Index],
        coefficient: Coefficient,
        **dtype: torch.dtype,
    ) -> fx.Node:
        """Sum as for whole positions, but never by a mean, which over an empty shard is not finite."""
        if not any(i.size == self.local for i in over):
            return super().summed(value, indices, memory, over, coefficient, **dtype)
        left = list(indices)
        for group in self.pieces(memory, over):
            value = self.method("sum", value, tuple(sorted(left.index(i) for i in group)), **dtype)
            left = [i for i in left if i not in group]
        return self.scaled(value, coefficient)


def lower_sharded(
    plan: Plan,
    sharded: Sharded,
    piece: tuple[int, int],
    *,
    channels_first: bool,
    dtype: str | torch.dtype = "float32",
) -> fx.GraphModule:
    """Lower a plan's sharded graph to torch operations on one shard.

    Args:
        plan: the plan at the sizes of the whole, for the names and shapes of its tensors.
        sharded: its graph on shards.
        piece: the first position of this shard, and its number of positions.
        channels_first, dtype: see `lower`.
    """
    arguments = argument_names(plan)
    graph, spec = sharded.graph, plan.spec
    names = graph.names((*spec.inputs, *spec.parameters))
    emitter = ShardedEmitter(graph, names, fx.Graph(), local=sharded.local, piece=piece)
    emitter.maps = maps(graph, spec, {sharded.size: sharded.local})
    emitter.narrow, emitter.means = is_narrow(dtype), reduced_means(graph)
    own = "exchange"
    # The specification may have a tensor of this name.
    while own in {*arguments.values(), *names}:
        own += "_"
    emitter.exchange = placeholder(emitter.graph, own)
    values: dict[str, fx.Node] = {}
    whole = graph.known
    mine = whole | {sharded.size: piece[1]}
    used = {node.tensor for node in graph.nodes if isinstance(node, Leaf)}
    orders: dict[str, tuple[int, ...]] = {}
    # Unused tensors stay arguments: the signature is the specification's.
    placeholders = {tensor: placeholder(emitter.graph, name, tensor) for tensor, name in arguments.items()}
    for tensor, given in placeholders.items():
        batched, slots = tensor in spec.inputs, spec.shape(tensor)
        if not batched and tensor not in used:
            continue
        known = mine if batched else whole
        # Inputs arrive with the shard's length, parameters whole.
        shape = tuple(numel([Index(0, a) for a in atoms], known) for atoms in slots)
        checked = emitter.call(expect_shape, given, tensor, shape, batched)
        values[tensor] = emitter.split(checked, slots, batched, known)
        if batched:
            emitter.reference = emitter.reference or checked
            count, last = sum(map(len, slots)), len(slots[-1]) if slots else 0
            axes = range(1, count + 1)
            orders[tensor] = (0, *axes[count - last :], *axes[: count - last]) if channels_first else (0, *axes)
    emitter.ranks = _ranks(plan, sharded, orders)
    emitter.run(values, orders)
    (output,) = graph.outputs
    joined = emitter.joined(emitter.values[output.value], spec.shape(spec.output), True)
    emitter.graph.output(emitter.method("type_as", joined, emitter.reference) if emitter.narrow else joined)
    emitter.graph.lint()
    return fx.GraphModule(nn.Module(), emitter.graph, class_name="LoweredPiece")


def _ranks(plan: Plan, sharded: Sharded, orders: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """Return the place of each size in the memory of the first input that has it."""
    found: dict[str, int] = {BATCH: -1}
    for tensor, order in orders.items():
        sizes = [BATCH, *(a for slot in plan.spec.shape(tensor) for a in slot)]
        for axis in order:
            name = sharded.local if sizes[axis] == sharded.size else sizes[axis]
            found.setdefault(name, len(found))
    return found
