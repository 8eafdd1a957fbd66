"""Values of the code as index expressions: a tensor, read through a view.

Each operation that computes makes a definition; operations that only move entries make another view of the same
tensor. Indices are local to a value or a definition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal

from polyattn.reading.sizes import PAIRED, Size, UnsayableError, Values, divided, split, times, unify


@dataclass(eq=False)
class Index:
    """A name for the entries along a size."""

    size: Size
    least: int | None = None
    """Of an index with a range, its least value; None for one that counts from 0."""

    def fresh(self) -> Index:
        return Index(self.size, self.least)


@dataclass(frozen=True)
class Pick:
    """One entry along a size: a number in the place of an index."""

    number: int
    size: Size


@dataclass(frozen=True)
class Ranged:
    """Entries from `start` on: the index counts from there, along a longer size."""

    index: Index
    start: int
    size: Size


@dataclass(frozen=True)
class Affine:
    """An integer combination of indices, and a number, as the place along a size; zeros are outside."""

    terms: tuple[tuple[Index, int], ...]
    constant: int
    size: Size


Element = Index | Pick | Ranged | Affine
Slot = tuple[Element, ...]
Mapped = Mapping[Index, Slot]


@dataclass(frozen=True)
class Coefficient:
    """A rational number times powers of sizes, and of whole numbers whose root it is."""

    number: Fraction = Fraction(1)
    powers: tuple[tuple[Size | int, Fraction], ...] = ()

    def __mul__(self, other: Coefficient) -> Coefficient:
        powers: dict[Size | int, Fraction] = {}
        for base, power in (*self.powers, *other.powers):
            base = base.root if isinstance(base, Size) else base
            powers[base] = powers.get(base, Fraction(0)) + power
        number = self.number * other.number
        for base in [b for b in powers if isinstance(b, int)]:
            whole = powers[base].numerator // powers[base].denominator
            number *= Fraction(base) ** whole
            powers[base] -= whole
        return Coefficient(number, tuple((b, p) for b, p in powers.items() if p))

    def inverse(self) -> Coefficient:
        return Coefficient(1 / self.number, tuple((b, -p) for b, p in self.powers)) * ONE

    @property
    def value(self) -> float:
        """Return the number that it is at the example's sizes."""
        found = float(self.number)
        for base, power in self.powers:
            found *= float(base.example if isinstance(base, Size) else base) ** float(power)
        return found


ONE = Coefficient()


def power_of(size: Size, power: int | Fraction = 1) -> Coefficient:
    return Coefficient(Fraction(1), ((size, Fraction(power)),))


@dataclass(frozen=True)
class Access:
    """A tensor with the contents of its slots; `divides` where it is a divisor."""

    tensor: Tensor
    slots: tuple[Slot, ...]
    divides: bool = False

    @property
    def indices(self) -> tuple[Index, ...]:
        return tuple(i for slot in self.slots for e in slot for i in indices_of(e))


@dataclass(frozen=True)
class Term:
    coefficient: Coefficient
    factors: tuple[Access, ...] = ()

    @property
    def indices(self) -> tuple[Index, ...]:
        return tuple(dict.fromkeys(i for f in self.factors for i in f.indices))


Sum = tuple[Term, ...]


@dataclass(frozen=True)
class Call:
    """A function of a sum; along the indices of `over`, where it is not entry by entry; at the places of `where`."""

    function: str
    over: tuple[Index, ...]
    argument: Sum
    where: tuple[Access, ...] = ()


Body = Sum | Call
Kind = Literal["input", "parameter", "definition", "onehot", "condition"]


@dataclass(eq=False)
class Tensor:
    """An input, a parameter, a definition, the entry `number` of an identity, or a condition.

    Attributes:
        kind: which of them.
        hint: the name that it should get.
        sizes: the size of each slot.
        indices, body: of a definition, its indices and its right-hand side.
        data: of a parameter, its tensor in the shape of its slots; of a cut input, None.
        origin: of a parameter, the qualified name in the module, "" for a constant.
        number: of a one-hot, its entry.
        relation: of a condition, "<=" or ">": it is 1 where the second place stands so to the first plus `number`.
        parts: of a parameter, its slices so far.
    """

    kind: Kind
    hint: str
    sizes: tuple[Size, ...]
    indices: tuple[Index, ...] = ()
    body: Body = ()
    data: Any = None
    origin: str = ""
    number: int = 0
    relation: str = ""
    place: str = ""
    parts: dict[object, Tensor] = field(default_factory=dict)
    node: str = ""
    dropped: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Value:
    """A tensor read through a view: `axes` are the value's, `slots` the tensor's, both made of the same indices.

    Where a condition of `where` does not hold, the value is minus infinity.
    """

    axes: tuple[tuple[Index, ...], ...]
    tensor: Tensor
    slots: tuple[Slot, ...]
    where: tuple[Access, ...] = ()

    @property
    def access(self) -> Access:
        return Access(self.tensor, self.slots)

    @property
    def indices(self) -> tuple[Index, ...]:
        return tuple(i for axis in self.axes for i in axis)

    def shape(self, count: int) -> tuple[Values, ...]:
        return tuple(times((1,) * count, *(i.size.values for i in axis)) for axis in self.axes)

    def mapped(self, mapping: Mapped) -> Value:
        axes = tuple(tuple(e for i in axis for e in mapping.get(i, (i,)) if isinstance(e, Index)) for axis in self.axes)
        where = tuple(map_access(c, mapping) for c in self.where)
        return Value(axes, self.tensor, tuple(map_slot(slot, mapping) for slot in self.slots), where)

    def fresh(self) -> Value:
        """Return the same value with indices of its own."""
        return self.mapped({i: (i.fresh(),) for i in self.indices})


