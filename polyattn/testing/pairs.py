"""Hypothesis strategies for pairs of texts: equal by construction, or different by one edit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from random import Random

from hypothesis import assume
from hypothesis import strategies as st

from polyattn.errors import BudgetError, SpecError
from polyattn.language import Specification, value_of
from polyattn.language.parser import parse
from polyattn.language.syntax import (
    IDENTITY,
    Access,
    Bracket,
    Call,
    Definition,
    Factor,
    Number,
    SizeRef,
    Slot,
    Split,
    Statements,
    Sum,
    Term,
)
from polyattn.testing.changes import edited, renamed
from polyattn.testing.modular import agree
from polyattn.testing.strategies import specification_texts

Rewriting = Callable[[Statements, Random], Statements | None]
SPLIT_PARTS = ("Xa", "Xb")


@st.composite
def equivalent_pairs(draw: st.DrawFn, *, max_rewritings: int = 4, **options) -> tuple[str, str]:
    """Draw two texts of one function: the second is the first, soundly rewritten at random places.

    Args:
        max_rewritings: limit on the rewritings, besides renaming and reordering.
        options: those of `specification_texts`.
    """
    text = draw(specification_texts(**options))
    random = draw(st.randoms(use_true_random=False))
    return text, draw(renamed(rewritten(text, random, draw(st.integers(0, max_rewritings)))))


@st.composite
def near_misses(draw: st.DrawFn, **options) -> tuple[str, str]:
    """Draw two texts of different functions that differ in one index, sign or coefficient.

    Their difference is decided by evaluation modulo a prime, at sizes larger than the number of indices.
    """
    text = draw(specification_texts(**options))
    other = draw(renamed(draw(edited(text))))
    left, right = Specification(text), Specification(other)
    try:
        assume(not agree(left, right, generic_sizes(left, right)))
    except BudgetError:  # too large to decide
        assume(False)
    return text, other


def rewritten(text: str, random: Random, count: int) -> str:
    """Apply some sound rewritings to a text; one that does not apply leaves it unchanged."""
    for _ in range(count):
        statements = random.choice(REWRITINGS)(parse(text), random)
        try:
            text = str(Specification(str(statements))) if statements is not None else text
        except SpecError:  # such as an index whose size only the rest of the product says
            continue
    return text


def generic_sizes(*specs: Specification) -> dict[str, int]:
    """Return a number for every atomic size, larger than the number of its indices in any expanded product."""
    from polyattn.algebra import Spec

    sizes = {size: 2 for spec in specs for size in spec.sizes.atomic}
    for spec in specs:
        expansion = Spec(spec.statements).expansion()
        for term in expansion.terms:
            indices = {*expansion.output, *term.all_indices()}
            for size, number in Counter(i.size for i in indices).items():
                sizes[size] = max(sizes.get(size, 0), number + 1)
    for spec in specs:  # what only one of them splits is as large in the other
        sizes |= {x.size: value_of(spec.sizes.atoms(x.size), sizes) for x in spec.statements.splits}
    return {size: number for size, number in sizes.items() if not size.isdigit()}


def _letters(factor: Factor) -> set[str]:
    if isinstance(factor, Bracket) and isinstance(factor.body, Sum):
        return {i for t in factor.body.terms for f in t.factors for i in _letters(f)}
    return set(factor.indices) if isinstance(factor, Access) else set()


def _sum(definition: Definition) -> Sum:
    return definition.body.argument if isinstance(definition.body, Call) else definition.body


def _with_terms(statements: Statements, number: int, terms: Sequence[Term], *before: Definition) -> Statements:
    definitions = list(statements.definitions)
    old, body = definitions[number], Sum(tuple(terms))
    new = Call(old.body.function, old.body.over, body) if isinstance(old.body, Call) else body
    definitions[number : number + 1] = [*before, replace(old, body=new)]
    return replace(statements, definitions=tuple(definitions))


def _term(statements: Statements, random: Random) -> tuple[int, int, list[Term]]:
    number = random.randrange(len(statements.definitions))
    terms = list(_sum(statements.definitions[number]).terms)
    return number, random.randrange(len(terms)), terms


def split_term(statements: Statements, random: Random) -> Statements:
    """Rewrite `t` as `2/3*t + 1/3*t`, or `3*t - 2*t`."""
    number, place, terms = _term(statements, random)
    share = random.choice([Fraction(2), Fraction(3), Fraction(5), Fraction(-1)])
    old = terms[place]
    parts = []
    for piece in (share, 1 - share):
        factors = (Number(abs(piece)), *old.factors)
        parts.append(Term(old.negative != (piece < 0), factors, (False, *old.divides)))
    return _with_terms(statements, number, [*terms[:place], *parts, *terms[place + 1 :]])


def bracket_factor(statements: Statements, random: Random) -> Statements | None:
    """Rewrite a tensor `t` as `(3*t - 2*t)`."""
    number, place, terms = _term(statements, random)
    tensors = [k for k, f in enumerate(terms[place].factors) if isinstance(f, Access) and f.slots]
    if not tensors:
        return None
    k = random.choice(tensors)
    factor = terms[place].factors[k]
    copies = [
        Term(n < 0, (Number(Fraction(abs(n))), factor), (False, False)) for n in random.choice([(3, -2), (2, -1)])
    ]
    terms[place] = replace(terms[place], factors=_put(terms[place].factors, k, Bracket(Sum(tuple(copies)))))
    return _with_terms(statements, number, terms)


def _put(factors: tuple[Factor, ...], place: int, *new: Factor) -> tuple[Factor, ...]:
    return (*factors[:place], *new, *factors[place + 1 :])


def name_product(statements: Statements, random: Random) -> Statements | None:
    """Name some factors of a product as an intermediate, including numbers and sizes such as 1/N."""
    number, place, terms = _term(statements, random)
    old, definition = terms[place], statements.definitions[number]
    movable = [k for k, f in enumerate(old.factors) if isinstance(f, Access | Number | SizeRef)]
    chosen = [k for k in movable if random.random() < 0.6]
    inside = [k for k in chosen if isinstance(old.factors[k], Access)]
    if not inside:
        return None
    over = definition.body.over if isinstance(definition.body, Call) else ()
    elsewhere = {*definition.target.indices, *over}
    # An index that occurs outside the chosen factors has to stay an index of the intermediate.
    elsewhere |= {i for k, f in enumerate(old.factors) if k not in chosen for i in _letters(f)}
    if any(isinstance(f, Bracket) for f in old.factors):  # brackets have rules about which indices they share
        return None
    indices = dict.fromkeys(i for k in inside for i in old.factors[k].indices)  # type: ignore[union-attr]
    slots = tuple(Slot((i,)) for i in indices if i in elsewhere)
    access = Access(_fresh_name(statements), slots)
    factors = [(old.factors[k], old.divides[k]) for k in chosen]
    rest = [(f, d) for k, (f, d) in enumerate(zip(old.factors, old.divides, strict=True)) if k not in chosen]
    terms[place] = _product(old.negative, [(access, False), *rest])
    return _with_terms(statements, number, terms, Definition(access, Sum((_product(False, factors),))))


def _product(negative: bool, pairs: Sequence[tuple[Factor, bool]]) -> Term:
    if pairs[0][1]:  # nothing stands before the first '/'
        pairs = [(Number(Fraction(1)), False), *pairs]
    return Term(negative, tuple(f for f, _ in pairs), tuple(d for _, d in pairs))


def _fresh_name(statements: Statements) -> str:
    text = str(statements)
    return next(name for k in range(1000) if (name := f"part{k}") not in text)


def insert_identity(statements: Statements, random: Random) -> Statements | None:
    """Rewrite `t[i]` as `I[i,new]*t[new]`."""
    number, place, terms = _term(statements, random)
    tensors = [
        k for k, f in enumerate(terms[place].factors) if isinstance(f, Access) and f.slots and f.tensor != IDENTITY
    ]
    if not tensors:
        return None
    k = random.choice(tensors)
    access = terms[place].factors[k]
    assert isinstance(access, Access)
    slot = random.randrange(len(access.slots))
    old = random.choice(access.slots[slot].indices)
    letters = {i for d in statements.definitions for t in _sum(d).terms for f in t.factors for i in _letters(f)}
    new = next(name for j in range(1000) if (name := f"new{j}") not in letters)
    indices = list(access.slots[slot].indices)
    indices[indices.index(old)] = new
    slots = (*access.slots[:slot], Slot(tuple(indices)), *access.slots[slot + 1 :])
    identity = Access(IDENTITY, (Slot((old,)), Slot((new,))))
    factors = (identity, *_put(terms[place].factors, k, Access(access.tensor, slots)))
    # Brackets have rules about the indices they share, which a new summed index may break.
    if any(isinstance(f, Bracket) for f in terms[place].factors):
        return None
    terms[place] = replace(terms[place], factors=factors, divides=(False, *terms[place].divides))
    return _with_terms(statements, number, terms)


def expand(statements: Statements, random: Random) -> Statements | None:
    """Expand the text: substitute intermediates, and multiply out brackets."""
    from polyattn.algebra import Spec

    polynomial = Spec(statements).polynomial()
    return Spec.of(polynomial).statements if polynomial else None


def split_size(statements: Statements, random: Random) -> Statements | None:
    """Declare a size to be a product."""
    split = {s for x in statements.splits for s in (x.size, *x.parts)}
    # Sizes that are split already, or parts, would make a second split ambiguous.
    sizes = sorted({s for i in statements.inputs for s in i.sizes if not s.isdigit()} - split)
    if not sizes:
        return None
    new = Split(random.choice(sizes), SPLIT_PARTS)
    splits = tuple(sorted((*statements.splits, new), key=lambda s: s.size))
    return replace(statements, splits=splits) if not split & set(SPLIT_PARTS) else None


REWRITINGS: tuple[Rewriting, ...] = (
    # `name_product` counts twice: intermediates exercise the language most.
    *(split_term, bracket_factor, name_product, name_product, insert_identity, expand, split_size),
)
