"""Sizes: names with their splits, as products of atomic sizes; and numbers for them.

A split size (`C = G*M`) is the product of its parts; every other size is atomic. The stages after the language work
on atomic sizes, so `x[n,c]` and `x[n,(g m)]` are one access.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from math import prod
from operator import index

from polyattn.errors import SizeError
from polyattn.language import conditions
from polyattn.language.affine import Affine
from polyattn.language.syntax import Split, Statements, accesses

ROOT = "√"
"""In front of a size or a number: the name of its square root, a number like a size."""

Atoms = tuple[str, ...]
"""A size as the ordered product of atomic sizes (names, or numbers as text), outermost first."""


@dataclass(frozen=True)
class Places:
    """A function that needs a place: a maximum over offsets, of which those outside of a tensor are left out.

    Attributes:
        text: the function with its argument.
        function: its name.
        over: the offsets.
        forms: for each slot that is read, the terms and the number of its combination of positions, and its size.
        lengths: the size of every index of the combinations.
    """

    text: str
    function: str
    over: tuple[str, ...]
    forms: tuple[tuple[tuple[tuple[str, int], ...], int, Atoms], ...]
    lengths: tuple[tuple[str, Atoms], ...]

    @property
    def sizes(self) -> tuple[Atoms, ...]:
        return (*(size for *_, size in self.forms), *(size for _, size in self.lengths))

    def check(self, known: Mapping[str, int]) -> None:
        """Raise a SizeError if all places are left out somewhere, at sizes that are known."""
        lengths = {i: value_of(atoms, known) for i, atoms in self.lengths}
        left = [(dict(terms), n, value_of(size, known)) for terms, n, size in self.forms]
        while left:
            # Slots that share an offset are looked at together.
            part, more = [left.pop()], True
            while more:
                offsets = {i for terms, *_ in part for i in terms if i in self.over}
                more = [f for f in left if offsets & f[0].keys()]
                part, left = part + more, [f for f in left if f not in more]
            offsets = sorted({i for terms, *_ in part for i in terms if i in self.over})
            others = sorted({i for terms, *_ in part for i in terms if i not in self.over})
            if prod(lengths[i] for i in (*offsets, *others)) > MOST_PLACES:
                raise SizeError(f"'{self.text}' has too many places to check that each maximum has one")
            for at in product(*(range(lengths[i]) for i in others)):
                here = dict(zip(others, at, strict=True))
                for off in product(*(range(lengths[i]) for i in offsets)):
                    values = here | dict(zip(offsets, off, strict=True))
                    if all(0 <= n + sum(c * values[i] for i, c in terms.items()) < size for terms, n, size in part):
                        break
                else:
                    where = ", ".join(f"{i} = {n}" for i, n in here.items())
                    raise SizeError(
                        f"'{self.text}' has no place at position {where or 0}: all are outside of what it reads; "
                        f"a '{self.function}' needs one, so give the output fewer positions or the window more"
                    )


MOST_PLACES = 2_000_000


@dataclass(frozen=True)
class SizeTable:
    """The sizes of one specification.

    Attributes:
        names: all declared sizes.
        splits: the sizes that are products, with their parts.
        places: the functions that need a place at every position.
    """

    names: tuple[str, ...]
    splits: tuple[Split, ...]
    places: tuple[Places, ...] = ()

    @classmethod
    def of(cls, statements: Statements) -> SizeTable:
        names = [s for i in statements.inputs for s in i.sizes]
        names += [s for split in statements.splits for s in (split.size, *split.parts)]
        names += [d.size for d in statements.index_sizes]
        # A size that only conditions mention, such as the width of a window, is declared by them.
        names += [s for d in statements.definitions for a in accesses(d.body) for s in conditions.sizes_in(a.tensor)]
        sums = dict.fromkeys(n for n in names if not (n.isdigit() or is_name(n)))
        names += [s for name in sums for s in derived(name).sizes]
        return cls(tuple(dict.fromkeys(n for n in names if is_name(n))), statements.splits)

    @cached_property
    def _parts(self) -> dict[str, tuple[str, ...]]:
        return {split.size: split.parts for split in self.splits}

    @cached_property
    def _atoms(self) -> dict[str, Atoms]:
        found: dict[str, Atoms] = {}

        def atoms(size: str) -> Atoms:
            if size not in found:
                found[size] = tuple(a for p in self._parts.get(size, ()) for a in atoms(p)) or (size,)
            return found[size]

        for name in self.names:
            atoms(name)
        return found

    @cached_property
    def _names(self) -> dict[Atoms, str]:
        # Reversed, so the size declared first names atoms that two sizes share.
        return {self.atoms(name): name for name in reversed(self.names)}

    def parts(self, size: str) -> tuple[str, ...] | None:
        """Return the parts of a split size; None for an atomic one."""
        return self._parts.get(size)

    def atoms(self, size: str) -> Atoms:
        if size[0] == ROOT:
            return tuple(ROOT + atom for atom in self.atoms(size[1:]))
        # A number as text is an atom of itself, so literal sizes need no declaration.
        return self._atoms.get(size, (size,))

    def name(self, atoms: Atoms) -> str:
        """Return the declared name of these atoms, or else their product as text."""
        return atoms[0] if len(atoms) == 1 else self._names.get(atoms, "*".join(atoms))

    @property
    def atomic(self) -> tuple[str, ...]:
        """Return the named atomic sizes, in the order of their declaration."""
        return tuple(dict.fromkeys(a for name in self.names for a in self.atoms(name) if not a.isdigit()))

    def fixed_by(self, names: Iterable[str]) -> set[str]:
        """Return the sizes fixed by the given ones: a split size by its parts, the last part by the size and the other
        parts."""
        known = set(names)
        # Repeated until nothing is added: a split may fix a part of a split that stands before it.
        while True:
            before = len(known)
            for split in self.splits:
                unknown = [p for p in split.parts if not p.isdigit() and p not in known]
                if not unknown:
                    known.add(split.size)
                elif len(unknown) == 1 and split.size in known:
                    known.add(unknown[0])
            if len(known) == before:
                return known

    def solve(self, given: Mapping[str, int], needed: Iterable[str] = ()) -> dict[str, int]:
        """Return the number of every size fixed by the given ones.

        Args:
            given: sizes by name; split sizes, their parts, or any mixture.
            needed: sizes required in the result.

        Raises:
            SizeError: an unknown name, a value other than a positive whole number, a contradiction (`C = 10` with
                `C = G*M`, `G = 4`), or a needed size left open.
        """
        unknown = [name for name in given if name not in self.names]
        if unknown:
            written = {name.casefold(): name for name in self.names}
            meant = [written[str(n).casefold()] for n in unknown if str(n).casefold() in written]
            raise SizeError(
                f"unknown size{'s' * (len(unknown) > 1)} {', '.join(map(repr, unknown))}; "
                f"the sizes are {', '.join(self.names)}" + (f": did you mean {' and '.join(meant)}?" if meant else "")
            )
        known = {name: _positive(name, value) for name, value in given.items()}
        # Each newly known size wakes only the splits that mention it.
        touching: dict[str, list[Split]] = {}
        for split in self.splits:
            for size in {split.size, *split.parts}:
                touching.setdefault(size, []).append(split)
        queue = deque(self.splits)
        while queue:
            learnt = _use(queue.popleft(), known)
            # A split woken after all of its sizes are known is checked for a contradiction.
            queue.extend(touching.get(learnt, ()))
        missing = [name for name in needed if not name.isdigit() and name not in known]
        if missing:
            raise SizeError(f"missing size{'s' * (len(missing) > 1)}: {', '.join(dict.fromkeys(missing))}")
        for places in self.places:
            if all(a in known for atoms in places.sizes for size in atoms for a in names_in(size)):
                places.check(known)
        return known


_PART = r"([+-]?)(?:(\d+)\*)?([A-Z]\w*|\d+)"


@lru_cache(maxsize=1024)
def derived(name: str) -> Affine:
    """Return the combination of sizes that names a derived size, `2*N-1`."""
    total = Affine(())
    for sign, factor, what in re.findall(_PART, name, re.A):
        number = int(factor or 1) * (-1 if sign == "-" else 1)
        total += number * int(what) if what.isdigit() else Affine(((what, number),))
    return total


def value_of(atoms: Iterable[str], known: Mapping[str, int]) -> int:
    """Return the number of positions spanned by atomic sizes together."""
    return prod(number_of(a, known) for a in atoms)


def number_of(size: str, known: Mapping[str, int]) -> int:
    """Return the number of one atomic size: a number as text, a name, or a combination of names such as `2*N-1`."""
    if size.isdigit():
        return int(size)
    return known[size] if is_name(size) else derived(size).value(known)


def letter_of(size: str) -> str:
    """Return the letter of an index over a size: its first, small; i for a number."""
    return next((c.lower() for c in size if c.isalpha()), "i")


def names_in(size: str) -> tuple[str, ...]:
    """Return the names in an atomic size: none in a number, several in a combination."""
    return () if size.isdigit() else (size,) if is_name(size) else derived(size).sizes


def is_name(size: str) -> bool:
    """Return whether a size is a name, and no number or combination."""
    return size.isidentifier()


def _positive(name: str, value: object) -> int:
    try:
        # `index` admits numpy integers and refuses floats; bool is an int in Python, but not a size.
        number = 0 if isinstance(value, bool) else index(value)  # type: ignore[arg-type]
    except TypeError:
        number = 0
    if number < 1:
        raise SizeError(f"size {name} must be a positive whole number, not {value!r}")
    return number


def _use(split: Split, known: dict[str, int]) -> str:
    """Add the one size of this split fixed by the others; return its name, or '' if it fixes none."""
    unknown = [p for p in split.parts if not p.isdigit() and p not in known]
    # Unknown parts are left out of the product, so `fixed` divides the size where one part is open.
    fixed = prod(int(p) if p.isdigit() else known[p] for p in split.parts if p not in unknown)
    if not unknown:
        if split.size not in known:
            known[split.size] = fixed
            return split.size
        if known[split.size] != fixed:
            raise SizeError(f"{split.size} = {known[split.size]} contradicts {_equation(split, known)} = {fixed}")
    elif len(unknown) == 1 and split.size in known:
        if known[split.size] % fixed:
            raise SizeError(
                f"{split.size} = {known[split.size]} is not divisible by {fixed}, which {_equation(split, known)} needs"
            )
        known[unknown[0]] = known[split.size] // fixed
        return unknown[0]
    return ""


def _equation(split: Split, known: Mapping[str, int]) -> str:
    parts = [f"{p}({known[p]})" if p in known else p for p in split.parts]
    return f"{split.size} = {'*'.join(parts)}"
