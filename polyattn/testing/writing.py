"""Random specifications, written definition by definition.

Before its right-hand side is written, a definition is granted as much of the limits as leaves room for its use in the
output: the indices it may sum, the products it may expand to, and its degree.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from polyattn.language import Atoms
from polyattn.language.functions import KEEPING, REDUCING, RESERVED, kind
from polyattn.language.syntax import (
    Access,
    Call,
    Definition,
    Slot,
    Statements,
    Sum,
)
from polyattn.testing.changes import with_indices
from polyattn.testing.declaring import named, needed_declarations
from polyattn.testing.products import Ledger, Room, Written, write_sum
from polyattn.testing.space import Pieces, Space, Tensor, atoms_needed, below, joined, one_of

INTERMEDIATES = ("t", "context", "query_", "Key")
# Most definitions are sums; functions make specifications opaque to the polynomial tests.
NO_FUNCTION = (None,) * 6


def write(draw: st.DrawFn, space: Space) -> str:
    """Write the text of a specification with the inputs and splits of `space`."""
    writer = _Writer(draw, space)
    definitions = writer.definitions()
    sizes = writer.ledger.sizes
    declared = needed_declarations(space, definitions, sizes)
    wheres, renamings = named(draw, space, definitions, sizes, declared)
    renamed = tuple(with_indices(d, renaming) for d, renaming in zip(definitions, renamings, strict=True))
    splits = tuple(sorted(space.splits, key=lambda s: s.size))  # as a specification prints them
    return str(Statements(space.inputs, splits, wheres, renamed))


class _Writer:
    def __init__(self, draw: st.DrawFn, space: Space):
        self.draw, self.space, self.limits, self.ledger = draw, space, space.limits, Ledger(draw, space)
        self.main = self.ledger.inputs[0].shape

    def definitions(self) -> list[Definition]:
        degree = self.draw(st.integers(1, self.limits.degree))
        slots = self.output_slots()
        count = self.draw(st.integers(0, min(self.limits.intermediates, self.limits.monomials)))
        # Intermediates and the output share the limit on products evenly.
        share = max(1, self.limits.monomials // (count + 1))
        found = [self.intermediate(number, _indices(slots), degree, share) for number in range(count)]
        return [*found, self.output(slots, degree)]

    def output_slots(self) -> list[Pieces]:
        slots: list[Pieces] = []
        if self.limits.output_like_input or self.draw(st.booleans()):
            # The output takes at most what leaves room for the first input beside it.
            slots = [(size,) for size in self.main]
            room = self.limits.indices - _count(self.main)
            for k, (size,) in enumerate(slots):
                tried = [*slots[:k], self.slot(size, merge=False), *slots[k + 1 :]]
                if atoms_needed([self.main], _indices(tried)) <= room:
                    slots = tried
            return slots
        for _ in range(self.draw(below(4))):
            pieces = self.slot(one_of(self.draw, self.space.sizes), merge=True)
            if _count(_indices([*slots, pieces])) <= self.limits.indices - _count(self.main):
                slots.append(pieces)
        return slots

    def slot(self, size: Atoms, merge: bool) -> Pieces:
        """Draw a slot of this size as one index or in its parts, or together with an index of another size."""
        options = [(size,), *self.space.segmentations(size)]
        if merge and not self.draw(below(6)):
            options.append((size, one_of(self.draw, self.space.sizes)))
        return one_of(self.draw, options)

    def intermediate(self, number: int, outer: list[Atoms], degree: int, monomials: int) -> Definition:
        """Write a definition usable in a product of the output with free indices of the sizes `outer`."""
        draw = self.draw
        function = one_of(draw, (*NO_FUNCTION, *RESERVED)) if self.limits.functions else None
        # The result of an opaque function is a new tensor: its own products and sums do not count in the output.
        opaque = function not in (None, "mean")
        inner_degree = draw(st.integers(1 if opaque else 0, degree))

        def budget(slots: Sequence[Pieces], over: Sequence[Atoms]) -> int:
            """Return the limit on indices summed on the right; negative if the output could not use the definition."""
            shape = tuple(map(joined, slots))
            beside = self.ledger.due_inputs(degree - (1 if opaque else inner_degree))
            left = self.limits.indices - _count(outer) - atoms_needed([shape, *beside], outer)
            mine = self.limits.indices - _count(shape) - _count(over)
            if opaque:
                return mine if left >= 0 else left
            return min(mine, left - _count(over))

        def fits(slots: Sequence[Pieces], over: Sequence[Atoms]) -> bool:
            needed = atoms_needed(self.ledger.due_inputs(inner_degree), [*_indices(slots), *over])
            return budget(slots, over) >= needed

        # Without room for an input, the definition is one of parameters.
        if not fits([], []):
            function, opaque, inner_degree = None, False, 0
        over: list[Atoms] = []
        if function and kind(function) == REDUCING:
            over = [size for size in (one_of(draw, self.space.sizes),) if fits([], [size])]
            if not over:
                function = None if function == "mean" else "relu"
        slots: list[Pieces] = []
        for _ in range(draw(below(3))):
            pieces = self.slot(one_of(draw, self.space.sizes), merge=True)
            if fits([*slots, pieces], over):
                slots.append(pieces)
        name = one_of(draw, INTERMEDIATES) if slots else "scale"  # which no index is called
        room = Room((), budget(slots, over), self.limits.monomials if opaque else monomials, inner_degree)
        definition, written = self.define(f"{name}{number or ''}", slots, function, over, room)
        tensor = Tensor(definition.name, tuple(map(joined, slots)), degree=1 if opaque else inner_degree)
        # A composite slot is remembered, so that accesses can write it in the same parts.
        tensor.pieces = {k: pieces for k, pieces in enumerate(slots) if len(pieces) > 1}
        if not opaque:
            tensor.monomials, tensor.summed = written.monomials, written.summed + _count(over)
        self.ledger.intermediates.append(tensor)
        self.ledger.unused.append(tensor)
        return definition

    def output(self, slots: list[Pieces], degree: int) -> Definition:
        budget = self.limits.indices - _count(_indices(slots))
        function = one_of(self.draw, (*NO_FUNCTION, *RESERVED)) if self.limits.functions else None
        over: list[Atoms] = []
        if function and kind(function) == REDUCING:
            size = one_of(self.draw, self.space.sizes)
            have = [*_indices(slots), size]
            due = [
                # Every intermediate not yet used has to fit into one of the output's products.
                t.summed + atoms_needed([t.shape, *self.ledger.due_inputs(degree - t.degree)], have)
                for t in self.ledger.unused
            ]
            if budget - len(size) >= max([*due, atoms_needed([self.main], have)]):
                over, budget = [size], budget - len(size)
            else:
                function = None
        room = Room((), budget, self.limits.monomials, degree)
        definition, _ = self.define("y", slots, function, over, room, list(self.ledger.unused))
        return definition

    def define(
        self,
        name: str,
        slots: list[Pieces],
        function: str | None,
        over: list[Atoms],
        room: Room,
        due: Sequence[Tensor] = (),
    ) -> tuple[Definition, Written]:
        # Summed indices belong to one definition; the next one starts with names of its own.
        self.ledger.summed_names = {}
        target = tuple(Slot(tuple(map(self.ledger.new_index, pieces))) for pieces in slots)
        left = tuple(index for slot in target for index in slot.indices)
        if function and kind(function) == KEEPING:
            # A function that keeps its axes runs over free ones.
            kept = left[: self.draw(st.integers(1, len(left)))] if left else ()
            over_indices, function = kept, function if kept else "relu"
        else:
            over_indices = tuple(map(self.ledger.new_index, over))
        free = tuple(dict.fromkeys((*left, *over_indices)))
        room = Room(free, room.budget, room.monomials, room.degree)
        written = write_sum(self.ledger, room, due, free)
        body: Sum | Call = Call(function, over_indices, written.total) if function else written.total
        return Definition(Access(name, target), body), written


def _indices(slots: Sequence[Pieces]) -> list[Atoms]:
    return [size for pieces in slots for size in pieces]


def _count(sizes: Sequence[Atoms]) -> int:
    return sum(map(len, sizes))
