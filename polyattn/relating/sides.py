"""The two sides of a relation: the first under names that do not clash with the second's, over the same sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count, product

from polyattn.algebra import FunctionFactor, Polynomial, Spec, TensorFactor
from polyattn.algebra.polynomial import common_refinement
from polyattn.errors import SizeError
from polyattn.language.syntax import (
    Access,
    Bracket,
    Call,
    Definition,
    Factor,
    Input,
    Split,
    Statements,
    Sum,
)
from polyattn.proving.sizes import CommonSizes

MOST_INPUTS = 4
"""The most inputs of a side whose assignments are tried."""


@dataclass(frozen=True)
class Names:
    """New names of the first side: its tensors and sizes that are called otherwise."""

    tensors: Mapping[str, str]
    sizes: Mapping[str, str]


@dataclass(frozen=True)
class Sides:
    """Both sides as polynomials over the same atomic sizes, without a name of a parameter in common.

    Attributes:
        a, b: the polynomials.
        names: the names of the first side that are new; `back` undoes them.
        inputs: for each input of the first side the input of the second that it becomes.
        pairs: for each size of the first side's inputs and output the size of the second that it becomes.
        parameters: the parameters of either side, in the new names.
    """

    a: Polynomial
    b: Polynomial
    names: Names
    inputs: Mapping[str, str]
    pairs: Mapping[str, str]
    parameters: tuple[tuple[str, ...], tuple[str, ...]]

    @property
    def shared(self) -> tuple[str, ...]:
        """Return the atomic sizes of the inputs and the output."""
        signature = self.b.signature
        shapes = [*(signature.shapes[n] for n in signature.inputs), signature.output_shape]
        return tuple(dict.fromkeys(atom for shape in shapes for slot in shape for atom in slot))


def sides(a: Spec, b: Spec) -> Iterator[Sides]:
    """Yield the sides for each way in which the inputs of `a` become those of `b`: equal names first."""
    for inputs in assignments(a, b):
        pairs = _pairs(a, b, inputs)
        if pairs is None:
            continue
        names = _names(a, b, inputs, pairs)
        left = renamed(a, names)
        try:
            first, second = common_refinement(left.polynomial(), b.polynomial())
        except SizeError:  # splits of one size that do not fit together
            continue
        if len(first.signature.output_shape) != len(second.signature.output_shape):
            continue
        yield Sides(first, second, names, inputs, pairs, (tuple(left.parameters), tuple(b.parameters)))


def may_become(a: Spec, b: Spec) -> bool:
    """Return whether each term of `b` has one of `a` with as many fixed tensors, and with its functions at least."""
    if len(a.inputs) < len(b.inputs) or len(a.output_shape) != len(b.output_shape):
        return False
    mine, theirs = _profile(a), _profile(b)
    return len(mine) >= len(theirs) and all(
        any(count == have and not functions - more for have, more in mine) for count, functions in theirs
    )


@lru_cache(maxsize=512)
def _profile(spec: Spec) -> tuple[tuple[int, Counter[str]], ...]:
    """Return for each term the number of its fixed tensors, and its functions."""
    found = []
    for term in spec.polynomial().terms:
        fixed = sum(isinstance(f, TensorFactor) and f.tensor not in spec.parameters for f in term.factors)
        found.append((fixed, Counter(f.function for f in term.factors if isinstance(f, FunctionFactor))))
    return tuple(found)


def assignments(a: Spec, b: Spec) -> Iterator[dict[str, str]]:
    """Yield the ways to set each input of `a` to an input of `b` with as many axes, such that each of `b` is taken."""
    if not len(b.inputs) <= len(a.inputs) <= MOST_INPUTS:
        return
    options = [
        sorted((n for n in b.inputs if len(b.inputs[n]) == len(shape)), key=lambda n: n != name)
        for name, shape in a.inputs.items()
    ]
    for choice in product(*options):
        if set(choice) == set(b.inputs):
            yield dict(zip(a.inputs, choice, strict=True))


def _pairs(a: Spec, b: Spec, inputs: Mapping[str, str]) -> dict[str, str] | None:
    """Return the size of `b` for each size of the inputs and the output of `a`; None if one would have to be two."""
    shapes = [(a.inputs[mine], b.inputs[theirs]) for mine, theirs in inputs.items()]
    if len(a.output_shape) != len(b.output_shape):
        return None
    pairs: dict[str, str] = {}
    for mine, theirs in (*shapes, (a.output_shape, b.output_shape)):
        for size, other in zip(mine, theirs, strict=True):
            if not _paired(a, b, size, other, pairs):
                return None
    return pairs


def _paired(a: Spec, b: Spec, size: str, other: str, pairs: dict[str, str]) -> bool:
    if pairs.setdefault(size, other) != other or (size.isdigit() and size != other):
        return False
    parts, others = a.sizes.parts(size), b.sizes.parts(other)
    if parts is None or others is None:
        return True
    return len(parts) == len(others) and all(
        _paired(a, b, part, o, pairs) for part, o in zip(parts, others, strict=True)
    )


def _names(a: Spec, b: Spec, inputs: Mapping[str, str], pairs: Mapping[str, str]) -> Names:
    """Return names for the first side: the second's for shared tensors, fresh ones for all else that clashes."""
    taken = tensors_of(a) | tensors_of(b)
    tensors: dict[str, str] = {mine: theirs for mine, theirs in inputs.items() if mine != theirs}
    theirs = tensors_of(b)
    # An intermediate of both sides is each side's own.
    clashing = [n for n in a.parameters if n in theirs or n in tensors.values()]
    clashing += [d.name for d in a.core if d.name in {*b.inputs, *b.parameters} and d.name != a.output]
    for name in clashing:
        tensors[name] = fresh(name, taken)
        taken.add(tensors[name])
    sizes = {size: other for size, other in pairs.items() if size != other}
    known = {*a.sizes.names, *b.sizes.names}
    for size in a.sizes.names:
        if size not in pairs and (size in b.sizes.names or size in sizes.values()):
            sizes[size] = fresh(size, known)
            known.add(sizes[size])
    return Names(tensors, sizes)


