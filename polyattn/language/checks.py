"""Checks of names and of the bracket rule, before any size is known. Each mistake has its own message."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import product

from polyattn.errors import SpecError
from polyattn.language.conditions import comparison, is_condition
from polyattn.language.functions import ENTRYWISE, KEEPING, REDUCING, RESERVED, SUMS, kind
from polyattn.language.lift import Core, constant_root, lifted
from polyattn.language.names import is_name, no_case, no_name
from polyattn.language.offsets import with_places
from polyattn.language.sizes import SizeTable, derived
from polyattn.language.slips import check_slips
from polyattn.language.syntax import (
    IDENTITY,
    NOWHERE,
    Access,
    At,
    Bracket,
    Call,
    Definition,
    Number,
    SizeRef,
    Slot,
    Split,
    Statements,
    Sum,
    Term,
    accesses,
    is_size_name,
    walk,
)

# Each atom becomes an axis of an array in the reference evaluation, and numpy limits the axes.
MAX_ATOMS = 16
# Later stages recurse over nested functions; the limit keeps them far from Python's own.
MAX_NESTED = 160


def check_names(statements: Statements, source: str) -> Core:
    """Raise a `SpecError` for the first misused name, index or bracket; return the core."""
    return _Checker(statements, source).run()


class _Checker:
    def __init__(self, statements: Statements, source: str):
        self.statements, self.source = statements, source
        self.inside: dict[int, set[str]] = {}
        """The indices in each bracket, by the bracket's id."""

    def error(self, reason: str, at: At = NOWHERE) -> SpecError:
        return SpecError(reason, self.source, at.line, at.column)

    def run(self) -> Core:
        self.check_spelling()
        if not self.statements.inputs:
            raise self.error("there is no input: declare one, such as 'x[N,C]'")
        if not self.statements.definitions:
            raise self.error("there is no definition: the last one is the output, as in 'y[a,b] = x[a,d]*w[d,b]'")
        self.check_splits()
        self.check_declared_once()
        self.ranks = {i.name: len(i.sizes) for i in self.statements.inputs}
        self.first_use: dict[str, Access] = {}
        # Definitions still to come: a use of one of them is a wrong order, not a parameter.
        defined_later = Counter(d.name for d in self.statements.definitions)
        self.unused: dict[str, At] = {}
        self.nested: dict[str, int] = {}
        """How deeply functions are nested in each definition so far."""
        for definition in self.statements.definitions:
            self.defined_later = defined_later
            self.check_definition(definition)
            del defined_later[definition.name]
            self.ranks[definition.name] = len(definition.target.slots)
            self.unused[definition.name] = definition.target.at
        if self.source:
            check_slips(self.statements, self.first_use, self.source)
        # The output is used by the caller.
        del self.unused[self.statements.definitions[-1].name]
        for name, at in self.unused.items():
            raise self.error(f"'{name}' is defined but the output does not use it: use it or delete its definition", at)
        core = lifted(with_places(self.statements), self.source)
        for definition in core.definitions:
            body = definition.body
            free = set(definition.target.indices) | (set(body.over) if isinstance(body, Call) else set())
            for term in (body.argument if isinstance(body, Call) else body).terms:
                self.check_brackets(term, free, set())
        return core

    def check_spelling(self) -> None:
        """Check names against the grammar, for trees built without a text."""
        for name, what, size, at in _spelt(self.statements):
            if size and isinstance(name, str) and name.isascii() and name.isdigit() and 0 < int(name) < 10**9:
                continue
            if not is_name(name):
                raise self.error(no_name(name, what).reason, at)
            if size is not None and size != is_size_name(name):
                raise self.error(no_case(name, what, size).reason, at)

    def check_splits(self) -> None:
        self.declared_sizes = SizeTable.of(self.statements).names
        splits: dict[str, Split] = {}
        for split in self.statements.splits:
            if split.size in splits:
                raise self.error(f"size '{split.size}' is split twice", split.at)
            splits[split.size] = split
        counts: dict[str, int] = {}
        for split in self.statements.splits:
            self.count_atoms(split.size, splits, counts, ())
        indices: dict[str, str] = {}
        # In the order of the text, so that the second declaration is blamed, not the sorted tree's.
        for declared in sorted(self.statements.index_sizes, key=lambda d: (d.at.line, d.at.column)):
            if indices.setdefault(declared.index, declared.run) != declared.run:
                raise self.error(
                    f"index '{declared.index}' has two sizes: {indices[declared.index]} and {declared.run}",
                    declared.at,
                )

    def count_atoms(self, size: str, splits: dict[str, Split], counts: dict[str, int], above: tuple[str, ...]) -> int:
        """Return the number of atomic sizes in a size; refuse cycles and products of too many."""
        if size not in splits:
            return 1
        split = splits[size]
        if size in above:
            raise self.error(f"size '{size}' is a part of itself", split.at)
        # Counted once per size: without the cache, shared parts would be counted exponentially often.
        if size not in counts:
            # The depth is limited as well: a chain of one-part splits has one atom only.
            if len(above) == MAX_ATOMS:
                raise self.error(f"size '{above[0]}' is split more than {MAX_ATOMS} deep", splits[above[0]].at)
            counts[size] = sum(self.count_atoms(p, splits, counts, (*above, size)) for p in split.parts)
            if counts[size] > MAX_ATOMS:
                raise self.error(f"size '{size}' is a product of more than {MAX_ATOMS} atomic sizes", split.at)
        return counts[size]

    def check_declared_once(self) -> None:
        inputs: set[str] = set()
        for declared in self.statements.inputs:
            self.check_free(declared.name, declared.at)
            if declared.name in inputs:
                raise self.error(f"'{declared.name}' is declared as an input twice", declared.at)
            inputs.add(declared.name)
        defined: set[str] = set()
        for definition in self.statements.definitions:
            self.check_free(definition.name, definition.target.at)
            if definition.name in inputs:
                raise self.error(
                    f"'{definition.name}' is an input; a definition needs another name", definition.target.at
                )
            if definition.name in defined:
                raise self.error(f"'{definition.name}' is defined twice", definition.target.at)
            defined.add(definition.name)

    def check_free(self, name: str, at: At) -> None:
        if name == IDENTITY:
            raise self.error(f"'{IDENTITY}' is the identity, {IDENTITY}[i,j]; choose another name", at)
        if name in RESERVED or any(name == f.name for f in self.statements.functions):
            raise self.error(f"'{name}' is a function; choose another name", at)

    def check_definition(self, definition: Definition) -> None:
        target, body = definition.target, definition.body
        # A repeated index on the left would be a diagonal, whose other entries the equation does not
        # define.
        on_left: set[str] = set()
        for slot in target.slots:
            if slot.form is not None or slot.numbers:
                raise self.error(
                    f"'{slot}' is on the left of '{target.tensor}': the left has plain indices and composites of them, "
                    "and a definition is read at a combination",
                    slot.at,
                )
            for index in slot.indices:
                if index in on_left:
                    raise self.error(
                        f"index '{index}' is repeated on the left of '{target.tensor}': each slot needs its own",
                        slot.at,
                    )
                on_left.add(index)
        total = body.argument if isinstance(body, Call) else body
        on_right: set[str] = set()
        for access in (*accesses(total), *(body.where if isinstance(body, Call) else ())):
            self.check_access(access, definition.name)
            on_right.update(access.indices)
        indices = on_right | on_left
        for factor in walk(total):
            if isinstance(factor, Access) and not factor.slots and factor.tensor in indices:
                raise self.error(
                    f"'{factor.tensor}' is an index here; a bare name is a scalar parameter, so rename one of them",
                    factor.at,
                )
            if isinstance(factor, SizeRef):
                self.check_size(factor)
        self.check_zero(body)
        for call in (part for part in walk(body) if isinstance(part, Call)):
            self.check_call(call, target, call is body)
        self.nested[definition.name] = self.depth(body, body.at if isinstance(body, Call) else target.at)
        # A declared index may stand on the left alone: the result is broadcast along it.
        declared = {d.index for d in self.statements.index_sizes}
        for k, slot in enumerate(target.slots):
            for index in slot.indices:
                if index not in on_right and index not in declared:
                    raise self.error(
                        f"index '{index}' is on the left of '{target.tensor}', but nothing on the right has it; "
                        f"if all its values are to be the same, declare it ('where {index} : "
                        f"{self.likely_size(definition, k, slot)}')",
                        slot.at,
                    )

    def check_zero(self, part: object) -> None:
        """Refuse a bracket of the number 0 behind a division."""
        if isinstance(part, Call | Bracket):
            self.check_zero(part.argument if isinstance(part, Call) else part.body)
        elif isinstance(part, Sum):
            for term in part.terms:
                for factor, divide in zip(term.factors, term.divides, strict=True):
                    self.check_zero(factor)
                    if divide and isinstance(factor, Bracket) and _is_zero(factor.body):
                        raise self.error("division by zero", factor.at)

    def depth(self, part: object, at: At, divides: bool = False) -> int:
        """Return how deeply functions are nested in a part of a definition, those of its tensors included."""
        if isinstance(part, Access):
            return self.nested.get(part.tensor, 0) + divides
        if isinstance(part, Call):
            found = self.depth(part.argument, part.at) + (part.function not in SUMS) + divides
            if found > MAX_NESTED:
                raise self.error(f"functions are nested more than {MAX_NESTED} deep", part.at)
            return found
        if isinstance(part, Bracket):
            return self.depth(part.body, at) + divides
        if not isinstance(part, Sum):
            return 0
        pairs = (p for t in part.terms for p in zip(t.factors, t.divides, strict=True))
        return max((self.depth(f, at, d) for f, d in pairs), default=0)

    def likely_size(self, definition: Definition, k: int, slot: Slot) -> str:
        """Return a likely size for an index of slot k found only on the left: for an output, the input's size."""
        rank, is_output = len(definition.target.slots), definition is self.statements.definitions[-1]
        like = next((i for i in self.statements.inputs if len(i.sizes) == rank), None)
        if is_output and like is not None and len(slot.indices) == 1:
            return like.sizes[k]
        return slot.indices[0].upper()

    def check_size(self, ref: SizeRef) -> None:
        # The root of a number is a number.
        if ref.size not in self.declared_sizes and not (ref.root and ref.size[0].isdigit()):
            known = ", ".join(self.declared_sizes) or "none"
            raise self.error(f"unknown size '{ref.size}'; the sizes here are {known}", ref.at)

    def check_access(self, access: Access, defining: str) -> None:
        name, rank = access.tensor, len(access.slots)
        if is_condition(name):
            return
        if name == IDENTITY and rank != 2:
            raise self.error(f"the identity has two slots, {IDENTITY}[i,j], not {rank}", access.at)
        if name == defining:
            raise self.error(f"'{name}' is used in its own definition", access.at)
        if name in self.defined_later:
            raise self.error(
                f"'{name}' is used before its definition: definitions stand in the order in which they are computed",
                access.at,
            )
        self.unused.pop(name, None)
        if name in self.ranks:
            if self.ranks[name] != rank:
                raise self.error(
                    f"'{name}' has {_slots(self.ranks[name])}, but is used with {_slots(rank)} here",
                    access.at,
                )
        elif name != IDENTITY:
            first = self.first_use.setdefault(name, access)
            if len(first.slots) != rank:
                raise self.error(
                    f"tensor '{name}' is used with two shapes: as '{first}' with {_slots(len(first.slots))}, "
                    f"and with {_slots(rank)} here",
                    access.at,
                )

    def check_call(self, call: Call, target: Access, whole: bool) -> None:
        name, own = call.function, kind(call.function)
        if own == ENTRYWISE and call.over:
            raise self.error(f"'{name}' works on each entry by itself and takes no index in square brackets", call.at)
        if own != ENTRYWISE and not call.over:
            raise self.error(f"'{name}' needs the index that it runs over, as in '{name}[e](...)'", call.at)
        on_right = {i for access in (*accesses(call.argument), *call.where) for i in access.indices}
        self.check_places(call)
        for index, count in Counter(call.over).items():
            if count > 1:
                raise self.error(f"index '{index}' is repeated in '{name}[{','.join(call.over)}]'", call.at)
            if index not in on_right:
                raise self.error(f"'{name}' runs over index '{index}', which its argument does not have", call.at)
            if own == KEEPING and whole and index not in target.indices:
                raise self.error(f"'{name}' keeps index '{index}': it has to stand on the left as well", call.at)
            if own == REDUCING and index in target.indices:
                raise self.error(f"'{name}' reduces index '{index}' away: it cannot stand on the left", call.at)
        if name == "sqrt" and (root := constant_root(call)) is not None and any(r.size == "0" for r in root):
            raise self.error("the root of a number needs a number above 0", call.at)

    def check_places(self, call: Call) -> None:
        """Refuse a maximum over places of which all may be left out."""
        if not call.where or call.function not in ("max", "min", "logsumexp"):
            return
        others = {i for c in call.where for i in c.indices if i not in call.over}
        # One place is enough: where every index that runs is at the same position as an index that stays.
        for chosen in product(sorted(others), repeat=len(call.over)):
            at = dict(zip(call.over, chosen, strict=True))
            if all(_holds_at(c, at) for c in call.where):
                return
        raise self.error(
            f"'{call.function}' needs at least one place at every size, and these conditions may leave out all of "
            "them: write one that holds where two positions are equal, such as 'e <= a'",
            call.where[0].at,
        )

    def check_brackets(self, term: Term, free: set[str], outside: set[str]) -> None:
        """Check the bracket rule: a summed index both inside a bracketed term and outside of the bracket has to be in
        every term of the bracket.
        """
        own = [self.indices_of(f) for f in term.factors]
        counts = Counter(i for indices in own for i in indices)
        for factor, inside in zip(term.factors, own, strict=True):
            if not isinstance(factor, Bracket):
                continue
            # Indices of this bracket that also occur around it, or in another factor of the product.
            around = {i for i in inside if i in outside or counts[i] > 1}
            for inner in factor.body.terms:
                has = {i for f in inner.factors for i in self.indices_of(f)}
                for index in sorted(around - free - has):
                    raise self.error(
                        f"index '{index}' is summed and occurs inside and outside of this bracket, but not in this "
                        f"term of it, so it is not clear how often the term counts: multiply the bracket out",
                        inner.at,
                    )
                self.check_brackets(inner, free, around)

    def indices_of(self, factor: object) -> Collection[str]:
        if isinstance(factor, Access):
            return set(factor.indices)
        if not isinstance(factor, Bracket):
            return ()
        # Cached by identity: nested brackets would otherwise be walked once per level.
        if id(factor) not in self.inside:
            terms = factor.body.terms
            self.inside[id(factor)] = {i for term in terms for f in term.factors for i in self.indices_of(f)}
        return self.inside[id(factor)]


