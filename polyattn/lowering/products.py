"""How a contraction becomes one batched matrix product, with as few entries copied as can be.

`torch.matmul` takes (batches | rows x inner) times (batches | inner x columns). A group of several indices is one axis
only where they lie together in memory; where they do not, torch copies the operand, which for the layers of this
library may cost more than the product. So the order in which each value lies in memory is followed through the graph,
and of the ways below the cheapest is taken:

- as it is;
- rows or columns that are torn apart are batches instead, over which the other operand is broadcast;
- summed indices that are torn apart are batches instead, and are summed after the product;
- where a summed index s is followed in memory by a short index v that the other operand lacks, the other operand is
  filled up to the matrix over (s v) that is zero where the two v's differ (P becomes P ⊗ I), or, where v is summed too,
  all pairs of v's are computed and the diagonal is kept. That multiplies by zeros, and copies nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from polyattn.algebra import Index
from polyattn.planning import BATCH, Contract, Operand

Indices = tuple[Index, ...]
Length = Callable[[Index], int]

COPY = 64
"""Multiply-accumulates that take as long as copying one entry."""
PRODUCT = 4000
"""Multiply-accumulates that take as long as starting one matrix product of a batch."""
TILE = 8
"""The side at which a matrix product reaches half of its rate."""
SLOW = 1.3
"""How much longer a matrix product takes that reads its larger operand across the way that it lies in memory."""
LARGEST_IDENTITY = 8
"""The longest side of an identity that a matrix is filled up with. Over 4 to 14 blocks, a single product with
identities of side 8 took 0.6 to 1.6 times as long as the quickest way that copies the large operand. But those leave
the result in another order: BA-Transforms of 4 x 4 and of 7 x 7 blocks took 1.2 to 1.4 times as long with at most 4
here. At side 16 the single product took 0.6 to 2.4 times as long (`benchmarks/filling.py`, both parts)."""
LARGEST_FILLED = 2048
"""A matrix that is filled up with zeros has at most this number squared of entries; so has a product of which only the
diagonal is read."""


@dataclass(frozen=True)
class Side:
    """One operand of a product: its indices, and the order in which they lie in memory, slowest first."""

    operand: Operand
    memory: Indices

    @property
    def indices(self) -> Indices:
        return self.operand.indices


@dataclass(frozen=True)
class Product:
    """One way to compute a contraction as a matrix product.

    Attributes:
        left, right: the operands.
        batches, rows, inner, columns: groups of their indices.
        after: those of the batches that are summed after the product.
        tied: an index and its copy. If the index is in the left operand only, the right one is filled up to a matrix
            over it and its copy; if it is in both, it is the copy in the right one, and the diagonal is kept.
    """

    left: Side
    right: Side
    batches: Indices
    rows: Indices
    inner: Indices
    columns: Indices
    after: Indices = ()
    tied: tuple[Index, Index] | None = None

    @property
    def fills(self) -> bool:
        """Whether the right operand is filled up with zeros."""
        return self.tied is not None and self.tied[0] in self.inner

    @property
    def traces(self) -> bool:
        """Whether a diagonal is kept."""
        return self.tied is not None and self.tied[0] in self.rows

    @property
    def folds(self) -> bool:
        """Whether the right side is one matrix, so that the rows need not be one axis."""
        return not self.batches and bool(self.rows) and self.tied is None

    @property
    def regroups(self) -> bool:
        """Whether axes of the left side become one, and one axis of the result becomes several.

        Such a result is turned before it is taken apart: where lengths happen to be equal, onnxscript (0.7.2) drops
        the reshapes around a product although it then multiplies other matrices.
        """
        rows = len(self.rows) > 1 and not self.folds
        return (rows or len(self.inner) > 1) and (rows or len(self.columns) > 1)

    @property
    def result(self) -> Indices:
        """The axes of the result before anything is summed or a diagonal kept."""
        return (*self.batches, *self.rows, *self.columns)

    @property
    def order(self) -> Indices:
        """The axes of the result."""
        gone = {*self.after, *(self.tied if self.traces and self.tied else ())}
        names = {self.tied[1]: self.tied[0]} if self.fills and self.tied else {}
        return tuple(names.get(i, i) for i in self.result if i not in gone)

    def cost(self, length: Length) -> float:
        """What it takes, in multiply-accumulates of a large matrix product."""
        rows, inner, columns = (entries(g, length) for g in (self.rows, self.inner, self.columns))
        batches = entries(self.batches, length)
        total = float(batches * rows * inner * columns)
        for side in (rows, inner, columns):
            total *= 1 + TILE / side
        if self._slow(length):
            total *= SLOW
        total += PRODUCT * batches
        for side, groups in ((self.left, (self.rows, self.inner)), (self.right, (self.inner, self.columns))):
            missing = [i for i in self.batches if i not in side.indices]
            written = entries(side.indices, length) * entries(missing, length)
            if side is self.right and self.fills:
                assert self.tied is not None
                total += COPY * written * length(self.tied[0]) ** 2
            elif 0 < len(missing) < len(self.batches) or not lies_together(side.memory, self.batches, groups, length):
                total += COPY * written
        if self.after:
            total += COPY * entries(self.result, length)
        return total

    def _slow(self, length: Length) -> bool:
        """Whether the larger operand has to be read across the way that it lies in memory."""
        large, own = self.left, self.inner
        if entries(self.right.indices, length) > entries(self.left.indices, length):
            large, own = self.right, self.columns
        fastest = next((i for i in reversed(large.memory) if length(i) > 1), None)
        return fastest is not None and fastest not in own


def entries(indices: Sequence[Index], length: Length) -> int:
    return prod(length(i) for i in indices)


def lies_together(memory: Indices, batches: Sequence[Index], groups: Sequence[Sequence[Index]], length: Length) -> bool:
    """Whether a value is a batch of matrices as it lies in memory: each group in one piece, one of them the fastest."""
    real = [i for i in memory if i.size == BATCH or length(i) > 1]
    for group in (batches, *groups):
        present = [i for i in group if i in real]
        if present:
            start = real.index(present[0])
            if real[start : start + len(present)] != present:
                return False
    return not real or any(group and real[-1] == _last(group, real) for group in groups)


def _last(group: Sequence[Index], real: Sequence[Index]) -> Index | None:
    present = [i for i in group if i in real]
    return present[-1] if present else None


def choose(node: Contract, left: Side, right: Side, length: Length, wanted: Indices | None) -> Product:
    """The cheapest way to compute a contraction.

    Args:
        wanted: how the result should lie in memory; None if that makes no difference.
    """
    size = entries(node.output, length)

    def price(way: Product) -> float:
        return way.cost(length) + (COPY * size if wanted is not None and _against(way, wanted) else 0)

    return min((*ways(node, left, right, length), *ways(node, right, left, length)), key=price)


def _against(way: Product, wanted: Indices) -> bool:
    """Whether more pairs of rows and columns are in the other order than wanted."""
    order = way.order
    places = [[wanted.index(i) for i in order if i in group] for group in (way.rows, way.columns)]
    if way.fills and way.tied is not None:
        places[1].append(wanted.index(way.tied[0]))
    return sum(1 if r < c else -1 for r in places[0] for c in places[1]) < 0


def ways(node: Contract, left: Side, right: Side, length: Length) -> Iterator[Product]:
    """The ways to compute a contraction with this operand on the left, the plain one first."""
    first = plain(node, left, right, length)
    yield first
    big = _larger(left, right, length)
    for options in product((False, True), repeat=3):
        way: Product | None = first
        for wanted, torn in zip(options, (_torn_rows, _torn_columns, _torn_inner), strict=True):
            way = torn(way) if wanted and way is not None else way
        if way is not None and way != first:
            yield way
    yield from _tied(first, big, length)


def plain(node: Contract, left: Side, right: Side, length: Length) -> Product:
    """The contraction as it is, each group in the order in which it lies in memory."""
    both = set(left.indices) & set(right.indices)
    big = _larger(left, right, length)
    return Product(
        left,
        right,
        tuple(i for i in big.memory if i in both and i in node.output),
        tuple(i for i in left.memory if i not in both),
        tuple(i for i in big.memory if i in both and i not in node.output),
        tuple(i for i in right.memory if i not in both),
    )


def _larger(left: Side, right: Side, length: Length) -> Side:
    return left if entries(left.indices, length) >= entries(right.indices, length) else right


def _torn(memory: Indices, group: Indices) -> int:
    """How many of a group's first indices do not lie together with its last ones; the group is in memory order."""
    places = [memory.index(i) for i in group]
    count = len(group)
    while count > 1 and places[count - 2] + 1 == places[count - 1]:
        count -= 1
    return max(count - 1, 0)


