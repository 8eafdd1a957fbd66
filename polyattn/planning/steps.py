"""The evaluation graph of a plan: nodes that name their operands by number, and what each of them costs.

Indices are local to a node: an operand is a value and the indices that its axes have here, as in an einsum. A
value that depends on an input carries the batch, of size B, as its leading axis, which no index names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import prod

from polyattn.algebra import Index
from polyattn.language import value_of

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Coefficient:
    """A rational number times powers of atomic sizes."""

    number: Fraction = Fraction(1)
    powers: tuple[tuple[str, int], ...] = ()

    def value(self, sizes: Sizes) -> Fraction:
        return self.number * prod((Fraction(sizes[s]) ** e for s, e in self.powers), start=Fraction(1))

    @property
    def is_one(self) -> bool:
        return self.number == 1 and not self.powers

    @property
    def is_sign(self) -> bool:
        return abs(self.number) == 1 and not self.powers

    def __str__(self) -> str:
        above = [str(self.number.numerator)] if abs(self.number.numerator) != 1 else []
        above += [s for s, e in self.powers for _ in range(e)]
        below = [str(self.number.denominator)] if self.number.denominator != 1 else []
        below += [s for s, e in self.powers for _ in range(-e)]
        sign = "-" if self.number == -1 or (self.number < 0 and not above) else ""
        return sign + "/".join(["*".join(above) or "1", *below])


ONE = Coefficient()


@dataclass(frozen=True)
class Operand:
    """A value with the indices of its axes in this node (the batch axis has none)."""

    value: int
    indices: tuple[Index, ...]


@dataclass(frozen=True)
class Leaf:
    """An input or a parameter, with one axis per atomic slot."""

    tensor: str
    output: tuple[Index, ...]
    batched: bool

    operands: tuple[Operand, ...] = ()


@dataclass(frozen=True)
class Identity:
    """The identity matrix over one atomic size."""

    output: tuple[Index, ...]

    operands: tuple[Operand, ...] = ()
    batched: bool = False


@dataclass(frozen=True)
class Constant:
    """The number 1, for terms without a tensor."""

    output: tuple[Index, ...] = ()
    operands: tuple[Operand, ...] = ()
    batched: bool = False


@dataclass(frozen=True)
class Contract:
    """The product of one or two operands, summed over the indices that the output lacks, times a coefficient.

    With one operand it is a sum, a diagonal, a permutation or a scaling.
    """

    operands: tuple[Operand, ...]
    output: tuple[Index, ...]
    coefficient: Coefficient
    batched: bool

    @property
    def summed(self) -> tuple[Index, ...]:
        have = dict.fromkeys(i for o in self.operands for i in o.indices)
        return tuple(i for i in have if i not in self.output)


@dataclass(frozen=True)
class Add:
    """The sum of operands with coefficients, each broadcast over the output's indices that it lacks."""

    operands: tuple[Operand, ...]
    coefficients: tuple[Coefficient, ...]
    output: tuple[Index, ...]
    batched: bool


@dataclass(frozen=True)
class Apply:
    """A function of the language: over the indices `over` of its operand."""

    function: str
    over: tuple[Index, ...]
    operands: tuple[Operand, ...]
    output: tuple[Index, ...]
    batched: bool


Node = Leaf | Identity | Constant | Contract | Add | Apply


def numel(indices: Iterable[Index], batched: bool, sizes: Sizes, batch: int) -> int:
    """How many entries a tensor with these indices has, the batch included."""
    return value_of((i.size for i in indices), sizes) * (batch if batched else 1)


def product_indices(node: Node) -> tuple[Index, ...]:
    """The indices of the loop that computes a contraction: its multiply-accumulates are their sizes' product."""
    return tuple(dict.fromkeys(i for o in node.operands for i in o.indices))


def multiplies(node: Node) -> bool:
    """Whether a node multiplies entries of two tensors; only these count as multiply-accumulates."""
    return isinstance(node, Contract) and len(node.operands) == 2


def is_elementwise(node: Contract) -> bool:
    """Whether no index is summed."""
    return not node.summed


def materialises_product(node: Node) -> bool:
    """Whether the product of two operands is written out before it is summed (no matrix product does it)."""
    if not multiplies(node) or not isinstance(node, Contract) or is_elementwise(node):
        return False
    left, right = (set(o.indices) for o in node.operands)
    kept = set(node.output)
    return not ((left - right) & kept or (right - left) & kept)
