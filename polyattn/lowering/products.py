"""Contractions as single batched matrix products, with as few copied entries as possible.

`torch.matmul` computes (batches | rows x inner) times (batches | inner x columns). Several indices form one axis only
if they are adjacent in memory; otherwise torch copies the operand, at a cost that may exceed the product's for the
layers of this library. So the memory order of each value is followed through the graph, and the cheapest of these ways
is chosen:

- as it is;
- non-adjacent rows or columns become batches, over which the other operand is broadcast;
- non-adjacent summed indices become batches, summed after the product;
- where a short index v of one operand alone follows a summed index s in memory, the other operand is extended to the
  matrix over (s v) with zeros where the two v's differ (P becomes P ⊗ I); if v is summed too, all pairs of v's are
  computed and the diagonal is read. This multiplies by zeros, and copies nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

from polyattn.algebra import Index
from polyattn.planning import BATCH, Contract, Operand

Indices = tuple[Index, ...]
Length = Callable[[Index], int]

COPY = 64
"""Multiply-accumulates in the time of copying one entry."""
PRODUCT = 4000
"""Multiply-accumulates in the time of starting one matrix product of a batch."""
TILE = 8
"""The side at which a matrix product reaches half of its rate."""
SLOW = 1.3
"""Slowdown of a matrix product that reads its larger operand across its memory order."""
LARGEST_IDENTITY = 8
"""The longest side of an identity in an extended matrix. Over 4 to 14 blocks, a single product with identities of side
8 took 0.6 to 1.6 times as long as the quickest way with a copy of the large operand. But those ways leave the result in
another order: BA-Transforms of 4 x 4 and of 7 x 7 blocks took 1.2 to 1.4 times as long with at most 4 here. At side 16
the single product took 0.6 to 2.4 times as long (`benchmarks/filling.py`, both parts)."""
LARGEST_FILLED = 2048
"""A matrix extended with zeros has at most this number squared of entries; so has a product of which only the diagonal
is read."""


@dataclass(frozen=True)
class Side:
    """One operand of a product: its indices, and their memory order, slowest first."""

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
        after: batches summed after the product.
        tied: an index and its copy. If the index is in the left operand only, the right one is extended to a matrix
            over it and its copy; if it is in both, the right one has the copy instead, and the diagonal is read.
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
        """Test if the right operand is extended with zeros."""
        return self.tied is not None and self.tied[0] in self.inner

    @property
    def traces(self) -> bool:
        """Test if only a diagonal of the product is read."""
        return self.tied is not None and self.tied[0] in self.rows

    @property
    def folds(self) -> bool:
        """Test if the right side is one matrix, so that the rows need not be one axis."""
        return not self.batches and bool(self.rows) and self.tied is None

    @property
    def regroups(self) -> bool:
        """Test if axes of the left side merge into one, and one axis of the result is split.

        Such a result is transposed before it is split: where lengths happen to be equal, onnxscript (0.7.2) drops the
        reshapes around a product although it then multiplies other matrices.
        """
        rows = len(self.rows) > 1 and not self.folds
        return (rows or len(self.inner) > 1) and (rows or len(self.columns) > 1)

    @property
    def result(self) -> Indices:
        """Return the axes of the result before sums and diagonals."""
        return (*self.batches, *self.rows, *self.columns)

    @property
    def order(self) -> Indices:
        """Return the axes of the result."""
        gone = {*self.after, *(self.tied if self.traces and self.tied else ())}
        names = {self.tied[1]: self.tied[0]} if self.fills and self.tied else {}
        return tuple(names.get(i, i) for i in self.result if i not in gone)

    def cost(self, length: Length) -> float:
        """Estimate the cost, in multiply-accumulates of a large matrix product."""
        rows, inner, columns = (entries(g, length) for g in (self.rows, self.inner, self.columns))
        batches = entries(self.batches, length)
        total = float(batches * rows * inner * columns)
        # Short sides leave the processor's tiles partly empty.
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
            # A broadcast over some of the batches makes torch write the operand out; over all of them it is one matrix.
            elif 0 < len(missing) < len(self.batches) or not lies_together(side.memory, self.batches, groups, length):
                total += COPY * written
        # The sum after the product reads the whole intermediate.
        if self.after:
            total += COPY * entries(self.result, length)
        return total

    def _slow(self, length: Length) -> bool:
        """Test if the larger operand has to be read across its memory order."""
        large, own = self.left, self.inner
        if entries(self.right.indices, length) > entries(self.left.indices, length):
            large, own = self.right, self.columns
        # Axes of length 1 have no place in memory.
        fastest = next((i for i in reversed(large.memory) if length(i) > 1), None)
        return fastest is not None and fastest not in own


def entries(indices: Sequence[Index], length: Length) -> int:
    number = 1
    for index in indices:
        number *= length(index)
    return number


def lies_together(memory: Indices, batches: Sequence[Index], groups: Sequence[Sequence[Index]], length: Length) -> bool:
    """Test if a value is a batch of matrices as stored: each group contiguous, one of them fastest."""
    # Axes of length 1 are adjacent to anything; the batch's length is open, so it counts in any case.
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


def choose(
    node: Contract, left: Side, right: Side, length: Length, wanted: Indices | None, long: Collection[str] = ()
) -> Product:
    """Choose the cheapest way to compute a contraction.

    Args:
        wanted: preferred memory order of the result; None if it makes no difference.
        long: sizes of any length, over which no matrix is extended by an identity.
    """
    # Looked up many times for each way.
    length = cache(length)
    size = entries(node.output, length)

    def price(way: Product) -> float:
        return way.cost(length) + (COPY * size if wanted is not None and _against(way, wanted) else 0)

    found = (*ways(node, left, right, length), *ways(node, right, left, length))
    return min((way for way in found if way.tied is None or way.tied[0].size not in long), key=price)


def _against(way: Product, wanted: Indices) -> bool:
    """Test if a majority of pairs of rows and columns are in the opposite of the wanted order."""
    order = way.order
    places = [[wanted.index(i) for i in order if i in group] for group in (way.rows, way.columns)]
    if way.fills and way.tied is not None:
        places[1].append(wanted.index(way.tied[0]))
    return sum(1 if r < c else -1 for r in places[0] for c in places[1]) < 0


def ways(node: Contract, left: Side, right: Side, length: Length) -> Iterator[Product]:
    """Enumerate the ways to compute a contraction with this operand on the left, the plain one first."""
    first = plain(node, left, right, length)
    yield first
    big = _larger(left, right, length)
    # `min` prefers the earlier of equal ways, so the plain one comes first.
    for options in product((False, True), repeat=3):
        way: Product | None = first
        for wanted, torn in zip(options, (_torn_rows, _torn_columns, _torn_inner), strict=True):
            way = torn(way) if wanted and way is not None else way
        if way is not None and way != first:
            yield way
    yield from _tied(first, big, length)


def plain(node: Contract, left: Side, right: Side, length: Length) -> Product:
    """Return the contraction as it is, each group in memory order."""
    both = set(left.indices) & set(right.indices)
    big = _larger(left, right, length)
    return Product(
        left,
        # The larger operand fixes the common order, since copying the smaller one costs less.
        right,
        tuple(i for i in big.memory if i in both and i in node.output),
        tuple(i for i in left.memory if i not in both),
        tuple(i for i in big.memory if i in both and i not in node.output),
        tuple(i for i in right.memory if i not in both),
    )


def _larger(left: Side, right: Side, length: Length) -> Side:
    return left if entries(left.indices, length) >= entries(right.indices, length) else right


def _torn(memory: Indices, group: Indices) -> int:
    """Count a group's leading indices that are not adjacent to its last ones; the group is in memory order."""
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
    """Add batches to a way, in the order of the operand with most of them."""
    batches = {*way.batches, *more}
    side = max((way.left, way.right), key=lambda s: len(batches & set(s.memory)))
    order = [i for i in side.memory if i in batches]
    return replace(way, batches=(*order, *(i for i in (*way.batches, *more) if i not in order)), **groups)


