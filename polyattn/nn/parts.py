"""Parts of a specification between two of its functions, as specifications of their own."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from polyattn.algebra import Spec
from polyattn.errors import SpecError
from polyattn.language.resolve import accesses_of
from polyattn.language.syntax import Definition, IndexSize, Input, Statements


@cache
def part(spec: Spec, output: str, *given: str) -> Spec:
    """Return the specification of one tensor in terms of others, which become its inputs.

    Blocks with functions outside the language (batch norm, dropout) run the polynomials between them on plans. Each
    such polynomial is cut out of the block's one proved specification.

    Args:
        output: the definition to compute.
        given: names of definitions, parameters or inputs already computed; the output must depend on each.

    Raises:
        SpecError: a name is not in the specification, or the output does not depend on a given tensor.

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
    # Definitions use earlier ones only, so one backward pass finds all that the output depends on.
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
    """Yield the sizes of output indices that no given tensor fixes in their definition."""
    numbers = {d.name: k for k, d in enumerate(spec.core)}
    for definition in chosen:
        fixed = {i for access in accesses_of(definition.body) if access.tensor in given for i in access.indices}
        for letter in definition.target.indices:
            if letter not in fixed:
                # Without the left-out definitions nothing else fixes this index, so the part declares it with a
                # `where`.
                yield IndexSize(letter, spec.sizes.name(spec.resolved.index_sizes[numbers[definition.name]][letter]))
