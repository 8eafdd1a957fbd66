"""Sizes of axes while code is read: classes of equal lengths, with the products that the code makes of them.

A size is known by its values at several assignments of lengths to the code's symbolic sizes, the example's first. Two
symbolic sizes with equal values are one. Sizes that the code fixes are classes of their own, which `unify` joins where
the code demands it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

Values = tuple[int, ...]
"""A length at each assignment; the example's length is the first."""


PAIRED = "a part of a size whose places offsets combine"


class UnsayableError(Exception):
    """The language cannot say this result: the reader cuts it off."""


@dataclass(eq=False)
class Size:
    """A class of equal lengths; `parts`, outermost first, where the code splits it.

    A size that is `whole` has no parts: offsets combine its places. That of a `kernel` counts a range.
    """

    values: Values
    parts: tuple[Size, ...] = ()
    whole: bool = False
    kernel: bool = False
    joined: Size | None = field(default=None, repr=False)

    @property
    def root(self) -> Size:
        found = self
        while found.joined is not None:
            found = found.joined
        return found

    @property
    def fixed(self) -> bool:
        """Return whether the code fixes this length."""
        return len(set(self.values)) == 1

    @property
    def example(self) -> int:
        return self.values[0]


def atoms(size: Size) -> tuple[Size, ...]:
    """Return the sizes that this one is the product of, none of them split."""
    root = size.root
    return tuple(a for part in root.parts for a in atoms(part)) or (root,)


def composite(parts: Sequence[Size]) -> Size:
    """Return the size that is the product of these."""
    if len(parts) == 1:
        return parts[0].root
    return Size(times(*(p.values for p in parts)), tuple(parts))


def times(*factors: Values) -> Values:
    found = (1,) * len(factors[0])
    for values in factors:
        found = tuple(a * b for a, b in zip(found, values, strict=True))
    return found


def divided(whole: Values, part: Values) -> Values | None:
    """Return the quotient, or None where it is not a whole number at every assignment."""
    if any(w % p for w, p in zip(whole, part, strict=True)):
        return None
    return tuple(w // p for w, p in zip(whole, part, strict=True))


def keep_whole(size: Size) -> None:
    """Refuse to split a size from now on.

    Raises:
        UnsayableError: it is split already.
    """
    if size.root.parts:
        raise UnsayableError("offsets over a split size")
    size.root.whole = True


def unify(left: Size, right: Size) -> None:
    """Make two sizes one.

    Raises:
        UnsayableError: they differ, or are split in ways without a common refinement.
    """
    left, right = left.root, right.root
    if left is right:
        return
    if left.values != right.values:
        raise UnsayableError("two sizes differ")
    if left.parts and right.parts:
        match(list(atoms(left)), list(atoms(right)))
        left, right = left.root, right.root
        if left is right:
            return
    # The split one stays, and an older one before a newer.
    if right.parts and not left.parts:
        left, right = right, left
    if left.parts and right.whole:
        raise UnsayableError(PAIRED)
    left.whole, left.kernel = left.whole or right.whole, left.kernel or right.kernel
    right.joined = left


def match(left: list[Size], right: list[Size]) -> None:
    """Unify two products of sizes, splitting sizes where their boundaries differ."""
    mine, theirs = list(left), list(right)
    while mine and theirs:
        a, b = mine.pop(0), theirs.pop(0)
        if a.values == b.values:
            unify(a, b)
        elif divided(a.values, b.values) is not None:
            outer, inner = split(a, b)
            unify(outer, b)
            mine.insert(0, inner)
        else:
            outer, inner = split(b, a)
            unify(outer, a)
            theirs.insert(0, inner)
    if mine or theirs:
        raise UnsayableError("two products of sizes differ")


def split(size: Size, outer: Size) -> tuple[Size, Size]:
    """Return the outer and the inner part of a size, of which `outer` has the length of the first.

    Raises:
        UnsayableError: the size is not a multiple, or it is split otherwise already.
    """
    whole, wanted = list(atoms(size)), outer.values
    before: list[Size] = []
    while True:
        rest = divided(wanted, times((1,) * len(wanted), *(b.values for b in before)))
        if rest is None:
            raise UnsayableError("a size is split in two ways")
        if set(rest) == {1}:
            break
        if not whole:
            raise UnsayableError("a part is longer than its size")
        atom = whole.pop(0)
        if divided(rest, atom.values) is not None:
            before.append(atom)
            continue
        if atom.whole:
            raise UnsayableError(PAIRED)
        inner = divided(atom.values, rest)
        if inner is None:
            raise UnsayableError("a size is not a multiple of its part")
        atom.parts = (Size(rest), Size(inner))
        before.append(atom.parts[0])
        whole.insert(0, atom.parts[1])
    if not whole or not before:
        raise UnsayableError("a size is split into itself")
    return composite(before), composite(whole)
