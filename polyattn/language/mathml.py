"""Syntax trees as MathML, with explicit sums: typeset by a page without fonts or scripts of its own."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from polyattn.language.conditions import is_condition, symbols
from polyattn.language.functions import TABLE
from polyattn.language.latex import GREEK, latex, split_index, split_name, summed_here, surroundings
from polyattn.language.syntax import (
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
    if is_condition(access.tensor):
        return _row(f"<mo>[</mo>{_condition(access)}<mo>]</mo>")
    word, mark = split_name(access.tensor)
    base = _word(word)
    above = f"<mrow><mo>(</mo><mn>{mark}</mn><mo>)</mo></mrow>" if mark.isdigit() else f"<mtext>{escape(mark)}</mtext>"
    between = "<mo>,</mo>" if any(slot.form is not None for slot in access.slots) else _SPACE
    below = _row(between.join(map(_slot, access.slots)))
    if mark and access.slots:
        return f"<msubsup>{base}{below}{above}</msubsup>"
    if mark:
        return f"<msup>{base}{above}</msup>"
    return f"<msub>{base}{below}</msub>" if access.slots else base


_SIGNS = {"<=": "≤", ">=": "≥", "==": "=", "!=": "≠", "<": "&lt;", ">": "&gt;", "-": "−", "+": "+", "*": "⁢"}


def _condition(access: Access) -> str:
    """Return a condition without its brackets."""
    text = ""
    for part in symbols(access.tensor):
        if part[0] == "{":
            text += _slot(access.slots[int(part[1:-1])])
        elif part in _SIGNS:
            text += f"<mo>{_SIGNS[part]}</mo>"
        else:
            text += index_mathml(part) if part[0].isalpha() else f"<mn>{part}</mn>"
    return text


def _over(call: Call) -> str:
    """Return the indices that a function runs over, with the conditions on their places."""
    places = "<mo>,</mo>".join(map(_condition, call.where))
    return _row(_list(call.over) + "<mo>:</mo>" + places) if places else _list(call.over)


def _slot(slot: Slot) -> str:
    if slot.form is not None:
        text = ""
        for name, factor in slot.form.terms:
            text += "<mo>−</mo>" if factor < 0 else "<mo>+</mo>" if text else ""
            text += ("" if abs(factor) == 1 else f"<mn>{abs(factor)}</mn>") + index_mathml(name)
        number = slot.form.constant
        if number or not text:
            text += "<mo>−</mo>" if number < 0 else "<mo>+</mo>" if text else ""
            text += f"<mn>{abs(number)}</mn>"
        return text
    parts = _SPACE.join(f"<mn>{p}</mn>" if p.isdigit() else index_mathml(p) for p in slot.parts)
    return parts if len(slot.parts) == 1 else f"<mo>(</mo>{parts}<mo>)</mo>"


def _right(definition: Definition) -> str:
    free = set(definition.target.indices)
    body = definition.body
    return _call(body, free) if isinstance(body, Call) else _sum(body, free)


def _call(call: Call, free: set[str]) -> str:
    # An index that the function runs over is bound by it, so the argument gets no sum sign for it.
    argument = free | set(call.over)
    if call.function == "sqrt":
        return f"<msqrt>{_sum(call.argument, argument)}</msqrt>"
    if call.function == "abs":
        return f"<mrow><mo>|</mo>{_sum(call.argument, argument)}<mo>|</mo></mrow>"
    if call.function == "sum":
        return f"<munder><mo>∑</mo>{_over(call)}</munder>{_bracketed(call.argument, argument)}"
    row = TABLE.get(call.function)
    function = f"<mi>{row.mathml}</mi>" if row and row.mathml else _word(call.function)
    if call.over:
        function = f"<msub>{function}{_over(call)}</msub>"
    return f"{function}{_bracketed(call.argument, argument)}"


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
    factors: list[Access | Bracket | Call] = []
    below: list[bool] = []
    for factor, divide in zip(term.factors, term.divides, strict=True):
        if isinstance(factor, Number):
            numbers[divide].append(f"<mn>{factor}</mn>")
        elif isinstance(factor, SizeRef):
            numbers[divide].append(index_mathml(factor.size))
        else:
            factors.append(factor)
            below.append(divide)
    summed = summed_here(factors, free)
    texts: dict[bool, list[str]] = {False: [], True: []}
    for factor, divide, around in zip(factors, below, surroundings(factors, free | set(summed)), strict=True):
        if isinstance(factor, Access):
            text = _access(factor)
        elif isinstance(factor, Call):
            text = _call(factor, around)
        else:
            # A fraction needs no brackets around its denominator.
            text = _sum(factor.body, around) if divide else _bracketed(factor.body, around)
        texts[divide].append(text)
    one, times = "<mn>1</mn>", "<mo>·</mo>"
    divisor = times.join(numbers[True]) + _SPACE.join(texts[True])
    # A factor of one is written only where nothing else would stand in the numerator.
    top = times.join(n for n in numbers[False] if n != one or not (divisor or texts[False]))
    sigma = f"<munder><mo>∑</mo>{_list(summed)}</munder>" if summed else ""
    if texts[True]:
        # A divisor may have summed indices, so the sum stands before the whole fraction.
        above = top + _SPACE.join(texts[False]) or one
        return f"{sigma}<mfrac>{_row(above)}{_row(divisor)}</mfrac>"
    scale = f"<mfrac>{_row(top or one)}{_row(divisor)}</mfrac>" if divisor else top
    return "".join(part for part in (scale, sigma, _SPACE.join(texts[False])) if part)


def _list(indices: Iterable[str]) -> str:
    return _row("<mo>,</mo>".join(map(index_mathml, indices)))


def _row(inner: str) -> str:
    return f"<mrow>{inner}</mrow>"
