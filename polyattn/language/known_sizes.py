"""Known sizes while a text is resolved, and the errors of slots that do not fit it."""

from __future__ import annotations

from dataclasses import dataclass, field

from polyattn.errors import SpecError
from polyattn.language.conditions import is_condition
from polyattn.language.sizes import Atoms, SizeTable
from polyattn.language.syntax import IDENTITY, Access, At, Slot, Statements, is_fixed

Variable = tuple[str, object, object]
"""("slot", tensor, number) or ("index", number of the definition, name)."""


@dataclass
class KnownSizes:
    """The sizes of slots and indices that are known so far.

    Attributes:
        values: the size of each variable.
        why: which slot said so: the messages quote both sides of a contradiction.
    """

    statements: Statements
    source: str
    values: dict[Variable, Atoms] = field(default_factory=dict)
    why: dict[Variable, str] = field(default_factory=dict)

    def __post_init__(self):
        self.sizes = SizeTable.of(self.statements)
        self.inputs = {i.name for i in self.statements.inputs}
        self.defined = {d.name for d in self.statements.definitions}

    def _error(self, reason: str, at: At) -> SpecError:
        return SpecError(reason, self.source, at.line, at.column)

    @staticmethod
    def _slot_variable(number: int, access: Access, k: int) -> Variable:
        """Return the variable of an access's slot; each identity or condition is a tensor with a size of its own."""
        if is_fixed(access.tensor):
            return ("slot", (access.tensor, number, access), 0)
        return ("slot", access.tensor, k)

    def _variables(self, number: int, access: Access, k: int, slot: Slot) -> list[Variable]:
        numbers = dict(slot.numbers)
        parts: list[Variable] = [
            ("number", (access.tensor, k), n) if n in numbers else ("index", number, part)
            for n, part in enumerate(slot.parts)
        ]
        return [self._slot_variable(number, access, k), *parts]

    def _learn(self, variable: Variable, size: Atoms, access: Access, k: int) -> Variable:
        self.values[variable] = size
        self.why[variable] = f"slot {k + 1} of '{access}'"
        return variable

    def _misfit(self, number: int, access: Access, k: int) -> SpecError:
        slot = access.slots[k]
        whole, *parts = self._variables(number, access, k, slot)
        name = self.sizes.name(self.values[whole])
        known = [
            f"'{index}' has size {self.sizes.name(self.values[part])}"
            for index, part in dict(zip(slot.parts, parts, strict=True)).items()
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
