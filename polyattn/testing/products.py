"""Random sums of products, valid by construction.

Every product keeps two invariants while its factors are drawn. The budget: the indices of the factors still due never
exceed the number that may still be summed, so a due factor can always be written. The bracket rule: a bracket knows the
summed indices it shares with the product around it, and has them in every term; any other index it sums is new to
that product and stays unknown to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from hypothesis import strategies as st

from polyattn.language import Atoms
from polyattn.language.syntax import IDENTITY, Access, Bracket, Factor, Number, SizeRef, Slot, Sum, Term
from polyattn.testing.space import Pieces, Space, Tensor, atoms_needed, below, joined, one_of

MAX_FACTORS = 4
MAX_BRACKET_DEPTH = 2
NUMBERS = tuple(map(Fraction, ("2", "3", "0.5", "1.25", "10")))
PARAMETERS = ("w", "lambda", "adj", "W1", "import", "self", "wk", "torch")
SCALARS = ("alpha", "class", "beta1", "s_")


@dataclass
class Ledger:
    """The contents of the specification so far.

    Attributes:
        sizes: the size of every index. Until the end every index has a name of its own, used in one definition.
        unused: the intermediates not yet in a product.
        summed_names: the summed indices of the current definition, by size; its products share them.
    """

    draw: st.DrawFn
    space: Space
    sizes: dict[str, Atoms] = field(default_factory=dict)
    parameters: list[Tensor] = field(default_factory=list)
    intermediates: list[Tensor] = field(default_factory=list)
    unused: list[Tensor] = field(default_factory=list)
    summed_names: dict[Atoms, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Of degree 1: the degree of a product counts its inputs.
        atoms = self.space.table.atoms
        self.inputs = [Tensor(i.name, tuple(map(atoms, i.sizes)), degree=1) for i in self.space.inputs]

    def due_inputs(self, degree: int) -> list[tuple[Atoms, ...]]:
        """Return the shapes due in a product that has to gain this degree: the first input can always supply it."""
        return [self.inputs[0].shape] if degree > 0 else []

    def new_index(self, size: Atoms) -> str:
        name = f"i{len(self.sizes)}"
        self.sizes[name] = size
        return name

    def new_parameter(self, shape: tuple[Atoms, ...], pieces: dict[int, Pieces]) -> Tensor:
        taken = {t.name for t in self.parameters}
        endless = (f"{name}{k or ''}" for k in range(1000) for name in (PARAMETERS if shape else SCALARS))
        tensor = Tensor(next(name for name in endless if name not in taken), shape, pieces=pieces)
        self.parameters.append(tensor)
        return tensor


@dataclass(frozen=True)
class Room:
    """The resources of the sum of one definition, or of a bracket in it.

    Attributes:
        free: the indices that are not summed.
        budget: number of further indices of atomic size for a product.
        monomials: limit on the products of the expanded sum.
        degree: limit on the inputs, and outputs of functions, of a product.
        shared: summed indices of the product around the bracket; every term has to have them.
        taken: all indices of that product.
        depth: number of brackets around.
    """

    free: tuple[str, ...]
    budget: int
    monomials: int
    degree: int
    shared: tuple[str, ...] = ()
    taken: frozenset[str] = frozenset()
    depth: int = 0


@dataclass(frozen=True)
class Written:
    """A sum, and the resources it used."""

    total: Sum
    summed: int
    monomials: int
    indices: frozenset[str]


def write_sum(ledger: Ledger, room: Room, due: Sequence[Tensor] = (), cover: Sequence[str] = ()) -> Written:
    """Write a sum with every due tensor and every index of `cover`.

    The first product has the full degree; in a homogeneous specification all have.
    """
    draw = ledger.draw
    least = max(1, len(due))
    spare = room.monomials - sum(t.monomials for t in due) - (not due)
    count = draw(st.integers(least, max(least, min(3, least + spare))))
    # Each index to cover is assigned to one product, or the last one would have to have them all.
    owners = {index: draw(below(count)) for index in cover}
    terms, summed, monomials, indices = [], 0, 0, set()
    must: list[Tensor | None] = [*due, *[None] * (count - len(due))]
    for k, tensor in enumerate(must):
        # Later products have a claim on the limit too.
        later = sum(t.monomials if t else 1 for t in must[k + 1 :])
        full = k == 0 or ledger.space.limits.homogeneous
        degree = room.degree if full else draw(st.integers(tensor.degree if tensor else 0, room.degree))
        product = _Product(ledger, room, degree, room.monomials - monomials - later)
        product.write(tensor, [i for i in cover if owners[i] == k])
        terms.append(product.term())
        summed = max(summed, room.budget - product.budget)
        monomials += product.monomials
        indices |= product.taken
    return Written(Sum(tuple(terms)), summed, monomials, frozenset(indices))


class _Product:
    """One product in the making."""

    def __init__(self, ledger: Ledger, room: Room, degree: int, monomials: int):
        self.ledger, self.space, self.draw, self.sizes = ledger, ledger.space, ledger.draw, ledger.sizes
        self.room, self.degree, self.budget = room, degree, room.budget
        self.usable = [*room.free, *room.shared]
        self.taken = {*room.taken, *self.usable}
        self.used: set[str] = set()
        self.factors: list[Factor] = []
        self.monomials, self.most_monomials = 1, monomials

    def write(self, due: Tensor | None, cover: Sequence[str]) -> None:
        if due:
            self.access(due)
        # The bracket's degree is drawn first, so that the factors before it leave room for it.
        for_bracket = self.draw(below(self.degree + 1)) if self.may_have_bracket() else None
        self.raise_degree(for_bracket or 0)
        if for_bracket is not None:
            self.bracket()
        self.raise_degree(0)
        # Indices that no factor has yet get a parameter.
        missing = [i for i in dict.fromkeys((*self.room.shared, *cover)) if i not in self.used]
        if missing:
            self.weight(missing)
        if not self.factors or (len(self.factors) < MAX_FACTORS and self.draw(st.booleans())):
            self.extra()

    def term(self) -> Term:
        """Return the product with a sign and with numbers and sizes as coefficients."""
        draw, factors, divides = self.draw, list(self.factors), [False] * len(self.factors)
        for _ in range(one_of(draw, (0, 0, 1, 2))):
            names = self.space.table.names
            is_size = bool(names) and draw(st.booleans())
            coefficient = SizeRef(one_of(draw, names)) if is_size else Number(one_of(draw, NUMBERS))
            divide = draw(st.booleans())
            # A division needs a factor before it.
            place = draw(st.integers(int(divide), len(factors)))
            factors.insert(place, coefficient)
            divides.insert(place, divide)
        return Term(draw(st.booleans()), tuple(factors), tuple(divides))

    def raise_degree(self, rest: int) -> None:
        """Add inputs and intermediates until only `rest` of the degree is missing."""
        while self.degree > rest:
            # Never empty: the budget reserves the first input's indices.
            options = [t for t in self.ledger.inputs + self.ledger.intermediates if t.degree and self.can_access(t)]
            self.access(one_of(self.draw, options))

    def can_access(self, tensor: Tensor) -> bool:
        # A tensor fits only if the first input still fits after it.
        shapes = [tensor.shape, *self.ledger.due_inputs(self.degree - tensor.degree)]
        return (
            tensor.degree <= self.degree
            and self.monomials * tensor.monomials <= self.most_monomials
            and tensor.summed + self.needed(shapes) <= self.budget
        )

    def needed(self, shapes: Iterable[Iterable[Atoms]], also: tuple[Atoms, ...] = ()) -> int:
        return atoms_needed(shapes, (*(self.sizes[i] for i in self.usable), *also))

    def access(self, tensor: Tensor) -> None:
        self.degree -= tensor.degree
        self.budget -= tensor.summed
        self.monomials *= tensor.monomials
        slots = []
        for k, size in enumerate(tensor.shape):
            rest = [tensor.shape[k + 1 :], *self.ledger.due_inputs(self.degree)]
            slots.append(self.slot(size, rest, tensor.pieces.get(k)))
        # The output has to use every intermediate; this one is done.
        if tensor in self.ledger.unused:
            self.ledger.unused.remove(tensor)
        self.add(Access(tensor.name, tuple(slots)))

    def add(self, access: Access) -> None:
        self.factors.append(access)
        self.used.update(access.indices)

    def slot(self, size: Atoms, rest: list[tuple[Atoms, ...]], as_made: Pieces | None = None) -> Slot:
        """Draw a slot of this size, such that accesses of the shapes in `rest` still fit after it."""
        options = [(size,), *self.space.segmentations(size), *([as_made] if as_made else [])]
        pieces = one_of(self.draw, [o for o in options if self.needed([o, *rest]) <= self.budget])
        return Slot(tuple(self.index(piece, [pieces[k + 1 :], *rest]) for k, piece in enumerate(pieces)))

    def index(self, size: Atoms, rest: list[tuple[Atoms, ...]]) -> str:
        known: list[str | None] = [i for i in self.usable if self.sizes[i] == size]
        may_be_new = len(size) + self.needed(rest, also=(size,)) <= self.budget
        # As many chances for a new index as for all known ones together.
        index = one_of(self.draw, known + [None] * max(1, len(known)) * may_be_new)
        return index or self.new_index(size)

    def new_index(self, size: Atoms) -> str:
        """Return a summed index, with a name that other products of the definition may have."""
        names = self.ledger.summed_names.setdefault(size, [])
        index = next((name for name in names if name not in self.taken), None)
        if index is None:
            index = self.ledger.new_index(size)
            names.append(index)
        self.budget -= len(size)
        # Later factors of the product may share it.
        self.usable.append(index)
        self.taken.add(index)
        return index

    def may_have_bracket(self) -> bool:
        may = self.space.limits.brackets and self.room.depth < MAX_BRACKET_DEPTH
        return may and self.most_monomials > self.monomials and not self.draw(below(4))

    def bracket(self) -> None:
        """Write a bracket of the missing degree, if its first input fits with the indices open to it."""
        summed = [i for i in self.usable if i not in self.room.free]
        shared = tuple(self.draw(st.lists(st.sampled_from(summed), unique=True, max_size=2))) if summed else ()
        have = [self.sizes[i] for i in (*self.room.free, *shared)]
        degree = self.degree if atoms_needed(self.ledger.due_inputs(self.degree), have) <= self.budget else 0
        self.degree -= degree
        room = Room(
            self.room.free,
            self.budget - self.needed(self.ledger.due_inputs(self.degree)),
            self.most_monomials // self.monomials,
            degree,
            shared,
            frozenset(self.taken),
            self.room.depth + 1,
        )
        written = write_sum(self.ledger, room)
        self.budget -= written.summed
        self.monomials *= written.monomials
        # An index summed inside must not occur outside, where it would mean another sum.
        self.taken |= written.indices
        self.used.update(shared)
        self.factors.append(Bracket(written.total))

    def extra(self) -> None:
        """Write a factor without inputs: a parameter, an intermediate of parameters, or the identity."""
        tensors = self.ledger.parameters + self.ledger.intermediates
        known = [t for t in tensors if not t.degree and self.can_access(t)]
        sizes = [self.sizes[i] for i in self.usable if self.space.declared_name(self.sizes[i])]
        kind = one_of(self.draw, ("new", "known", "identity"))
        if kind == "known" and known:
            self.access(one_of(self.draw, known))
        elif kind == "identity" and sizes:
            size = one_of(self.draw, sizes)
            # The second slot needs room for as many indices as the first.
            first = self.slot(size, [(size,)])
            self.add(Access(IDENTITY, (first, self.slot(size, []))))
        elif self.usable:
            least = 0 if self.factors else 1
            self.weight(self.draw(st.lists(st.sampled_from(self.usable), min_size=least, max_size=2)))
        else:
            self.weight([])

    def weight(self, indices: Sequence[str]) -> None:
        """Write a new parameter with these indices, perhaps one more, and perhaps two of them in one slot."""
        indices = list(indices)
        size = one_of(self.draw, self.space.sizes)
        if len(size) <= self.budget and self.draw(st.booleans()):
            indices.append(self.index(size, []))
        slots = [Slot((index,)) for index in indices]
        if len(slots) > 1 and not self.draw(below(5)):
            slots[:2] = [Slot((indices[0], indices[1]))]
        pieces = [tuple(self.sizes[i] for i in slot.indices) for slot in slots]
        # A composite slot is remembered, so that later accesses can write it in the same parts.
        made = {k: p for k, p in enumerate(pieces) if len(p) > 1}
        self.add(Access(self.ledger.new_parameter(tuple(map(joined, pieces)), made).name, tuple(slots)))