def _torn_rows(way: Product) -> Product | None:
    count = _torn(way.left.memory, way.rows)
    return _with_batches(way, way.rows[:count], rows=way.rows[count:]) if count else None


def _torn_columns(way: Product) -> Product | None:
    count = _torn(way.right.memory, way.columns)
    return _with_batches(way, way.columns[:count], columns=way.columns[count:]) if count else None


def _torn_inner(way: Product) -> Product | None:
    big = way.left if tuple(i for i in way.left.memory if i in way.inner) == way.inner else way.right
    count = _torn(big.memory, way.inner)
    moved = way.inner[:count]
    return replace(_with_batches(way, moved, inner=way.inner[count:]), after=moved) if count else None


def _with_batches(way: Product, more: Indices, **groups: Indices) -> Product:
    """The way with further batches, all in the order in which the operand that has most of them has them."""
    batches = {*way.batches, *more}
    side = max((way.left, way.right), key=lambda s: len(batches & set(s.memory)))
    order = [i for i in side.memory if i in batches]
    return replace(way, batches=(*order, *(i for i in (*way.batches, *more) if i not in order)), **groups)


def _tied(first: Product, big: Side, length: Length) -> Iterator[Product]:
    """The ways that multiply by zeros along the fastest index."""
    if len(big.memory) < 2 or not first.inner:
        return
    last = big.memory[-1]
    if last.size == BATCH:
        return  # its length is whatever comes
    if length(last) > LARGEST_IDENTITY:
        return
    copy = Index(1 + max(i.id for i in (*first.left.memory, *first.right.memory)), last.size)
    way = first if big is first.left else turned(first)
    before = way.left.memory[-2]
    if last in way.rows and before in way.inner and length(last) > 1:
        inner = (*(i for i in way.inner if i != before), before, last)
        rows = tuple(i for i in way.rows if i != last)
        filled = replace(way, rows=rows, inner=inner, columns=(*way.columns, copy), tied=(last, copy))
        if entries(filled.inner, length) * entries(filled.columns, length) <= LARGEST_FILLED**2:
            yield filled
            torn = _torn_rows(filled)
            if torn is not None:
                yield torn
    elif last in way.inner and before in way.rows and len(way.inner) > 1 and _ends(way.right, way.columns, last):
        inner = tuple(i for i in way.inner if i != last)
        rows, columns = (*way.rows, last), (*way.columns, copy)
        traced = replace(way, rows=rows, inner=inner, columns=columns, tied=(last, copy))
        if entries(rows, length) * entries(columns, length) <= LARGEST_FILLED**2:
            yield traced
            torn = _torn_inner(traced)
            if torn is not None:
                yield torn


def _ends(side: Side, group: Indices, last: Index) -> bool:
    """Whether a value's fastest index is this one, right behind one of the group."""
    return len(side.memory) > 1 and side.memory[-1] == last and side.memory[-2] in group


def turned(way: Product) -> Product:
    """The transposed product: the other operand goes left."""
    return replace(way, left=way.right, right=way.left, rows=way.columns, columns=way.rows)
