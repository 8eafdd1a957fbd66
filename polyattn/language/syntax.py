"""The syntax tree of a specification: immutable values with a text form.

Positions (`at`) point into the source text for error messages; equality ignores them, so two texts that
differ only in spacing and comments give equal trees.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from polyattn.language.conditions import is_condition

if TYPE_CHECKING:
    from polyattn.language.affine import Affine

IDENTITY = "I"
"""The reserved tensor I[i,j]: 1 where i = j, else 0. Its two slots have one size, any size."""


def is_fixed(tensor: str) -> bool:
    """Return whether a name is reserved for zeros and ones that every size fixes: the identity, or a condition."""
    return tensor == IDENTITY or is_condition(tensor)


@dataclass(frozen=True)
class At:
    """A place in the source text; line and column count from 1, and 0 means unknown."""

    line: int = 0
    column: int = 0


NOWHERE = At()


@dataclass(frozen=True)
class Slot:
    """One slot of an access: a plain index, a composite `(outer inner)`, or an integer combination `2*i+u`.

    Attributes:
        indices: its indices, in the order of the text.
        form: the combination; None for an index or a composite.
        numbers: in a composite, the places of numbers among its parts, and the numbers: `(0 h d)` has (0, 0).
    """

    indices: tuple[str, ...]
    at: At = field(default=NOWHERE, compare=False, repr=False)
    form: Affine | None = None
    numbers: tuple[tuple[int, int], ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the parts of a composite, numbers as text; an index alone is its only part."""
        parts = list(self.indices)
        for place, number in self.numbers:
            parts.insert(place, str(number))
        return tuple(parts)

    def __str__(self) -> str:
        if self.form is not None:
            return str(self.form)
        return self.parts[0] if len(self.parts) == 1 else f"({' '.join(self.parts)})"


@dataclass(frozen=True)
class Access:
    """`tensor[slot, ...]`, or a bare name for a scalar parameter, or a condition (see `conditions`)."""

    tensor: str
    slots: tuple[Slot, ...]
    at: At = field(default=NOWHERE, compare=False, repr=False)

    @property
    def indices(self) -> tuple[str, ...]:
        return tuple(i for slot in self.slots for i in slot.indices)

    def __str__(self) -> str:
        if is_condition(self.tensor):
            return self.tensor.format(*self.slots)
        return f"{self.tensor}[{','.join(map(str, self.slots))}]" if self.slots else self.tensor


@dataclass(frozen=True)
class Number:
    value: Fraction
    at: At = field(default=NOWHERE, compare=False, repr=False)

    def __str__(self) -> str:
        return decimal_text(self.value)


@dataclass(frozen=True)
class SizeRef:
    """A size used as a number, as in `1/N`; with `root`, the square root of a size or of a number as text."""

    size: str
    at: At = field(default=NOWHERE, compare=False, repr=False)
    root: bool = False

    def __str__(self) -> str:
        return f"sqrt({self.size})" if self.root else self.size


@dataclass(frozen=True)
class Bracket:
    body: Sum
    at: At = field(default=NOWHERE, compare=False, repr=False)

    def __str__(self) -> str:
        return f"({self.body})"


@dataclass(frozen=True)
class Call:
    """`function[over, ...](argument)`: a factor of a product, or the whole right-hand side of a definition.

    `where` has the conditions on the places that it runs over, `softmax[e](s[a,e] where e <= a)`; all have to hold.
    """

    function: str
    over: tuple[str, ...]
    argument: Sum
    at: At = field(default=NOWHERE, compare=False, repr=False)
    where: tuple[Access, ...] = ()

    def __str__(self) -> str:
        over = f"[{','.join(self.over)}]" if self.over else ""
        where = f" where {', '.join(str(c)[1:-1] for c in self.where)}" if self.where else ""
        return f"{self.function}{over}({self.argument}{where})"


Factor = Access | Number | SizeRef | Bracket | Call


@dataclass(frozen=True)
class Term:
    """A signed product; `divides[i]` says whether factor i stands after a `/`."""

    negative: bool
    factors: tuple[Factor, ...]
    divides: tuple[bool, ...]
    at: At = field(default=NOWHERE, compare=False, repr=False)

    def __str__(self) -> str:
        text = str(self.factors[0])
        for factor, divide in zip(self.factors[1:], self.divides[1:], strict=True):
            text += f"{'/' if divide else '*'}{factor}"
        return text


