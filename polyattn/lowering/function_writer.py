"""Emission of functions: softmax, entry by entry, along axes and over windows, and their vector-Jacobian products."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_letters
from typing import Any

import torch
from torch import fx

from polyattn.lowering.operations import OPERATIONS, OwnFunction, OwnPullback, is_entrywise
from polyattn.lowering.pooling import window_extreme, window_extreme_backward
from polyattn.lowering.products import Indices
from polyattn.lowering.pullbacks import L1_EPSILON, PULLBACKS, masked_softmax
from polyattn.lowering.writer import Writer
from polyattn.planning import Add, Apply, Contract, Convolve, Leaf, Operand, Pullback
from polyattn.planning.steps import relation_indices


@dataclass
class FunctionWriter(Writer):
    """Writes the functions of an evaluation graph.

    Attributes:
        functions: the callables of functions of the user's own, by name.
    """

    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def apply(self, node: Apply) -> fx.Node:
        (operand,) = node.operands
        value = self.values[operand.value]
        if node.relations:
            return self.call(window_extreme, value, node.function, *self.related(node, node.operands, node.output))
        axes = tuple(operand.indices.index(i) for i in node.over)
        if node.function == "softmax":
            function = masked_softmax if self.adds_leaf(operand.value) else torch.softmax
            return self.softmax(function, value, axes, len(operand.indices))
        if node.function == "normalize":
            wide = self.widened(value, operand)
            norm = self.method("sum", self.call(torch.abs, wide), axes, keepdim=True)
            normed = self.call(torch.div, wide, self.method("clamp_min", norm, L1_EPSILON))
            return normed if wide is value else self.method("type_as", normed, self.reference)
        if node.function in self.functions:
            return self.call(OwnFunction(node.function, self.functions[node.function]), value)
        if node.function in ("max", "min"):
            return self.method(f"a{node.function}", value, axes)
        return self.call(OPERATIONS[node.function], value, *((axes,) if axes else ()))

    def pullback(self, node: Pullback) -> fx.Node:
        """A function's vector-Jacobian product; the gradient is of length 1 along axes that it lacks."""
        if node.relations:
            gradient, read = node.operands
            values = self.values[gradient.value], self.values[read.value]
            way = self.related(node, (read,), gradient.indices)
            return self.call(window_extreme_backward, *values, node.function, *way)
        gradient, read = (self.spread(o, node.output) for o in node.operands)
        if node.function in self.functions:
            return self.call(OwnPullback(node.function, self.functions[node.function]), gradient, read)
        if is_entrywise(node.function):
            return self.call(PULLBACKS[node.function], gradient, read)
        return self.call(PULLBACKS[node.function], gradient, read, tuple(map(node.output.index, node.over)))

    def adds_leaf(self, number: int) -> bool:
        """Test if a tensor given by the caller is a term of a sum, which may then be minus infinity, as by a mask."""
        nodes, stack = self.source.nodes, [number]
        if not isinstance(nodes[number], Add):
            return False
        while stack:
            node = nodes[stack.pop()]
            # The logarithm of a condition is minus infinity where it does not hold.
            if isinstance(node, Leaf) or (isinstance(node, Apply) and node.function == "log"):
                return True
            if isinstance(node, Add) or (isinstance(node, Contract) and len(node.operands) == 1):
                stack += [o.value for o in node.operands]
        return False

    def softmax(self, function: Callable[..., Any], value: fx.Node, axes: tuple[int, ...], rank: int) -> fx.Node:
        if len(axes) == 1:
            return self.call(function, value, axes[0])
        order = [k for k in range(rank) if k not in axes] + list(axes)
        moved = self.method("permute", value, *order)
        flat = self.call(function, self.method("flatten", moved, rank - len(axes), rank - 1), -1)
        return self.method("permute", self.method("view_as", flat, moved), *(order.index(k) for k in range(rank)))

    def related(self, node: Convolve | Apply | Pullback, operands: Sequence[Operand], output: Indices) -> tuple:
        """The arguments of an operation over neighbourhoods: letters as in an einsum, relations and their lengths."""
        indices = dict.fromkeys(i for group in (*(o.indices for o in operands), output) for i in group)
        inside = relation_indices(node)
        letters = dict(zip(dict.fromkeys((*indices, *inside)), ascii_letters, strict=False))
        sides = ",".join("".join(letters[i] for i in o.indices) for o in operands)
        text = f"{sides}->{''.join(letters[i] for i in output)}"
        placed = tuple(
            (letters[r.position], tuple((letters[i], c) for i, c in r.terms), self.total(r.sizes, r.number))
            for r in node.relations
        )
        return text, placed, tuple((letters[i], self.size(i)) for i in inside)
