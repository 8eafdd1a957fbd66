"""Offsets in slots: combinations such as `x[2*i+u, c]` as plain slots with conditions on their positions.

For the later stages `x[i+u,c]*w[u,c]` is `x[p,c]*[p-i-u+1 == 0]*w[u,c]`, with a new index p over the slot, where u
counts from 0 and starts at -1: no p reaches a place outside of x, which adds nothing. A function along u leaves such
a place out: it runs over the places with `i+u-1 >= 0` and `i+u-1 < H`. A parameter's slot starts at the least value
of its combination.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import chain, count

from polyattn.language.affine import Affine
from polyattn.language.conditions import Comparison, combination_text, comparison, is_condition
from polyattn.language.functions import TABLE
from polyattn.language.sizes import Atoms, Places, SizeTable
from polyattn.language.syntax import (
    Access,
    Bracket,
    Call,
    Definition,
    Factor,
    IndexSize,
    Number,
    Slot,
    Statements,
    Sum,
    Term,
    accesses,
)

NEEDS_A_PLACE = ("max", "min", "logsumexp")


def with_places(statements: Statements) -> Statements:
    """Return the statements with the functions along offsets restricted to the places within their tensors.

    A restriction is a condition `[{0}+{1}@x.0]`, the combination within slot 0 of x; sizes are not known yet.
    """
    given = {i.name for i in statements.inputs} | {d.name for d in statements.definitions}
    if not any(slot.form for d in statements.definitions for part in accesses(d.body) for slot in part.slots):
        return statements
    made = (replace(d, body=_placed(d.body, given)) for d in statements.definitions)
    return replace(statements, definitions=tuple(made))


def _placed(part: Sum | Call, given: Collection[str]) -> Sum | Call:
    if isinstance(part, Call):
        return _placed_call(part, given)
    return Sum(tuple(replace(t, factors=tuple(_placed_factor(f, given) for f in t.factors)) for t in part.terms))


def _placed_factor(factor: Factor, given: Collection[str]) -> Factor:
    if isinstance(factor, Bracket):
        body = _placed(factor.body, given)
        assert isinstance(body, Sum)
        return replace(factor, body=body)
    return _placed_call(factor, given) if isinstance(factor, Call) else factor


def _placed_call(call: Call, given: Collection[str]) -> Call:
    argument = _placed(call.argument, given)
    assert isinstance(argument, Sum)
    return replace(call, argument=argument, where=(*call.where, *restrictions(call, given)))


def restrictions(call: Call, given: Collection[str]) -> tuple[Access, ...]:
    """Return the combinations along the indices of a call that have to be within their tensors."""
    found: dict[Access, None] = {}
    if TABLE.get(call.function) is None or not call.over:
        return ()
    for part in accesses(call.argument):
        if part.tensor not in given:
            continue
        for k, slot in enumerate(part.slots):
            if slot.form is not None and set(slot.indices) & set(call.over):
                parts = [(f"{{{n}}}", slot.form.coefficient(i)) for n, i in enumerate(slot.form.indices)]
                name = f"[{combination_text(parts, slot.form.constant)}@{part.tensor}.{k}]"
                indices = tuple(Slot((i,), slot.at) for i in slot.form.indices)
                found.setdefault(Access(name, indices, slot.at))
    return tuple(found)


def spelt_out(
    statements: Statements, core: Sequence[Definition], index_sizes: Sequence[Mapping[str, Atoms]], table: SizeTable
) -> Statements:
    """Return the statements of a core, where every index counts from 0 and has its size declared.

    A letter that has different sizes in different definitions is given another name in the later ones.
    """
    declared: dict[str, str] = {}
    definitions = []
    for definition, letters in zip(core, index_sizes, strict=True):
        names = {}
        for letter, atoms in letters.items():
            size = table.name(atoms)
            if len(atoms) > 1 and "*" in size:
                continue  # a product without a name follows from the tensors' shapes
            free = (n for n in chain([letter], (f"{letter}{k}_" for k in count(1))) if declared.get(n, size) == size)
            names[letter] = next(free)
            declared[names[letter]] = size
        definitions.append(_renamed(definition, names))
    wheres = sorted((IndexSize(i, s) for i, s in declared.items()), key=lambda d: (d.size, d.index))
    return replace(statements, index_sizes=tuple(wheres), definitions=tuple(definitions))


def _renamed(definition: Definition, names: Mapping[str, str]) -> Definition:
    def access(a: Access) -> Access:
        slots = (replace(s, indices=tuple(names.get(i, i) for i in s.indices)) for s in a.slots)
        return replace(a, slots=tuple(slots))

    def factor(f: Factor) -> Factor:
        return access(f) if isinstance(f, Access) else replace(f, body=total(f.body)) if isinstance(f, Bracket) else f

    def total(s: Sum) -> Sum:
        return Sum(tuple(replace(t, factors=tuple(map(factor, t.factors))) for t in s.terms))

    body = definition.body
    if isinstance(body, Call):
        over = tuple(names.get(i, i) for i in body.over)
        body = replace(body, over=over, argument=total(body.argument), where=tuple(map(access, body.where)))
    else:
        body = total(body)
    return Definition(access(definition.target), body)


@dataclass
class Windows:
    """Writes the combinations of resolved definitions as conditions.

    Attributes:
        shapes: the size of every slot of every tensor.
        least: the least value of each index with a range.
        starts: the least value of the combinations of a parameter's slot.
        taken: names in use.
    """

    shapes: Mapping[str, tuple[Atoms, ...]]
    least: Mapping[str, int]
    starts: Mapping[tuple[str, int], Affine]
    taken: set[str]
    found: dict[str, Atoms] = field(default_factory=dict)
    fresh: count = field(default_factory=lambda: count(1))

    def definition(self, definition: Definition, sizes: Mapping[str, Atoms]) -> tuple[Definition, dict[str, Atoms]]:
        """Return a definition with plain slots, and the size of each of its indices."""
        self.found = dict(sizes)
        body = definition.body
        new = replace(body, argument=self.sum(body.argument)) if isinstance(body, Call) else self.sum(body)
        return replace(definition, body=new), self.found

    def sum(self, total: Sum) -> Sum:
        return Sum(tuple(map(self.term, total.terms)))

    def term(self, term: Term) -> Term:
        factors: list[Factor] = []
        divides: list[bool] = []
        for factor, divide in zip(term.factors, term.divides, strict=True):
            if isinstance(factor, Bracket):
                new: tuple[Factor, ...] = (replace(factor, body=self.sum(factor.body)),)
            else:
                new = self.access(factor) if isinstance(factor, Access) else (factor,)
            factors += new
            divides += [divide] * len(new)
        if not factors:
            factors, divides = [Number(Fraction(1), term.at)], [False]
        return replace(term, factors=tuple(factors), divides=tuple(divides))

    def access(self, access: Access) -> tuple[Factor, ...]:
        if "@" in access.tensor:
            return self.inside(access)
        if is_condition(access.tensor):
            return (self.counted(access),)
        slots: list[Slot] = []
        more: list[Access] = []
        for k, slot in enumerate(access.slots):
            form, number = slot.form, dict(slot.numbers)
            if form is not None:
                index = self.index(self.shapes[access.tensor][k])
                shifted = self.positions(form) - self.starts.get((access.tensor, k), Affine(()))
                more.append(self.equal(index, shifted, slot))
                slots.append(Slot((index,), slot.at))
            elif number:
                names = list(slot.parts)
                for place, value in number.items():
                    names[place] = self.index(self.found_place(access.tensor, k, place))
                    more.append(self.equal(names[place], Affine((), value), slot))
                slots.append(Slot(tuple(names), slot.at))
            else:
                slots.append(slot)
        return (replace(access, slots=tuple(slots)), *more)

    def found_place(self, tensor: str, k: int, place: int) -> Atoms:
        return self.shapes[f"{tensor}.{k}.{place}"][0]

    def index(self, size: Atoms) -> str:
        name = next(n for k in self.fresh if (n := f"p{k}") not in self.taken)
        self.found[name] = size
        return name

    def positions(self, form: Affine) -> Affine:
        """Return a combination of indices' values as one of their positions, which count from 0."""
        return form + sum(c * self.least.get(i, 0) for i, c in form.terms)

    def equal(self, index: str, form: Affine, slot: Slot) -> Access:
        """Return the condition that an index is at a combination of others."""
        sizes = tuple(sorted((s, -form.coefficient(s)) for s in form.sizes))
        name = Comparison((1, *(-form.coefficient(i) for i in form.indices)), sizes, -form.constant, "==").name
        return Access(name, tuple(Slot((i,), slot.at) for i in (index, *form.indices)), slot.at)

    def inside(self, access: Access) -> tuple[Access, ...]:
        """Return the conditions that a combination is within a tensor's slot."""
        form, size = self.restricted(access)
        lower = Comparison(tuple(-form.coefficient(i) for i in form.indices), (), -form.constant, "<=")
        name = "*".join(size)
        known = name.isdigit()
        sizes = () if known else ((name, -1),)
        number = form.constant + 1 - (int(name) if known else 0)
        upper = Comparison(tuple(form.coefficient(i) for i in form.indices), sizes, number, "<=")
        slots = tuple(Slot((i,), access.at) for i in form.indices)
        return tuple(Access(c.name, slots, access.at) for c in (lower, upper) if not self.holds(c, form.indices))

    def restricted(self, access: Access) -> tuple[Affine, Atoms]:
        """Return the combination of positions that a restriction is about, and the size of its slot."""
        text, _, place = access.tensor[1:-1].partition("@")
        tensor, _, k = place.rpartition(".")
        compared = comparison(f"[{text}==0]")
        terms = [(slot.indices[0], c) for slot, c in zip(access.slots, compared.slots, strict=True)]
        return self.positions(Affine.of(terms, compared.number)), self.shapes[tensor][int(k)]

    def holds(self, condition: Comparison, indices: tuple[str, ...]) -> bool:
        """Return whether a condition holds everywhere, of indices whose sizes are numbers."""
        if condition.sizes:
            return False
        greatest = condition.number
        for index, factor in zip(indices, condition.slots, strict=True):
            size = self.found[index]
            if factor > 0 and not (len(size) == 1 and size[0].isdigit()):
                return False
            greatest += factor * (int(size[0]) - 1) if factor > 0 else 0
        return greatest <= 0

    def counted(self, condition: Access) -> Access:
        """Return a condition on values as one on positions."""
        compared = comparison(condition.tensor)
        starts = [sum(self.least.get(i, 0) for i in slot.indices) for slot in condition.slots]
        if not any(starts):
            return condition
        number = compared.number + sum(c * n for c, n in zip(compared.slots, starts, strict=True))
        return replace(condition, tensor=replace(compared, number=number).name)

    def needed(self, call: Call, given: Collection[str], sizes: Mapping[str, Atoms]) -> Places | None:
        """Return the condition under which a maximum has a place everywhere."""
        if call.function not in NEEDS_A_PLACE:
            return None
        forms = [self.restricted(access) for access in restrictions(call, given)]
        if not forms:
            return None
        names = dict.fromkeys(i for form, _ in forms for i in form.indices)
        lengths = tuple((i, sizes[i]) for i in names)
        over = tuple(i for i in call.over if i in names)
        return Places(str(call), call.function, over, tuple((f.terms, f.constant, s) for f, s in forms), lengths)
