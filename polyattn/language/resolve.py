"""Meaning of a syntax tree: which names are what, and the size of every index and slot.

Guarantees of `resolve`: names are used consistently, every index has one size, every tensor one shape, the
bracket rule holds; otherwise a `SpecError` that points at the place. Sizes are inferred from the inputs, the
`where` statements, and last, for slots of the output that nothing else fixes, from the input of the same rank.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from polyattn.errors import SpecError
from polyattn.language.checks import check_names
from polyattn.language.sizes import Atoms, SizeTable
from polyattn.language.syntax import (
    IDENTITY,
    Access,
    At,
    Bracket,
    Call,
    Slot,
    Statements,
    Sum,
)

Variable = tuple[str, object, object]
"""("slot", tensor, number) or ("index", number of the definition, name)."""


@dataclass(frozen=True)
class Resolved:
    """What the names and indices of a specification are.

    Attributes:
        shapes: the size of every slot of every tensor (inputs, intermediates, parameters), as atoms.
        parameters: the parameters' names in the order of their first use.
        index_sizes: per definition, the size of each of its indices.
        sizes: the declared sizes.
    """

    shapes: Mapping[str, tuple[Atoms, ...]]
    parameters: tuple[str, ...]
    index_sizes: tuple[Mapping[str, Atoms], ...]
    sizes: SizeTable


def resolve(statements: Statements, source: str = "") -> Resolved:
    """Check and resolve a syntax tree; `source` is the text that its places point into."""
    check_names(statements, source)
    return _Resolver(statements, source).run()


def accesses_of(body: Sum | Call) -> Iterator[Access]:
    """All accesses of a right-hand side, in the order of the text."""
    total = body.argument if isinstance(body, Call) else body
    for term in total.terms:
        for factor in term.factors:
            if isinstance(factor, Access):
                yield factor
            elif isinstance(factor, Bracket):
                yield from accesses_of(factor.body)


@dataclass
class _Resolver:
    statements: Statements
    source: str
    values: dict[Variable, Atoms] = field(default_factory=dict)
    why: dict[Variable, str] = field(default_factory=dict)
    watchers: dict[Variable, list[tuple[int, Access, int]]] = field(default_factory=dict)

    def run(self) -> Resolved:
        self.sizes = SizeTable.of(self.statements)
        self.inputs = {i.name for i in self.statements.inputs}
        self.defined = {d.name for d in self.statements.definitions}
        for declared in self.statements.inputs:
            for k, size in enumerate(declared.sizes):
                self.values["slot", declared.name, k] = self.sizes.atoms(size)
        self._declare_indices()
        for number, definition in enumerate(self.statements.definitions):
            for access in (definition.target, *accesses_of(definition.body)):
                for k, slot in enumerate(access.slots):
                    for variable in self._variables(number, access, k, slot):
                        self.watchers.setdefault(variable, []).append((number, access, k))
        self._propagate(list(self.values))
        self._output_defaults()
        self._unknown()
        return self._result()

    def _error(self, reason: str, at: At) -> SpecError:
        return SpecError(reason, self.source, at.line, at.column)

    def _declare_indices(self) -> None:
        declared = {d.index: d.size for d in self.statements.index_sizes}
        for number, definition in enumerate(self.statements.definitions):
            for access in (definition.target, *accesses_of(definition.body)):
                for index in access.indices:
                    if index in declared:
                        self.values["index", number, index] = self.sizes.atoms(declared[index])
                        self.why["index", number, index] = f"'where {index} : {declared[index]}'"

    @staticmethod
    def _slot_variable(number: int, access: Access, k: int) -> Variable:
        """The identity's slots have one size per use, so each use is a tensor of its own."""
        if access.tensor == IDENTITY:
            return ("slot", (IDENTITY, number, access), 0)
        return ("slot", access.tensor, k)

    def _variables(self, number: int, access: Access, k: int, slot: Slot) -> list[Variable]:
        return [self._slot_variable(number, access, k), *(("index", number, i) for i in slot.indices)]

    def _propagate(self, changed: list[Variable]) -> None:
        queue = deque(changed)
        while queue:
            for number, access, k in self.watchers.get(queue.popleft(), ()):
                queue.extend(self._relate(number, access, k))

    def _relate(self, number: int, access: Access, k: int) -> list[Variable]:
        """Use one slot's equation: the slot's size is the product of its indices' sizes."""
        slot = access.slots[k]
        whole, *parts = self._variables(number, access, k, slot)
        sizes = [self.values.get(part) for part in parts]
        if all(s is not None for s in sizes):
            product = tuple(a for s in sizes if s is not None for a in s)
            if whole in self.values:
                if self.values[whole] != product:
                    raise self._contradiction(access, k, parts, self.values[whole], product)
                return []
            return [self._learn(whole, product, access, k)]
        if whole not in self.values:
            return []
        pieces = self._split(self.values[whole], sizes, access, k)
        if pieces is None:
            return []
        return [
            self._learn(part, piece, access, k)
            for part, size, piece in zip(parts, sizes, pieces, strict=True)
            if size is None
        ]

    def _split(self, whole: Atoms, sizes: list[Atoms | None], access: Access, k: int) -> list[Atoms] | None:
        """The sizes of a composite slot's indices, given the slot's size and those already known."""
        if len(sizes) == 1:
            return [whole]
        declared = self.sizes.parts(self.sizes.name(whole))
        if declared is not None and len(declared) == len(sizes):
            pieces = [self.sizes.atoms(part) for part in declared]
        elif len(whole) == len(sizes):
            pieces = [(atom,) for atom in whole]
        elif sizes.count(None) == 1:
            rest = sum(len(s) for s in sizes if s is not None)
            before = sum(len(s) for s in sizes[: sizes.index(None)] if s is not None)
            if rest >= len(whole):
                return self._no_split(whole, access, k)
            middle = whole[before : len(whole) - (rest - before)]
            pieces = [middle if s is None else s for s in sizes]
        else:
            return self._no_split(whole, access, k)
        matches = all(s is None or s == piece for s, piece in zip(sizes, pieces, strict=True))
        if not matches or tuple(a for piece in pieces for a in piece) != whole:
            return self._no_split(whole, access, k)
        return pieces

    def _no_split(self, whole: Atoms, access: Access, k: int) -> None:
        slot, name = access.slots[k], self.sizes.name(whole)
        declared = self.sizes.parts(name)
        is_split = f"which is {'*'.join(declared)}" if declared else "which is not split"
        letters = "*".join(f"{i[0].upper()}1" for i in slot.indices)
        raise self._error(
            f"composite slot {slot} does not fit slot {k + 1} of '{access.tensor}': its size is {name}, {is_split}; "
            f"declare the parts ('where {name} = {letters}'), outer first, or write a plain index",
            slot.at,
        )

    def _learn(self, variable: Variable, size: Atoms, access: Access, k: int) -> Variable:
        self.values[variable] = size
        self.why[variable] = f"slot {k + 1} of '{access}'"
        return variable

    def _contradiction(self, access: Access, k: int, parts: list[Variable], have: Atoms, product: Atoms) -> SpecError:
        slot = access.slots[k]
        here, there = self.sizes.name(have), self.sizes.name(product)
        if access.tensor == IDENTITY:
            return self._error(f"the identity's two slots have one size, but here {here} and {there}", slot.at)
        if access.tensor not in self.inputs and access.tensor not in self.defined:
            first = self.why["slot", access.tensor, k]
            return self._error(
                f"tensor '{access.tensor}' is used with two shapes: slot {k + 1} has size {here} by {first}, "
                f"and {there} here",
                slot.at,
            )
        if len(parts) > 1:
            return self._error(
                f"composite slot {slot} has size {there}, but slot {k + 1} of '{access.tensor}' is {here}",
                slot.at,
            )
        because = self.why.get(parts[0], "its other use")
        return self._error(
            f"index '{slot}' has two sizes: {there} by {because}, and {here} by slot {k + 1} of '{access}'",
            slot.at,
        )

    def _output_defaults(self) -> None:
        """Slots of the output that nothing fixes have the sizes of the input of the same rank."""
        output = self.statements.definitions[-1]
        rank = len(output.target.slots)
        like = next((i for i in self.statements.inputs if len(i.sizes) == rank), None)
        if like is None:
            return
        for k, size in enumerate(like.sizes):
            variable: Variable = ("slot", output.name, k)
            if variable not in self.values:
                self.values[variable] = self.sizes.atoms(size)
                self.why[variable] = f"slot {k + 1} of the input '{like}'"
                self._propagate([variable])

    def _unknown(self) -> None:
        for number, definition in enumerate(self.statements.definitions):
            for access in (definition.target, *accesses_of(definition.body)):
                for slot in access.slots:
                    for index in slot.indices:
                        if ("index", number, index) not in self.values:
                            raise self._error(
                                f"the size of index '{index}' is not known: no input fixes it; "
                                f"declare it ('where {index} : {index[0].upper()}')",
                                slot.at,
                            )

    def _result(self) -> Resolved:
        ranks: dict[str, int] = {i.name: len(i.sizes) for i in self.statements.inputs}
        parameters: dict[str, None] = {}
        per_definition = []
        for number, definition in enumerate(self.statements.definitions):
            indices: dict[str, Atoms] = {}
            for access in (definition.target, *accesses_of(definition.body)):
                for index in access.indices:
                    indices[index] = self.values["index", number, index]
                if access.tensor == IDENTITY:
                    continue
                ranks.setdefault(access.tensor, len(access.slots))
                if access.tensor not in self.inputs and access.tensor not in self.defined:
                    parameters[access.tensor] = None
            per_definition.append(indices)
        shapes = {t: tuple(self.values["slot", t, k] for k in range(rank)) for t, rank in ranks.items()}
        return Resolved(shapes, tuple(parameters), tuple(per_definition), self.sizes)
