"""Undeclared tensors that are likely slips: names that differ from another one only by case.

Every undeclared tensor is a parameter, so a slip of case would silently make one. `where X : parameter` says that a
parameter is meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from polyattn.errors import SpecError
from polyattn.language.sizes import SizeTable
from polyattn.language.syntax import PARAMETER, Access, ParameterName, Statements, accesses, is_fixed


def check_slips(statements: Statements, undeclared: Mapping[str, Access], source: str) -> None:
    """Refuse slips of a text.

    Raises:
        SpecError: an undeclared tensor differs from an input, a definition or (a scalar) from a size only by case; or
            `where k : parameter` names another tensor than an undeclared one.
    """
    for declared in statements.parameters:
        if declared.name not in undeclared:
            raise SpecError(
                f"'{declared.name}' is declared a parameter, but is not an undeclared tensor that a definition uses: "
                "delete the declaration",
                source,
                declared.at.line,
                declared.at.column,
            )
    for access, other, what in _slips(statements, undeclared):
        raise SpecError(
            f"'{access.tensor}' is declared nowhere and differs from the {what} '{other}' only by case: write "
            f"'{other}', or declare it ('where {access.tensor} : {PARAMETER}') if a parameter is meant",
            source,
            access.at.line,
            access.at.column,
        )


def with_slips_declared(statements: Statements) -> Statements:
    """Return a tree whose text is not taken for one with slips: names that look like slips are declared."""
    known = {*(i.name for i in statements.inputs), *(d.name for d in statements.definitions)}
    undeclared = {a.tensor: a for d in statements.definitions for a in accesses(d.body) if a.tensor not in known}
    found = {access.tensor for access, _, _ in _slips(statements, undeclared)}
    if not found:
        return statements
    names = sorted(found | {p.name for p in statements.parameters})
    return replace(statements, parameters=tuple(map(ParameterName, names)))


def _slips(statements: Statements, undeclared: Mapping[str, Access]) -> Iterator[tuple[Access, str, str]]:
    meant = {p.name for p in statements.parameters}
    suspects = [a for name, a in undeclared.items() if not is_fixed(name) and name not in meant]
    if not suspects:
        return
    tensors = {d.name.lower(): (d.name, "definition") for d in statements.definitions}
    tensors |= {i.name.lower(): (i.name, "input") for i in statements.inputs}
    sizes = {s.lower(): (s, "size") for s in SizeTable.of(statements).names}
    for access in suspects:
        name = access.tensor.lower()
        found = tensors.get(name) or (None if access.slots else sizes.get(name))
        if found is not None:
            yield access, *found
