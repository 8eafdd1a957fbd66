"""Syntax trees as LaTeX, with explicit sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from polyattn.language.conditions import is_condition, symbols
from polyattn.language.functions import TABLE
from polyattn.language.lift import mentioned
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

# Omicron is missing because LaTeX has no command for it.
GREEK = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "pi",
    "rho",
    "sigma",
    "tau",
    "phi",
    "chi",
    "psi",
    "omega",
]


def latex(statements: Statements) -> str:
    """Return all definitions as one `aligned` block, without dollar signs."""
    rows = [f"{_left(d)} &= {_right(d)}" for d in statements.definitions]
    return r"\begin{aligned} " + r" \\ ".join(rows) + r" \end{aligned}"


def name_latex(name: str) -> str:
    """Return a tensor's name in LaTeX: `w1` as w with a superscript, `alpha` as the Greek letter, `wq` as w with a
    superscript."""
    word, mark = split_name(name)
    base = rf"\{word}" if word in GREEK else word if len(word) == 1 else rf"\mathrm{{{word}}}".replace("_", r"\_")
    mark = mark.replace("_", r"\_")
    return f"{base}^{{({mark})}}" if mark.isdigit() else f"{base}^{{\\mathrm{{{mark}}}}}" if mark else base


def index_latex(name: str) -> str:
    """Return an index or a size in LaTeX: `i1` as i with a subscript, `alpha` as the Greek letter, `a_` with a
    prime."""
    word, digits, primes = split_index(name)
    base = rf"\{word}" if word in GREEK else word if len(word) == 1 else rf"\mathrm{{{word}}}".replace("_", r"\_")
    return base + (f"_{{{digits}}}" if digits else "") + "'" * primes


def split_name(name: str) -> tuple[str, str]:
    """Split a tensor's name into letter or word and mark: `wq1` into w and q1, `alpha2` into alpha and 2."""
    bare = name.rstrip("_")
    word = bare.rstrip("0123456789")
    digits = bare[len(word) :]
    # Papers write the weight of the queries as W with a superscript, not as a word; longer names such
    # as `width` are words.
    if word not in GREEK and word[0] in "wW" and 1 < len(word) <= 4:
        return word[0], word[1:] + digits
    return word, digits


def split_index(name: str) -> tuple[str, str, int]:
    """Split an index or a size into its word, its digits and its number of primes (final underscores)."""
    bare = name.rstrip("_")
    word = bare.rstrip("0123456789")
    return word, bare[len(word) :], len(name) - len(bare)


def _access(access: Access) -> str:
    if is_condition(access.tensor):
        return rf"\left[{_condition(access)}\right]"
    if not access.slots:
        return name_latex(access.tensor)
    # Beside a combination, only commas tell the slots apart.
    between = ", " if any(slot.form is not None for slot in access.slots) else " "
    return f"{name_latex(access.tensor)}_{{{between.join(map(_slot, access.slots))}}}"


RELATIONS = {"<=": r"\le", ">=": r"\ge", "==": "=", "!=": r"\ne", "*": r"\,"}


def _condition(access: Access) -> str:
    """Return a condition without its brackets."""
    slots = {f"{{{k}}}": _slot(slot) for k, slot in enumerate(access.slots)}
    return " ".join(
        slots.get(part) or RELATIONS.get(part) or (index_latex(part) if part[0].isalpha() else part)
        for part in symbols(access.tensor)
    )


def _slot(slot: Slot) -> str:
    if slot.form is not None:
        text = ""
        for name, factor in slot.form.terms:
            sign = "-" if factor < 0 else "+" if text else ""
            text += sign + ("" if abs(factor) == 1 else rf"{abs(factor)}\,") + index_latex(name)
        number = slot.form.constant
        return text + (f"{number:+d}" if text and number else "" if text else str(number))
    parts = r"\,".join(p if p.isdigit() else index_latex(p) for p in slot.parts)
    return parts if len(slot.parts) == 1 else f"({parts})"


