"""Syntax trees as MathML, with explicit sums: typeset by a page without fonts or scripts of its own."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from polyattn.language.latex import GREEK, latex, split_index, split_name, summed_here
from polyattn.language.syntax import (
    FUNCTIONS_REDUCING,
    Access,
    Bracket,
    Call,
    Definition,
    Number,
    SizeRef,
    Slot,
    Statements,
    Sum,
    Term,
)

# In the order of GREEK.
_LETTERS = dict(zip(GREEK, "αβγδεζηθκλμνξπρστφχψω", strict=True))
_SPACE = '<mspace width="0.15em"></mspace>'


def mathml(statements: Statements) -> str:
    """Return all definitions as one `math` element, a table row each; the LaTeX text is its alternative text."""
    rows = "".join(
        f"<mtr><mtd>{_access(d.target)}</mtd><mtd><mo>=</mo></mtd><mtd>{_row(_right(d))}</mtd></mtr>"
        for d in statements.definitions
    )
    text = escape(latex(statements))
    return f'<math display="block" alttext="{text}"><mtable displaystyle="true">{rows}</mtable></math>'


def index_mathml(name: str) -> str:
    """Return an index or a size in MathML: `i1` as i with a subscript, `alpha` as the Greek letter, `a_` with a
    prime."""
    word, digits, primes = split_index(name)
    base = _word(word)
    mark = f"<mo>{'′' * primes}</mo>" if primes else ""
    # One element for both scripts: a nested msub and msup would not align them.
    if digits and mark:
        return f"<msubsup>{base}<mn>{digits}</mn>{mark}</msubsup>"
    if digits:
        return f"<msub>{base}<mn>{digits}</mn></msub>"
    return f"<msup>{base}{mark}</msup>" if mark else base


def _word(word: str) -> str:
    return f"<mi>{escape(_LETTERS.get(word, word))}</mi>"


def _access(access: Access) -> str:
    word, mark = split_name(access.tensor)
    base = _word(word)
    above = f"<mrow><mo>(</mo><mn>{mark}</mn><mo>)</mo></mrow>" if mark.isdigit() else f"<mtext>{escape(mark)}</mtext>"
    below = _row(_SPACE.join(map(_slot, access.slots)))
    if mark and access.slots:
        return f"<msubsup>{base}{below}{above}</msubsup>"
    if mark:
        return f"<msup>{base}{above}</msup>"
    return f"<msub>{base}{below}</msub>" if access.slots else base


def _slot(slot: Slot) -> str:
    indices = _SPACE.join(map(index_mathml, slot.indices))
    return indices if len(slot.indices) == 1 else f"<mo>(</mo>{indices}<mo>)</mo>"


def _right(definition: Definition) -> str:
    free = set(definition.target.indices)
    body = definition.body
    if not isinstance(body, Call):
        return _sum(body, free)
    name = {"relu": "ReLU", "sigmoid": "σ"}.get(body.function, body.function)
    function = f"<mi>{name}</mi>"
    if body.over:
        function = f"<msub>{function}{_list(body.over)}</msub>"
    # An index reduced by max or mean is bound by the function, so the argument gets no sum sign for it.
    keep = free | set(body.over) if body.function in FUNCTIONS_REDUCING else free
    return f"{function}{_bracketed(body.argument, keep)}"


def _bracketed(total: Sum, free: set[str]) -> str:
    return f"<mrow><mo>(</mo>{_sum(total, free)}<mo>)</mo></mrow>"


def _sum(total: Sum, free: set[str]) -> str:
    text = ""
    for k, term in enumerate(total.terms):
        sign = "<mo>−</mo>" if term.negative else ("<mo>+</mo>" if k else "")
        text += sign + _term(term, free)
    return text


def _term(term: Term, free: set[str]) -> str:
    numbers: dict[bool, list[str]] = {False: [], True: []}
    factors: list[Access | Bracket] = []
    for factor, divide in zip(term.factors, term.divides, strict=True):
        if isinstance(factor, Number):
            numbers[divide].append(f"<mn>{factor}</mn>")
        elif isinstance(factor, SizeRef):
            numbers[divide].append(index_mathml(factor.size))
        else:
            factors.append(factor)
    summed = summed_here(factors, free)
    texts = [_bracketed(f.body, free | set(summed)) if isinstance(f, Bracket) else _access(f) for f in factors]
    one = "<mn>1</mn>"
    below = "<mo>·</mo>".join(numbers[True])
    # A factor of one is written only where nothing else would stand in the numerator.
    top = "<mo>·</mo>".join(n for n in numbers[False] if n != one or not (below or texts))
    scale = f"<mfrac>{_row(top or one)}{_row(below)}</mfrac>" if below else top
    sigma = f"<munder><mo>∑</mo>{_list(summed)}</munder>" if summed else ""
    return "".join(part for part in (scale, sigma, _SPACE.join(texts)) if part)


def _list(indices: Iterable[str]) -> str:
    return _row("<mo>,</mo>".join(map(index_mathml, indices)))


def _row(inner: str) -> str:
    return f"<mrow>{inner}</mrow>"
