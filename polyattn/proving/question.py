"""The two sides of a question, in terms of the same atomic sizes.

Guarantees of `common_sides`: both sides have the same inputs, outputs of one shape, and one shape for each common
tensor; sizes split by one of them, or by a given size equation, are split in both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from polyattn.algebra import Index, Monomial, Polynomial, Signature, Spec
from polyattn.errors import ProofError, SpecError
from polyattn.language import Atoms, Specification
from polyattn.language.syntax import (
    IDENTITY,
    Access,
    Definition,
    IndexSize,
    Input,
    Number,
    Slot,
    Statements,
    Sum,
    Term,
)
from polyattn.proving.equations import as_bounds, has_bounds, simplified
from polyattn.proving.sizes import CommonSizes

Question = Specification | Polynomial | str
"""An argument of `prove` for one side."""


@dataclass(frozen=True)
class Side:
    """One side of a question.

    Attributes:
        name: "left" or "right".
        text: the given specification's core, printed.
        spec: the same over the sizes that both sides share.
        bounds: whether windows, `x[i-u]` summed over u, are written as conditions, `x[p]*[p <= i]*[i-p < 3]`.
    """

    name: str
    text: str
    spec: Spec
    bounds: bool = False

    @cached_property
    def terms(self) -> tuple[Monomial, ...]:
        """Return the monomials in the order of the text, each with its equations of positions simplified."""
        found = (simplified(t, self.output) for t in self.spec.expansion().terms)
        return tuple(part for t in found for part in (as_bounds(t, self.output) if self.bounds else (t,)))

    @cached_property
    def signature(self) -> Signature:
        # Not the polynomial's: its canonical form is long work, which a proof counts step by step.
        return self.spec.signature

    @property
    def output(self) -> tuple[Index, ...]:
        return self.signature.output_indices()

    @property
    def shapes(self) -> dict[str, tuple[Atoms, ...]]:
        """Return the inputs and parameters, with the size of each slot."""
        return {name: self.spec.shape(name) for name in (*self.spec.inputs, *self.spec.parameters)}


def read_questions(left: Question, right: Question) -> tuple[Specification, Specification]:
    """Return both sides as specifications.

    Raises:
        SpecError: a text is wrong.
        ProofError: a side is not a specification.
    """
    return _specification(left, "left"), _specification(right, "right")


def common_sides(left: Specification, right: Specification, sizes: CommonSizes) -> tuple[Side, Side]:
    """Return both sides over common atomic sizes.

    Raises:
        ProofError: the two have different inputs or outputs, or one tensor with two shapes.
    """
    first, second = _side("left", left, sizes), _side("right", right, sizes)
    if any(has_bounds(side.spec.expansion().terms) for side in (first, second)):
        first, second = (replace(side, bounds=True) for side in (first, second))
    _check_inputs(first, second)
    _check_output(first, second)
    _check_tensors(first, second)
    return first, second


def _side(name: str, spec: Specification, sizes: CommonSizes) -> Side:
    try:
        # The core, whose definitions a certificate and a counterexample speak of one by one.
        statements = spec.core_statements
        return Side(name, str(statements), Spec(sizes.rewritten(statements)))
    except SpecError as error:
        raise ProofError(f"over the sizes that both sides share, the {name} side is wrong: {error.reason}") from error


def _check_inputs(left: Side, right: Side) -> None:
    if {n: left.spec.shape(n) for n in left.spec.inputs} != {n: right.spec.shape(n) for n in right.spec.inputs}:
        raise ProofError(
            f"the inputs differ: {_inputs(left)} on the left, {_inputs(right)} on the right; "
            f"a question needs the same names and sizes on both sides"
        )


def _check_output(left: Side, right: Side) -> None:
    if left.spec.shape(left.spec.output) != right.spec.shape(right.spec.output):
        shown = [f"{s.spec.output}[{','.join(s.spec.output_shape)}]" for s in (left, right)]
        raise ProofError(f"the outputs have different shapes: {shown[0]} on the left, {shown[1]} on the right")


def _check_tensors(left: Side, right: Side) -> None:
    for name in left.spec.parameters:
        if name in right.spec.parameters and left.shapes[name] != right.shapes[name]:
            shown = [f"{name}[{','.join(s.spec.parameters[name])}]" for s in (left, right)]
            raise ProofError(f"'{name}' has different shapes: {shown[0]} on the left, {shown[1]} on the right")


def _inputs(side: Side) -> str:
    return ", ".join(f"{name}[{','.join(sizes)}]" for name, sizes in side.spec.inputs.items())


def _specification(question: Question, side: str) -> Specification:
    if isinstance(question, Polynomial):
        # The zero polynomial has no term to print, and needs a text of its own.
        return Spec.of(question) if question else Spec(zero_statements(question.signature))
    if isinstance(question, Specification):
        return question
    if isinstance(question, str):
        return Spec(question)
    raise ProofError(
        f"the {side} side is a {type(question).__name__}; a Spec, a Polynomial or the text of one is expected"
    )


def zero_statements(signature: Signature) -> Statements:
    """Return the zero polynomial as a text: 0 times identities, since a sum has to have each index."""
    slots, identities, sizes = [], [], {}
    for number, atoms in enumerate(signature.output_shape):
        letters = [f"i{number}_{k}" for k in range(len(atoms))]
        slots.append(Slot(tuple(letters)))
        for letter, atom in zip(letters, atoms, strict=True):
            identities.append(Access(IDENTITY, (Slot((letter,)), Slot((f"{letter}_",)))))
            sizes |= {letter: atom, f"{letter}_": atom}
    zero = Term(False, (Number(Fraction(0)), *identities), (False,) * (1 + len(identities)))
    inputs = tuple(Input(n, tuple(signature.sizes.name(s) for s in signature.shapes[n])) for n in signature.inputs)
    wheres = tuple(sorted((IndexSize(i, s) for i, s in sizes.items()), key=lambda w: (w.size, w.index)))
    definition = Definition(Access(signature.output, tuple(slots)), Sum((zero,)))
    return Statements(inputs, signature.sizes.splits, wheres, (definition,))
