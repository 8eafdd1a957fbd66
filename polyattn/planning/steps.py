"""The evaluation graph of a plan: nodes with operands by number.

Indices are local to a node: an operand is a value with the indices of its axes here, as in an einsum. The batch is an
index like any other, of size `BATCH`; it comes first in inputs and is absent from parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import prod

from polyattn.algebra import Index
from polyattn.algebra.monomial import Monomial, power_value
from polyattn.language.sizes import ROOT, number_of
from polyattn.language.syntax import IDENTITY

Sizes = Mapping[str, int]

BATCH = "batch"
"""The size of the batch: reserved, since a specification's sizes start with a capital."""


@dataclass(frozen=True)
class Coefficient:
    """A rational number times powers of atomic sizes."""

    number: Fraction = Fraction(1)
    powers: tuple[tuple[str, int], ...] = ()

    def value(self, sizes: Sizes) -> Fraction:
        # Exact, so that it is rounded once, where it meets a tensor.
        return self.number * prod((power_value(s, e, sizes) for s, e in self.powers), start=Fraction(1))

    @property
    def is_one(self) -> bool:
        return self.number == 1 and not self.powers

    @property
    def divided(self) -> set[str]:
        """Return the sizes in its denominator."""
        return {size for size, exponent in self.powers if exponent < 0}

    def times(self, other: Coefficient) -> Coefficient:
        # As a monomial's, so that equal coefficients compare equal.
        product = Monomial(self.number, self.powers, ()).scaled(other.number, other.powers)
        return Coefficient(product.coefficient, product.powers)

    def __str__(self) -> str:
        above = [str(abs(self.number.numerator))] if abs(self.number.numerator) != 1 else []
        above += [_shown(s) for s, e in self.powers for _ in range(e)]
        below = [str(self.number.denominator)] if self.number.denominator != 1 else []
        below += [_shown(s) for s, e in self.powers for _ in range(-e)]
        return ("-" if self.number < 0 else "") + "/".join(["*".join(above) or "1", *below])


def _shown(size: str) -> str:
    return f"sqrt({size[1:]})" if size[0] == ROOT else size


ONE = Coefficient()


@dataclass(frozen=True)
class Operand:
    """A value with the indices of its axes in this node."""

    value: int
    indices: tuple[Index, ...]


class _Node:
    """Facts of a node that do not depend on the numbers of sizes, each computed once."""

    operands: tuple[Operand, ...]
    output: tuple[Index, ...]

    @cached_property
    def loop(self) -> tuple[Index, ...]:
        return tuple(dict.fromkeys(i for o in self.operands for i in o.indices))

    @cached_property
    def materialised(self) -> bool:
        return _materialises_product(self)

    @cached_property
    def swapped(self) -> tuple[tuple[Index, Index], ...]:
        return _swapped_axes(self)

    @cached_property
    def sides(self) -> tuple[tuple[Index, ...], tuple[Index, ...]]:
        """The indices that only the left, and only the right of two operands has."""
        left, right = (set(o.indices) for o in self.operands)
        return tuple(left - right), tuple(right - left)


@dataclass(frozen=True)
class Leaf(_Node):
    """An input, a parameter, or a tensor passed to a backward graph: one axis per atomic slot, the batch first."""

    tensor: str
    output: tuple[Index, ...]

    operands: tuple[Operand, ...] = ()


@dataclass(frozen=True)
class Identity(_Node):
    """The identity matrix over one atomic size, or a condition: zeros and ones that the sizes fix."""

    output: tuple[Index, ...]

    operands: tuple[Operand, ...] = ()
    tensor: str = IDENTITY


@dataclass(frozen=True)
class Constant(_Node):
    """The number 1, for terms without a tensor."""

    output: tuple[Index, ...] = ()
    operands: tuple[Operand, ...] = ()


@dataclass(frozen=True)
class Contract(_Node):
    """The product of one or two operands, summed over the indices absent from the output, times a coefficient.

    With one operand it is a sum, a diagonal or a scaling.
    """

    operands: tuple[Operand, ...]
    output: tuple[Index, ...]
    coefficient: Coefficient = ONE

    @cached_property
    def summed(self) -> tuple[Index, ...]:
        return tuple(i for i in self.loop if i not in self.output)


@dataclass(frozen=True)
class Relation:
    """An index at a combination of others: `position = sum(c*i) + sum(c*N) + number`.

    Positions outside of their range add nothing.
    """

    position: Index
    terms: tuple[tuple[Index, int], ...]
    sizes: tuple[tuple[str, int], ...] = ()
    number: int = 0

    @property
    def indices(self) -> tuple[Index, ...]:
        return (self.position, *(i for i, _ in self.terms))

    @cached_property
    def index_set(self) -> frozenset[Index]:
        return frozenset(self.indices)

    def start(self, sizes: Sizes) -> int:
        """Return the number, sizes included."""
        return self.number + sum(
            c * prod(int(s) if s.isdigit() else sizes[s] for s in name.split("*")) for name, c in self.sizes
        )


