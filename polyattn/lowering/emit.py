"""Emission: each node of an evaluation graph as a few torch operations in an fx graph.

A value's axes are its node's output indices in their order. Products become `matmul` where two groups of indices face
each other, a broadcast multiplication where none is summed, and a multiplication followed by a sum where no matrix
product fits. A product that is added to another value and used nowhere else is accumulated onto it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

import torch
from torch import fx

from polyattn.algebra import Index
from polyattn.planning import (
    BATCH,
    Add,
    Apply,
    Coefficient,
    Constant,
    Contract,
    Graph,
    Identity,
    Leaf,
    Operand,
)
from polyattn.planning.steps import Node, is_matrix_product, numel

L1_EPSILON = 1e-12
"""`normalize` divides by the larger of the L1 norm and this, in the tensor's own precision."""


@dataclass(frozen=True)
class Product:
    """How a contraction is a matrix product: (shared | rows x inner) times (shared | inner x columns)."""

    left: Operand
    right: Operand
    shared: tuple[Index, ...]
    rows: tuple[Index, ...]
    inner: tuple[Index, ...]
    columns: tuple[Index, ...]
    folds: bool
    """Whether the right side is one matrix, so that the rows need not be flattened."""

    @classmethod
    def of(cls, node: Contract) -> Product:
        left, right = node.operands
        both = [i for i in left.indices if i in right.indices]
        shared = tuple(i for i in node.output if i in both)
        rows = tuple(i for i in left.indices if i in node.output and i not in both)
        inner = tuple(i for i in both if i not in node.output)
        columns = tuple(i for i in right.indices if i in node.output and i not in both)
        return cls(left, right, shared, rows, inner, columns, not shared and bool(rows))

    @property
    def order(self) -> tuple[Index, ...]:
        return (*self.shared, *self.rows, *self.columns)


