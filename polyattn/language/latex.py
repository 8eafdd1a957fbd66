"""Syntax trees as LaTeX, with explicit sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

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
    if not access.slots:
        return name_latex(access.tensor)
    slots = " ".join(_slot(slot) for slot in access.slots)
    return f"{name_latex(access.tensor)}_{{{slots}}}"


def _slot(slot: Slot) -> str:
    indices = r"\,".join(map(index_latex, slot.indices))
    return indices if len(slot.indices) == 1 else f"({indices})"


def _left(definition: Definition) -> str:
    return _access(definition.target)


def _right(definition: Definition) -> str:
    free = set(definition.target.indices)
    body = definition.body
    if not isinstance(body, Call):
        return _sum(body, free)
    name = {"relu": "ReLU", "sigmoid": r"\sigma"}.get(body.function, body.function)
    over = f"_{{{_list(body.over)}}}" if body.over else ""
    function = name if name.startswith("\\") else rf"\operatorname{{{name}}}"
    # An index reduced by max or mean is bound by the function, so the argument gets no sum sign for it.
    keep = free | set(body.over) if body.function in FUNCTIONS_REDUCING else free
    return rf"{function}{over}\left({_sum(body.argument, keep)}\right)"


def _sum(total: Sum, free: set[str]) -> str:
    text = ""
    for k, term in enumerate(total.terms):
        sign = " - " if term.negative else (" + " if k else "")
        text += sign + _term(term, free)
    return text.strip()


def _term(term: Term, free: set[str]) -> str:
    numbers: dict[bool, list[str]] = {False: [], True: []}
    factors: list[Access | Bracket] = []
    for factor, divide in zip(term.factors, term.divides, strict=True):
        if isinstance(factor, Number):
            numbers[divide].append(str(factor))
        elif isinstance(factor, SizeRef):
            numbers[divide].append(index_latex(factor.size))
        else:
            factors.append(factor)
    summed = summed_here(factors, free)
    texts = [
        rf"\left({_sum(f.body, free | set(summed))}\right)" if isinstance(f, Bracket) else _access(f) for f in factors
    ]
    below = r" \cdot ".join(numbers[True])
    # A factor of one is written only where nothing else would stand in the numerator.
    top = r" \cdot ".join(n for n in numbers[False] if n != "1" or not (below or texts))
    scale = rf"\frac{{{top or '1'}}}{{{below}}}" if below else top
    sigma = rf"\sum_{{{_list(summed)}}}" if summed else ""
    return " ".join(part for part in (scale, sigma, *texts) if part)


def summed_here(factors: list[Access | Bracket], free: set[str]) -> list[str]:
    """Return the indices summed before this product; an index of only one bracket is summed inside that bracket."""
    counts = Counter(i for f in factors if isinstance(f, Bracket) for i in set(_indices(f)))
    # An access counts twice: an index of even one access is summed here, outside of all brackets.
    counts.update({i: 2 for f in factors if isinstance(f, Access) for i in f.indices})
    ordered = dict.fromkeys(i for f in factors for i in _indices(f))
    return [i for i in ordered if counts[i] > 1 and i not in free]


def _indices(factor: object) -> Iterator[str]:
    if isinstance(factor, Access):
        yield from factor.indices
    elif isinstance(factor, Bracket):
        for term in factor.body.terms:
            for inner in term.factors:
                yield from _indices(inner)


def _list(indices: Iterable[str]) -> str:
    return ",".join(map(index_latex, indices))