def _tied(first: Product, big: Side, length: Length) -> Iterator[Product]:
    """Enumerate the ways that multiply by zeros along the fastest index."""
    if len(big.memory) < 2 or not first.inner:
        return
    last = big.memory[-1]
    if last.size == BATCH:
        return  # its length is whatever comes
    if length(last) > LARGEST_IDENTITY:
        return
    # Larger than any id in use, so the copy cannot meet another index.
    copy = Index(1 + max(i.id for i in (*first.left.memory, *first.right.memory)), last.size)
    way = first if big is first.left else turned(first)
    before = way.left.memory[-2]
    # v is private to the large operand and directly behind a summed index: extend the other one by an identity.
    if last in way.rows and before in way.inner and length(last) > 1:
        inner = (*(i for i in way.inner if i != before), before, last)
        rows = tuple(i for i in way.rows if i != last)
        filled = replace(way, rows=rows, inner=inner, columns=(*way.columns, copy), tied=(last, copy))
        if entries(filled.inner, length) * entries(filled.columns, length) <= LARGEST_FILLED**2:
            yield filled
            torn = _torn_rows(filled)
            if torn is not None:
                yield torn
    # v is summed in both and directly behind a row: compute all pairs of v and read the diagonal.
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
    """Test if a value's fastest index is `last`, directly behind one of the group."""
    return len(side.memory) > 1 and side.memory[-1] == last and side.memory[-2] in group


def turned(way: Product) -> Product:
    """Return the transposed product: the other operand goes left."""
    return replace(way, left=way.right, right=way.left, rows=way.columns, columns=way.rows)