@dataclass
class Emitter:
    """Writes an evaluation graph's nodes into an fx graph, keeping for each the fx node of its value."""

    source: Graph
    names: Sequence[str]
    graph: fx.Graph
    values: dict[int, fx.Node] = field(default_factory=dict)
    reference: fx.Node | None = None
    """A tensor that has the batch first, for the dtype, device and batch of values that depend on none."""

    def run(self, leaves: dict[str, fx.Node]) -> None:
        """Emit all nodes; `leaves` are the values of the leaves by tensor, with one axis per index."""
        for number, node in enumerate(self.source.nodes):
            if isinstance(node, Leaf):
                self.values[number] = leaves[node.tensor]
            elif number not in self.accumulated.values():
                value = self.node(number, node)
                if value not in self.values.values():
                    value._rename(self.names[number])
                self.values[number] = value

    def node(self, number: int, node: Node) -> fx.Node:
        if isinstance(node, Contract):
            return self.contract(node)
        if isinstance(node, Add):
            return self.add(node) if number not in self.accumulated else self.accumulate(number, node)
        if isinstance(node, Apply):
            return self.apply(node)
        if isinstance(node, Identity):
            return self.method("to", self.call(torch.eye, self.size(node.output[0])), self.reference)
        assert isinstance(node, Constant)
        return self.method("new_ones", self.reference, ())

    def call(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        return self.graph.call_function(target, args, kwargs)

    def method(self, target: str, *args: Any, **kwargs: Any) -> fx.Node:
        return self.graph.call_method(target, args, kwargs)

    def size(self, index: Index) -> int:
        """The index's length; -1 for the batch, which is whatever comes."""
        return -1 if index.size == BATCH else numel([index], self.source.known)

    @cached_property
    def accumulated(self) -> dict[int, int]:
        """Sums of two whose one term is a matrix product used nowhere else: the number of that product, by sum."""
        uses = Counter(o.value for n in self.source.nodes for o in n.operands)
        uses.update(o.value for o in self.source.outputs)
        found: dict[int, int] = {}
        for number, node in enumerate(self.source.nodes):
            if not isinstance(node, Add) or len(node.operands) != 2:
                continue
            for mine, other in (node.operands, node.operands[::-1]):
                product = self.source.nodes[mine.value]
                if (
                    isinstance(product, Contract)
                    and is_matrix_product(product)
                    and uses[mine.value] == 1
                    and mine.indices == other.indices == node.output
                    and all(c.is_one for c in node.coefficients)
                    and self._is_plain(product)
                ):
                    found[number] = mine.value
                    break
        return found

    @staticmethod
    def _is_plain(node: Contract) -> bool:
        """Whether a product is one bmm: the batch shared, one group of rows, one of columns, in the output's order."""
        product = Product.of(node)
        return (
            [i.size for i in product.shared] == [BATCH]
            and len(product.rows) == len(product.columns) == 1
            and product.order == node.output
        )

    def accumulate(self, number: int, node: Add) -> fx.Node:
        """a @ b added to the other term in the product's own accumulator."""
        inner = self.source.nodes[self.accumulated[number]]
        assert isinstance(inner, Contract)
        product = Product.of(inner)
        (other,) = [o for o in node.operands if o.value != self.accumulated[number]]
        a, b = self.faces(product)
        alpha = inner.coefficient.value(self.source.known)
        total = self.call(torch.baddbmm, self.values[other.value], a, b, beta=1, alpha=float(alpha))
        total.meta["coefficient"] = alpha
        return total

    def contract(self, node: Contract) -> fx.Node:
        if len(node.operands) == 1:
            return self.reduce(node)
        left, right = node.operands
        if not node.summed:
            product = self.call(torch.mul, self.aligned(left, node.output), self.aligned(right, node.output))
            return self.scaled(product, node.coefficient)
        assert all(i in left.indices and i in right.indices for i in node.summed)
        if not is_matrix_product(node):
            return self.multiply_and_sum(node, left, right)
        product = Product.of(node)
        return self.permuted(self.matmul(product, node.coefficient), product.order, node.output)

    def faces(self, product: Product) -> tuple[fx.Node, fx.Node]:
        """The two sides of a matrix product with their groups of indices as axes."""
        shared = [(i,) for i in product.shared]
        rows = [(i,) for i in product.rows] if product.folds else [product.rows]
        left = self.grouped(product.left, [*shared, *rows, product.inner])
        right = self.grouped(product.right, [*shared, product.inner, product.columns])
        return left, right

    def matmul(self, product: Product, coefficient: Coefficient) -> fx.Node:
        a, b = self.faces(product)
        alpha = coefficient.value(self.source.known)
        axes = len(product.shared)
        if alpha != 1 and axes and not product.folds:
            value = self.scaled_bmm(a, b, product.shared, alpha)
        else:
            value = self.scaled(self.call(torch.matmul, a, b), coefficient)
        rows = len(product.rows) if product.folds else 1
        value = self.ungrouped(value, axes + rows, product.columns)
        return value if product.folds else self.ungrouped(value, axes, product.rows)

    def scaled_bmm(self, a: fx.Node, b: fx.Node, shared: Sequence[Index], alpha: Fraction) -> fx.Node:
        """alpha * (a @ b), scaled in the accumulator, before the result is rounded to the tensors' precision."""
        last = len(shared) - 1
        if last:
            a, b = self.method("flatten", a, 0, last), self.method("flatten", b, 0, last)
        zero = self.method("new_zeros", a, ())
        value = self.call(torch.baddbmm, zero, a, b, beta=0, alpha=float(alpha))
        value.meta["coefficient"] = alpha
        return self.ungrouped(value, 0, shared)

    def multiply_and_sum(self, node: Contract, left: Operand, right: Operand) -> fx.Node:
        """The product in the order of the operand with the most indices, which has all of them, then its sum."""
        order = max(left.indices, right.indices, key=len)
        product = self.call(torch.mul, self.aligned(left, order), self.aligned(right, order))
        inner = [i for i in order if i in node.summed]
        axes = tuple(order.index(i) for i in inner)
        total = self.summed(product, axes, inner, node.coefficient)
        return self.permuted(total, [i for i in order if i not in inner], node.output)

    def summed(self, value: fx.Node, axes: tuple[int, ...], over: Sequence[Index], coefficient: Coefficient) -> fx.Node:
        """The sum over axes times a coefficient; a mean where the coefficient is one over their length."""
        factor = coefficient.value(self.source.known)
        if factor == Fraction(1, numel(over, self.source.known)) and factor != 1 and not _has_batch(over):
            return self.method("mean", value, axes)
        return self.scaled(self.method("sum", value, axes), coefficient)

    def scaled(self, value: fx.Node, coefficient: Coefficient) -> fx.Node:
        factor = coefficient.value(self.source.known)
        if factor == 1:
            return value
        if factor == -1:
            return self.call(torch.neg, value)
        node = self.call(torch.mul, value, float(factor))
        node.meta["coefficient"] = factor
        return node

    def reduce(self, node: Contract) -> fx.Node:
        """A node with one operand: the diagonals of repeated indices, sums, the order of the axes, the scale."""
        (operand,) = node.operands
        value, indices = self.diagonal(self.values[operand.value], operand)
        over = [i for i in indices if i not in node.output]
        if over:
            value = self.summed(value, tuple(indices.index(i) for i in over), over, node.coefficient)
        else:
            value = self.scaled(value, node.coefficient)
        return self.permuted(value, [i for i in indices if i not in over], node.output)

    def diagonal(self, value: fx.Node, operand: Operand) -> tuple[fx.Node, tuple[Index, ...]]:
        indices = list(operand.indices)
        for index in dict.fromkeys(operand.indices):
            while indices.count(index) > 1:
                first = indices.index(index)
                second = indices.index(index, first + 1)
                value = self.call(torch.diagonal, value, 0, first, second)
                indices = [i for k, i in enumerate(indices) if k not in (first, second)] + [index]
        return value, tuple(indices)

    def add(self, node: Add) -> fx.Node:
        if len(node.operands) == 1:
            return self.scaled(self.broadcast(node), node.coefficients[0])
        total: fx.Node | None = None
        for operand, coefficient in zip(node.operands, node.coefficients, strict=True):
            value = self.aligned(operand, node.output)
            factor = coefficient.value(self.source.known)
            if total is None:
                total = self.scaled(value, coefficient)
            elif factor == 1:
                total = self.call(torch.add, total, value)
            elif factor == -1:
                total = self.call(torch.sub, total, value)
            else:
                total = self.call(torch.add, total, value, alpha=float(factor))
                total.meta["coefficient"] = factor
        assert total is not None
        return total

    def broadcast(self, node: Add) -> fx.Node:
        (operand,) = node.operands
        value = self.aligned(operand, node.output)
        if set(operand.indices) == set(node.output):
            return value
        lengths = [-1 if i in operand.indices else self.size(i) for i in node.output]
        if any(i.size == BATCH and i not in operand.indices for i in node.output):
            batch = [k for k, i in enumerate(node.output) if i.size == BATCH]
            size = self.method("size", self.reference, 0)
            return self.method("expand", value, *(size if k in batch else n for k, n in enumerate(lengths)))
        return self.method("expand", value, *lengths)

    def apply(self, node: Apply) -> fx.Node:
        (operand,) = node.operands
        value = self.values[operand.value]
        axes = tuple(operand.indices.index(i) for i in node.over)
        if node.function == "softmax":
            return self.softmax(value, axes, len(operand.indices))
        if node.function == "normalize":
            norm = self.method("sum", self.call(torch.abs, value), axes, keepdim=True)
            return self.call(torch.div, value, self.method("clamp_min", norm, L1_EPSILON))
        if node.function == "max":
            return self.method("amax", value, axes)
        return self.call({"relu": torch.relu, "sigmoid": torch.sigmoid}[node.function], value)

    def softmax(self, value: fx.Node, axes: tuple[int, ...], rank: int) -> fx.Node:
        if len(axes) == 1:
            return self.call(torch.softmax, value, axes[0])
        order = [k for k in range(rank) if k not in axes] + list(axes)
        moved = self.method("permute", value, *order)
        flat = self.call(torch.softmax, self.method("flatten", moved, rank - len(axes), rank - 1), -1)
        return self.method("permute", self.method("view_as", flat, moved), *(order.index(k) for k in range(rank)))

    def permuted(self, value: fx.Node, have: Sequence[Index], want: Sequence[Index]) -> fx.Node:
        """The value with its axes, now `have`, in the order `want`."""
        order = [list(have).index(i) for i in want]
        return value if order == list(range(len(order))) else self.method("permute", value, *order)

    def aligned(self, operand: Operand, output: Sequence[Index]) -> fx.Node:
        """The operand with its axes in the order of `output`, of length 1 where it lacks an index.

        Leading axes that it lacks are left out: broadcasting adds them.
        """
        have = [i for i in output if i in operand.indices]
        value = self.permuted(self.values[operand.value], operand.indices, have)
        first = next((k for k, i in enumerate(output) if i in have), len(output))
        for k, index in enumerate(output):
            if k > first and index not in have:
                value = self.method("unsqueeze", value, k - first)
        return value

    def grouped(self, operand: Operand, groups: Sequence[Sequence[Index]]) -> fx.Node:
        """The operand with one axis for each group of its indices: flattened, or of length 1 where empty."""
        value = self.permuted(self.values[operand.value], operand.indices, [i for g in groups for i in g])
        for k, group in enumerate(groups):
            if len(group) > 1:
                value = self.method("flatten", value, k, k + len(group) - 1)
            elif not group:
                value = self.method("unsqueeze", value, k)
        return value

    def ungrouped(self, value: fx.Node, axis: int, group: Sequence[Index]) -> fx.Node:
        if len(group) == 1:
            return value
        if not group:
            return self.method("squeeze", value, axis)
        return self.method("unflatten", value, axis, tuple(map(self.size, group)))


def _has_batch(indices: Sequence[Index]) -> bool:
    return any(i.size == BATCH for i in indices)
