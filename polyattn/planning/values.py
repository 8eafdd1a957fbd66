"""The values that can be computed on the way to a sum of products, and the ways to compute each from smaller ones.

A value is a sum of pieces: parts of monomials with the indices that the rest of the evaluation still reads. Equal
values are one, however their summed indices are named and their axes are ordered. A sum is computed part by part, a
part being one piece or several with a common factor, `A*P + A*Q = A*(P + Q)`; one piece or a factored part is a product
of two smaller values. So all evaluations of the sum, factored or not, shared or not, are the choices of one way for
each value. This does not depend on the numbers of the sizes, so it is made once for a polynomial.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from polyattn.planning.steps import BATCH, ONE, Coefficient

Atom = tuple[int, tuple[int, ...]]
"""A tensor's number with the indices of its axes."""

Piece = tuple[int, tuple[Atom, ...]]
"""The number of a coefficient in `Values.scales`, 0 for 1, with the factors."""

LEAF, PRODUCT, GROUP, SUM = range(4)
"""Kinds of values: at most one tensor; a product of one piece; a factored sum; a sum of parts."""

LABELLINGS = 24
"""Equivalent ways to order a value's axes that are followed."""
MATCHES = 64
"""Ways to align the common factors of a group that are followed."""
PARTITIONED = 4
"""Sums of up to this many pieces are tried with every partition into parts."""


@dataclass(frozen=True)
class Reference:
    """A value read in another's indices: its number, the indices of its axes there, and a coefficient."""

    value: int
    axes: tuple[int, ...]
    scale: Coefficient = ONE


@dataclass(frozen=True)
class Way:
    """One way to compute a value: the sizes of the product's loop (empty for a sum), and the values that it reads."""

    loop: tuple[str, ...]
    parts: tuple[Reference, ...]


@dataclass
class Value:
    kind: int
    pieces: tuple[Piece, ...]
    axes: tuple[int, ...]
    ways: list[Way] = field(default_factory=list)

    @property
    def length(self) -> int:
        return sum(len(atoms) for _, atoms in self.pieces)


class TooLargeError(Exception):
    """There are more ways than the search may follow."""


