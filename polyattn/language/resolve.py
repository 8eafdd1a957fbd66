"""Meaning of a syntax tree: the role of each name, and the size of every index and slot.

Guarantees of `resolve`: names are used consistently, every index has one size, every tensor one shape, the
bracket rule holds; otherwise a `SpecError` with the place. Sizes are inferred from the inputs, the `where`
statements, and last, for open slots of the output, from the input of the same rank.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from polyattn.language.affine import Affine
from polyattn.language.checks import MAX_ATOMS, check_names
from polyattn.language.conditions import is_condition, measures
from polyattn.language.known_sizes import KnownSizes, Variable
from polyattn.language.lift import Core
from polyattn.language.offsets import Windows
from polyattn.language.sizes import Atoms, Places, SizeTable
from polyattn.language.syntax import (
    Access,
    Bracket,
    Call,
    Definition,
    Slot,
    Statements,
    Sum,
    is_fixed,
    walk,
)


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
class _Resolver(KnownSizes):
    watchers: dict[Variable, list[tuple[int, Access, int]]] = field(default_factory=dict)
    # An ordered set: slots are split in the order of the text, so that the same text always resolves
    # alike.
    unsplit: OrderedDict[tuple[int, Access, int], None] = field(default_factory=OrderedDict)

    def run(self, core: Core) -> Resolved:
        for declared in self.statements.inputs:
            for k, size in enumerate(declared.sizes):
                self.values["slot", declared.name, k] = self.sizes.atoms(size)
        self._declare_indices()
        for number, definition in enumerate(self.statements.definitions):
            for access in (definition.target, *accesses_of(definition.body)):
                for k, slot in enumerate(access.slots):
                    if slot.form is not None:
                        # A combination says nothing of sizes: places outside of the tensor are 0.
                        continue
                    for variable in self._variables(number, access, k, slot):
                        self.watchers.setdefault(variable, []).append((number, access, k))
        self._count_numbers()
        self._settle(list(self.values))
        self._combination_defaults()
        self._output_defaults()
        self._measure_parameters()
        self._unknown()
        return self._result(core)

    def _declare_indices(self) -> None:
        declared = {d.index: d.size for d in self.statements.index_sizes}
        self.least = {d.index: d.least for d in self.statements.index_sizes if d.least is not None}
        for number, definition in enumerate(self.statements.definitions):
            for access in (definition.target, *accesses_of(definition.body)):
                for index in access.indices:
                    if index in declared:
                        # Index letters are local to a definition: the number in the key keeps them
                        # apart.
                        self.values["index", number, index] = self.sizes.atoms(declared[index])
                        self.why["index", number, index] = f"'where {index} : {declared[index]}'"

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
            # A position may be compared with one of a known length, such as an offset.
            known = any(all(map(str.isdigit, atoms)) for atoms in (product, self.values[whole]))
            free = measures(access.tensor) or (known and is_condition(access.tensor))
            if self.values[whole] != product and not free:
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

    def _readings(self) -> Iterator[tuple[int, Access, int, Slot]]:
        for number, definition in enumerate(self.statements.definitions):
            for access in accesses_of(definition.body):
                yield from ((number, access, k, slot) for k, slot in enumerate(access.slots))

    def _count_numbers(self) -> None:
        """Give the part of a parameter's composite slot that numbers pick from as many places as they need."""
        for _, access, k, slot in self._readings():
            if access.tensor not in self.inputs | self.defined:
                for n, value in slot.numbers:
                    variable: Variable = ("number", (access.tensor, k), n)
                    have = int(self.values.get(variable, ("0",))[0])
                    self.values[variable] = (str(max(have, value + 1)),)
                    self.why[variable] = f"slot {k + 1} of '{access}'"

    def _combination_defaults(self) -> None:
        """Give the one open index of a combination with offsets, the i of `x[i+u]`, the size of the slot."""
        for number, access, k, slot in self._readings():
            whole = self._slot_variable(number, access, k)
            if slot.form is None or whole not in self.values:
                continue
            unknown: list[Variable] = [v for i in slot.indices if (v := ("index", number, i)) not in self.values]
            ranged = all(i in self.least for i in slot.indices if ("index", number, i) not in unknown)
            if len(unknown) == 1 and ranged and slot.form.coefficient(str(unknown[0][2])) == 1:
                self._settle([self._learn(unknown[0], self.values[whole], access, k)])

    def _measure_parameters(self) -> None:
        """Give a parameter's slot that holds combinations the size from their least value to the greatest."""
        self.starts: dict[tuple[str, int], Affine] = {}
        ranges: dict[tuple[str, int], tuple[Affine, Affine]] = {}
        readings = [r for r in self._readings() if r[1].tensor not in self.inputs | self.defined]
        combined = {(access.tensor, k) for _, access, k, slot in readings if slot.form is not None}
        for number, access, k, slot in readings:
            variables: list[Variable] = [("index", number, i) for i in slot.indices]
            if (access.tensor, k) not in combined or not all(v in self.values for v in variables):
                continue
            picks = slot.form is not None and not slot.indices
            form = slot.form or Affine.of(dict.fromkeys(slot.indices, 1))
            ends = {i: self._ends(i, self.values["index", number, i], slot) for i in slot.indices}
            have = Affine(()) if picks else form.least(ends), form.greatest(ends)
            known = ranges.setdefault((access.tensor, k), have)
            if picks and known[0] == Affine(()) and not known[1].terms:
                known = have = ranges[access.tensor, k] = known[0], max(known[1], have[1], key=lambda a: a.constant)
            if known != have:
                raise self._error(
                    f"parameter '{access.tensor}' is read with two ranges: slot {k + 1} goes from {known[0]} to "
                    f"{known[1]}, and from {have[0]} to {have[1]} here; declare it as an input",
                    slot.at,
                )
        for (tensor, k), (least, greatest) in ranges.items():
            size = str(greatest - least + 1)
            self.starts[tensor, k] = least
            self._settle([self._learn(("slot", tensor, k), (size,), Access(tensor, ()), k)])

    def _ends(self, index: str, size: Atoms, slot: Slot) -> tuple[Affine, Affine]:
        """Return the least and the greatest value of an index."""
        if len(size) > 1:
            raise self._error(
                f"index '{index}' runs over the product {self.sizes.name(size)} and cannot be part of a combination: "
                "leave its size whole",
                slot.at,
            )
        least, atom = Affine((), self.least.get(index, 0)), next(iter(size))
        return least, least - 1 + (int(atom) if atom.isdigit() else Affine(((atom, 1),)))

    def _output_defaults(self) -> None:
        """Give open slots of the output the sizes of the input of the same rank."""
        output = self.statements.definitions[-1]
        rank = len(output.target.slots)
        like = next((i for i in self.statements.inputs if len(i.sizes) == rank), None)
        if like is None:
            return
        last = len(self.statements.definitions) - 1
        # A combination's index is declared, or has the size of its slot.
        combined = {i for number, _, _, slot in self._readings() if number == last and slot.form for i in slot.indices}
        for k, size in enumerate(like.sizes):
            variable: Variable = ("slot", output.name, k)
            if variable not in self.values and not combined & set(output.target.slots[k].indices):
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
                    if indices and slot.form is None and self._slot_variable(number, access, k) in self.values:
                        raise self._misfit(number, access, k)
                    unknown += [(index, slot) for index in indices]
        for index, first in unknown:
            slot = next((s for i, s in unknown if i == index and s.form is not None), first)
            what = "no input fixes it" if slot.form is None else f"the combination '{slot}' does not fix it"
            size = index[0].upper()
            size += "2" * (size in self.sizes.names)
            raise self._error(
                f"the size of index '{index}' is not known: {what}; declare it ('where {index} : {size}')",
                slot.at,
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
        for variable, atoms in self.values.items():
            if variable[0] == "number":
                _, slot, n = variable
                assert isinstance(slot, tuple)
                shapes[f"{slot[0]}.{slot[1]}.{n}"] = (atoms,)
        parts, definitions = [], []
        taken = {d.name for d in self.statements.definitions} | shapes.keys()
        taken |= {i for indices in per_definition for i in indices}
        windows = Windows(shapes, self.least, self.starts, taken)
        places = self._places(windows, per_definition)
        for definition, origin in zip(core.definitions, core.origins, strict=True):
            letters = dict.fromkeys(definition.target.indices)
            letters |= dict.fromkeys(i for access in accesses_of(definition.body) for i in access.indices)
            new, sizes = windows.definition(definition, {i: per_definition[origin][i] for i in letters})
            definitions.append(new)
            parts.append(sizes)
            slots = tuple(tuple(a for i in slot.indices for a in sizes[i]) for slot in definition.target.slots)
            shapes.setdefault(definition.name, slots)
        shapes = {name: shape for name, shape in shapes.items() if "." not in name}
        table = replace(self.sizes, places=places)
        return Resolved(shapes, tuple(parameters), tuple(parts), table, tuple(definitions))

    def _places(self, windows: Windows, sizes: list[dict[str, Atoms]]) -> tuple[Places, ...]:
        """Return the functions over offsets that need a place; refuse combinations over products."""
        for number, access, k, slot in self._readings():
            if slot.form is not None:
                for index in slot.indices:
                    self._ends(index, self.values["index", number, index], slot)
                if len(whole := self.values[self._slot_variable(number, access, k)]) > 1:
                    raise self._error(
                        f"slot {k + 1} of '{access.tensor}' has the product {self.sizes.name(whole)} for its size, and "
                        "cannot be read at a combination: leave its size whole",
                        slot.at,
                    )
        found = []
        for number, definition in enumerate(self.statements.definitions):
            for part in walk(definition.body):
                if isinstance(part, Call):
                    needed = windows.needed(part, self.inputs | self.defined, sizes[number])
                    if needed and part.where:
                        raise self._error(
                            f"'{part.function}' over offsets takes no condition: not every position would have a place",
                            part.at,
                        )
                    found += [needed] if needed else []
        return tuple(found)
