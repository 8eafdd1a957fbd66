"""Changes to a specification's text: some preserve its meaning, and one may not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from itertools import chain, count
from random import Random
from typing import Any

from hypothesis import strategies as st

from polyattn.errors import SpecError
from polyattn.language import Specification
from polyattn.language.parser import parse
from polyattn.language.resolve import accesses_of
from polyattn.language.syntax import (
    Access,
    Bracket,
    Call,
    Definition,
    Factor,
    IndexSize,
    Number,
    SizeRef,
    Slot,
    Statements,
    Sum,
    Term,
)

NAMES = tuple("abcdefghijklmnopqrstuvwxyz") + tuple(f"{letter}1" for letter in "ijklmnuv")
TOKEN = re.compile(r"[A-Za-z][A-Za-z0-9_]*|[0-9.]+|\S")
COMMENT = "# a; [b (= c\n"


@st.composite
def renamed(draw: st.DrawFn, text: str) -> str:
    """Draw another text of the same polynomial: other index names, and factors and terms in another order.

    `y[a,b] = x[a,d]*w[d,b]` may become `y[q,c] = w[m,c]*x[q,m]`.
    """
    statements, random = parse(text), draw(st.randoms(use_true_random=False))
    names = list(NAMES)
    random.shuffle(names)
    # A scalar tensor and an index of one name would be ambiguous.
    bare = {a.tensor for d in statements.definitions for a in accesses_of(d.body) if not a.slots}
    declared = dict.fromkeys(d.index for d in statements.index_sizes)
    globally = dict(zip(declared, _fresh(names, bare), strict=False))
    definitions = []
    for definition in statements.definitions:
        # Names without a declaration start again in every definition.
        own = dict.fromkeys(i for i in _indices(definition) if i not in globally)
        others = dict(zip(own, _fresh(names, bare | set(globally.values())), strict=False))
        definition = with_indices(definition, {**globally, **others})
        definitions.append(replace(definition, body=_shuffled(definition.body, random)))
    wheres = tuple(IndexSize(globally[d.index], d.size) for d in statements.index_sizes)
    return str(replace(statements, index_sizes=wheres, definitions=tuple(definitions)))


@st.composite
def edited(draw: st.DrawFn, text: str) -> str:
    """Draw a valid specification with a change in one index, one sign or one coefficient.

    The polynomial may be the same.
    """
    spec, random = Specification(text), draw(st.randoms(use_true_random=False))
    if draw(st.booleans()):
        edits = list(_index_edits(spec))
        random.shuffle(edits)
        # Not every edit is valid; the bound keeps the draw short where few are.
        for statements in edits[:20]:
            try:
                return str(Specification(str(statements)))
            except SpecError:
                continue
    edits = list(_coefficient_edits(spec))
    return str(draw(st.sampled_from(edits)))


@st.composite
def respaced(draw: st.DrawFn, text: str) -> str:
    """Draw another layout of the same specification: spaces, line ends, semicolons, continued lines and comments."""
    random = draw(st.randoms(use_true_random=False))
    ends = ("\n", ";", " ;\t", "\r\n", "\n\n", f" {COMMENT}", f";{COMMENT}")
    return "".join(_respaced_statement(line, random) + random.choice(ends) for line in str(parse(text)).split("\n"))


def with_indices(definition: Definition, names: Mapping[str, str]) -> Definition:
    """Rename the indices of a definition."""

    def access(old: Access) -> Access:
        return Access(old.tensor, tuple(Slot(tuple(names[i] for i in slot.indices)) for slot in old.slots))

    body = _rebuilt(definition.body, access)
    if isinstance(body, Call):
        body = replace(body, over=tuple(names[i] for i in body.over))
    return Definition(access(definition.target), body)


def _same(value: Any) -> Any:
    return value


def _rebuilt(
    body: Sum | Call, access: Callable[[Access], Access] = _same, term: Callable[[Term], Term] = _same
) -> Sum | Call:
    """Change all accesses of a right-hand side and then all its terms, the inner ones first."""
    if isinstance(body, Call):
        return replace(body, argument=_rebuilt_sum(body.argument, access, term))
    return _rebuilt_sum(body, access, term)


def _rebuilt_sum(total: Sum, access: Callable[[Access], Access], term: Callable[[Term], Term]) -> Sum:
    def factor(old: Factor) -> Factor:
        if isinstance(old, Bracket):
            return Bracket(_rebuilt_sum(old.body, access, term))
        return access(old) if isinstance(old, Access) else old

    return Sum(tuple(term(replace(t, factors=tuple(map(factor, t.factors)))) for t in total.terms))


def _shuffled(body: Sum | Call, random: Random) -> Sum | Call:
    if isinstance(body, Call):
        over = tuple(random.sample(body.over, len(body.over)))
        return Call(body.function, over, _shuffled_sum(body.argument, random))
    return _shuffled_sum(body, random)


def _shuffled_sum(total: Sum, random: Random) -> Sum:
    return Sum(tuple(_shuffled_term(term, random) for term in random.sample(total.terms, len(total.terms))))


def _shuffled_term(term: Term, random: Random) -> Term:
    factors = [Bracket(_shuffled_sum(f.body, random)) if isinstance(f, Bracket) else f for f in term.factors]
    pairs = list(zip(factors, term.divides, strict=True))
    random.shuffle(pairs)
    if pairs[0][1]:  # nothing stands before the first '/'
        pairs.insert(0, (Number(Fraction(1)), False))
    return Term(term.negative, tuple(factor for factor, _ in pairs), tuple(divide for _, divide in pairs))


def _indices(definition: Definition) -> Iterator[str]:
    yield from definition.target.indices
    for access in accesses_of(definition.body):
        yield from access.indices


def _fresh(names: list[str], taken: set[str]) -> Iterator[str]:
    """Yield free names without end: these, and then longer ones."""
    endless = chain(names, (f"{name}_{number}" for number in count(2) for name in names))
    return (name for name in endless if name not in taken)


def _index_edits(spec: Specification) -> Iterator[Statements]:
    """Yield every replacement of one index by another of the same size; not all of them are valid."""
    for number, definition in enumerate(spec.statements.definitions):
        sizes = spec.resolved.index_sizes[number]
        for place, old in enumerate(accesses_of(definition.body)):
            for k, slot in enumerate(old.slots):
                for j, index in enumerate(slot.indices):
                    for other in sizes:
                        if other != index and sizes[other] == sizes[index]:
                            indices = (*slot.indices[:j], other, *slot.indices[j + 1 :])
                            slots = (*old.slots[:k], Slot(indices), *old.slots[k + 1 :])
                            yield _with_access(spec.statements, number, place, Access(old.tensor, slots))


def _with_access(statements: Statements, number: int, place: int, new: Access) -> Statements:
    body = _rebuilt(statements.definitions[number].body, access=_only(place, lambda _: new))
    return _with_body(statements, number, body)


def _only(place: int, change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Restrict a change to the value with this number among those passed."""
    numbers = count()
    return lambda value: change(value) if next(numbers) == place else value


