"""`Specification`: a checked text. The algebra builds the public `Spec` on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

from polyattn.errors import SpecError
from polyattn.language.einsum import einsum_text
from polyattn.language.functions import SUMS, check_given
from polyattn.language.latex import latex
from polyattn.language.mathml import mathml
from polyattn.language.offsets import spelt_out
from polyattn.language.parser import parse
from polyattn.language.resolve import Resolved, accesses_of, resolve
from polyattn.language.sizes import Atoms, SizeTable
from polyattn.language.slips import with_slips_declared
from polyattn.language.syntax import Call, Definition, Statements


@dataclass(frozen=True, init=False, repr=False)
class Specification:
    """An attention layer's equations: immutable and hashable; the printed text parses to an equal value.

    Raises:
        SpecError: the text is wrong; the message shows the line with a caret under the place.
    """

    statements: Statements
    resolved: Resolved = field(compare=False)

    def __init__(self, text: str | bytes | Statements):
        if isinstance(text, Statements):
            statements, source = with_slips_declared(text), ""
        else:
            statements = parse(text)
            source = text if isinstance(text, str) else text.decode("utf-8")
        # A frozen dataclass forbids plain assignment in its own __init__, too.
        object.__setattr__(self, "statements", statements)
        object.__setattr__(self, "resolved", resolve(statements, source))

    @classmethod
    def from_einsum(cls, equation: str, operands: str, *, input: str, where: str | tuple[str, ...] = ()) -> Self:
        """Return the specification of classic einsum text.

        >>> print(Specification.from_einsum("ad,df->af", "x,w", input="x[N,C]"))
        x[N,C]
        y[a,f] = x[a,d]*w[d,f]
        """
        return cls(einsum_text(equation, operands, input, (where,) if isinstance(where, str) else tuple(where)))

    @cached_property
    def _hash(self) -> int:
        # The class takes part: a Spec and a Specification of one text are not interchangeable cache
        # keys.
        return hash((type(self), self.statements))

    def __hash__(self) -> int:
        """Return the hash, computed once: a module looks its specification up in caches at every call."""
        return self._hash

    def __str__(self) -> str:
        return str(self.statements)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {latex(self.statements)}$"

    def latex(self) -> str:
        """Return the definitions as one LaTeX `aligned` block."""
        return latex(self.statements)

    def mathml(self) -> str:
        """Return the definitions as one MathML `math` element; browsers typeset it."""
        return mathml(self.statements)

    @property
    def sizes(self) -> SizeTable:
        return self.resolved.sizes

    @property
    def inputs(self) -> dict[str, tuple[str, ...]]:
        """Return each input's shape, as names of sizes."""
        return {i.name: i.sizes for i in self.statements.inputs}

    @property
    def parameters(self) -> dict[str, tuple[str, ...]]:
        """Return each parameter's shape, as names of sizes; () for a scalar."""
        return {name: self._names(self.resolved.shapes[name]) for name in self.resolved.parameters}

    @property
    def output(self) -> str:
        """Return the name of the last definition."""
        return self.statements.definitions[-1].name

    @property
    def output_shape(self) -> tuple[str, ...]:
        return self._names(self.resolved.shapes[self.output])

    def shape(self, tensor: str) -> tuple[Atoms, ...]:
        """Return the size of each slot of any tensor of the specification, as atomic sizes."""
        return self.resolved.shapes[tensor]

    @property
    def has_functions(self) -> bool:
        """Return whether any definition divides by a factor or applies a function other than `sum` and `mean`."""
        return any(isinstance(d.body, Call) and d.body.function not in SUMS for d in self.core)

    @property
    def core(self) -> tuple[Definition, ...]:
        """Return the definitions with each function as a whole right-hand side, and quotients as reciprocals."""
        return self.resolved.core

    @property
    def core_statements(self) -> Statements:
        """Return the statements with the core's definitions: a text without functions inside of products."""
        if not self.has_offsets:
            return replace(self.statements, definitions=self.core)
        return spelt_out(self.statements, self.core, self.resolved.index_sizes, self.sizes)

    @property
    def has_offsets(self) -> bool:
        """Return whether a slot holds a combination or a number."""
        return any(
            s.form or s.numbers for d in self.statements.definitions for a in accesses_of(d.body) for s in a.slots
        )

    @property
    def functions(self) -> tuple[str, ...]:
        """Return the names of the functions of the user's own, `where phi : function`."""
        return tuple(f.name for f in self.statements.functions)

    def check_functions(self, given: Mapping[str, object]) -> None:
        """Check that there is a callable for each function that the text declares, and for no other.

        Raises:
            SpecError: `functions` lacks one, has one of another name, or a value that cannot be called.
        """
        check_given(self.functions, given)

    def with_statements(self, *texts: str) -> Self:
        """Return the specification with further statements, each definition inserted before the first use of its name.

        A definition of a parameter substitutes it: `with_statements("wf[d,f] = wq[d,r]*wk[f,r]", "where r : R")`.
        """
        extra = parse("\n".join(texts))
        have = self.statements
        definitions = list(have.definitions)
        # Backwards, because an earlier new definition may be used by a later one, which then stands
        # already.
        for new in reversed(extra.definitions):
            used_by = [i for i, d in enumerate(definitions) if new.name in _used(d)]
            # A name used only by a new definition that stands before it is an error of order, not of
            # spelling.
            if new.name in self.resolved.parameters or any(new.name in _used(d) for d in extra.definitions):
                reason = (
                    f"'{new.name}' is used before its definition: "
                    "definitions stand in the order in which they are computed"
                )
            else:
                known = ", ".join(self.resolved.parameters) or "none"
                reason, used_by = f"'{new.name}' is not a parameter of this specification (they are {known})", []
            if not used_by:
                raise SpecError(reason, "\n".join(texts), new.target.at.line, new.target.at.column)
            definitions.insert(used_by[0], new)
        merged = Statements(
            have.inputs + extra.inputs,
            tuple(sorted(dict.fromkeys(have.splits + extra.splits), key=lambda s: s.size)),
            tuple(sorted({*have.index_sizes, *extra.index_sizes}, key=lambda s: (s.size, s.index))),
            tuple(definitions),
            tuple(sorted({*have.functions, *extra.functions}, key=lambda f: f.name)),
            tuple(
                sorted(
                    {p for p in (*have.parameters, *extra.parameters) if all(p.name != d.name for d in definitions)},
                    key=lambda p: p.name,
                )
            ),
        )
        # Parsed again, so that the merged text is checked as a whole and its errors point into it.
        return type(self)(str(merged))

    def _names(self, shape: tuple[Atoms, ...]) -> tuple[str, ...]:
        return tuple(self.sizes.name(atoms) for atoms in shape)


def _used(definition: Definition) -> set[str]:
    return {access.tensor for access in accesses_of(definition.body)}
