"""Emission: each node of an evaluation graph as a few torch operations in an fx graph.

A value's axes are its node's output indices in their order. Products become `matmul` where two groups of indices face
each other, a broadcast multiplication where none is summed, and a multiplication followed by a sum where no matrix
product fits. A product that is added to another value and used nowhere else is accumulated onto it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import fx

from polyattn.algebra import Index
from polyattn.language.conditions import comparison
from polyattn.language.syntax import IDENTITY
from polyattn.lowering.function_writer import FunctionWriter
from polyattn.lowering.fusion import Argument, Fusion
from polyattn.lowering.neighbourhoods import neighbourhood
from polyattn.lowering.operations import is_entrywise
from polyattn.lowering.products import Indices, Product, choose, plain, turned
from polyattn.lowering.shapes import choices, condition, identity, refined_mean, widened
from polyattn.lowering.writer import as_argument, has_batch
from polyattn.planning import (
    BATCH,
    Add,
    Apply,
    Coefficient,
    Constant,
    Contract,
    Convolve,
    Identity,
    Leaf,
    Operand,
    Pullback,
)
from polyattn.planning.steps import ONE, Node, is_matrix_product, numel


@dataclass
class Emitter(FunctionWriter):
    """Writes an evaluation graph's nodes, one after the other.

    Attributes:
        ranks: places of sizes in the memory of the inputs; activations are laid out alike where there is a choice.
        fusions: the kernels that take the place of nodes, by the node whose value each makes.
        means: values that are means of an input and subtracted from it.
        chosen: places where conditions hold, as booleans, by the conditions.
        deviations: values that are an input less such a mean, each with the mean.
    """

    ranks: Mapping[str, int] = field(default_factory=dict)
    fusions: Mapping[int, Fusion] = field(default_factory=dict)
    means: Collection[int] = ()
    chosen: dict[Any, fx.Node] = field(default_factory=dict)
    deviations: Mapping[int, int] = field(default_factory=dict)

    def run(self, leaves: Mapping[str, fx.Node], orders: Mapping[str, Sequence[int]] | None = None) -> None:
        """Emit all nodes.

        Args:
            leaves: the values of the leaves by tensor, with one axis per index.
            orders: how leaves lie in memory: their axes, the slowest first. Others lie in the order of their axes.
        """
        for number, node in enumerate(self.source.nodes):
            if isinstance(node, Leaf):
                self.values[number] = leaves[node.tensor]
                self.keep_exact(number)
                order = (orders or {}).get(node.tensor, range(len(node.output)))
                self.memory[number] = tuple(node.output[k] for k in order)
            elif number not in self.delayed:
                value = self.with_means(number, node)
                if value not in self.values.values():
                    value._rename(self.names[number])
                self.values[number] = value
                self.keep_exact(number)

    def keep_exact(self, number: int) -> None:
        """Of a mean, keep the float64 value for products with vectors; all else reads it in the tensors' own dtype."""
        node = self.source.nodes[number]
        if self.narrow:
            return
        if number in self.means and isinstance(node, Leaf):
            self.exact[number] = self.values[number]
            self.values[number] = self.method("type_as", self.values[number], self.reference)
        elif number in self.deviations:
            mean = node.operands[1]
            axes = tuple(k for k, i in enumerate(node.output) if i not in mean.indices)
            self.exact[mean.value] = self.call(refined_mean, self.values[mean.value], self.values[number], axes)

    def with_means(self, number: int, node: Node) -> fx.Node:
        """A node's value; a product of vectors with an exact mean is taken in float64."""
        read = [o.value for o in node.operands if o.value in self.exact]
        product = isinstance(node, Contract) and len(node.operands) == 2
        if not read or not product or self.maps is None or self.maps[number]:
            return self.node(number, node)
        before = {o.value: self.values[o.value] for o in node.operands}
        self.values |= {v: self.exact[v] if v in read else self.method("double", before[v]) for v in before}
        value = self.method("type_as", self.node(number, node), self.reference)
        self.values |= before
        return value

    def node(self, number: int, node: Node) -> fx.Node:
        self.memory[number] = node.output
        if isinstance(node, Apply | Pullback) and is_entrywise(node.function):
            self.memory[number] = self.memory_of_elementwise(node)
        if number in self.fusions:
            return self.fused(number, node, self.fusions[number])
        if isinstance(node, Contract):
            value = self.contract(number, node)
            return self.call(widened, value) if self.sums_maps(number) else value
        if isinstance(node, Convolve):
            return self.convolve(number, node)
        if isinstance(node, Add):
            return self.add(number, node)
        if isinstance(node, Apply | Pullback):
            value = self.apply(node) if isinstance(node, Apply) else self.pullback(node)
            return self.as_map(number, value, node.operands)
        if isinstance(node, Identity):
            if node.tensor == IDENTITY:
                return self.call(identity, self.reference, self.size(node.output[0]))
            return self.call(condition, self.reference, *self.compared(node))
        assert isinstance(node, Constant)
        return self.method("new_ones", self.reference, ())

    def compared(self, node: Node) -> tuple[Any, ...]:
        """Return the arguments of `condition` that state its comparison."""
        assert isinstance(node, Identity)
        lengths = tuple(self.size(i) for i in node.output)
        what = comparison(node.tensor)
        sizes = tuple((c, *(self.size(Index(0, s)) for s in name.split("*"))) for name, c in what.sizes)
        return what.relation, what.slots, lengths, what.number, sizes

    def choices(self, conditions: Sequence[Argument]) -> fx.Node:
        """Return where conditions hold, one axis for each group; made once for all kernels that ask for it."""
        (groups,) = {c.groups for c in conditions}
        order = [i for group in groups for i in group]
        places = tuple(
            (*self.compared(self.source.nodes[c.operand.value]), tuple(order.index(i) for i in c.operand.indices))
            for c in conditions
        )
        key = places, tuple(map(len, groups))
        if key not in self.chosen:
            value = self.call(choices, self.reference, len(order), places)
            read = {i for c in conditions for i in c.operand.indices}
            whole = {i for group in groups if read.intersection(group) for i in group}
            if read != whole:  # of a group, as of a composite slot, conditions may compare a part
                value = self.method("expand", value, *(self.size(i) if i in whole else 1 for i in order))
            self.chosen[key] = self.flattened(value, groups)
        return self.chosen[key]

    def fused(self, number: int, node: Node, fusion: Fusion) -> fx.Node:
        """A call of a kernel, whose result lies in memory in the order of its axes or as its first argument does."""
        arguments = [self.argument(a) for a in fusion.arguments]
        if self.narrow:  # kernels take one dtype, and add in 32 bits
            arguments = [self.method("type_as", a, self.reference) for a in arguments]
        options: dict[str, Any] = {}
        if fusion.scale is not None:
            options["scale"] = as_argument(self.factor(fusion.scale))
        if fusion.where:
            options["where"] = self.choices(fusion.where)
        if fusion.causal:
            options["causal"] = True
        value = self.call(fusion.function, *arguments, **options)
        for axis in range(len(fusion.result) - 1, -1, -1):
            value = self.ungrouped(value, axis, fusion.result[axis])
        order = tuple(i for group in fusion.result for i in group)
        first = self.side(fusion.arguments[0].operand).memory
        if fusion.follows and set(order) == set(first):
            self.memory[number] = first
        return self.permuted(value, order, node.output)

    def argument(self, argument: Argument) -> fx.Node:
        value = self.grouped(argument.operand, argument.groups)
        for factor in argument.factors:
            value = self.call(torch.mul, value, self.grouped(factor, argument.groups))
        return self.scaled(value, argument.coefficient)

    @cached_property
    def seen_whole(self) -> set[int]:
        """Values that are asked for, or read by other operations than matrix products: their order in memory counts."""
        read = {o.value for n in self.source.nodes if not is_matrix_product(n) for o in n.operands}
        return read | {o.value for o in self.source.outputs}

    def layout(self, node: Node) -> Indices:
        """How a value should lie in memory: activations as the inputs do, others in the order of their axes."""
        if not has_batch(node.output) or any(i.size not in self.ranks for i in node.output):
            return node.output
        return tuple(sorted(node.output, key=lambda i: self.ranks[i.size]))

    @cached_property
    def delayed(self) -> set[int]:
        """Nodes not made by themselves: products accumulated onto other terms of a sum, and steps inside a kernel."""
        inside = {k for fusion in self.fusions.values() for k in fusion.absorbed}
        return inside | {k for products in self.accumulated.values() for k in products}

    @cached_property
    def accumulated(self) -> dict[int, tuple[int, ...]]:
        """For each sum, the products among its terms that are emitted with it; one term at least is left."""
        uses = Counter(o.value for n in self.source.nodes for o in n.operands)
        uses.update(o.value for o in self.source.outputs)
        found: dict[int, tuple[int, ...]] = {}
        for number, node in enumerate(self.source.nodes):
            if isinstance(node, Add) and len(node.operands) > 1 and number not in self.fusions:
                plain_sum = all(
                    c.is_one for c in node.coefficients
                )  # what is left would be scaled in a pass of its own
                fits = [
                    o.value
                    for o in node.operands
                    if plain_sum and uses[o.value] == 1 and self._is_batch_of_matrices(o, node)
                ]
                others = any(set(o.indices) == set(node.output) for o in node.operands if o.value not in fits)
                found[number] = tuple(fits if others else fits[1:])
        return found

    def _is_batch_of_matrices(self, operand: Operand, total: Add) -> bool:
        """Whether a term is a product of a matrix with a matrix for each sample, of the sum's own shape."""
        node = self.source.nodes[operand.value]
        if operand.value in self.fusions:
            return False
        if not (isinstance(node, Contract) and is_matrix_product(node)) or set(operand.indices) != set(total.output):
            return False
        left, right = (set(o.indices) for o in node.operands)
        shared = left & right & set(node.output)
        return [i.size for i in shared] == [BATCH] and len(left - right) == len(right - left) == 1

    def accumulate(self, total: fx.Node, number: int, node: Add, operand: Operand) -> fx.Node:
        """a @ b added to the other terms in the product's own accumulator."""
        inner = self.source.nodes[operand.value]
        assert isinstance(inner, Contract)
        names = dict(zip(inner.output, operand.indices, strict=True))
        left, right = map(self.side, inner.operands)
        way = plain(inner, left, right, self.length)
        way = way if tuple(names[i] for i in way.order) == self.layout(node) else turned(way)
        order = tuple(names[i] for i in way.order)
        a, b = self.faces(number, way)
        alpha = self.factor(inner.coefficient)
        onto = self.permuted(total, node.output, order)
        value = self.with_factor(self.call(torch.baddbmm, onto, a, b, beta=1, alpha=as_argument(alpha)), alpha)
        self.memory[number] = order
        return self.permuted(value, order, node.output)

    def contract(self, number: int, node: Contract) -> fx.Node:
        if len(node.operands) == 1:
            return self.reduce(number, node)
        left, right = node.operands
        if not node.summed:
            self.memory[number] = self.memory_of_elementwise(node)
            sides = (self.in_dtype_of(number, self.aligned(o, node.output), o) for o in node.operands)
            product = self.call(torch.mul, *sides)
            return self.scaled(product, node.coefficient)
        assert all(i in left.indices and i in right.indices for i in node.summed)
        if not is_matrix_product(node):
            return self.multiply_and_sum(number, node, left, right)
        wanted = self.layout(node) if number in self.seen_whole else None
        way = choose(node, self.side(left), self.side(right), self.length, wanted, self.long)
        self.memory[number] = way.order
        return self.matmul(number, way, node.coefficient, node.output)

    def convolve(self, number: int, node: Convolve) -> fx.Node:
        """Return a product over neighbourhoods: a convolution, views of windows, or a gather."""
        values = [self.in_dtype_of(number, self.values[o.value], o) for o in node.operands]
        smallest = min(range(len(values)), key=lambda k: numel(node.operands[k].indices, self.source.known))
        values[smallest] = self.scaled(values[smallest], node.coefficient)
        second = values[1] if len(values) > 1 else None
        value = self.call(neighbourhood, values[0], second, *self.related(node, node.operands, node.output))
        return self.call(widened, value) if self.sums_maps(number) else value

    def memory_of_elementwise(self, node: Node) -> Indices:
        """Where an operand has the shape of the result, the result lies in memory as the operand does."""
        for operand in node.operands:
            if set(operand.indices) == set(node.output) and operand.value in self.memory:
                return self.side(operand).memory
        return node.output

    def faces(self, number: int, way: Product) -> tuple[fx.Node, fx.Node]:
        """The two sides of a matrix product with their groups of indices as axes, in one dtype."""
        left, right = self._faces(way)
        return self.in_dtype_of(number, left, way.left.operand), self.in_dtype_of(number, right, way.right.operand)

    def _faces(self, way: Product) -> tuple[fx.Node, fx.Node]:
        batches = [(i,) for i in way.batches]
        rows = [(i,) for i in way.rows] if way.folds else [way.rows]
        left = self.grouped(way.left.operand, [*batches, *rows, way.inner])
        right, groups = way.right.operand, [*batches, way.inner, way.columns]
        if way.fills and way.tied is not None:
            axes = [i for group in groups for i in group]
            # A copy: torch.onnx does not keep the strides of a view along axes of length 1, nor those of its products.
            small = self.method("clone", self.spread(right, axes), memory_format=torch.contiguous_format)
            product = self.call(torch.mul, small, self.identity_among(axes, way.tied))
            return left, self.flattened(product, groups)
        names = {way.tied[0]: way.tied[1]} if way.tied is not None else {}
        return left, self.grouped(Operand(right.value, tuple(names.get(i, i) for i in right.indices)), groups)

    def matmul(self, number: int, way: Product, coefficient: Coefficient, output: Indices) -> fx.Node:
        """The product, its axes in the order of `output`."""
        a, b = self.faces(number, way)
        whole = all(i in way.left.indices and i in way.right.indices for i in way.batches)
        if self.factor(coefficient) != 1 and way.batches and whole:
            value, coefficient = self.scaled_bmm(a, b, way.batches, coefficient), ONE
        else:
            value = self.call(torch.matmul, a, b)
        axes = len(way.batches)
        rows = len(way.rows) if way.folds else 1
        if way.regroups:
            value = self.method("movedim", value, axes + rows, axes)  # ONNX has no negative axes
            value = value if way.folds else self.ungrouped(value, axes + 1, way.rows)
            value = self.ungrouped(value, axes, way.columns)
            result = [*way.batches, *way.columns, *way.rows]
        else:
            value = self.ungrouped(value, axes + rows, way.columns)
            value = value if way.folds else self.ungrouped(value, axes, way.rows)
            result = list(way.result)
        if way.traces and way.tied is not None:
            first, second = (result.index(i) for i in way.tied)
            value = self.method("sum", self.call(torch.diagonal, value, 0, first, second), -1)
            result = [i for i in result if i not in way.tied]
        if way.after:
            value = self.method("sum", value, tuple(result.index(i) for i in way.after))
            result = [i for i in result if i not in way.after]
        names = {way.tied[1]: way.tied[0]} if way.fills and way.tied is not None else {}
        return self.permuted(self.scaled(value, coefficient), [names.get(i, i) for i in result], output)

    def scaled_bmm(self, a: fx.Node, b: fx.Node, shared: Sequence[Index], coefficient: Coefficient) -> fx.Node:
        """coefficient * (a @ b), scaled in the accumulator, before the result is rounded to the tensors' precision."""
        last, alpha = len(shared) - 1, self.factor(coefficient)
        if last:
            a, b = self.method("flatten", a, 0, last), self.method("flatten", b, 0, last)
        zero = self.method("new_zeros", a, ())
        value = self.with_factor(self.call(torch.baddbmm, zero, a, b, beta=0, alpha=as_argument(alpha)), alpha)
        return self.ungrouped(value, 0, shared)

    def multiply_and_sum(self, number: int, node: Contract, left: Operand, right: Operand) -> fx.Node:
        """The product in the order of the operand with the most indices, which has all of them, then its sum."""
        large = max((left, right), key=lambda o: len(o.indices))
        order, memory = large.indices, self.side(large).memory
        product = self.call(torch.mul, *(self.in_dtype_of(number, self.aligned(o, order), o) for o in (left, right)))
        inner = [i for i in order if i in node.summed]
        total = self.summed(product, order, memory, inner, node.coefficient)
        self.memory[number] = tuple(i for i in order if i not in inner)
        return self.permuted(total, [i for i in order if i not in inner], node.output)

    def reduce(self, number: int, node: Contract) -> fx.Node:
        """A node with one operand: the diagonals of repeated indices, sums, the order of the axes, the scale."""
        (operand,) = node.operands
        value, indices = self.diagonal(self.values[operand.value], operand)
        over = [i for i in indices if i not in node.output]
        memory = indices if len(indices) < len(operand.indices) else self.side(operand).memory
        self.memory[number] = tuple(i for i in (indices if over else memory) if i not in over)
        if over:
            wide = {"dtype": torch.float32} if self.is_small(number) else {}
            value = self.summed(value, indices, memory, over, node.coefficient, **wide)
        else:
            value = self.scaled(value, node.coefficient)
        return self.permuted(value, [i for i in indices if i not in over], node.output)

    def add(self, number: int, node: Add) -> fx.Node:
        """The smaller terms first, so that they are added up before they are broadcast."""
        self.memory[number] = self.memory_of_elementwise(node)
        if len(node.operands) == 1:
            return self.as_map(number, self.scaled(self.broadcast(node), node.coefficients[0]), node.operands)
        delayed = self.accumulated[number]
        terms = [t for t in zip(node.operands, node.coefficients, strict=True) if t[0].value not in delayed]
        total: fx.Node | None = None
        for operand, coefficient in sorted(terms, key=lambda t: numel(t[0].indices, self.source.known)):
            value = self.aligned(operand, node.output)
            value = self.widened(value, operand) if self.is_small(number) else value
            factor = self.factor(coefficient)
            if total is None:
                total = self.scaled(value, coefficient)
            elif factor == 1:
                total = self.call(torch.add, total, value)
            elif factor == -1:
                total = self.call(torch.sub, total, value)
            else:
                total = self.with_factor(self.call(torch.add, total, value, alpha=as_argument(factor)), factor)
        assert total is not None
        total = self.as_map(number, total, [o for o, _ in terms])
        for operand in node.operands:
            if operand.value in delayed:
                total = self.accumulate(total, number, node, operand)
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