def _coefficient_edits(spec: Specification) -> Iterator[Statements]:
    """Yield every term with its sign changed, doubled, or divided by a size."""

    def doubled(term: Term) -> Term:
        return replace(term, factors=(Number(Fraction(2)), *term.factors), divides=(False, *term.divides))

    def negated(term: Term) -> Term:
        return replace(term, negative=not term.negative)

    def divided(size: str) -> Callable[[Term], Term]:
        return lambda term: replace(term, factors=(*term.factors, SizeRef(size)), divides=(*term.divides, True))

    for number, definition in enumerate(spec.statements.definitions):
        for place in range(_count_terms(definition.body)):
            for change in (doubled, negated, *map(divided, spec.sizes.names)):
                body = _rebuilt(definition.body, term=_only(place, change))
                yield _with_body(spec.statements, number, body)


def _count_terms(body: Sum | Call) -> int:
    # `_rebuilt` visits the terms in the order in which `_only` numbers them.
    found: list[Term] = []
    _rebuilt(body, term=lambda term: found.append(term) or term)
    return len(found)


def _with_body(statements: Statements, number: int, body: Sum | Call) -> Statements:
    definitions = list(statements.definitions)
    definitions[number] = replace(definitions[number], body=body)
    return replace(statements, definitions=tuple(definitions))


def _respaced_statement(line: str, random: Random) -> str:
    text, depth, before = "", 0, ""
    for token in TOKEN.findall(line):
        words = re.search(r"\w$", before) and re.match(r"\w", token)
        # Inside brackets, or beside an operator, a line break does not end a statement.
        may_break = depth or token in "+-*/=" or before in ("+", "-", "*", "/", "=", ",")
        # Two words without a space between them would become one.
        spaces = ["", " ", "\t "] if not words else [" ", " \t"]
        if before and may_break:
            spaces += ["\n", f"  {COMMENT}  ", "\r\n  "]
        text += random.choice(spaces) if before else ""
        text += token
        depth += (token in "[(") - (token in ")]")
        before = token
    return text
