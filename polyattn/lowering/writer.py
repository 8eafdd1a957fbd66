"""`Writer`: values of an evaluation graph as torch operations on axes: views, scales, sums, diagonals."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import fx

from polyattn.algebra import Index
from polyattn.language import Atoms, value_of
from polyattn.language.sizes import ROOT, derived, names_in
from polyattn.lowering.products import Indices, Side
from polyattn.lowering.shapes import Read, as_float, divided, identity, multiplied, summable, widened
from polyattn.planning import BATCH, Coefficient, Graph, Operand
from polyattn.planning.steps import numel


@dataclass
class Writer:
    """Writes operations into an fx graph, keeping for each value of the evaluation graph its fx node.

    Attributes:
        source, names: the evaluation graph, and a name for each of its values.
        graph: the fx graph.
        values: the fx node of each value.
        memory: how each value lies in memory: the indices of its node's output, the slowest first.
        reference: a tensor that has the batch first, for the dtype, device and batch of values that depend on none.
        maps: which values are maps; all others are as small as weights. None where that makes no difference.
        narrow: whether the tensors have 16 bits; small results are made in 32 then.
        exact: means of inputs in float64, for products of vectors: what their rounding to float32 loses, deviations
            from them do not make good where a weight removes the mean from one side of a product only.
        lengths: fx nodes of the atomic sizes that are read from shapes when the graph runs. All others, and all
            choices among equal ways to compute a value, follow `source.known`.
        long: those of them over which no matrix is extended by an identity, since they may be long.
    """

    source: Graph
    names: Sequence[str]
    graph: fx.Graph
    values: dict[int, fx.Node] = field(default_factory=dict)
    memory: dict[int, Indices] = field(default_factory=dict)
    reference: fx.Node | None = None
    maps: Sequence[bool] | None = None
    narrow: bool = False
    exact: dict[int, fx.Node] = field(default_factory=dict)
    lengths: dict[str, fx.Node] = field(default_factory=dict)
    long: Collection[str] = ()
    _factors: dict[Coefficient, fx.Node] = field(default_factory=dict)

    def call(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        return self.graph.call_function(target, args, kwargs)

    def method(self, target: str, *args: Any, **kwargs: Any) -> fx.Node:
        return self.graph.call_method(target, args, kwargs)

    def is_small(self, number: int) -> bool:
        """Whether a value is held in 32 bits although maps have 16."""
        return self.narrow and self.maps is not None and not self.maps[number]

    def in_dtype_of(self, number: int, value: fx.Node, operand: Operand) -> fx.Node:
        """An operand of the product of a number: in 32 bits for a small result, in the map's dtype for a map."""
        if self.sums_maps(number):
            return self.call(summable, value)
        if not self.narrow or self.is_small(number):
            return self.widened(value, operand)
        return self.method("type_as", value, self.reference) if self.is_small(operand.value) else value

    def sums_maps(self, number: int) -> bool:
        """Whether a small value is a product of two maps."""
        operands = self.source.nodes[number].operands
        return self.is_small(number) and len(operands) == 2 and not any(self.is_small(o.value) for o in operands)

    def widened(self, value: fx.Node, operand: Operand) -> fx.Node:
        """In 32 bits, where it may have 16: maps, and parameters."""
        if not self.narrow or (self.is_small(operand.value) and self.source.nodes[operand.value].operands):
            return value
        return self.call(widened, value)

    def as_map(self, number: int, value: fx.Node, operands: Sequence[Operand]) -> fx.Node:
        """A map in the map's dtype, which small operands may have made wider."""
        mixed = any(self.is_small(o.value) for o in operands)
        return self.method("type_as", value, self.reference) if mixed and not self.is_small(number) else value

    def read(self, reads: Sequence[Read], tensors: Mapping[str, fx.Node]) -> None:
        """Read sizes from the shapes of inputs (B, *slots), by tensor."""
        for size, tensor, slot, others in reads:
            length = self.method("size", tensors[tensor], slot + 1)
            for other in others:
                divisor = self.lengths.get(other) or value_of([other], self.source.known)
                length = self.call(operator.floordiv, length, divisor)
            length._rename(size)
            self.lengths[size] = length

    def slot(self, atoms: Atoms) -> int | fx.Node:
        """The length of a slot."""
        read = [a for a in atoms if any(name in self.lengths for name in names_in(a))]
        length: int | fx.Node = value_of([a for a in atoms if a not in read], self.source.known)
        for atom in read:
            if atom not in self.lengths:
                form = derived(atom)
                own = self.total(form.terms, form.constant)
                length = own if length == 1 else self.call(operator.mul, length, own)
            else:
                length = self.lengths[atom] if length == 1 else self.call(operator.mul, length, self.lengths[atom])
        return length

    def split(self, value: fx.Node, slots: Sequence[Atoms], batched: bool, known: Mapping[str, int]) -> fx.Node:
        """The value with one axis per atomic size, as long as `known` says, instead of one per slot."""
        for k in range(len(slots) - 1, -1, -1):
            if len(slots[k]) > 1:
                lengths = tuple(self.lengths.get(a) or value_of([a], known) for a in slots[k])
                value = self.method("unflatten", value, k + int(batched), lengths)
        return value

    def joined(self, value: fx.Node, slots: Sequence[Atoms], batched: bool) -> fx.Node:
        """The value with one axis per slot instead of one per atomic size."""
        for k, atoms in enumerate(slots):
            if len(atoms) > 1:
                start = k + int(batched)
                value = self.method("flatten", value, start, start + len(atoms) - 1)
        return value

    def size(self, index: Index) -> int | fx.Node:
        """The index's length; -1 for the batch, which is whatever comes."""
        if index.size in self.lengths:
            return self.lengths[index.size]
        if index.size != BATCH and any(name in self.lengths for name in names_in(index.size)):
            form = derived(index.size)
            return self.total(form.terms, form.constant)
        return -1 if index.size == BATCH else numel([index], self.source.known)

    def total(self, sizes: Sequence[tuple[str, int]], number: int) -> int | fx.Node:
        """Return a sum of multiples of sizes, or of products `S*U` of sizes, and of a number."""
        found: int | fx.Node = number
        for name, factor in sizes:
            length = self.slot(tuple(name.split("*")))
            if isinstance(length, int) and isinstance(found, int):
                found += factor * length
                continue
            length = factor * length if isinstance(length, int) else self.call(operator.mul, length, factor)
            found = self.call(operator.add, found, length)
        return found

    def factor(self, coefficient: Coefficient) -> Fraction | fx.Node:
        """A coefficient as a number, or as an fx node where it has sizes that are read from shapes."""
        read = [(s, e) for s, e in coefficient.powers if s.removeprefix(ROOT) in self.lengths]
        fixed = Coefficient(coefficient.number, tuple(p for p in coefficient.powers if p not in read))
        if not read:
            return fixed.value(self.source.known)
        if coefficient not in self._factors:
            value: Any = as_float(fixed.value(self.source.known))
            for size, exponent in read:
                number = self.lengths[size.removeprefix(ROOT)]
                number = self.call(torch.sym_sqrt, number) if size[0] == ROOT else number
                for _ in range(abs(exponent)):
                    value = self.call(divided if exponent < 0 else multiplied, value, number)
            self._factors[coefficient] = value
        return self._factors[coefficient]

    def length(self, index: Index) -> int:
        """The index's length for choices: in graphs for all sizes, one of the lengths that it may have."""
        return numel([index], self.source.known)

    def side(self, operand: Operand) -> Side:
        """An operand with the order in which it lies in memory."""
        names = dict(zip(self.source.nodes[operand.value].output, operand.indices, strict=True))
        return Side(operand, tuple(names[i] for i in self.memory[operand.value]))

    def identity_among(self, axes: Sequence[Index], pair: tuple[Index, Index]) -> fx.Node:
        """The identity over a pair of axes, of length 1 along those that follow the first of them."""
        value = self.call(identity, self.reference, self.size(pair[0]))
        first, second = sorted(axes.index(i) for i in pair)
        for k in range(first + 1, len(axes)):
            if k != second:
                value = self.method("unsqueeze", value, k - first)
        return value

    def spread(self, operand: Operand, axes: Sequence[Index]) -> fx.Node:
        """The operand with these axes, of length 1 where it lacks them."""
        value = self.permuted(self.values[operand.value], operand.indices, [i for i in axes if i in operand.indices])
        for k, index in enumerate(axes):
            if index not in operand.indices:
                value = self.method("unsqueeze", value, k)
        return value

    def summed(
        self,
        value: fx.Node,
        indices: Sequence[Index],
        memory: Sequence[Index],
        over: Sequence[Index],
        coefficient: Coefficient,
        **dtype: torch.dtype,
    ) -> fx.Node:
        """The sum over some of a value's indices times a coefficient; a mean where that is one over their length.

        Indices that do not lie together in memory are summed one piece after the other, the largest first: torch
        takes several times as long for all of them at once.
        """
        is_mean = self.is_mean(over, coefficient)
        left = list(indices)
        for piece in self.pieces(memory, over):
            axes = tuple(sorted(left.index(i) for i in piece))
            value = self.method("mean" if is_mean else "sum", value, axes, **dtype)
            left = [i for i in left if i not in piece]
        return value if is_mean else self.scaled(value, coefficient)

    def is_mean(self, over: Sequence[Index], coefficient: Coefficient) -> bool:
        """Whether a coefficient is one over the number of entries of these indices, at every size read from shapes."""
        if has_batch(over) or any(s[0] == ROOT for s, _ in coefficient.powers):
            return False
        read = Counter(i.size for i in over if i.size in self.lengths)
        if {s: -e for s, e in coefficient.powers if s in self.lengths} != dict(read):
            return False
        fixed = Coefficient(coefficient.number, tuple(p for p in coefficient.powers if p[0] not in self.lengths))
        count = numel([i for i in over if i.size not in self.lengths], self.source.known)
        return fixed.value(self.source.known) == Fraction(1, count) and (bool(read) or count != 1)

    def pieces(self, memory: Sequence[Index], over: Sequence[Index]) -> list[list[Index]]:
        """Indices in groups that lie together in memory, those of length 1 anywhere."""
        found: list[list[Index]] = [[]]
        for index in memory:
            if index in over:
                found[-1].append(index)
            elif self.length(index) > 1 or index.size == BATCH:
                found.append([])
        return sorted(filter(None, found), key=lambda piece: -numel(piece, self.source.known))

    def scaled(self, value: fx.Node, coefficient: Coefficient) -> fx.Node:
        factor = self.factor(coefficient)
        if factor == 1:
            return value
        if factor == -1:
            return self.call(torch.neg, value)
        return self.with_factor(self.call(torch.mul, value, as_argument(factor)), factor)

    def with_factor(self, node: fx.Node, factor: Fraction | fx.Node) -> fx.Node:
        """The node, with a rational factor noted beside the float that it is rounded to."""
        if isinstance(factor, Fraction):
            node.meta["coefficient"] = factor
        return node

    def diagonal(self, value: fx.Node, operand: Operand) -> tuple[fx.Node, tuple[Index, ...]]:
        indices = list(operand.indices)
        for index in dict.fromkeys(operand.indices):
            while indices.count(index) > 1:
                first = indices.index(index)
                second = indices.index(index, first + 1)
                value = self.call(torch.diagonal, value, 0, first, second)
                indices = [i for k, i in enumerate(indices) if k not in (first, second)] + [index]
        return value, tuple(indices)

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
        """The operand with one axis for each group of indices, of length 1 where it lacks them."""
        return self.flattened(self.spread(operand, [i for group in groups for i in group]), groups)

    def flattened(self, value: fx.Node, groups: Sequence[Sequence[Index]]) -> fx.Node:
        """Each group of a value's axes as one axis, of length 1 where the group is empty."""
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


def as_argument(factor: Fraction | fx.Node) -> float | fx.Node:
    """A factor as an argument of torch operations."""
    return factor if isinstance(factor, fx.Node) else as_float(factor)


def has_batch(indices: Sequence[Index]) -> bool:
    return any(i.size == BATCH for i in indices)