@dataclass
class Values:
    """All values of a sum of pieces.

    Attributes:
        sizes: the size of every index; no two pieces share an index that is summed.
        most: how many ways may be listed.
        connected: whether parts of a piece must hang together by indices other than the batch, which is no loss for
            most networks but proves nothing.
        exact: whether every evaluation in the model is among the ways.
    """

    sizes: dict[int, str]
    most: int
    connected: bool = False
    exact: bool = True
    values: list[Value] = field(default_factory=list)
    scales: list[Coefficient] = field(default_factory=lambda: [ONE])
    work: int = 0
    _scales: dict[Coefficient, int] = field(default_factory=lambda: {ONE: 0})
    _known: dict[object, int] = field(default_factory=dict)
    _near: dict[tuple[Atom, ...], list[int]] = field(default_factory=dict)
    _seen_invariants: dict[object, dict[object, list[int]]] = field(default_factory=dict)
    _seen: dict[object, Reference] = field(default_factory=dict)
    _splits: dict[object, list[int]] = field(default_factory=dict)

    def __post_init__(self):
        self.exact = self.exact and not self.connected

    def root(self, pieces: Sequence[Piece], free: frozenset[int]) -> Reference:
        """List all values below a sum of pieces; return the sum.

        Raises:
            TooLargeError: they have more than `most` ways.
        """
        found = self.reference(tuple(pieces), free)
        done = 0
        while done < len(self.values):
            value = self.values[done]
            value.ways = list(self._ways(value))
            self.work += len(value.ways)
            if self.work > self.most:
                raise TooLargeError
            done += 1
        return found

    def reference(self, pieces: tuple[Piece, ...], free: frozenset[int], kind: int | None = None) -> Reference:
        """Return a value, new or known, with the indices of its axes."""
        first = pieces[0]
        if kind is None:
            kind = SUM if len(pieces) > 1 else PRODUCT if len(first[1]) > 1 else LEAF
        raw = (pieces, free, kind)
        if raw in self._seen:
            return self._seen[raw]
        if len(pieces) == 1:
            scale, normal = self.scales[first[0]], ((0, first[1]),)
        else:
            scale = min((self.scales[c] for c, _ in pieces), key=lambda c: (c.powers, c.number))
            inverse = Coefficient(1 / scale.number, tuple((s, -e) for s, e in scale.powers))
            normal = tuple((self.scale(self.scales[c].times(inverse)), atoms) for c, atoms in pieces)
        inside = {i for _, atoms in pieces for _, indices in atoms for i in indices}
        start = {i: (int(i in free), self.sizes[i], 0) for i in inside}
        certificate, orders = self._canonical(normal, start)
        order = tuple(i for i in orders[0] if i in free)
        key = (kind, certificate)
        if key not in self._known:
            self._known[key] = len(self.values)
            self.values.append(Value(kind, normal, order))
        found = self._seen[raw] = Reference(self._known[key], order, scale)
        return found

    def scale(self, scale: Coefficient) -> int:
        """Return the number of a coefficient, new or known."""
        if scale not in self._scales:
            self._scales[scale] = len(self.scales)
            self.scales.append(scale)
        return self._scales[scale]

    def _ways(self, value: Value) -> Iterator[Way]:
        if value.kind == PRODUCT:
            yield from self._products(value)
        elif value.kind == SUM:
            yield from self._sums(value)
        elif value.kind == GROUP:
            yield from self._factored(value)

    def _products(self, value: Value) -> Iterator[Way]:
        ((_, atoms),) = value.pieces
        kept = frozenset(value.axes)
        full = (1 << len(atoms)) - 1
        # The first atom stays on the left, so each split is listed once.
        for left in self._parts(atoms):
            right = full ^ left
            if left & 1 and right and (not self.connected or self._hangs(atoms, right)):
                mine, other = _chosen(atoms, left), _chosen(atoms, right)
                yield self._way(((0, mine),), ((0, other),), kept)

    def _way(self, left: tuple[Piece, ...], right: tuple[Piece, ...], kept: frozenset[int]) -> Way:
        own, others = _indices(left), _indices(right)
        a = self.reference(left, own & (kept | others))
        b = self.reference(right, others & (kept | own))
        loop = sorted(self.sizes[i] for i in {*a.axes, *b.axes})
        return Way(tuple(loop), (a, b))

    def _sums(self, value: Value) -> Iterator[Way]:
        kept = frozenset(value.axes)
        for partition in self._partitions(value.pieces, kept):
            parts = []
            for group in partition:
                pieces = tuple(value.pieces[k] for k in group)
                free = _indices(pieces) & kept
                parts.append(self.reference(pieces, free, GROUP if len(group) > 1 else None))
            yield Way((), tuple(parts))

    def _partitions(self, pieces: tuple[Piece, ...], kept: frozenset[int]) -> Iterator[list[list[int]]]:
        everything = list(range(len(pieces)))
        sets = [frozenset(self._invariants(atoms, kept)) for _, atoms in pieces]
        if len(pieces) <= PARTITIONED:
            for partition in _set_partitions(everything):
                # A group without a factor that could be common is none.
                if all(len(g) == 1 or frozenset.intersection(*(sets[k] for k in g)) for g in partition):
                    yield partition
            return
        self.exact = False
        yield [[k] for k in everything]
        seen = set()
        for invariant in sorted({i for s in sets for i in s}, key=repr):
            group = tuple(k for k in everything if invariant in sets[k])
            if len(group) > 1 and group not in seen:
                seen.add(group)
                rest = [[k] for k in everything if k not in group]
                yield [list(group), *rest]

    def _factored(self, value: Value) -> Iterator[Way]:
        kept = frozenset(value.axes)
        first, *others = [self._factors(atoms, kept, value.pieces, k) for k, (_, atoms) in enumerate(value.pieces)]
        for key, mine in first.items():
            matches = [other.get(key, []) for other in others]
            if not all(matches):
                continue
            for mask, (joints, *_) in mine:
                options = [[(m, o) for m, orders in match for o in orders] for match in matches]
                for number, combination in enumerate(product(*options)):
                    if number == MATCHES:
                        self.exact = False
                        break
                    way = self._grouped(value, kept, [(mask, joints), *combination])
                    if way is not None:
                        yield way

    def _grouped(self, value: Value, kept: frozenset[int], chosen: list[tuple[int, tuple[int, ...]]]) -> Way | None:
        """Return A * (P + Q + ...): a mask of A in each piece, with the summed indices that join A to the rest."""
        (mask, joints), *_ = chosen
        rests: list[Piece] = []
        for (scale, atoms), (own, theirs) in zip(value.pieces, chosen, strict=True):
            names = dict(zip(theirs, joints, strict=True))
            rest = _chosen(atoms, ((1 << len(atoms)) - 1) ^ own)
            rests.append((scale, tuple((label, tuple(names.get(i, i) for i in at)) for label, at in rest)))
        if not any(atoms for _, atoms in rests):
            return None
        factor: tuple[Piece, ...] = ((0, _chosen(value.pieces[0][1], mask)),)
        return self._way(factor, tuple(rests), kept)

    def _factors(
        self, atoms: tuple[Atom, ...], kept: frozenset[int], pieces: tuple[Piece, ...], number: int
    ) -> dict[object, list[tuple[int, list[tuple[int, ...]]]]]:
        """Return the parts of a piece by their canonical form with fixed outer indices.

        Only parts that may be in all other pieces, each with the orders of the indices that join it to the rest.
        """
        common = frozenset.intersection(*(frozenset(self._invariants(a, kept)) for _, a in pieces))
        full = (1 << len(atoms)) - 1
        found: dict[object, list[tuple[int, list[tuple[int, ...]]]]] = {}
        for invariant, masks in self._invariants(atoms, kept).items():
            if invariant not in common:
                continue
            for mask in masks:
                if self.connected and mask != full and not self._hangs(atoms, full ^ mask):
                    continue
                part = _chosen(atoms, mask)
                own, others = _indices(((0, part),)), _indices(((0, _chosen(atoms, full ^ mask)),))
                joints = (own & others) - kept
                start = {i: (2, self.sizes[i], i) if i in kept else (int(i in joints), self.sizes[i], 0) for i in own}
                certificate, orders = self._canonical(((0, part),), start)
                ordered = list(dict.fromkeys(tuple(i for i in order if i in joints) for order in orders))
                found.setdefault((certificate, tuple(sorted(own & kept))), []).append((mask, ordered))
        return found

    def _invariants(self, atoms: tuple[Atom, ...], kept: frozenset[int]) -> dict[object, list[int]]:
        """Return the parts of a piece by the features of a common factor: tensors, and outer indices in place."""
        key = (atoms, kept)
        if key not in self._seen_invariants:
            found: dict[object, list[int]] = {}
            seen = [(label, tuple(i if i in kept else -1 for i in at)) for label, at in atoms]
            for mask in self._parts(atoms):
                found.setdefault(tuple(sorted(seen[k] for k in _bits(mask))), []).append(mask)
            full = (1 << len(atoms)) - 1
            if atoms and full not in self._parts(atoms):
                found.setdefault(tuple(sorted(seen)), []).append(full)
            self._seen_invariants[key] = found
        return self._seen_invariants[key]

    def _parts(self, atoms: tuple[Atom, ...]) -> list[int]:
        """Return the proper parts of a piece as masks; those that hang together where only these are asked for."""
        if atoms not in self._splits:
            masks = self._connected(atoms) if self.connected else list(range(1, (1 << len(atoms)) - 1))
            self.work += len(masks) // 8
            self._splits[atoms] = masks
        return self._splits[atoms]

    def _connected(self, atoms: tuple[Atom, ...]) -> list[int]:
        """Return the proper parts that hang together, each grown atom by atom from its first."""
        full, near = (1 << len(atoms)) - 1, self._neighbours(atoms)
        found, fresh = set[int](), [1 << k for k in range(len(atoms))]
        while fresh:
            found.update(fresh)
            if len(found) > self.most:
                raise TooLargeError
            grown = {m | 1 << k for m in fresh for k in _bits(_union(near, m) & ~m)}
            fresh = sorted(grown - found)
        return sorted(found - {full})

    def _hangs(self, atoms: tuple[Atom, ...], mask: int) -> bool:
        near, reached, fresh = self._neighbours(atoms), 0, mask & -mask
        while fresh:
            reached |= fresh
            fresh = _union(near, fresh) & mask & ~reached
        return reached == mask

    def _neighbours(self, atoms: tuple[Atom, ...]) -> list[int]:
        if atoms not in self._near:
            sets = [{i for i in at if self.sizes[i] != BATCH} for _, at in atoms]
            self._near[atoms] = [sum(1 << k for k, other in enumerate(sets) if own & other) for own in sets]
        return self._near[atoms]

    def _canonical(self, pieces: tuple[Piece, ...], start: dict[int, tuple]) -> tuple[object, list[tuple[int, ...]]]:
        """Return a form that isomorphic values have in common, and the orders of the indices that lead to it."""
        self.work += 4  # as long as listing so many ways takes
        if self.work > self.most:
            raise TooLargeError
        best: list[tuple[Any, list[tuple[int, ...]]]] = []
        leaves = 0

        def visit(colour: dict[int, int]) -> None:
            nonlocal leaves
            if leaves > LABELLINGS:
                self.exact = False
                return
            colour = _refined(pieces, colour)
            classes = Counter(colour.values())
            tied = [c for c, n in classes.items() if n > 1]
            if tied:
                for chosen in [i for i, c in colour.items() if c == min(tied)]:
                    visit({i: 2 * c + (i != chosen) for i, c in colour.items()})
                return
            leaves += 1
            form = tuple(
                sorted((c, tuple(sorted((label, tuple(colour[i] for i in at)) for label, at in a))) for c, a in pieces)
            )
            order = tuple(sorted(colour, key=lambda i: colour[i]))
            if not best or form < best[0][0]:
                best[:] = [(form, [order])]
            elif form == best[0][0]:
                best[0][1].append(order)

        visit(_ranks(start))
        form, orders = best[0]
        return (form, tuple(start[i] for i in orders[0])), orders


