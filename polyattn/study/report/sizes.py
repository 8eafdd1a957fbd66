"""The varying sizes of a specification on a page, the sizes that follow from them, and initial numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt, prod

from polyattn.algebra import Spec
from polyattn.errors import SizeError

BATCH = "B"
USUAL = {"B": 8, "N": 784, "C": 256, "H": 28, "W": 28, "T": 8, "G": 4, "K": 4, "S": 7, "R": 64, "V": 64, "D": 64}
"""Default numbers for the catalogue's sizes; the fourth stage of a ResNet on images of 224 x 224."""
OTHERWISE = (16, 8, 7, 4, 3, 2, 1)


@dataclass(frozen=True)
class Derived:
    """A size as the product of `above`, divided by the product of `below`."""

    size: str
    above: tuple[str, ...]
    below: tuple[str, ...] = ()


@dataclass(frozen=True)
class Freedom:
    """The sizes of a specification.

    Attributes:
        free: sizes to choose, the batch first.
        derived: sizes that follow, each after its factors.
    """

    free: tuple[str, ...]
    derived: tuple[Derived, ...]


def freedom(spec: Spec) -> Freedom:
    """Return the free and the derived sizes. Of `C = G*M`, C and G are free and M = C/G follows; a split whose every
    part is in other splits too follows from its parts.

    >>> freedom(Spec("x[N,C]; where C = G*M; y[a,(g m)] = x[a,(g m)]"))
    Freedom(free=('B', 'N', 'C', 'G'), derived=(Derived(size='M', above=('C',), below=('G',)),))
    """
    table = spec.sizes
    atoms = {split.size: table.atoms(split.size) for split in table.splits}
    quotients, products = [], []
    for size, parts in atoms.items():
        elsewhere = {a for other, found in atoms.items() if other != size for a in found}
        # A part that occurs twice is a square root of the rest, and one in another split is fixed there.
        own = [a for a in parts if not a.isdigit() and parts.count(a) == 1 and a not in elsewhere]
        if own:
            rest = list(parts)
            rest.remove(own[-1])
            quotients.append(Derived(own[-1], (size,), tuple(rest)))
        else:
            products.append(Derived(size, parts))
    # Quotients first: a product may have one of them as its factor.
    derived = (*quotients, *products)
    names = (BATCH, *table.names)
    follows = {d.size for d in derived}
    return Freedom(tuple(dict.fromkeys(n for n in names if n not in follows)), derived)


def positions(spec: Spec) -> tuple[str, ...]:
    """Return the sizes whose product is the number of positions: those of the first input before its channels."""
    return tuple(next(iter(spec.inputs.values()))[:-1])


def nearest_square(number: int) -> tuple[int, int]:
    """Return the sides of the most square map of so many positions, the shorter one first.

    >>> nearest_square(784), nearest_square(12), nearest_square(7)
    ((28, 28), (3, 4), (1, 7))
    """
    root = isqrt(number)
    # Of a number with two large prime factors only, the search would take seconds.
    short = next((k for k in range(root, max(0, root - 100_000), -1) if number % k == 0), 1)
    return short, number // short


def start(spec: Spec, given: Mapping[str, int]) -> dict[str, int]:
    """Choose a number for every size: as given, else the usual one, else one that fits the splits.

    Args:
        given: sizes by name, with B for the batch; unknown names are ignored. Of N and H x W one gives the other, so
            that layers over positions and over maps are at the same number of positions.

    Raises:
        SizeError: the given sizes contradict each other, or leave no whole number for another; or the specification has
            a size B of its own, which a formula could not tell from the batch.
    """
    if BATCH in spec.sizes.names:
        raise SizeError("B is the batch in a report's formulas: give size B of this specification another name")
    batch = given.get(BATCH, USUAL[BATCH])
    # bool is a subclass of int.
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise SizeError(f"the batch must be a positive whole number, not {batch!r}")
    known = {name: number for name, number in given.items() if name in spec.sizes.names}
    if positions(spec) == ("N",) and "N" not in given and {"H", "W"} <= given.keys() and not known.keys() & {"H", "W"}:
        known["N"] = given["H"] * given["W"]
    if positions(spec) == ("H", "W") and given.get("N", 0) > 0 and not given.keys() & {"H", "W"}:
        known["H"], known["W"] = nearest_square(given["N"])
    for name in freedom(spec).free[1:]:
        # Other sizes may determine this one already.
        if name in spec.sizes.solve(known):
            continue
        # The usual number may not divide a given one; small numbers are tried next.
        for number in (USUAL.get(name, OTHERWISE[0]), *OTHERWISE):
            try:
                spec.sizes.solve(known | {name: number})
            except SizeError:
                continue
            known[name] = number
            break
        else:
            raise SizeError(f"no number for size {name} was found that goes with the others: give one")
    return {BATCH: batch, **spec.sizes.solve(known, spec.sizes.names)}


def follow(here: Freedom, free: Mapping[str, int]) -> dict[str, int] | None:
    """Compute all sizes from the free ones, as the page's script does; None if a quotient is not whole."""
    known = dict(free)
    for d in here.derived:
        above, below = (prod(int(a) if a.isdigit() else known[a] for a in side) for side in (d.above, d.below))
        if above % below:
            return None
        known[d.size] = above // below
    return known
