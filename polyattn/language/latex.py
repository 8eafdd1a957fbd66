"""Syntax trees as LaTeX, with explicit sums."""

from __future__ import annotations

from polyattn.language.syntax import (
    FUNCTIONS_REDUCING,
    Access,
    Bracket,
    Call,
    Definition,
    Number,
    SizeRef,
    Statements,
    Sum,
    Term,
)

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
    """All definitions as one `aligned` block, without dollar signs."""
    rows = [f"{_left(d)} &= {_right(d)}" for d in statements.definitions]
    return r"\begin{aligned} " + r" \\ ".join(rows) + r" \end{aligned}"


def name_latex(name: str) -> str:
    """A tensor's name: `w1` as w with a superscript, `alpha` as the Greek letter, `wq` as w with a superscript."""
    bare = name.rstrip("_")
    word = bare.rstrip("0123456789")
    digits = bare[len(word) :]
    if word in GREEK:
        base, mark = rf"\{word}", digits
    elif len(word) == 1:
        base, mark = word, digits
    elif word[0] in "wW" and len(word) <= 4:
        base, mark = word[0], word[1:] + digits
    else:
        escaped = word.replace("_", r"\_")
        base, mark = rf"\mathrm{{{escaped}}}", digits
    mark = mark.replace("_", r"\_")
    return f"{base}^{{({mark})}}" if mark.isdigit() else f"{base}^{{\\mathrm{{{mark}}}}}" if mark else base


def _access(access: Access) -> str:
    if not access.slots:
        return name_latex(access.tensor)
    slots = " ".join(str(s).replace(" ", r"\,") for s in access.slots)
    return f"{name_latex(access.tensor)}_{{{slots}}}"


def _left(definition: Definition) -> str:
    return _access(definition.target)


def _right(definition: Definition) -> str:
    free = set(definition.target.indices)
    body = definition.body
    if not isinstance(body, Call):
        return _sum(body, free)
    name = {"relu": "ReLU", "sigmoid": r"\sigma"}.get(body.function, body.function)
    over = f"_{{{','.join(body.over)}}}" if body.over else ""
    function = name if name.startswith("\\") else rf"\operatorname{{{name}}}"
    keep = free | set(body.over) if body.function in FUNCTIONS_REDUCING else free
    return rf"{function}{over}\left({_sum(body.argument, keep)}\right)"


def _sum(total: Sum, free: set[str]) -> str:
    text = ""
    for k, term in enumerate(total.terms):
        sign = " - " if term.negative else (" + " if k else "")
        text += sign + _term(term, free)
    return text.strip()


def _term(term: Term, free: set[str]) -> str:
    numerator, denominator, tensors, brackets = [], [], [], []
    for factor, divide in zip(term.factors, term.divides, strict=True):
        if isinstance(factor, Number | SizeRef):
            (denominator if divide else numerator).append(str(factor))
        elif isinstance(factor, Bracket):
            brackets.append(factor)
            tensors.append(None)
        else:
            tensors.append(factor)
    summed = list(dict.fromkeys(i for f in tensors if f is not None for i in f.indices if i not in free))
    texts, remaining = [], iter(brackets)
    for factor in tensors:
        if factor is None:
            texts.append(rf"\left({_sum(next(remaining).body, free | set(summed))}\right)")
        else:
            texts.append(_access(factor))
    top = r" \cdot ".join(n for n in numerator if n != "1" or not (denominator or texts))
    scale = rf"\frac{{{top or '1'}}}{{{' '.join(denominator)}}}" if denominator else top
    sigma = rf"\sum_{{{','.join(summed)}}}" if summed else ""
    return " ".join(part for part in (scale, sigma, *texts) if part)