def _refined(pieces: Sequence[Piece], colour: dict[int, int]) -> dict[int, int]:
    """Colour the indices apart by the atoms in which they occur, until nothing changes."""
    while True:
        seen: dict[int, list] = {i: [colour[i]] for i in colour}
        for scale, atoms in pieces:
            signs = [(label, tuple(colour[i] for i in at)) for label, at in atoms]
            whole = (scale, tuple(sorted(signs)))
            for sign, (_, at) in zip(signs, atoms, strict=True):
                for place, i in enumerate(at):
                    seen[i].append((place, sign, whole) if len(pieces) > 1 else (place, sign))
        new = _ranks({i: (s[0], *sorted(s[1:])) for i, s in seen.items()})
        if len(set(new.values())) == len(set(colour.values())):
            return new
        colour = new


def _ranks(colours: dict[int, tuple]) -> dict[int, int]:
    rank = {c: k for k, c in enumerate(sorted(set(colours.values())))}
    return {i: rank[c] for i, c in colours.items()}


def _bits(mask: int) -> list[int]:
    return [k for k in range(mask.bit_length()) if mask >> k & 1]


def _union(sets: list[int], which: int) -> int:
    union = 0
    for k in _bits(which):
        union |= sets[k]
    return union


def _chosen(atoms: tuple[Atom, ...], mask: int) -> tuple[Atom, ...]:
    return tuple(atoms[k] for k in _bits(mask))


def _indices(pieces: Sequence[Piece]) -> frozenset[int]:
    return frozenset(i for _, atoms in pieces for _, at in atoms for i in at)


def _set_partitions(items: list[int]) -> Iterator[list[list[int]]]:
    if not items:
        yield []
        return
    head, *rest = items
    for partition in _set_partitions(rest):
        yield [[head], *partition]
        for k in range(len(partition)):
            yield [*partition[:k], [head, *partition[k]], *partition[k + 1 :]]