def _spelt(statements: Statements) -> Iterator[tuple[str, str, bool | None, At]]:
    """Yield each name, its owner, whether it has to be a size's (None: either), and its place."""
    for declared in statements.inputs:
        # A name with slots may start with a capital; without slots a capital would make it a size.
        yield declared.name, "an input", None if declared.sizes else False, declared.at
        yield from ((s, "a size", True, declared.at) for size in declared.sizes for s in _sizes_of(size))
    for split in statements.splits:
        yield from ((size, "a size", True, split.at) for size in (split.size, *split.parts))
    for declared in statements.index_sizes:
        yield declared.index, "an index", False, declared.at
        yield from ((size, "a size", True, declared.at) for size in _sizes_of(declared.size))
    yield from ((f.name, "a function", False, f.at) for f in statements.functions)
    yield from ((p.name, "a tensor", None, p.at) for p in statements.parameters)
    for definition in statements.definitions:
        body = definition.body
        for call in (part for part in walk(body) if isinstance(part, Call)):
            yield call.function, "a function", False, call.at
            yield from ((index, "an index", False, call.at) for index in call.over)
        for access in (definition.target, *accesses(body)):
            if not is_condition(access.tensor):
                yield access.tensor, "a tensor", None if access.slots else False, access.at
            yield from ((index, "an index", False, slot.at) for slot in access.slots for index in slot.indices)


def _sizes_of(size: str) -> tuple[str, ...]:
    """Return a size, or the names of sizes in a combination of them."""
    form = derived(size) if isinstance(size, str) and re.search(r"[+*-]", size) else None
    return (size,) if form is None or str(form) != size else form.sizes


def _holds_at(condition: Access, at: dict[str, str]) -> bool:
    """Return whether a condition holds at every size where some indices are at the positions of others."""
    compared, totals = comparison(condition.tensor), Counter[tuple[str, ...]]()
    for factor, slot in zip(compared.slots, condition.slots, strict=True):
        totals[tuple(at.get(i, i) for i in slot.indices)] += factor
    # Sizes are at least 1: the largest value of the combination counts.
    largest = compared.number + sum(n for _, n in compared.sizes)
    plain = not any(totals.values()) and all(n <= 0 for _, n in compared.sizes)
    return plain and compared.relation == "<=" and largest <= 0


def _is_zero(total: Sum) -> bool:
    return all(any(isinstance(f, Number) and not f.value for f in term.factors) for term in total.terms)


def _slots(count: int) -> str:
    return {0: "no slots", 1: "1 slot"}.get(count, f"{count} slots")
