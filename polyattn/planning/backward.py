"""The backward pass of an evaluation graph, as a graph: reverse-mode differentiation of its nodes.

The vector-Jacobian product of a contraction with respect to one operand is a contraction with the others, so the
backward graph consists of the same nodes as the forward one, with the same sharing: equal values are computed once,
and contributions to one tensor with a common factor are added before it is applied. For the Gram form of a layer this
turns X*S + X*transposed(S) into X*(S + transposed(S)), one product instead of autograd's two.

Functions are opaque: each has a vector-Jacobian product of its own, a step on the function's result or its argument,
whichever is less to keep.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from polyattn.algebra import Index
from polyattn.algebra.monomial import size_product
from polyattn.language.functions import ARGUMENT, reads
from polyattn.planning.builder import Builder
from polyattn.planning.graph import Graph
from polyattn.planning.steps import (
    ONE,
    Add,
    Apply,
    Coefficient,
    Contract,
    Convolve,
    Leaf,
    Operand,
    Pullback,
    loop_indices,
    numel,
)


@dataclass(frozen=True)
class Backward:
    """A backward graph.

    Attributes:
        graph: its leaves are the seed, the forward graph's leaves, and kept values by their forward names.
        wanted: the tensors whose gradients are the graph's outputs, in order.
        zero: requested tensors on which the output does not depend.
        kept: numbers of the forward values it reads, without leaves.
    """

    graph: Graph
    wanted: tuple[str, ...]
    zero: tuple[str, ...]
    kept: tuple[int, ...]

    def kept_bytes(self, forward: Graph) -> int:
        """Return the bytes of intermediates kept by the forward pass for this one, in float32."""
        return sum(forward.bytes_of(k) for k in self.kept)


def differentiate(
    forward: Graph, names: Sequence[str], wanted: Sequence[str], seed: str, recomputed: Collection[int] = ()
) -> Backward:
    """Differentiate the forward graph's single output; return the backward graph.

    Args:
        forward: the graph.
        names: a name for each of its nodes; leaves by their tensor.
        wanted: the leaves to differentiate by.
        seed: the name of the gradient of the output.
        recomputed: forward values to recompute instead of keeping.
    """
    return _Reverse(forward, names, seed, frozenset(recomputed)).run(wanted)


def autograd_macs(forward: Graph, wanted: Collection[str]) -> int:
    """Count the multiply-accumulates of autograd's backward pass of a graph.

    Each product takes one for every operand that depends on a wanted tensor.
    """
    needed: set[int] = set()
    total = 0
    for k, node in enumerate(forward.nodes):
        reached = sum(o.value in needed for o in node.operands)
        if reached or (isinstance(node, Leaf) and node.tensor in wanted):
            needed.add(k)
        total += reached * forward.macs_of(node)
    return total


@dataclass
class _Reverse:
    forward: Graph
    names: Sequence[str]
    seed: str
    recomputed: frozenset[int]
    builder: Builder = field(init=False)
    adjoints: dict[int, list[tuple[Operand, Coefficient]]] = field(default_factory=dict)
    imported: dict[int, Operand] = field(default_factory=dict)
    kept: set[int] = field(default_factory=set)

    def run(self, wanted: Sequence[str]) -> Backward:
        # New indices count down from below every id in use, so they cannot meet one of the forward graph's.
        used = [i.id for n in self.forward.nodes for i in (*n.output, *loop_indices(n))]
        self.builder = Builder(self.forward.known, fresh=count(min([-1, *used]) - 1, -1))
        (output,) = self.forward.outputs
        seed = self.builder.leaf(self.seed, output.indices)
        self.give(output, seed, ONE)
        leaves = {n.tensor: k for k, n in enumerate(self.forward.nodes) if isinstance(n, Leaf)}
        needed = self._needed({leaves[t] for t in wanted if t in leaves})
        gradients: dict[str, Operand] = {}
        # Users come after their operands, so in reverse order every adjoint is complete when its node is visited.
        for k in range(len(self.forward.nodes) - 1, -1, -1):
            if k in needed and k in self.adjoints:
                self.visit(k, gradients, needed)
        present = tuple(t for t in wanted if t in gradients)
        zero = tuple(t for t in wanted if t not in gradients)
        graph = Graph.of(self.builder.nodes, [gradients[t] for t in present], self.forward.known)
        names = {n.tensor for n in graph.nodes if isinstance(n, Leaf)}
        # `Graph.of` drops nodes without a reader, and with them some values marked as kept.
        kept = tuple(k for k in sorted(self.kept) if self.names[k] in names)
        return Backward(graph, present, zero, kept)

    def _needed(self, leaves: set[int]) -> set[int]:
        """Return the values that depend on a wanted leaf."""
        needed = set(leaves)
        for k, node in enumerate(self.forward.nodes):
            if any(o.value in needed for o in node.operands):
                needed.add(k)
        return needed

    def visit(self, k: int, gradients: dict[str, Operand], needed: set[int]) -> None:
        node = self.forward.nodes[k]
        total = self.builder.sum(self.adjoints.pop(k), node.output)
        if isinstance(node, Leaf):
            gradients[node.tensor] = self.builder.permuted(total, node.output)
        elif isinstance(node, Contract) and len(node.operands) == 2:
            for mine, other in ((0, 1), (1, 0)):
                if node.operands[mine].value in needed:
                    self.give_product(node, total, node.operands[mine], node.operands[other])
        elif isinstance(node, Contract):
            self.give_single(node, total)
        elif isinstance(node, Convolve):
            for number, mine in enumerate(node.operands):
                if mine.value in needed:
                    self.give_convolved(node, total, number)
        elif isinstance(node, Apply):
            self.give_argument(k, node, total)
        elif isinstance(node, Add):
            for operand, scale in zip(node.operands, node.coefficients, strict=True):
                if operand.value in needed:
                    # Where the adjoint is constant along an index that the operand was broadcast over, its sum
                    # over that index is the index's length.
                    lost = [i for i in node.output if i not in operand.indices and i not in total.indices]
                    times = Coefficient(*size_product(i.size for i in lost))
                    self.give(operand, self.restricted(total, operand.indices), scale.times(times))

    def give(self, operand: Operand, gradient: Operand, scale: Coefficient) -> None:
        """Add a contribution to the adjoint of a value, in the value's own indices."""
        own = self.forward.nodes[operand.value].output
        names = dict(zip(operand.indices, own, strict=True))
        renamed = Operand(gradient.value, tuple(names[i] for i in gradient.indices))
        self.adjoints.setdefault(operand.value, []).append((renamed, scale))

    def give_product(self, node: Contract, total: Operand, mine: Operand, other: Operand) -> None:
        value = Operand(self.value(other.value).value, other.indices)
        # An index of this operand alone would be summed in the product: summing it first is cheaper.
        private = [i for i in value.indices if i not in mine.indices and i not in total.indices]
        if private:
            value = self.restricted(value, [i for i in value.indices if i not in private])
        total = self.restricted(total, (*mine.indices, *value.indices))
        output = tuple(i for i in mine.indices if i in total.indices or i in value.indices)
        scale = node.coefficient
        # The coefficient scales the smallest of the three tensors; the product carries it if that is its output.
        sizes = self.builder.sizes
        smallest = min(numel(total.indices, sizes), numel(value.indices, sizes), numel(output, sizes))
        if not scale.is_one and numel(output, sizes) > smallest:
            if self.builder.numel(total) == smallest:
                total, scale = self.builder.scaled(total, scale), ONE
            else:
                value, scale = self.builder.scaled(value, scale), ONE
        product = self.builder.contract((total, value), output, scale)
        self.give(mine, product, ONE)

    def give_convolved(self, node: Convolve, total: Operand, number: int) -> None:
        """Give an operand of a product over neighbourhoods the product of all others with the same relations."""
        mine, others = node.operands[number], [o for k, o in enumerate(node.operands) if k != number]
        total = self.builder.permuted(total, node.output)
        values = [Operand(self.value(o.value).value, o.indices) for o in others]
        product = self.builder.convolve((total, *values), node.relations, mine.indices, node.coefficient)
        self.give(mine, product, ONE)

    def give_single(self, node: Contract, total: Operand) -> None:
        (operand,) = node.operands
        distinct: list[Index] = []
        gradient = total
        for index in operand.indices:
            if index not in distinct:
                distinct.append(index)
                continue
            # The transpose of reading a diagonal writes to one: an identity spreads the gradient over two axes.
            twin = Index(next(self.builder.fresh), index.size)
            eye = self.builder.identity((index, twin))
            both = Operand(gradient.value, gradient.indices)
            output = (*dict.fromkeys((*both.indices, index)), twin)
            gradient = self.builder.contract((both, eye), output)
            distinct.append(twin)
        self.give(Operand(operand.value, tuple(distinct)), gradient, node.coefficient)

    def give_argument(self, k: int, node: Apply, total: Operand) -> None:
        (operand,) = node.operands
        read = operand if reads(node.function) == ARGUMENT else Operand(k, node.output)
        read = Operand(self.value(read.value).value, read.indices)
        if node.relations:
            # The result's axes are not the argument's: none may be left out.
            total = self.builder.permuted(total, node.output)
        made = Pullback(node.function, node.over, (total, read), operand.indices, node.relations)
        self.give(operand, Operand(self.builder.add(made), operand.indices), ONE)

    def restricted(self, operand: Operand, indices: Sequence[Index]) -> Operand:
        """Sum the operand over all indices but the given ones."""
        wanted = tuple(i for i in operand.indices if i in indices)
        return operand if wanted == operand.indices else self.builder.contract((operand,), wanted)

    def value(self, k: int) -> Operand:
        """Import a forward value: as a leaf, as a kept value, or by computing it again."""
        if k not in self.imported:
            node = self.forward.nodes[k]
            # Identities and constants have no operands and cost nothing to build again.
            if isinstance(node, Leaf) or (k not in self.recomputed and node.operands):
                if not isinstance(node, Leaf):
                    self.kept.add(k)
                self.imported[k] = self.builder.leaf(self.names[k], node.output)
            else:
                moved = tuple(Operand(self.value(o.value).value, o.indices) for o in node.operands)
                self.imported[k] = Operand(self.builder.add(replace(node, operands=moved)), node.output)
        return self.imported[k]
