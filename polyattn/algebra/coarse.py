"""The coarsest form of a polynomial: `C = G*M` undone if its parts occur only together.

A slot of size C is a pair of slots once C is split, so a function has a form for each way to split its sizes. Their
coarsest form is the same: an index over C replaces each pair over (G, M) that stands side by side in every slot,
and C replaces G*M in coefficients. A split counts, and stays, if an index of such a pair is used without the other
one, or if coefficients could be expressed in C, G and M in more than one way. Equality and hashes of polynomials
compare coarsest forms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import count

from polyattn.algebra.conditions import slot_lengths
from polyattn.algebra.monomial import Factor, FunctionFactor, Index, Monomial, Powers, TensorFactor
from polyattn.language import Atoms, SizeTable
from polyattn.language.conditions import is_condition, sizes_in
from polyattn.language.sizes import ROOT
from polyattn.language.syntax import IDENTITY, Split

Block = tuple[str, tuple[Index, ...]]
"""A size with the indices over its parts that one index over it stands for."""

Links = list[tuple[Index, Index]]
"""Indices that belong together pair by pair: those of identities, or those that a function runs over and is read at."""


class CountsError(Exception):
    """Splits that count; or a part with an index of its own."""

    def __init__(self, *splits: Split, part: str = ""):
        self.splits, self.part = set(splits), part


def leaves(table: SizeTable, used: Iterable[str]) -> tuple[Split, ...]:
    """Return the splits into atomic sizes that are all used, one for each product, without those that depend on others.

    If two sizes are one product, the first by name stands for both.
    """
    known, found = set(used), {}
    # Sorted by name, so that the first of two equal products is the same in every text.
    for split in sorted(table.splits, key=lambda s: s.size):
        named = _named(split)
        # Only splits into atoms: outer ones are undone in a later round, once their parts are atoms.
        if named and named <= known and not any(map(table.parts, split.parts)):
            found.setdefault(split.parts, split)
    return tuple(split for split, _ in _solvable(found.values(), frozenset()))


def _named(split: Split) -> set[str]:
    return {part for part in split.parts if not part.isdigit()}


def _solvable(splits: Iterable[Split], alone: frozenset[str]) -> list[tuple[Split, str]]:
    """Return the splits, each with a part found in neither `alone` nor a later split: it determines the split's
    exponent."""
    waiting, found = list(splits), []
    while waiting:
        owners = Counter(part for split in waiting for part in _named(split))
        # `min` makes the choice of the part independent of the order of a set.
        own = {s: min((p for p in _named(s) - alone if owners[p] == 1), default="") for s in waiting}
        ready = [(s, part) for s, part in own.items() if part]
        if not ready:
            break
        found += ready
        # As in elimination: a split whose part is its own is solved, and leaves the rest with fewer
        # owners.
        waiting = [s for s in waiting if not own[s]]
    return found


@dataclass
class Merging:
    """Splits undone together in canonical monomials with all indices numbered apart.

    Attributes:
        output: the indices of each slot of the output.
        shapes: the atomic sizes of each slot of every tensor.
        alone: parts that are sizes of indices of their own, and stay.
    """

    splits: tuple[Split, ...]
    output: tuple[tuple[Index, ...], ...]
    shapes: Mapping[str, tuple[Atoms, ...]]
    alone: frozenset[str] = frozenset()
    order: list[tuple[Split, str]] = field(init=False)
    gone: set[str] = field(init=False)

    def __post_init__(self):
        self.order = _solvable(self.splits, self.alone)
        self.splits = tuple(split for split, _ in self.order)
        self.gone = {part for split in self.splits for part in _named(split)} - self.alone

    def runs(self, sizes: Sequence[str]) -> Iterator[tuple[Split | None, slice]]:
        """Yield a slot in pieces: undone products, the longest first, and other sizes one by one."""
        start = 0
        while start < len(sizes):
            fits = [s for s in self.splits if tuple(sizes[start : start + len(s.parts)]) == s.parts]
            split = max(fits, key=lambda s: len(s.parts), default=None)
            end = start + (len(split.parts) if split else 1)
            # A part outside of its product: it has to stay, and the caller tries again with it in
            # `alone`.
            if not split and sizes[start] in self.gone:
                raise CountsError(part=sizes[start])
            yield split, slice(start, end)
            start = end

    def shape(self, slots: tuple[Atoms, ...]) -> tuple[Atoms, ...]:
        return tuple(tuple(s.size if s else atoms[at][0] for s, at in self.runs(atoms)) for atoms in slots)

    def merged(self, term: Monomial) -> Monomial:
        """Return the monomial with the splits undone; raise CountsError for those that count."""
        blocks = _Blocks(self)
        for slot in self.output:
            blocks.slot(slot)
        blocks.read(term, {i for slot in self.output for i in slot})
        blocks.spread()
        return self._term(term, blocks.names())

    def _term(self, term: Monomial, names: Mapping[Index, Index | None]) -> Monomial:
        number, powers = self._coefficient(term)
        factors = (self._factor(f, names) for f in term.factors)
        return Monomial(number, powers, tuple(f for f in factors if f is not None))

    def _factor(self, factor: Factor, names: Mapping[Index, Index | None]) -> Factor | None:
        def move(indices: tuple[Index, ...]) -> tuple[Index, ...]:
            return tuple(new for i in indices if (new := names.get(i, i)) is not None)

        if isinstance(factor, FunctionFactor):
            terms = tuple(self._term(t, names) for t in factor.terms)
            return FunctionFactor(factor.function, move(factor.over), move(factor.free), terms, move(factor.at))
        indices = move(factor.indices)
        # All indices gone: an identity between later parts of two blocks, whose first parts already
        # became the identity over the whole size.
        return TensorFactor(factor.tensor, indices) if indices or not factor.indices else None

    def _coefficient(self, term: Monomial) -> tuple[Fraction, Powers]:
        number, powers = term.coefficient, Counter(dict(term.powers))
        for split, own in self.order:
            # The split's own part determines the exponent of C; an odd power of G is not one of G*G.
            exponent, rest = divmod(powers[own], split.parts.count(own))
            if rest:
                raise CountsError(split)
            powers[split.size] += exponent
            for part in split.parts:
                if part.isdigit():
                    number /= Fraction(int(part)) ** exponent
                else:
                    powers[part] -= exponent
            # The roots of its parts together are the root of C.
            if powers[ROOT + own] and len(_named(split)) == len(split.parts):
                powers[ROOT + split.size] += 1
                for part in split.parts:
                    powers[ROOT + part] -= 1
        # G*M*M leaves an M beside C: not a power of the product.
        left = [part for part in self.gone if powers[part] or powers[ROOT + part]]
        if left:
            raise CountsError(*(s for s in self.splits if _named(s).intersection(left)))
        return number, tuple(sorted((s, e) for s, e in powers.items() if e))


class _Blocks:
    """The blocks of one monomial: read off its tensors' slots, then spread to indices found only in identities or
    functions.
    """

    def __init__(self, merging: Merging):
        self.merging = merging
        self.owner: dict[Index, tuple[Split, Block]] = {}
        self.alone: set[Index] = set()
        self.scopes: dict[Index, int] = {}
        self.links: list[Links] = []

    def slot(self, indices: Sequence[Index]) -> None:
        for split, at in self.merging.runs([i.size for i in indices]):
            if split:
                self.put(split, tuple(indices[at]))
            else:
                self.alone.update(indices[at])

    def put(self, split: Split, indices: tuple[Index, ...]) -> None:
        found = split, (split.size, indices)
        for index in indices:
            # An index in two different blocks: its split cannot be undone.
            other = self.owner.setdefault(index, found)
            if other != found:
                raise CountsError(split, other[0])

    def read(self, term: Monomial, outside: set[Index]) -> None:
        """Read a term's slots, links, and the scope that binds each index."""
        # Both collections grow as terms are read, so the sum of their lengths numbers the scopes.
        scope = len(self.scopes) + len(self.links)
        self.scopes |= {i: scope for i in term.indices() if i not in outside}
        inside = outside | set(term.indices())
        pairs: Links = []
        for factor in term.factors:
            if isinstance(factor, FunctionFactor):
                self.links.append(list(zip(factor.over, factor.at, strict=False)))
                self.scopes |= dict.fromkeys(factor.over, len(self.scopes) + len(self.links))
                for inner in factor.terms:
                    self.read(inner, inside | set(factor.over))
            elif factor.tensor == IDENTITY:
                pairs.append((factor.indices[0], factor.indices[1]))
            elif is_condition(factor.tensor):
                for slot in slot_lengths(factor):
                    self.slot(slot)
                for size in sizes_in(factor.tensor):
                    if size in self.merging.gone:
                        raise CountsError(part=size)
            else:
                rest = iter(factor.indices)
                for atoms in self.merging.shapes.get(factor.tensor, [(i.size,) for i in factor.indices]):
                    self.slot([next(rest) for _ in atoms])
        self.links.append(pairs)

    def spread(self) -> None:
        """Find the blocks of indices outside of all slots, and check that every block is complete."""
        # Following comes first: only indices that no link determines are gathered freely.
        while self._follow() or self._gather():
            pass
        for split, (_, indices) in self.owner.values():
            # A block has to be bound as a whole, and none of its indices may occur on its own.
            if len({self.scopes.get(i) for i in indices}) > 1 or self.alone.intersection(indices):
                raise CountsError(split)
        for links in self.links:
            for pair in links:
                self._check_link(links, *pair)
        for index in self.scopes:
            if index.size in self.merging.gone and index not in self.owner:
                raise CountsError(part=index.size)

    def _follow(self) -> bool:
        """Carry blocks along links; return True if new ones were found."""
        before = len(self.owner)
        for links in self.links:
            # A link is symmetric: blocks are carried both ways.
            both = [*links, *((j, i) for i, j in links)]
            for split, (_, indices) in list(self.owner.values()):
                images = [[j for i, j in both if i == index and j not in self.owner] for index in indices]
                for block in zip(*images, strict=False):
                    # Distinct, unowned indices only: others would be a diagonal, or a second owner.
                    if len({*block}) == len(block) and not self.owner.keys() & {*block}:
                        self.put(split, block)
        return len(self.owner) > before

    def _gather(self) -> bool:
        """Make blocks of interchangeable indices of one scope, as in a maximum of a constant."""
        left: dict[int, list[Index]] = {}
        for index, scope in self.scopes.items():
            if index not in self.owner and index not in self.alone:
                left.setdefault(scope, []).append(index)
        for indices in left.values():
            for split in self.merging.splits:
                rest = list(indices)
                block = [
                    next((rest.pop(k) for k, i in enumerate(rest) if i.size == part), None) for part in split.parts
                ]
                if None not in block:
                    self.put(split, tuple(i for i in block if i is not None))
                    return True
        return False

    def _check_link(self, links: Links, i: Index, j: Index) -> None:
        """Check a link between two blocks: all their indices are linked, in order; raise CountsError if not."""
        mine, theirs = self.owner.get(i), self.owner.get(j)
        if mine and theirs and mine[0] == theirs[0]:
            pairs = zip(mine[1][1], theirs[1][1], strict=True)
            both = {*links, *((b, a) for a, b in links)}
            if (i, j) in (wanted := set(pairs)) and wanted <= both:
                return
        if mine or theirs:
            raise CountsError(*(found[0] for found in (mine, theirs) if found))

    def names(self) -> dict[Index, Index | None]:
        """Map the first index of each block to an index over the whole size, and the others to None.

        The output's indices keep their order, and stay below all others.
        """
        found: dict[Index, Index | None] = {}
        fresh = count()
        output = [i for slot in self.merging.output for i in slot]
        for index in (*output, *self.scopes):
            _, (size, indices) = self.owner.get(index, (None, (index.size, (index,))))
            found[index] = Index(next(fresh), size) if index == indices[0] else None
        return found


def undone(
    merging: Merging, terms: Sequence[Monomial], shapes: Mapping[str, tuple[Atoms, ...]]
) -> tuple[Merging, list[Monomial], dict[str, tuple[Atoms, ...]]]:
    """Undo as many of the splits as do not count.

    Args:
        shapes: further shapes to express in the coarser sizes.

    Returns:
        The undone splits, the terms and the shapes; without splits if all count.
    """
    while merging.splits:
        try:
            return merging, [merging.merged(t) for t in terms], {n: merging.shape(s) for n, s in shapes.items()}
        # The splits that were found to count are dropped, and the rest is tried again from the start.
        except CountsError as error:
            splits = tuple(s for s in merging.splits if s not in error.splits)
            merging = replace(merging, splits=splits, alone=merging.alone | {error.part})
    return merging, list(terms), dict(shapes)