def index_of(element: Element) -> Index | None:
    if isinstance(element, Index):
        return element
    return element.index if isinstance(element, Ranged) else None


def indices_of(element: Element) -> tuple[Index, ...]:
    if isinstance(element, Affine):
        return tuple(i for i, _ in element.terms)
    index = index_of(element)
    return () if index is None else (index,)


def map_slot(slot: Slot, mapping: Mapped) -> Slot:
    found: list[Element] = []
    for element in slot:
        if isinstance(element, Affine):
            found.append(_map_affine(element, mapping))
            continue
        index = index_of(element)
        if index is None or index not in mapping:
            found.append(element)
        elif isinstance(element, Ranged):
            new = mapping[index]
            if len(new) != 1 or not isinstance(new[0], Index):
                raise UnsayableError("a part of a slice")
            found.append(replace(element, index=new[0]))
        else:
            found.extend(mapping[index])
    return tuple(found)


def _map_affine(element: Affine, mapping: Mapped) -> Affine:
    terms: list[tuple[Index, int]] = []
    for index, factor in element.terms:
        new = mapping.get(index, (index,))
        if len(new) != 1 or not isinstance(new[0], Index):
            raise UnsayableError(PAIRED)
        terms.append((new[0], factor))
    return replace(element, terms=tuple(terms))


def map_access(access: Access, mapping: Mapped) -> Access:
    return replace(access, slots=tuple(map_slot(slot, mapping) for slot in access.slots))


def map_sum(terms: Sum, mapping: Mapped) -> Sum:
    return tuple(replace(t, factors=tuple(map_access(f, mapping) for f in t.factors)) for t in terms)


def free_copy(terms: Sum, keep: Iterable[Index]) -> Sum:
    """Return a sum whose summed indices are its own."""
    kept = set(keep)
    bound = {i for t in terms for i in t.indices if i not in kept}
    return map_sum(terms, {i: (i.fresh(),) for i in bound})


def split_index(index: Index, outer: Size) -> tuple[Index, Index]:
    """Return two indices for the outer and inner part of an index."""
    first, second = split(index.size, outer)
    unify(first, outer)
    return Index(first), Index(second)


def aligned(left: tuple[Index, ...], right: tuple[Index, ...]) -> dict[Index, Slot]:
    """Return a substitution that makes two axes one, in terms of the left one's indices and of parts of them.

    Raises:
        UnsayableError: they are without a common refinement.
    """
    mapping: dict[Index, list[Index]] = {i: [] for i in (*left, *right)}
    # Each entry remembers the index that it is a part of.
    mine, theirs = [(i, i) for i in left], [(i, i) for i in right]
    while mine and theirs:
        (a, from_a), (b, from_b) = mine.pop(0), theirs.pop(0)
        if a.size.values == b.size.values:
            unify(a.size, b.size)
            mapping[from_a].append(a)
            mapping[from_b].append(a)
        elif divided(a.size.values, b.size.values) is not None:
            outer, inner = split_index(a, b.size)
            mapping[from_a].append(outer)
            mapping[from_b].append(outer)
            mine.insert(0, (inner, from_a))
        else:
            outer, inner = split_index(b, a.size)
            mapping[from_a].append(a)
            mapping[from_b].append(a)
            theirs.insert(0, (inner, from_b))
    if mine or theirs:
        raise UnsayableError("two axes have different lengths")
    return {i: tuple(new) for i, new in mapping.items()}


def reshaped(value: Value, shape: tuple[Values, ...]) -> Value:
    """Return the same entries in another shape.

    Raises:
        UnsayableError: an axis of the new shape is not a product of parts of the old one's.
    """
    left = list(value.indices)
    mapping: dict[Index, Slot] = {}
    axes: list[tuple[Index, ...]] = []

    def put(old: Index, new: tuple[Index, Index]) -> None:
        for key in list(mapping):
            mapping[key] = tuple(p for e in mapping[key] for p in (new if e is old else (e,)))
        mapping[old] = new

    for wanted in shape:
        axis: list[Index] = []
        rest = wanted
        while set(rest) != {1}:
            if not left:
                raise UnsayableError("a reshape to another number of entries")
            index = left.pop(0)
            smaller = divided(rest, index.size.values)
            if smaller is not None:
                axis.append(index)
                rest = smaller
                continue
            if divided(index.size.values, rest) is None:
                raise UnsayableError("a reshape across the boundary of two axes")
            new = split_index(index, Size(rest))
            put(index, new)
            axis.append(new[0])
            left.insert(0, new[1])
            rest = (1,) * len(rest)
        axes.append(tuple(axis))
    if left:
        raise UnsayableError("a reshape to another number of entries")
    where = tuple(map_access(c, mapping) for c in value.where)
    return Value(tuple(axes), value.tensor, tuple(map_slot(slot, mapping) for slot in value.slots), where)


def walk(tensor: Tensor, seen: dict[Tensor, None] | None = None) -> dict[Tensor, None]:
    """Return a tensor and all that it is defined by, each after its own."""
    seen = {} if seen is None else seen
    if tensor in seen:
        return seen
    for access in accesses(tensor.body):
        if access.tensor not in seen:
            walk(access.tensor, seen)
    seen[tensor] = None
    return seen


def terms_of(body: Body) -> Sum:
    return body.argument if isinstance(body, Call) else body


def accesses(body: Body) -> Iterable[Access]:
    yield from (f for t in terms_of(body) for f in t.factors)
    if isinstance(body, Call):
        yield from body.where


def with_terms(body: Body, change: Callable[[Sum], Sum]) -> Body:
    return replace(body, argument=change(body.argument)) if isinstance(body, Call) else change(body)