@dataclass(frozen=True)
class Sum:
    terms: tuple[Term, ...]

    def __str__(self) -> str:
        first, *rest = self.terms
        return (
            ("-" if first.negative else "") + str(first) + "".join(f" {'-' if t.negative else '+'} {t}" for t in rest)
        )


@dataclass(frozen=True)
class Definition:
    target: Access
    body: Sum | Call

    @property
    def name(self) -> str:
        return self.target.tensor

    def __str__(self) -> str:
        return f"{self.target} = {self.body}"


@dataclass(frozen=True)
class Input:
    """`x[N, C]`: the sizes are names of sizes or numbers, as text. A scalar is `s[]`."""

    name: str
    sizes: tuple[str, ...]
    at: At = field(default=NOWHERE, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.name}[{','.join(self.sizes)}]"


@dataclass(frozen=True)
class Split:
    """`where C = G*M`: the outer part first."""

    size: str
    parts: tuple[str, ...]
    at: At = field(default=NOWHERE, compare=False, repr=False)

    def __str__(self) -> str:
        return f"where {self.size} = {'*'.join(self.parts)}"


@dataclass(frozen=True)
class IndexSize:
    """`where r, s : R`, one index at a time; or `where u : -1..1`, whose size is the number of its values.

    `least` is the least value of a range; None for an index that counts from 0.
    """

    index: str
    size: str
    at: At = field(default=NOWHERE, compare=False, repr=False)
    least: int | None = None

    @property
    def run(self) -> str:
        """Return the values of the index: a size, or a range."""
        return self.size if self.least is None else f"{self.least}..{self.least + int(self.size) - 1}"

    def __str__(self) -> str:
        return f"where {self.index} : {self.run}"


@dataclass(frozen=True)
class FunctionName:
    """`where phi : function`: a function of one number of the user's own, opaque to the algebra."""

    name: str
    at: At = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class ParameterName:
    """`where k : parameter`: an undeclared tensor that is meant to be a parameter, though it looks like a slip."""

    name: str
    at: At = field(default=NOWHERE, compare=False, repr=False)


FUNCTION, PARAMETER = "function", "parameter"
"""The words after the colon of a `where` that declares a function or a parameter."""


@dataclass(frozen=True)
class Statements:
    """A whole text, statements of each kind in their order. Splits, index sizes and names of functions and parameters
    are kept sorted, because their order means nothing.
    """

    inputs: tuple[Input, ...]
    splits: tuple[Split, ...]
    index_sizes: tuple[IndexSize, ...]
    definitions: tuple[Definition, ...]
    functions: tuple[FunctionName, ...] = ()
    parameters: tuple[ParameterName, ...] = ()

    def __str__(self) -> str:
        # Indices of one size are declared in one statement; the sizes keep their sorted order.
        by_size: dict[str, list[str]] = {}
        for declared in self.index_sizes:
            by_size.setdefault(declared.run, []).append(declared.index)
        wheres = [f"where {', '.join(indices)} : {size}" for size, indices in by_size.items()]
        if self.functions:
            wheres.append(f"where {', '.join(f.name for f in self.functions)} : {FUNCTION}")
        if self.parameters:
            wheres.append(f"where {', '.join(p.name for p in self.parameters)} : {PARAMETER}")
        return "\n".join([*map(str, self.inputs), *map(str, self.splits), *wheres, *map(str, self.definitions)])


def walk(part: Sum | Call | Factor) -> Iterator[Sum | Call | Factor]:
    """Yield a right-hand side, or a part of one, and everything inside it, in the order of the text."""
    left = [part]
    while left:
        part = left.pop()
        yield part
        if isinstance(part, Sum):
            left += [factor for term in reversed(part.terms) for factor in reversed(term.factors)]
        elif isinstance(part, Call):
            left += [*reversed(part.where), part.argument]
        elif isinstance(part, Bracket):
            left.append(part.body)


def accesses(part: Sum | Call | Factor) -> Iterator[Access]:
    """Yield the tensors read in a right-hand side, with their slots, in the order of the text."""
    return (p for p in walk(part) if isinstance(p, Access))


def decimal_text(value: Fraction) -> str:
    """Return the exact decimal of a fraction whose denominator divides a power of ten (all that the grammar writes)."""
    digits = 0
    # Ends because a power of ten is a multiple of every denominator that the grammar can write.
    while (value * 10**digits).denominator != 1:
        digits += 1
    whole = str((value * 10**digits).numerator).rjust(digits + 1, "0")
    return whole if not digits else f"{whole[:-digits]}.{whole[-digits:]}"


def is_size_name(name: str) -> bool:
    return name[0].isupper()
