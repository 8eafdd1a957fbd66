"""The space of generated specifications: limits, sizes with their splits, and inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import product
from typing import TypeVar

from hypothesis import strategies as st

from polyattn.language import Atoms, SizeTable
from polyattn.language.syntax import Input, Split

SHAPES = (("N",), ("N", "C"), ("N", "C"), ("H", "W", "C"), ("N", "N"))
SPLITS = (("G", "M"), ("2", "M"), ("G", "2"), ("G", "G"), ("G", "M", "T"))
NESTED = ("S", "T")

T = TypeVar("T")
Pieces = tuple[Atoms, ...]
"""The sizes of the indices in one slot, outer first."""


@dataclass(frozen=True)
class Limits:
    """The options of `specification_texts`."""

    degree: int
    homogeneous: bool
    functions: bool
    splits: bool
    brackets: bool
    inputs: int
    intermediates: int
    indices: int
    monomials: int
    output_like_input: bool


@dataclass(eq=False)
class Tensor:
    """A tensor accessible to products.

    Attributes:
        shape: the size of each slot.
        degree: number of inputs, or outputs of functions, in it.
        summed: number of indices of atomic size summed in its definition.
        monomials: number of products of its definition.
        pieces: for slots defined with several indices, their sizes.
    """

    name: str
    shape: tuple[Atoms, ...]
    degree: int = 0
    summed: int = 0
    monomials: int = 1
    pieces: dict[int, Pieces] = field(default_factory=dict)


@dataclass(frozen=True)
class Space:
    limits: Limits
    inputs: tuple[Input, ...]
    splits: tuple[Split, ...]

    @classmethod
    def drawn(cls, draw: st.DrawFn, limits: Limits) -> Space:
        room = (limits.indices + 1) // 2  # the output may have as many indices again
        usual = [shape for shape in SHAPES if len(shape) <= room]
        names = st.sampled_from(("N", "C", "H", "2"))
        sizes = draw(st.sampled_from(usual) | st.lists(names, min_size=1, max_size=min(3, room)).map(tuple))
        inputs = [Input(draw(st.sampled_from(("x", "X"))), sizes)]
        if limits.inputs > 1 and draw(st.booleans()):
            more = st.lists(st.sampled_from((*sizes, "K")), min_size=1, max_size=min(2, room))
            inputs.append(Input("z", tuple(draw(more))))
        splits: list[Split] = []
        if limits.splits and draw(st.integers(0, 2)):
            size = draw(st.sampled_from((*dict.fromkeys(s for s in sizes if not s.isdigit()), "R")))
            parts = draw(st.sampled_from(SPLITS))
            # A split multiplies the indices of a slot, which have to fit too.
            if sum(len(parts) if s == size else 1 for s in sizes) <= room:
                splits.append(Split(size, parts))
                nested = sum(1 + len(parts) if s == size else 1 for s in sizes) <= room
                if nested and "M" in parts and "T" not in parts and draw(st.booleans()):
                    splits.append(Split("M", NESTED))
        return cls(limits, tuple(inputs), tuple(splits))

    @cached_property
    def table(self) -> SizeTable:
        names = [s for i in self.inputs for s in i.sizes]
        names += [s for split in self.splits for s in (split.size, *split.parts)]
        return SizeTable(tuple(dict.fromkeys(n for n in names if not n.isdigit())), self.splits)

    @cached_property
    def sizes(self) -> tuple[Atoms, ...]:
        """Return the sizes of indices, those of the inputs first."""
        named = [s for i in self.inputs for s in i.sizes] + [*self.table.names, "R", "3"]
        return tuple(dict.fromkeys(map(self.table.atoms, named)))

    def declared_name(self, size: Atoms) -> str | None:
        """Return the name of a size for a `where`, or None without one."""
        name = self.table.name(size)
        return None if "*" in name else name

    def segmentations(self, size: Atoms) -> list[Pieces]:
        """Return the ways to write a slot of this size as indices of its parts, and of their parts, outer first."""
        return [pieces for pieces in self._pieces(size) if len(pieces) > 1]

    def _pieces(self, size: Atoms) -> Iterator[Pieces]:
        yield (size,)
        parts = self.table.parts(self.table.name(size)) or ()
        if parts:
            for choice in product(*(list(self._pieces(self.table.atoms(part))) for part in parts)):
                yield tuple(piece for pieces in choice for piece in pieces)


@lru_cache(maxsize=64)
def below(end: int) -> st.SearchStrategy[int]:
    """Return numbers from 0; cached, since finding a strategy again takes longer than drawing from it."""
    return st.integers(0, end - 1)


def one_of(draw: st.DrawFn, options: Sequence[T]) -> T:
    """Draw one of the options, without a draw if there is one only."""
    return options[draw(below(len(options)))] if len(options) > 1 else options[0]


def joined(pieces: Pieces) -> Atoms:
    """Join the sizes of a slot's indices."""
    return tuple(atom for size in pieces for atom in size)


def atoms_needed(shapes: Iterable[Iterable[Atoms]], have: Iterable[Atoms]) -> int:
    """Count the new indices of atomic size needed to access tensors of these shapes, given indices of these sizes."""
    needed, sizes = 0, set(have)
    for shape in shapes:
        for size in shape:
            if size not in sizes:
                needed += len(size)
                sizes.add(size)
    return needed
