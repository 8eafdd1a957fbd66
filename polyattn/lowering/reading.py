"""Queries of patterns about an evaluation graph: readers of a value, products, softmaxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from polyattn.algebra import Index
from polyattn.lowering.fusion import Groups
from polyattn.planning import BATCH, Apply, Contract, Graph, Operand
from polyattn.planning.steps import numel


@dataclass(frozen=True)
class Reading:
    """An evaluation graph, and the number of readers of each of its values.

    Attributes:
        graph: the evaluation graph.
        needed: values requested besides the outputs.
        uses: readers of each value, outputs and requested values included.
    """

    graph: Graph
    needed: frozenset[int] = frozenset()
    uses: Counter[int] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        uses = Counter(o.value for n in self.graph.nodes for o in n.operands)
        uses.update(o.value for o in self.graph.outputs)
        uses.update(self.needed)
        # The dataclass is frozen, and `uses` follows from its other fields.
        object.__setattr__(self, "uses", uses)

    def only_here(self, value: int) -> bool:
        return self.uses[value] == 1

    def product(self, value: int, *, alone: bool = True) -> Contract | None:
        """Return the node if it is a summed product of two operands (without other readers), else None."""
        node = self.graph.nodes[value]
        fits = isinstance(node, Contract) and len(node.operands) == 2 and bool(node.summed)
        return node if fits and isinstance(node, Contract) and (not alone or self.only_here(value)) else None

    def many(self, indices: Sequence[Index]) -> int:
        return numel(indices, self.graph.known)

    def rows_by_matrix(self, operand: Operand, matrix: Operand, node: Contract) -> tuple[Groups, Groups] | None:
        """Return the groups of x[b,n,c] and of w[c,o] or w[b,c,o], if the two operands match."""
        batch = tuple(i for i in operand.indices if i.size == BATCH)
        if len(batch) != 1 or repeats(operand) or repeats(matrix):
            return None
        shared = [i for i in operand.indices if i in matrix.indices and i in node.output]
        rows = tuple(i for i in operand.indices if i not in matrix.indices and i not in batch)
        columns = tuple(i for i in matrix.indices if i not in operand.indices and i not in batch)
        own = any(i.size == BATCH for i in matrix.indices)
        # Indices shared by both and kept besides the batch would make this a batched product over them.
        if not rows or not columns or set(shared) - set(batch) or {*batch, *rows, *columns} != set(node.output):
            return None
        if any(i not in operand.indices or i not in matrix.indices for i in node.summed):
            return None
        inner = tuple(i for i in operand.indices if i in node.summed)
        return (batch, rows, inner), ((batch, inner, columns) if own else (inner, columns))

    def sides(self, node: Contract) -> Iterator[tuple[Operand, Operand]]:
        yield node.operands[0], node.operands[1]
        yield node.operands[1], node.operands[0]

    def softmaxed(self, operand: Operand, over: Sequence[Index]) -> Operand | None:
        """Return the argument of a softmax over exactly these indices without other readers, else None."""
        node = self.graph.nodes[operand.value]
        if not isinstance(node, Apply) or node.function != "softmax" or not self.only_here(operand.value):
            return None
        names = dict(zip(node.output, operand.indices, strict=True))
        (inner,) = node.operands
        if {names[i] for i in node.over} != set(over) or set(inner.indices) != set(node.output):
            return None
        return Operand(inner.value, tuple(names[i] for i in inner.indices))


def batch_of(node: Contract) -> tuple[Index, ...]:
    """Return the batch if both operands of a product have it and the product keeps it, else ()."""
    left, right = node.operands
    return tuple(i for i in node.output if i in left.indices and i in right.indices and i.size == BATCH)


def repeats(operand: Operand) -> bool:
    return len(set(operand.indices)) < len(operand.indices)
