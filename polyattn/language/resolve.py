"""Meaning of a syntax tree: the role of each name, and the size of every index and slot.

Guarantees of `resolve`: names are used consistently, every index has one size, every tensor one shape, the
bracket rule holds; otherwise a `SpecError` with the place. Sizes are inferred from the inputs, the `where`
statements, and last, for open slots of the output, from the input of the same rank.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from polyattn.errors import SpecError
from polyattn.language.checks import MAX_ATOMS, check_names
from polyattn.language.conditions import is_condition
from polyattn.language.lift import Core
from polyattn.language.sizes import Atoms, SizeTable
from polyattn.language.syntax import (
    IDENTITY,
    Access,
    At,
    Bracket,
    Call,
    Definition,
    Slot,
    Statements,
    Sum,
    is_fixed,
)

Variable = tuple[str, object, object]
"""("slot", tensor, number) or ("index", number of the definition, name)."""


@dataclass(frozen=True)
class Resolved:
    """The roles of a specification's names and the sizes of its indices.

    Attributes:
        shapes: the size of every slot of every tensor (inputs, intermediates, parameters), as atoms.
        parameters: the parameters' names in the order of their first use.
        index_sizes: per definition of the core, the size of each of its indices.
        sizes: the declared sizes.
        core: the definitions with functions only as whole right-hand sides, the last the output.
    """

    shapes: Mapping[str, tuple[Atoms, ...]]
    parameters: tuple[str, ...]
    index_sizes: tuple[Mapping[str, Atoms], ...]
    sizes: SizeTable
    core: tuple[Definition, ...]


def resolve(statements: Statements, source: str = "") -> Resolved:
    """Check and resolve a syntax tree; `source` is its text, for the carets of errors."""
    core = check_names(statements, source)
    return _Resolver(statements, source).run(core)


def accesses_of(body: Sum | Call) -> Iterator[Access]:
    """Yield all accesses of a right-hand side, in the order of the text."""
    total = body.argument if isinstance(body, Call) else body
    if isinstance(body, Call):
        yield from body.where
    for term in total.terms:
        for factor in term.factors:
            if isinstance(factor, Access):
                yield factor
            elif isinstance(factor, Bracket):
                yield from accesses_of(factor.body)
            elif isinstance(factor, Call):
                yield from accesses_of(factor)


@dataclass
class _Resolver:
    statements: Statements
    source: str
    # What is known so far, and which slot said so: the messages quote both sides of a contradiction.
    values: dict[Variable, Atoms] = field(default_factory=dict)
    why: dict[Variable, str] = field(default_factory=dict)
    watchers: dict[Variable, list[tuple[int, Access, int]]] = field(default_factory=dict)
    # An ordered set: slots are split in the order of the text, so that the same text always resolves
    # alike.
    unsplit: OrderedDict[tuple[int, Access, int], None] = field(default_factory=OrderedDict)

    def run(self, core: Core) -> Resolved:
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
        self._settle(list(self.values))
        self._output_defaults()
        self._unknown()
        return self._result(core)

    def _error(self, reason: str, at: At) -> SpecError:
        return SpecError(reason, self.source, at.line, at.column)

    def _declare_indices(self) -> None:
        declared = {d.index: d.size for d in self.statements.index_sizes}
        for number, definition in enumerate(self.statements.definitions):
            for access in (definition.target, *accesses_of(definition.body)):
                for index in access.indices:
                    if index in declared:
                        # Index letters are local to a definition: the number in the key keeps them
                        # apart.
                        self.values["index", number, index] = self.sizes.atoms(declared[index])
                        self.why["index", number, index] = f"'where {index} : {declared[index]}'"

    @staticmethod
    def _slot_variable(number: int, access: Access, k: int) -> Variable:
        """Return the variable of an access's slot; each identity or condition is a tensor with a size of its own."""
        if is_fixed(access.tensor):
            return ("slot", (access.tensor, number, access), 0)
        return ("slot", access.tensor, k)

    def _variables(self, number: int, access: Access, k: int, slot: Slot) -> list[Variable]:
        return [self._slot_variable(number, access, k), *(("index", number, i) for i in slot.indices)]

    def _settle(self, changed: list[Variable]) -> None:
        """Propagate known sizes; split a composite slot by the parts of its size only as a last resort."""
        self._propagate(changed)
        while self.unsplit:
            # One slot at a time: its parts may fix the other slots by propagation, which is not a
            # guess.
            self._propagate(self._split_by_parts(*self.unsplit.popitem(last=False)[0]))

    def _propagate(self, changed: list[Variable]) -> None:
        queue = deque(changed)
        while queue:
            for number, access, k in self.watchers.get(queue.popleft(), ()):
                queue.extend(self._relate(number, access, k))

    def _relate(self, number: int, access: Access, k: int) -> list[Variable]:
        """Use one slot's equation: the slot's size is the product of its indices' sizes."""
        whole, *parts = self._variables(number, access, k, access.slots[k])
        sizes = [self.values.get(part) for part in parts]
        unknown = sizes.count(None)
        if not unknown:
            product = tuple(a for s in sizes if s is not None for a in s)
            # Without the limit, repeated composites double the number of atoms at every definition.
            if len(product) > MAX_ATOMS:
                raise self._error(
                    f"slot {k + 1} of '{access.tensor}' is a product of more than {MAX_ATOMS} atomic sizes",
                    access.slots[k].at,
                )
            if whole not in self.values:
                return [self._learn(whole, product, access, k)]
            if self.values[whole] != product:
                raise self._contradiction(access, k, parts, self.values[whole], product)
        # One open index takes the atoms that its neighbours leave: they must match at both ends, in
        # order.
        elif whole in self.values and unknown == 1:
            atoms, place = self.values[whole], sizes.index(None)
            before = tuple(a for s in sizes[:place] if s is not None for a in s)
            after = tuple(a for s in sizes[place + 1 :] if s is not None for a in s)
            middle = atoms[len(before) : len(atoms) - len(after)]
            if not middle or before + middle + after != atoms:
                raise self._misfit(number, access, k)
            return [self._learn(parts[place], middle, access, k)]
        elif whole in self.values:
            # Two or more open indices: the equation alone does not say where one ends and the next
            # begins.
            self.unsplit[number, access, k] = None
        return []

    def _split_by_parts(self, number: int, access: Access, k: int) -> list[Variable]:
        """Assign sizes to a composite slot's indices: the declared parts of the slot's size, or its atomic sizes."""
        whole, *parts = self._variables(number, access, k, access.slots[k])
        atoms = self.values[whole]
        declared = self.sizes.parts(self.sizes.name(atoms)) or ()
        # Declared parts first: with C = G*M and G = H*K, (a b) over C is (G, M), not an error.
        for pieces in ([self.sizes.atoms(part) for part in declared], [(atom,) for atom in atoms]):
            if len(pieces) != len(parts):
                continue
            found = dict(zip(parts, pieces, strict=True))
            # Refused where one index stands twice with different pieces, or where a known size differs.
            if all(found[p] == piece == self.values.get(p, piece) for p, piece in zip(parts, pieces, strict=True)):
                return [self._learn(part, found[part], access, k) for part in found if part not in self.values]
        return []

    def _misfit(self, number: int, access: Access, k: int) -> SpecError:
        slot = access.slots[k]
        whole, *parts = self._variables(number, access, k, slot)
        name = self.sizes.name(self.values[whole])
        known = [
            f"'{index}' has size {self.sizes.name(self.values[part])}"
            for index, part in dict(zip(slot.indices, parts, strict=True)).items()
            if part in self.values
        ]
        problem = f"composite slot {slot} does not fit slot {k + 1} of '{access.tensor}', whose size is {name}"
        if len(self.values[whole]) > 1:
            declared = self.sizes.parts(name)
            problem += f" = {'*'.join(declared)}" if declared else ""
            advice = "write one index for each part, outer first, or one plain index"
        elif name.isdigit():
            advice = "a number is not split; write one plain index"
        else:
            taken = self.sizes.names
            letters = [i.capitalize() + "1" * (i.capitalize() in taken) for i in slot.indices]
            problem += ", which is not split"
            advice = f"declare its parts, outer first ('where {name} = {'*'.join(letters)}'), or write one plain index"
        here = [f"here {' and '.join(known)}"] if known else []
        return self._error("; ".join([problem, *here, advice]), slot.at)

    def _learn(self, variable: Variable, size: Atoms, access: Access, k: int) -> Variable:
        self.values[variable] = size
        self.why[variable] = f"slot {k + 1} of '{access}'"
        return variable

    def _contradiction(self, access: Access, k: int, parts: list[Variable], have: Atoms, product: Atoms) -> SpecError:
        slot = access.slots[k]
        here, there = self.sizes.name(have), self.sizes.name(product)
        if is_condition(access.tensor):
            return self._error(
                f"a condition compares positions of one size, but '{slot}' has size {there}, "
                f"and the slot before it {here}",
                slot.at,
            )
        if access.tensor == IDENTITY:
            return self._error(f"the identity's two slots have one size, but here {here} and {there}", slot.at)
        if access.tensor not in self.inputs and access.tensor not in self.defined:
            first = self.why["slot", access.tensor, k]
            return self._error(
                f"tensor '{access.tensor}' is used with two shapes: slot {k + 1} has size {here} by {first}, "
                # Neither an input nor defined: a parameter, whose shape comes from its first use.
                f"and {there} here",
                slot.at,
            )
        if len(parts) > 1:
            return self._error(
                f"composite slot {slot} has size {there}, but slot {k + 1} of '{access.tensor}' is {here}",
                slot.at,
            )
        return self._error(
            f"index '{slot}' has two sizes: {there} by {self.why[parts[0]]}, and {here} by slot {k + 1} of '{access}'",
            slot.at,
        )

    def _output_defaults(self) -> None:
        """Give open slots of the output the sizes of the input of the same rank."""
        output = self.statements.definitions[-1]
        rank = len(output.target.slots)
        like = next((i for i in self.statements.inputs if len(i.sizes) == rank), None)
        if like is None:
            return
        for k, size in enumerate(like.sizes):
            variable: Variable = ("slot", output.name, k)
            if variable not in self.values:
                # Settled after each slot: a size learnt here may fix the next slot otherwise than by
                # default.
                self.values[variable] = self.sizes.atoms(size)
                self._settle([variable])

    def _unknown(self) -> None:
        unknown = []
        for number, definition in enumerate(self.statements.definitions):
            for access in (definition.target, *accesses_of(definition.body)):
                for k, slot in enumerate(access.slots):
                    indices = [i for i in slot.indices if ("index", number, i) not in self.values]
                    # The slot's size is known but not its indices': the slot does not fit, which says
                    # more than "unknown".
                    if indices and self._slot_variable(number, access, k) in self.values:
                        raise self._misfit(number, access, k)
                    unknown += [(index, slot.at) for index in indices]
        for index, at in unknown:
            raise self._error(
                f"the size of index '{index}' is not known: no input fixes it; "
                f"declare it ('where {index} : {index[0].upper()}')",
                at,
            )

    def _result(self, core: Core) -> Resolved:
        ranks: dict[str, int] = {i.name: len(i.sizes) for i in self.statements.inputs}
        parameters: dict[str, None] = {}
        per_definition = []
        for number, definition in enumerate(self.statements.definitions):
            indices: dict[str, Atoms] = {}
            for access in (definition.target, *accesses_of(definition.body)):
                for index in access.indices:
                    indices[index] = self.values["index", number, index]
                if is_fixed(access.tensor):
                    continue
                ranks.setdefault(access.tensor, len(access.slots))
                if access.tensor not in self.inputs and access.tensor not in self.defined:
                    parameters[access.tensor] = None
            per_definition.append(indices)
        shapes = {t: tuple(self.values["slot", t, k] for k in range(rank)) for t, rank in ranks.items()}
        parts = []
        for definition, origin in zip(core.definitions, core.origins, strict=True):
            letters = dict.fromkeys(definition.target.indices)
            letters |= dict.fromkeys(i for access in accesses_of(definition.body) for i in access.indices)
            parts.append({i: per_definition[origin][i] for i in letters})
            slots = definition.target.slots
            sizes = tuple(tuple(a for i in slot.indices for a in parts[-1][i]) for slot in slots)
            shapes.setdefault(definition.name, sizes)
        return Resolved(shapes, tuple(parameters), tuple(parts), self.sizes, core.definitions)
