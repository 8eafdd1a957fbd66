"""The indices of a generated specification that need a `where`, and the names of all indices.

The sizes are known here, since they were drawn. This module follows which of them a reader of the text can infer, more
cautiously than the language and independently of it: a size is never inferred from the split of another slot, except
for the declared split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from polyattn.language import Atoms
from polyattn.language.resolve import accesses_of
from polyattn.language.syntax import IDENTITY, Access, Definition, IndexSize
from polyattn.testing.space import Space

LETTERS = "abcdefghijklmnopqrstuvwxyz"
LONG_NAMES = ("row", "i1", "e_", "lambda_", "max")


@dataclass(frozen=True)
class _Place:
    """One slot of one access: the tensor's slot, the indices in it, and its size."""

    slot: object
    indices: tuple[str, ...]
    size: Atoms


def needed_declarations(space: Space, definitions: Sequence[Definition], sizes: dict[str, Atoms]) -> list[str]:
    """Return indices whose declaration, with the inputs, fixes the size of every index."""
    places = [place for definition in definitions for place in _places(definition, sizes)]
    inputs: set[object] = {(i.name, k) for i in space.inputs for k in range(len(i.sizes))}
    declared: list[str] = []

    def unknown(indices: Sequence[str], known: set[object]) -> str:
        return next(i for i in indices if i not in known and space.declared_name(sizes[i]))

    every = tuple(index for place in places for index in place.indices)
    # One declaration may make many others unnecessary, so they are added one by one.
    while True:
        known = _closure(space, places, inputs | set(declared), sizes)
        known, missing = _with_defaults(space, places, definitions[-1].target, known, sizes)
        if missing:
            declared.append(unknown(missing, known))
            continue
        known = _closure(space, places, known, sizes)
        if all(index in known for index in every):
            return declared
        declared.append(unknown(every, known))


def _places(definition: Definition, sizes: dict[str, Atoms]) -> Iterator[_Place]:
    for number, access in enumerate((definition.target, *accesses_of(definition.body))):
        for k, slot in enumerate(access.slots):
            size = tuple(atom for index in slot.indices for atom in sizes[index])
            # Each identity matrix has a size of its own, unlike the slots of a tensor.
            tensor = (access.tensor, k) if access.tensor != IDENTITY else (IDENTITY, definition.name, number)
            yield _Place(tensor, slot.indices, size)


def _closure(space: Space, places: list[_Place], known: set[object], sizes: dict[str, Atoms]) -> set[object]:
    known, before = set(known), -1
    # To a fixed point: a known slot fixes indices, and these fix further slots.
    while len(known) != before:
        before = len(known)
        for place in places:
            unknown = [i for i in place.indices if i not in known]
            pieces = tuple(sizes[i] for i in place.indices)
            if not unknown:
                known.add(place.slot)
            # With a single unknown index the quotient is its size.
            elif place.slot in known and (len(unknown) == 1 or pieces in _declared_pieces(space, place.size)):
                known.update(unknown)
    return known


def _declared_pieces(space: Space, size: Atoms) -> tuple[tuple[Atoms, ...], ...]:
    parts = space.table.parts(space.table.name(size)) or ()
    return tuple(map(space.table.atoms, parts)), tuple((atom,) for atom in size)


def _with_defaults(
    space: Space, places: list[_Place], output: Access, known: set[object], sizes: dict[str, Atoms]
) -> tuple[set[object], tuple[str, ...]]:
    """Add the output's slots of default size, the size in the input of its rank.

    The second result has the indices of a slot whose size differs from the default.
    """
    like = next((i for i in space.inputs if len(i.sizes) == len(output.slots)), None)
    if like is None:
        return known, ()
    known = set(known)
    for k, (slot, name) in enumerate(zip(output.slots, like.sizes, strict=True)):
        if (output.tensor, k) not in known:
            if space.table.atoms(name) != tuple(a for i in slot.indices for a in sizes[i]):
                return known, slot.indices
            known.add((output.tensor, k))
    return known, ()


def named(
    draw: st.DrawFn, space: Space, definitions: Sequence[Definition], sizes: dict[str, Atoms], declared: list[str]
) -> tuple[tuple[IndexSize, ...], list[dict[str, str]]]:
    """Name the indices: the `where`s of the declared ones, and for each definition the final name of each index.

    A declared name has one size everywhere; other names start again in every definition.
    """
    names = [*(LONG_NAMES if draw(st.booleans()) else ()), *LETTERS]
    first = draw(st.integers(0, len(names) - 1))
    names = names[first:] + names[:first]
    pools: dict[str, list[str]] = {}
    taken: set[str] = set()
    renamings: list[dict[str, str]] = []
    indices_of = [list(dict.fromkeys(_all_indices(d))) for d in definitions]
    # Declared indices first, since their names are reserved in all definitions.
    for indices in indices_of:
        renaming: dict[str, str] = {}
        used: dict[str, int] = {}
        for index in indices:
            size = space.declared_name(sizes[index])
            if index in declared and size:
                pool = pools.setdefault(size, [])
                used[size] = used.get(size, 0) + 1
                if used[size] > len(pool):
                    pool.append(_first(names, taken.__contains__))
                    taken.add(pool[-1])
                renaming[index] = pool[used[size] - 1]
        renamings.append(renaming)
    for indices, renaming in zip(indices_of, renamings, strict=True):
        here = set(taken)
        for index in indices:
            if index not in renaming:
                renaming[index] = _first(names, here.__contains__)
                here.add(renaming[index])
    wheres = (IndexSize(name, size) for size, pool in pools.items() for name in pool)
    return tuple(sorted(wheres, key=lambda w: (w.size, w.index))), renamings


def _first(names: Sequence[str], is_taken: Callable[[str], bool]) -> str:
    endless = (f"{name}{k or ''}" for k in range(1000) for name in names)
    return next(name for name in endless if not is_taken(name))


def _all_indices(definition: Definition) -> Iterator[str]:
    yield from definition.target.indices
    for access in accesses_of(definition.body):
        yield from access.indices
