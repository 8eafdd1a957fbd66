"""Emission: each node of a plan as a few torch operations in an fx graph.

A value's axes are the batch, where it has one, then its node's output indices in their order. Products become
`matmul` where two groups of indices face each other, a broadcast multiplication where none is summed, and a
multiplication followed by a sum where only summed and shared indices are left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from typing import Any

import torch
from torch import fx

from polyattn.algebra import Index
from polyattn.language import value_of
from polyattn.lowering.shapes import expect_shape
from polyattn.planning import Add, Apply, Coefficient, Constant, Contract, Identity, Leaf, Operand, Plan

L1_EPSILON = 1e-12
"""`normalize` divides by the larger of the L1 norm and this, in the tensor's own precision."""


@dataclass
class Emitter:
    """Writes a plan's nodes into an fx graph, keeping for each the fx node of its value."""

    plan: Plan
    graph: fx.Graph = field(default_factory=fx.Graph)
    values: list[fx.Node] = field(default_factory=list)
    reference: fx.Node | None = None
    """An input, for the dtype, device and batch of values that depend on none."""

    def node(self, number: int) -> fx.Node:
        """Emit node `number` of the plan, whose operands are emitted."""
        node = self.plan.nodes[number]
        if isinstance(node, Contract):
            value = self.contract(node)
        elif isinstance(node, Add):
            value = self.add(node)
        elif isinstance(node, Apply):
            value = self.apply(node)
        elif isinstance(node, Identity):
            size = self.size(node.output[0])
            eye = self.call(torch.eye, size)
            value = self.method("to", eye, self.reference)
        elif isinstance(node, Constant):
            value = self.method("new_ones", self.reference, ())
        else:
            raise AssertionError("leaves are placeholders")
        if value not in self.values:
            value._rename(self.plan.names[number])
        return value

    def call(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        return self.graph.call_function(target, args, kwargs)

    def method(self, target: str, *args: Any, **kwargs: Any) -> fx.Node:
        return self.graph.call_method(target, args, kwargs)

    def size(self, index: Index) -> int:
        return value_of([index.size], self.plan.known)

    def batched(self, operand: Operand) -> bool:
        return self.plan.nodes[operand.value].batched

    def contract(self, node: Contract) -> fx.Node:
        if len(node.operands) == 1:
            return self.reduce(node)
        left, right = node.operands
        summed = set(node.summed)
        if not summed:
            product = self.call(torch.mul, self.aligned(left, node.output), self.aligned(right, node.output))
            return self.scaled(product, node.coefficient)
        private = [i for i in node.summed if not (i in left.indices and i in right.indices)]
        assert not private, "indices of one operand are summed before or after the product"
        shared = [i for i in node.output if i in left.indices and i in right.indices]
        rows = [i for i in left.indices if i in node.output and i not in right.indices]
        columns = [i for i in right.indices if i in node.output and i not in left.indices]
        inner = [i for i in left.indices if i in summed]
        if not rows and not columns:
            return self.multiply_and_sum(node, left, right, inner)
        order = (*shared, *rows, *columns)
        product = self.matmul(node, left, right, shared, rows, inner, columns)
        return self.permuted(product, node.batched, order, node.output)

    def matmul(
        self,
        node: Contract,
        left: Operand,
        right: Operand,
        shared: list[Index],
        rows: list[Index],
        inner: list[Index],
        columns: list[Index],
    ) -> fx.Node:
        """The matrix product over (shared | rows x inner) and (shared | inner x columns)."""
        fold = not self.batched(right) and not shared and self.batched(left) and bool(rows)
        row_groups = [[i] for i in rows] if fold else [rows]
        a = self.grouped(left, [*([i] for i in shared), *row_groups, inner])
        b = self.grouped(right, [*([i] for i in shared), inner, columns])
        alpha = node.coefficient.value(self.plan.known)
        if alpha != 1 and self.batched(left) and self.batched(right):
            product = self.scaled_bmm(a, b, len(shared), alpha, shared)
        else:
            product = self.scaled(self.call(torch.matmul, a, b), node.coefficient)
        start = node.batched + len(shared)
        column_axis = start + len(row_groups)
        product = self.ungrouped(product, column_axis, columns)
        return product if fold else self.ungrouped(product, start, rows)

    def scaled_bmm(self, a: fx.Node, b: fx.Node, shared: int, alpha: Fraction, indices: list[Index]) -> fx.Node:
        """alpha * (a @ b), scaled in the accumulator, before the result is rounded to the tensors' precision."""
        if shared:
            a, b = self.method("flatten", a, 0, shared), self.method("flatten", b, 0, shared)
        zero = self.method("new_zeros", a, ())
        product = self.call(torch.baddbmm, zero, a, b, beta=0, alpha=float(alpha))
        product.meta["coefficient"] = alpha
        if shared:
            product = self.method("unflatten", product, 0, (-1, *map(self.size, indices)))
        return product

    def multiply_and_sum(self, node: Contract, left: Operand, right: Operand, inner: list[Index]) -> fx.Node:
        """Only shared and summed indices: the product in the left operand's own order, then its sum."""
        order = left.indices
        product = self.call(torch.mul, self.aligned(left, order), self.aligned(right, order))
        axes = tuple(k + node.batched for k, i in enumerate(order) if i in inner)
        total = self.summed(product, axes, inner, node.coefficient)
        return self.permuted(total, node.batched, [i for i in order if i not in inner], node.output)

    def summed(self, value: fx.Node, axes: tuple[int, ...], over: Sequence[Index], coefficient: Coefficient) -> fx.Node:
        """The sum over axes times a coefficient; a mean where the coefficient is one over their length."""
        factor = coefficient.value(self.plan.known)
        if factor == Fraction(1, prod(self.size(i) for i in over)) and factor != 1:
            return self.method("mean", value, axes)
        return self.scaled(self.method("sum", value, axes), coefficient)

    def scaled(self, value: fx.Node, coefficient: Coefficient) -> fx.Node:
        factor = coefficient.value(self.plan.known)
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
        lead = int(node.batched)
        gone = [k + lead for k, i in enumerate(indices) if i not in node.output]
        left = tuple(i for i in indices if i in node.output)
        if gone:
            over = [i for i in indices if i not in node.output]
            value = self.summed(value, tuple(gone), over, node.coefficient)
        else:
            value = self.scaled(value, node.coefficient)
        return self.permuted(value, node.batched, left, node.output)

    def diagonal(self, value: fx.Node, operand: Operand) -> tuple[fx.Node, tuple[Index, ...]]:
        indices, lead = list(operand.indices), int(self.batched(operand))
        for index in dict.fromkeys(operand.indices):
            while indices.count(index) > 1:
                first = indices.index(index)
                second = indices.index(index, first + 1)
                value = self.call(torch.diagonal, value, 0, first + lead, second + lead)
                indices = [i for k, i in enumerate(indices) if k not in (first, second)] + [index]
        return value, tuple(indices)

    def add(self, node: Add) -> fx.Node:
        if len(node.operands) == 1:
            return self.scaled(self.broadcast(node), node.coefficients[0])
        total: fx.Node | None = None
        for operand, coefficient in zip(node.operands, node.coefficients, strict=True):
            value = self.aligned(operand, node.output)
            factor = coefficient.value(self.plan.known)
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
        value = self.aligned(operand, node.output, full=True)
        if set(operand.indices) == set(node.output):
            return value
        lead = [-1] if self.batched(operand) else []
        return self.method("expand", value, *lead, *map(self.size, node.output))

    def apply(self, node: Apply) -> fx.Node:
        (operand,) = node.operands
        value, lead = self.values[operand.value], int(node.batched)
        axes = tuple(operand.indices.index(i) + lead for i in node.over)
        if node.function == "softmax":
            return self.softmax(value, axes, lead + len(operand.indices))
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

    def permuted(self, value: fx.Node, batched: bool, have: Sequence[Index], want: Sequence[Index]) -> fx.Node:
        """The value with its axes, now `have`, in the order `want`."""
        order = [list(have).index(i) for i in want]
        if order == list(range(len(order))):
            return value
        lead = int(batched)
        return self.method("permute", value, *range(lead), *(k + lead for k in order))

    def aligned(self, operand: Operand, output: Sequence[Index], full: bool = False) -> fx.Node:
        """The operand with its axes in the order of `output`, of length 1 where it lacks an index."""
        value, batched = self.values[operand.value], self.batched(operand)
        have = [i for i in output if i in operand.indices]
        value = self.permuted(value, batched, operand.indices, have)
        for k, index in enumerate(output):
            leading = not batched and not full and not any(i in have for i in output[: k + 1])
            if index not in have and not leading:
                position = k if batched or full else k - next(n for n, i in enumerate(output) if i in have)
                value = self.method("unsqueeze", value, position + int(batched))
        return value

    def grouped(self, operand: Operand, groups: Sequence[Sequence[Index]]) -> fx.Node:
        """The operand with one axis for each group of its indices: flattened, or of length 1 where empty."""
        value, lead = self.values[operand.value], int(self.batched(operand))
        value = self.permuted(value, bool(lead), operand.indices, [i for g in groups for i in g])
        for k, group in enumerate(groups):
            if len(group) > 1:
                value = self.method("flatten", value, k + lead, k + lead + len(group) - 1)
            elif not group:
                value = self.method("unsqueeze", value, k + lead)
        return value

    def ungrouped(self, value: fx.Node, axis: int, group: Sequence[Index]) -> fx.Node:
        if len(group) == 1:
            return value
        if not group:
            return self.method("squeeze", value, axis)
        return self.method("unflatten", value, axis, tuple(map(self.size, group)))


def emit_leaf(emitter: Emitter, node: Leaf, placeholder: fx.Node) -> fx.Node:
    """A placeholder, its shape checked, with one axis per atomic slot."""
    spec, known = emitter.plan.spec, emitter.plan.known
    slots = spec.shape(node.tensor)
    shape = tuple(value_of(atoms, known) for atoms in slots)
    value = emitter.call(expect_shape, placeholder, node.tensor, shape, node.batched)
    for k in range(len(slots) - 1, -1, -1):
        if len(slots[k]) > 1:
            lengths = tuple(value_of([a], known) for a in slots[k])
            value = emitter.method("unflatten", value, k + int(node.batched), lengths)
    return value