def _left(definition: Definition) -> str:
    return _access(definition.target)


def _right(definition: Definition) -> str:
    free = set(definition.target.indices)
    body = definition.body
    return _call(body, free) if isinstance(body, Call) else _sum(body, free)


def _call(call: Call, free: set[str]) -> str:
    places = r" \,:\, " + r",\, ".join(map(_condition, call.where)) if call.where else ""
    over = f"_{{{_list(call.over)}{places}}}" if call.over else ""
    # An index that the function runs over is bound by it, so the argument gets no sum sign for it.
    argument = _sum(call.argument, free | set(call.over))
    if call.function == "sum":
        return rf"\sum{over}\left({argument}\right)"
    if call.function in ("sqrt", "abs"):
        return rf"\sqrt{{{argument}}}" if call.function == "sqrt" else rf"\left|{argument}\right|"
    row = TABLE.get(call.function)
    plain = name_latex(call.function) if row is None else rf"\operatorname{{{call.function}}}".replace("_", r"\_")
    function = row.latex if row and row.latex else plain
    return rf"{function}{over}\left({argument}\right)"


def _sum(total: Sum, free: set[str]) -> str:
    text = ""
    for k, term in enumerate(total.terms):
        sign = " - " if term.negative else (" + " if k else "")
        text += sign + _term(term, free)
    return text.strip()


def _term(term: Term, free: set[str]) -> str:
    numbers: dict[bool, list[str]] = {False: [], True: []}
    factors: list[Access | Bracket | Call] = []
    below: list[bool] = []
    for factor, divide in zip(term.factors, term.divides, strict=True):
        if isinstance(factor, Number):
            numbers[divide].append(str(factor))
        elif isinstance(factor, SizeRef):
            numbers[divide].append(index_latex(factor.size))
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
            text = _sum(factor.body, around) if divide else rf"\left({_sum(factor.body, around)}\right)"
        texts[divide].append(text)
    under = [*numbers[True], *texts[True]]
    divisor = r" \cdot ".join(numbers[True]) + " " * bool(numbers[True] and texts[True]) + " ".join(texts[True])
    # A factor of one is written only where nothing else would stand in the numerator.
    top = r" \cdot ".join(n for n in numbers[False] if n != "1" or not (under or texts[False]))
    sigma = rf"\sum_{{{_list(summed)}}}" if summed else ""
    if texts[True]:
        # A divisor may have summed indices, so the sum stands before the whole fraction.
        above = " ".join(part for part in (top, *texts[False]) if part) or "1"
        return " ".join(part for part in (sigma, rf"\frac{{{above}}}{{{divisor}}}") if part)
    scale = rf"\frac{{{top or '1'}}}{{{divisor}}}" if divisor else top
    return " ".join(part for part in (scale, sigma, *texts[False]) if part)


def surroundings(factors: Sequence[Access | Bracket | Call], free: set[str]) -> list[set[str]]:
    """Return, for each factor, the free indices and those of the others, which its argument does not sum."""
    have = [set(mentioned(f)) for f in factors]
    return [free.union(*have[:k], *have[k + 1 :]) for k in range(len(factors))]


def summed_here(factors: Sequence[Access | Bracket | Call], free: set[str]) -> list[str]:
    """Return the indices summed before this product; an index of only one bracket or argument is summed inside it."""
    counts = Counter(i for f in factors if not isinstance(f, Access) for i in set(mentioned(f)))
    # An access counts twice: an index of even one access is summed here, outside of all brackets.
    counts.update({i: 2 for f in factors if isinstance(f, Access) for i in f.indices})
    ordered = dict.fromkeys(i for f in factors for i in mentioned(f))
    return [i for i in ordered if counts[i] > 1 and i not in free]


def _list(indices: Iterable[str]) -> str:
    return ",".join(map(index_latex, indices))
