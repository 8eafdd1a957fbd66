"""The part of a specification that lies between two of its functions, as a specification of its own."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from polyattn.algebra import Spec
from polyattn.errors import SpecError
from polyattn.language.resolve import accesses_of
from polyattn.language.syntax import Definition, IndexSize, Input, Statements


@cache
def part(spec: Spec, output: str, *given: str) -> Spec:
    """What a specification says of one of its tensors in terms of others, which become inputs.

    A block whose layers stand between functions that the language has not (batch norm, dropout) runs the polynomials
    between them on plans; each is cut out of the specification that the block is proved about.

    Args:
        output: the definition to compute.
        given: definitions, parameters or inputs that are known by then. All of them have to be needed.

    Raises:
        SpecError: a name is not in the specification, or a given one is not needed.

    >>> e_nl = Spec(
    ...     "x[N,C]; where r : R; k[e,r] = x[e,f]*wk[f,r]; c[r,h] = k[e,r]*x[e,h]; y[a,h] = x[a,d]*wq[d,r]*c[r,h]"
    ... )
    >>> print(part(e_nl, "y", "x", "c"))
    x[N,C]
    c[R,C]
    where r : R
    y[a,h] = x[a,d]*wq[d,r]*c[r,h]
    """
    needed, chosen = {output}, list[Definition]()
    for definition in reversed(spec.statements.definitions):
        if definition.name in needed and definition.name not in given:
            chosen.insert(0, definition)
            needed |= {access.tensor for access in accesses_of(definition.body)}
    if not chosen or chosen[-1].name != output:
        raise SpecError(f"'{output}' is no definition of this specification, or is given")
    idle = [name for name in given if name not in needed]
    if idle:
        raise SpecError(f"'{output}' does not need {', '.join(idle)}")
    inputs = tuple(Input(name, tuple(spec.sizes.name(atoms) for atoms in spec.shape(name))) for name in given)
    have = spec.statements
    used = {i for d in chosen for access in (d.target, *accesses_of(d.body)) for i in access.indices}
    declared = (s for s in have.index_sizes if s.index in used)
    letters = {s.index: s for s in (*declared, *_open_sizes(spec, chosen, given))}
    ordered = sorted(letters.values(), key=lambda s: (s.size, s.index))
    return Spec(Statements(inputs, have.splits, tuple(ordered), tuple(chosen)))


def _open_sizes(spec: Spec, chosen: list[Definition], given: tuple[str, ...]) -> Iterator[IndexSize]:
    """The sizes of the indices on the left that no given tensor fixes in its definition."""
    numbers = {d.name: k for k, d in enumerate(spec.statements.definitions)}
    for definition in chosen:
        fixed = {i for access in accesses_of(definition.body) if access.tensor in given for i in access.indices}
        for letter in definition.target.indices:
            if letter not in fixed:
                yield IndexSize(letter, spec.sizes.name(spec.resolved.index_sizes[numbers[definition.name]][letter]))