def tensors_of(spec: Spec) -> set[str]:
    """Return the names of all tensors of a specification, and the indices, which a scalar's name may not be."""
    indices = {i for sizes in spec.resolved.index_sizes for i in sizes}
    return {*spec.inputs, *spec.parameters, *(d.name for d in spec.core), *indices}


def fresh(name: str, taken: set[str]) -> str:
    """Return a name that is not taken, made from another."""
    return next(new for k in count() if (new := f"{name}_a{k or ''}") not in taken)


def renamed(spec: Spec, names: Names) -> Spec:
    """Return a specification with other names; two inputs of one name are one."""
    if not names.tensors and not names.sizes:
        return spec
    statements = spec.core_statements if spec.has_offsets else spec.statements

    def size(name: str) -> str:
        return names.sizes.get(name, name)

    def access(old: Access) -> Access:
        return replace(old, tensor=names.tensors.get(old.tensor, old.tensor))

    splits = tuple(Split(size(s.size), tuple(map(size, s.parts))) for s in statements.splits)
    inputs = tuple(dict.fromkeys(Input(access(Access(i.name, ())).tensor, i.sizes) for i in statements.inputs))
    definitions = tuple(Definition(access(d.target), with_accesses(d.body, access)) for d in statements.definitions)
    new = replace(statements, inputs=inputs, definitions=definitions)
    new = CommonSizes(names.sizes, splits).rewritten(new)
    # Inputs that became one are declared once.
    declared = tuple({i.name: i for i in new.inputs}.values())
    splits = tuple(sorted({*new.splits, *splits}, key=lambda s: s.size))
    wheres = tuple(sorted(set(new.index_sizes), key=lambda w: (w.size, w.index)))
    return Spec(Statements(declared, splits, wheres, new.definitions, statements.functions))


def with_accesses(body: Sum | Call, access: Callable[[Access], Access]) -> Sum | Call:
    """Return a right-hand side with each of its accesses changed."""

    def factor(old: Factor) -> Factor:
        if isinstance(old, Bracket):
            return Bracket(total(old.body))
        if isinstance(old, Call):
            return replace(old, argument=total(old.argument))
        return access(old) if isinstance(old, Access) else old

    def total(old: Sum) -> Sum:
        return Sum(tuple(replace(t, factors=tuple(map(factor, t.factors))) for t in old.terms))

    return replace(body, argument=total(body.argument)) if isinstance(body, Call) else total(body)