@dataclass(frozen=True)
class Convolve(_Node):
    """The product of one or two operands over neighbourhoods: a product whose indices obey relations.

    With one operand it is a window, a gather, or a sum over offsets. A position may be an operand's index or one of the
    output, so the vector-Jacobian product of a convolution is one as well.
    """

    operands: tuple[Operand, ...]
    relations: tuple[Relation, ...]
    output: tuple[Index, ...]
    coefficient: Coefficient = ONE

    @cached_property
    def loop(self) -> tuple[Index, ...]:
        # Positions follow from the other indices.
        found = dict.fromkeys(i for o in self.operands for i in o.indices)
        found |= dict.fromkeys(i for r in self.relations for i in r.indices)
        return tuple(i for i in found if all(i != r.position for r in self.relations))


@dataclass(frozen=True)
class Add(_Node):
    """The sum of operands with coefficients, each broadcast over the output's other indices."""

    operands: tuple[Operand, ...]
    coefficients: tuple[Coefficient, ...]
    output: tuple[Index, ...]


@dataclass(frozen=True)
class Apply(_Node):
    """A function of the language: over the indices `over` of its operand.

    With relations it is a maximum or a minimum over windows: the operand's positions are at combinations of `over` and
    of the output's indices, and places outside are left out.
    """

    function: str
    over: tuple[Index, ...]
    operands: tuple[Operand, ...]
    output: tuple[Index, ...]
    relations: tuple[Relation, ...] = ()


@dataclass(frozen=True)
class Pullback(_Node):
    """The vector-Jacobian product of a function; its operands are the result's gradient and the tensor that the
    function's row `reads`.

    The gradient may lack indices of the result, along which it is constant; the output has the argument's axes.
    Relations are those of the function.
    """

    function: str
    over: tuple[Index, ...]
    operands: tuple[Operand, ...]
    output: tuple[Index, ...]
    relations: tuple[Relation, ...] = ()


Node = Leaf | Identity | Constant | Contract | Convolve | Add | Apply | Pullback


def placed(node: Node) -> tuple[Relation, ...]:
    """Return the relations that a node's indices obey."""
    return node.relations if isinstance(node, Convolve | Apply | Pullback) else ()


def relation_indices(node: Node) -> tuple[Index, ...]:
    """Return the indices of a node's relations."""
    return tuple(dict.fromkeys(i for r in placed(node) for i in r.indices))


def length(index: Index, sizes: Sizes) -> int:
    return number_of(index.size, sizes)


def numel(indices: Iterable[Index], sizes: Sizes) -> int:
    """Return the number of entries of a tensor with these indices."""
    # Planning spends much of its time here: no call for each index.
    number = 1
    for index in indices:
        number *= sizes.get(index.size) or number_of(index.size, sizes)
    return number


def loop_indices(node: Node) -> tuple[Index, ...]:
    """Return the indices of a contraction's loop; the product of their lengths is its multiply-accumulates."""
    return node.loop


def multiplies(node: Node) -> bool:
    """Test if a node multiplies entries of two tensors; only these count as multiply-accumulates."""
    return isinstance(node, Contract | Convolve) and len(node.operands) == 2


def swapped_axes(node: Node) -> tuple[tuple[Index, Index], ...]:
    """Return the pairs of output axes under whose simultaneous exchange a product is symmetric.

    Both operands must be one value, read with the same indices except for those private to a side:
    x[b,n,c] x[b,n,d] is symmetric in c and d. Otherwise the result is empty.
    """
    return node.swapped


def _swapped_axes(node: _Node) -> tuple[tuple[Index, Index], ...]:
    if not isinstance(node, Contract) or len(node.operands) != 2 or node.operands[0].value != node.operands[1].value:
        return ()
    left, right = node.operands
    # Repeated indices read a diagonal, for which the pairing of axes below does not hold.
    if any(len(set(o.indices)) < len(o.indices) for o in node.operands):
        return ()
    pairs = tuple((a, b) for a, b in zip(left.indices, right.indices, strict=True) if a != b)
    own = all(a not in right.indices and b not in left.indices for a, b in pairs)
    kept = all(a in node.output and b in node.output for a, b in pairs)
    return pairs if own and kept else ()


def materialises_product(node: Node) -> bool:
    """Test if the elementwise product of two operands is written out before it is summed.

    This is so if a matrix product cannot express it: both sides have only shared and summed indices and more than the
    batch is kept; or one side does, and more than the batch is shared, where a matrix product would only reorder the
    larger side.
    """
    return node.materialised


def _materialises_product(node: _Node) -> bool:
    if not isinstance(node, Contract) or len(node.operands) != 2 or not node.summed:
        return False
    left, right = (set(o.indices) for o in node.operands)
    kept = set(node.output)
    sides = bool((left - right) & kept), bool((right - left) & kept)
    if not any(sides):
        # An inner product, for each sample perhaps, is one of a row and a column.
        return any(i.size != BATCH for i in kept)
    return not all(sides) and any(i.size != BATCH for i in left & right & kept)


def is_matrix_product(node: Node) -> bool:
    """Test if a node is lowered to `matmul`."""
    return isinstance(node, Contract) and multiplies(node) and bool(node.summed) and not materialises_product(node)
