"""Matches as texts: given equations that `prove` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from polyattn.algebra import Index, Monomial, Polynomial, TensorFactor
from polyattn.algebra.printing import readable
from polyattn.language.sizes import ROOT, letter_of
from polyattn.language.syntax import IDENTITY
from polyattn.relating.matching import Match, Pattern, Scale
from polyattn.relating.sides import Names, Sides


@dataclass(frozen=True)
class Condition:
    """A match in texts.

    Attributes:
        given, sizes: the equations.
        names: the names of the first side that stay changed.
    """

    given: tuple[str, ...]
    sizes: tuple[str, ...]
    names: Names


def condition(sides: Sides, match: Match) -> Condition:
    """Return a match as texts about the first side, under its own names where these mean nothing else."""
    kept = {name for name in match.patterns if name not in match.zeros}
    old = {new: name for name, new in sides.names.tensors.items()}
    tensors = dict(sides.names.tensors)
    sizes = dict(sides.names.sizes)
    back = {new: size for size, new in sizes.items() if size not in sides.pairs}
    for size, image in match.sizes.items():
        if size in back and image == (back[size],):
            del sizes[back[size]]
    # A pair of sizes is an equation, unless the name is the second side's for another size or a part of a split.
    parts = {p for s in sides.b.signature.sizes.splits for p in s.parts}
    pairs = [
        f"{size} = {other}"
        for size, other in sides.pairs.items()
        if size != other and size not in sides.b.signature.sizes.names and other not in parts
    ]
    for size, other in sides.pairs.items():
        if f"{size} = {other}" in pairs:
            del sizes[size]
    given = []
    for name in sorted(kept):
        if _is_same(sides, name, old.get(name), match):
            del tensors[old[name]]
            continue
        given.append(_definition(sides, name, match.patterns[name], match.scales[name]))
    given += [_zero(sides.a, name) for name in sorted(match.zeros)]
    equations = [
        f"{size} = {'*'.join(image) or '1'}" for size, image in sorted(match.sizes.items())
        if image != (size,) and image != (back.get(size),)
    ]  # fmt: skip
    return Condition(tuple(given), (*pairs, *equations), Names(tensors, sizes))


def _is_same(sides: Sides, name: str, old: str | None, match: Match) -> bool:
    """Return whether a parameter is the second side's of the same name, as it is: slot by slot."""
    mine, pattern = sides.a.signature.shapes[name], match.patterns[name]
    theirs = sides.b.signature.shapes.get(old or "")
    if theirs is None or match.scales[name] != (Fraction(1), ()) or any(len(s) != 1 for s in pattern.slots):
        return False
    same = [len(slot) for slot in mine] == [len(slot) for slot in theirs]
    return same and pattern.body.factors == (TensorFactor(old or "", pattern.free),)


class _Letters:
    """Letters for the indices of one text."""

    def __init__(self, taken: set[str]):
        self.taken, self.names = set(taken), {}

    def new(self, size: str) -> str:
        stem = letter_of(size)
        letter = next(name for k in range(1000) if (name := f"{stem}{k or ''}") not in self.taken)
        self.taken.add(letter)
        return letter

    def of(self, index: Index) -> str:
        if index not in self.names:
            self.names[index] = self.new(index.size)
        return self.names[index]


def _definition(sides: Sides, name: str, pattern: Pattern, scale: Scale) -> str:
    letters = _Letters({*sides.a.signature.shapes, *sides.b.signature.shapes})
    free, images = iter(pattern.free), iter(pattern.slots)
    slots = []
    for atoms in sides.a.signature.shapes[name]:
        parts = []
        for _ in atoms:
            image = next(images)
            # An index over one place has a letter, too.
            parts += [letters.of(next(free)) for _ in image] or [letters.new("1")]
        slots.append(parts[0] if len(parts) == 1 else f"({' '.join(parts)})")
    target = f"{name}[{','.join(slots)}]" if slots else name
    return f"{target} = {_product(pattern.body, scale, sides.b.signature.shapes, letters)}"


def _zero(polynomial: Polynomial, name: str) -> str:
    letters = _Letters({*polynomial.signature.shapes})
    slots = [[letters.new(a) for a in atoms] for atoms in polynomial.signature.shapes[name]]
    shown = [s[0] if len(s) == 1 else f"({' '.join(s)})" for s in slots]
    return f"{name}[{','.join(shown)}] = 0" if shown else f"{name} = 0"


def _product(body: Monomial, scale: Scale, shapes: Mapping[str, tuple[tuple[str, ...], ...]], letters: _Letters) -> str:
    factors = []
    for factor in body.factors:
        assert isinstance(factor, TensorFactor)
        rest = iter([letters.of(i) for i in factor.indices])
        shape = shapes[factor.tensor] if factor.tensor != IDENTITY else tuple((i.size,) for i in factor.indices)
        slots = [[next(rest) for _ in atoms] for atoms in shape]
        shown = ",".join(s[0] if len(s) == 1 else f"({' '.join(s)})" for s in slots)
        factors.append(f"{factor.tensor}[{shown}]" if slots else factor.tensor)
    number, powers = body.coefficient * scale[0], readable(scale[1])
    above = [_size(s) for s, e in powers for _ in range(e)]
    below = [_size(s) for s, e in powers for _ in range(-e)]
    below = [str(number.denominator)] * (number.denominator != 1) + below
    top = [*above, *factors] if not below else above
    if abs(number.numerator) != 1 or not top:
        top = [str(abs(number.numerator)), *top]
    text = "*".join(top) + "".join(f"/{b}" for b in below)
    text = "*".join([text, *factors]) if below else text
    return f"-{text}" if number < 0 else text


def _size(size: str) -> str:
    return f"sqrt({size[1:]})" if size[0] == ROOT else size
