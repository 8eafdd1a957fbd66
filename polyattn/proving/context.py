"""The known tensors and sizes while given equations are read: the language resolves the equations against them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

from polyattn.algebra import Index, Monomial, Spec
from polyattn.errors import ProofError, SpecError
from polyattn.language import Atoms
from polyattn.language.resolve import accesses_of
from polyattn.language.syntax import (
    IDENTITY,
    Access,
    Bracket,
    Call,
    Definition,
    IndexSize,
    Input,
    SizeRef,
    Slot,
    Split,
    Statements,
    Sum,
    Term,
)
from polyattn.proving.sizes import CommonSizes

TARGET = "given_"
"""The name of one side of a given equation for the language."""


@dataclass(frozen=True)
class Expanded:
    """A side of a given equation.

    Attributes:
        output: the free indices, atom by atom, in the order of the requested letters.
        terms: the monomials.
        sizes: the size of each letter.
        context: the context with new parameters added.
    """

    output: tuple[Index, ...]
    terms: tuple[Monomial, ...]
    sizes: Mapping[str, Atoms]
    context: Context


@dataclass(frozen=True)
class Context:
    """Tensors with their shapes, sizes, and the sizes of indices, valid in all given equations.

    Attributes:
        shapes: the inputs and parameters of both sides, and new tensors of given equations.
        defined: intermediates and outputs of a side, with that side.
        names: the sizes declared by the two sides.
    """

    shapes: Mapping[str, tuple[Atoms, ...]]
    sizes: CommonSizes
    declared: tuple[IndexSize, ...]
    defined: Mapping[str, str]
    names: frozenset[str]

    @property
    def known_sizes(self) -> set[str]:
        atoms = {a for shape in self.shapes.values() for slot in shape for a in slot} | self.names
        split = {s for split in self.sizes.splits for s in (split.size, *split.parts)}
        return atoms | split | {self.sizes.names.get(d.size, d.size) for d in self.declared}

    def check_free(self, tensor: str, text: str) -> None:
        """Raise ProofError for a tensor defined by a side: there its name means that definition."""
        if tensor in self.defined:
            raise ProofError(
                f"given {text!r} uses '{tensor}', which the {self.defined[tensor]} side defines: only inputs and "
                f"parameters can be given; rename one of the two"
            )

    def check_occurs(self, tensor: str, text: str) -> None:
        if tensor != IDENTITY and tensor not in self.shapes:
            known = ", ".join(sorted(self.shapes))
            raise ProofError(f"given {text!r} is about '{tensor}', which occurs on neither side; there are {known}")

    def index_sizes(self, accesses: Sequence[Access], text: str) -> dict[str, Atoms]:
        """Return the sizes of the indices of accesses to known tensors."""
        letters = tuple(dict.fromkeys(i for a in accesses for i in a.indices))
        product = Sum((Term(False, tuple(accesses), (False,) * len(accesses)),))
        spec = self._spec(letters, product, {}, text)
        return dict(spec.resolved.index_sizes[0])

    def expanded(self, letters: Sequence[str], body: Sum | Call, sizes: Mapping[str, Atoms], text: str) -> Expanded:
        """Return a sum over the given indices of the left, as monomials.

        Indices not in the sum are among the output's all the same: it is constant along them.
        """
        have = {i for access in accesses_of(body) for i in access.indices}
        spec = self._spec(tuple(i for i in letters if i in have), body, sizes, text)
        expansion = spec.expansion()
        new = {name: spec.shape(name) for name in spec.parameters}
        output = _with_missing(letters, have, sizes, expansion.output, expansion.terms)
        known = {**sizes, **spec.resolved.index_sizes[0]}
        return Expanded(output, expansion.terms, known, replace(self, shapes={**self.shapes, **new}))

    def _spec(self, letters: tuple[str, ...], body: Sum | Call, sizes: Mapping[str, Atoms], text: str) -> Spec:
        """Return a specification of one definition, with its known tensors as inputs."""
        body = self.sizes.body(body)
        names = _Names(self.sizes)
        # Only used tensors are inputs, so that the message of an error does not mention others.
        used = dict.fromkeys(a.tensor for a in accesses_of(body) if a.tensor in self.shapes)
        inputs = tuple(Input(n, tuple(names.of(atoms) for atoms in self.shapes[n])) for n in used)
        indices = {i for a in accesses_of(body) for i in a.indices}
        declared = {d.index: self.sizes.names.get(d.size, d.size) for d in self.declared if d.index in indices}
        for letter in indices & set(sizes):
            declared[letter] = names.of(sizes[letter])
        wheres = tuple(sorted((IndexSize(i, s) for i, s in declared.items()), key=lambda d: (d.size, d.index)))
        sizes_used = {s for i in inputs for s in i.sizes} | set(declared.values()) | _sizes_in(body)
        # The language asks for an input; an equation between new tensors alone has none.
        inputs = inputs or (Input("nothing_", ("1",)),)
        unknown = _sizes_in(body) - self.known_sizes
        if unknown:
            raise ProofError(
                f"given {text!r}: there is no size {min(unknown)}; there are {', '.join(sorted(self.known_sizes))}"
            )
        # A size in a coefficient is only known to the language through an input that has it.
        mentioned = tuple(Input(f"size_{k}", (s,)) for k, s in enumerate(sorted(_sizes_in(body))))
        target = Access(TARGET, tuple(Slot((i,)) for i in letters))
        splits = (*self.sizes.splits_of(sizes_used), *names.splits)
        statements = Statements((*inputs, *mentioned), splits, wheres, (Definition(target, body),))
        try:
            return Spec(statements)
        except SpecError as error:
            raise ProofError(f"given {text!r}: {error.reason.replace(TARGET, 'the left side')}") from error


class _Names:
    """Names for sizes; nameless products get one by a split."""

    def __init__(self, sizes: CommonSizes):
        self.sizes = sizes
        self.splits: list[Split] = []

    def of(self, atoms: Atoms) -> str:
        if len(atoms) == 1:
            return atoms[0]
        for split in self.sizes.splits:
            if self.sizes.atoms(split.size) == atoms:
                return split.size
        new = Split(f"Product_{'_'.join(atoms)}", atoms)
        if new not in self.splits:
            self.splits.append(new)
        return new.size


def _sizes_in(body: Sum | Call) -> set[str]:
    total = body.argument if isinstance(body, Call) else body
    found: set[str] = set()
    for term in total.terms:
        for factor in term.factors:
            if isinstance(factor, SizeRef):
                found.add(factor.size)
            elif isinstance(factor, Bracket):
                found |= _sizes_in(factor.body)
            elif isinstance(factor, Call):
                found |= _sizes_in(factor)
    return found


def _with_missing(
    letters: Sequence[str],
    have: set[str],
    sizes: Mapping[str, Atoms],
    output: tuple[Index, ...],
    terms: tuple[Monomial, ...],
) -> tuple[Index, ...]:
    """Return the output with new indices for the letters not in the sum."""
    rest, fresh = (
        iter(output),
        count(1 + max((i.id for i in (*output, *(j for t in terms for j in t.all_indices()))), default=-1)),
    )
    return tuple(
        next(rest) if letter in have else Index(next(fresh), atom) for letter in letters for atom in sizes[letter]
    )
