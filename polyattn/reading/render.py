"""Definitions to a text of the language: letters by role, names from the code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count
from math import isqrt

from polyattn.language.functions import TABLE
from polyattn.language.syntax import decimal_text
from polyattn.reading.sizes import Size, UnsayableError, atoms
from polyattn.reading.values import (
    Access,
    Affine,
    Body,
    Call,
    Coefficient,
    Element,
    Index,
    Sum,
    Tensor,
    Term,
    accesses,
    terms_of,
)

LETTERS = {
    "N": "aefn",
    "L": "aefn",
    "C": "cbo",
    "H": "ik",
    "W": "jl",
    "T": "ts",
    "D": "dr",
    "heads": "hg",
}
"""Letters of the indices of a size, by its name or role."""
POOL = "mnopqrsuvwz"
SIZES = "NMLKPQRSUVXYZ"


@dataclass
class Naming:
    """The names of sizes, tensors and indices of one text.

    Attributes:
        sizes: the letter of a size, where it has one; others are numbers.
        batch: the size of the batch axis, which the text leaves out.
    """

    sizes: dict[Size, str]
    batch: Size | None
    tensors: dict[Tensor, str] = field(default_factory=dict)
    roles: dict[Size, str] = field(default_factory=dict)
    letters: dict[Size, str] = field(default_factory=dict)

    def name(self, size: Size) -> str:
        root = size.root
        return self.sizes.get(root) or str(root.example)

    def whole(self, size: Size) -> bool:
        """Return whether an index over this size is written as one letter."""
        root = size.root
        return not root.parts or root in self.sizes

    def value(self, size: Size) -> int | None:
        """Return the number that a size is written as, or None if it has a letter."""
        root = size.root
        return None if root in self.sizes else root.example


def tensor_names(tensors: Sequence[Tensor], taken: Iterable[str] = ()) -> dict[Tensor, str]:
    """Return a name for each tensor, near to its hint."""
    used = {*TABLE, "I", "where", *taken}
    found: dict[Tensor, str] = {}
    for tensor in tensors:
        name = re.sub(r"[^A-Za-z0-9_]", "_", tensor.hint).strip("_") or "t"
        if not name[0].isalpha():
            name = f"p{name}" if name[0] == "_" else f"p_{name}"
        if not tensor.sizes and name[0].isupper():
            name = name[0].lower() + name[1:]
        if tensor.kind == "definition":
            name = name[:1].lower() + name[1:]
        name = next(n for k in count(1) if (n := name if k == 1 else f"{name}{k}") not in used)
        used.add(name)
        found[tensor] = name
    return found


class Writer:
    """Writes the statements of a text."""

    def __init__(self, naming: Naming):
        self.naming = naming
        self.used: dict[Size, None] = {}
        """Sizes of the letters in use, in their order."""
        self.declared: dict[str, Size] = {}
        self.ranges: dict[str, str] = {}
        """What the letters of indices with a range run over."""
        self.ranged: dict[str, str] = {}
        """The letters of indices with a range."""

    def ranged_family(self, run: str) -> str:
        if run not in self.ranged:
            taken = {*"".join((*self.ranged.values(), *self.naming.letters.values())), *self._short_names()}
            free = [c for c in "uvwstpqz" if c not in taken] or [c for c in POOL if c not in taken] or ["o"]
            self.ranged[run] = "".join(free[:3])
        return self.ranged[run]

    def _short_names(self) -> set[str]:
        return {n for n in self.naming.tensors.values() if len(n) == 1}

    def family(self, size: Size) -> str:
        """Return the letters for indices of a size."""
        naming, root = self.naming, size.root
        if root not in naming.letters:
            taken = {*"".join((*naming.letters.values(), *self.ranged.values())), *self._short_names()}
            wanted = LETTERS.get(naming.roles.get(root, ""), "")
            free = [c for c in wanted if c not in taken] or [c for c in POOL if c not in taken][:1]
            free = free or [c for c in "abcdefghijklmnopqrstuvwxyz" if c not in taken][:1] or ["i"]
            naming.letters[root] = "".join(free)
        return naming.letters[root]

    def expanded(self, index: Index, known: dict[Index, tuple[Index, ...]]) -> tuple[Index, ...]:
        """Return the indices that an index is written as: one for each part of a size without a name."""
        if self.naming.whole(index.size):
            return (index,)
        if index not in known:
            known[index] = tuple(j for part in index.size.root.parts for j in self.expanded(Index(part), known))
        return known[index]

    def statement(self, tensor: Tensor, axes: Sequence[Sequence[Index]] | None = None) -> str:
        """Return a definition as text."""
        scope = _Scope(self)
        slots = axes if axes is not None else [(i,) for i in tensor.indices]
        target = scope.access(self.naming.tensors[tensor], [tuple(s) for s in slots])
        return f"{target} = {scope.body(tensor.body)}"


class _Scope:
    """The letters of one definition."""

    def __init__(self, writer: Writer):
        self.writer, self.naming = writer, writer.naming
        self.names: dict[Index, str] = {}
        self.known: dict[Index, tuple[Index, ...]] = {}
        self.counts: dict[Size | str, int] = {}

    def letter(self, index: Index) -> str:
        if index not in self.names:
            root = index.size.root
            run = "" if index.least is None else f"{index.least}..{index.least + root.example - 1}"
            family = self.writer.ranged_family(run) if run else self.writer.family(root)
            place = self.counts.get(run or root, 0)
            self.counts[run or root] = place + 1
            name = family[place] if place < len(family) else f"{family[0]}{place - len(family) + 1}"
            self.names[index] = name
            if run:
                self.writer.ranges[name] = run
            else:
                self.writer.declared[name] = root
        return self.names[index]

    def slot(self, slot: Sequence[Element]) -> str:
        found: list[str] = []
        for element in slot:
            if isinstance(element, Affine):
                found.append(self.combination(element))
                continue
            if not isinstance(element, Index):
                raise UnsayableError("an entry of an input")
            if self.naming.batch is not None and element.size.root is self.naming.batch:
                continue
            found += [self.letter(i) for i in self.writer.expanded(element, self.known)]
        return found[0] if len(found) == 1 else f"({' '.join(found)})" if found else ""

    def combination(self, element: Affine) -> str:
        """Return an integer combination, such as `2*i+u-1`."""
        text = ""
        for index, factor in element.terms:
            text += ("+" if text and factor > 0 else "") + (f"{factor}*" if factor != 1 else "") + self.letter(index)
        return text + (f"{element.constant:+}" if element.constant else "")

    def condition(self, access: Access) -> str:
        first, second = (self.slot(slot) for slot in access.slots)
        number = access.tensor.number
        return f"{second} {access.tensor.relation} {first}" + (f"{number:+}" if number else "")

    def access(self, name: str, slots: Sequence[Sequence[Element]]) -> str:
        texts = [text for slot in slots if slot and (text := self.slot(slot))]
        return f"{name}[{','.join(texts)}]" if texts else name

    def body(self, body: Body) -> str:
        if not isinstance(body, Call):
            return self.sum(body)
        over = [self.letter(i) for o in body.over for i in self.writer.expanded(o, self.known)]
        along = f"[{','.join(over)}]" if over else ""
        argument = self.sum(body.argument)
        where = f" where {', '.join(map(self.condition, body.where))}" if body.where else ""
        return f"{body.function}{along}({argument}{where})"

    def sum(self, terms: Sum) -> str:
        text = ""
        for term in terms:
            negative, product = self.term(term)
            text += (" - " if negative else " + ") + product
        if not text:
            return "0"
        return text[3:] if text.startswith(" + ") else "-" + text[3:]

    def term(self, term: Term) -> tuple[bool, str]:
        negative, before, after = coefficient_parts(term.coefficient, self.naming)
        above = [self.factor(f) for f in term.factors if not f.divides]
        below = [self.factor(f) for f in term.factors if f.divides]
        text = "*".join([*before, *above]) if before or above else "1"
        if after:
            # Numbers first: 1/sqrt(D)*q*k.
            head = "*".join(before) or "1"
            text = head + "".join(f"/{a}" for a in after) + "".join(f"*{a}" for a in above)
        return negative, text + "".join(f"/{b}" for b in below)

    def factor(self, access: Access) -> str:
        if access.tensor.kind == "condition":
            return f"[{self.condition(access)}]"
        return self.access(self.naming.tensors[access.tensor], access.slots)


def coefficient_parts(coefficient: Coefficient, naming: Naming) -> tuple[bool, list[str], list[str]]:
    """Return the sign of a coefficient, and its factors above and below the line, as text."""
    value, roots = coefficient.number, Fraction(1)
    above: list[str] = []
    below: list[str] = []
    for base, power in coefficient.powers:
        parts = [base] if isinstance(base, int) else _parts(base, naming)
        for part in parts:
            number = part if isinstance(part, int) else naming.value(part)
            whole, half = divmod(power, 1)
            if number is not None:
                value *= Fraction(number) ** int(whole)
                roots *= number if half else 1
                continue
            assert isinstance(part, Size)
            # Half powers below zero read better as a division: 1/sqrt(D).
            if half and whole < 0:
                whole, below = whole + 1, [*below, f"sqrt({naming.name(part)})"]
            elif half:
                above.append(f"sqrt({naming.name(part)})")
            (above if whole > 0 else below).extend([naming.name(part)] * abs(int(whole)))
    if roots != 1:
        outside, inside = _square(int(roots))
        value *= outside
        if inside != 1 and (value * inside).denominator < value.denominator:
            value, below = value * inside, [f"sqrt({inside})", *below]
        elif inside != 1:
            above.insert(0, f"sqrt({inside})")
    negative, value = value < 0, abs(value)
    if value != 1:
        text = number_text(value)
        head, _, tail = text.partition("/")
        above, below = ([head] if head != "1" else []) + above, ([tail] if tail else []) + below
    return negative, above, below


def _parts(size: Size, naming: Naming) -> list[Size | int]:
    return [size.root] if naming.whole(size) else [p for a in size.root.parts for p in _parts(a, naming)]


def _square(number: int) -> tuple[int, int]:
    """Return a root as a whole number times the root of one whose own root is not whole: only whole roots leave."""
    root = isqrt(number)
    return (root, 1) if root * root == number else (1, number)


def number_text(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest == 1 and value.denominator > 64:
        return _short(value)
    return f"{value.numerator}/{value.denominator}"


def _short(value: Fraction) -> str:
    text = decimal_text(value)
    shown = f"{float(value):.17g}"
    # 1e-05 is shorter than 0.00001, and as exact.
    for candidate in (f"{float(value):g}", shown):
        candidate = re.sub(r"e([+-])0*(\d)", r"e\1\2", candidate)
        if "e" in candidate and len(candidate) < len(text) and Fraction(candidate) == value:
            return candidate
    return text


def used_tensors(order: Iterable[Tensor]) -> dict[Tensor, None]:
    return dict.fromkeys(f.tensor for t in order for f in accesses(t.body))


def sizes_in(order: Iterable[Tensor]) -> dict[Size, None]:
    """Return the sizes of all indices and coefficients."""
    found: dict[Size, None] = {}
    for tensor in order:
        for size in tensor.sizes:
            found[size.root] = None
        for term in terms_of(tensor.body):
            for index in term.indices:
                found[index.size.root] = None
            for base, _ in term.coefficient.powers:
                if isinstance(base, Size):
                    found[base.root] = None
    return found


def letters_of(names: Mapping[Size, str]) -> set[str]:
    return set(names.values())


__all__ = ["Naming", "Writer", "atoms", "tensor_names"]
