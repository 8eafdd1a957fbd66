"""The prover on generated pairs with offsets, equal or one edit apart, against loops in exact arithmetic.

    PAIRS=5000 python benchmarks/offset_pairs.py --out benchmarks/results/offset_pairs.json

Sums of products of two maps and two kernels, read at combinations of places and offsets, of a definition read at an
offset, and of maxima and means over windows. A wrong yes is an "equal" where the values differ at one of the sizes 1 to
6; a wrong no a "different" whose counterexample has the same values by the loops, which share nothing with polyattn.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from random import Random
from typing import Any

from _common import judge_pairs

import polyattn as pa

EFFORT = 300
MAPS, KERNELS = ("x", "z"), ("w", "g")
Form = tuple[int, int, int, int]
"""The coefficients of i, u and v in a slot, and its number."""


@dataclass(frozen=True)
class Term:
    """A product: a number, maps at combinations, kernels at offsets, and a reduction over u of one map, if any."""

    number: Fraction
    reads: tuple[tuple[str, Form], ...]
    kernels: tuple[tuple[str, str], ...] = ()
    reduced: tuple[str, str, Form, Fraction] | None = None


@dataclass(frozen=True)
class Layer:
    """A sum, the least values of u and v, and the definition h that it reads: a product of maps at places, or None."""

    terms: tuple[Term, ...]
    least: tuple[int, int] = (-1, -1)
    inner: Term | None = None


# Texts.
def slot(form: Form, middle: str = "i") -> str:
    text = ""
    for name, factor in zip((middle, "u", "v"), form, strict=False):
        if factor:
            text += ("-" if factor < 0 else "+" if text else "") + (f"{abs(factor)}*" if abs(factor) > 1 else "") + name
    return text + (f"{form[3]:+d}" if form[3] else "")


def term_text(term: Term, middle: str = "i") -> str:
    factors = [f"({term.number})"]
    factors += [f"{name}[{slot(form, middle)}]" for name, form in term.reads]
    factors += [f"{name}[{offset}]" for name, offset in term.kernels]
    if term.reduced:
        kind, name, form, scale = term.reduced
        factors.append(f"{kind}[u]({scale}*{name}[{slot(form, middle)}])")
    return "*".join(factors)


def text(layer: Layer) -> str:
    used = {n for t in layer.terms for n, _ in t.reads} | {n for t in layer.terms for n, _ in t.kernels}
    used |= {t.reduced[1] for t in layer.terms if t.reduced}
    used |= {n for n, _ in layer.inner.reads} if layer.inner else set()
    ranges = "; ".join(f"where {n} : {a}..{a + 2}" for n, a in zip("uv", layer.least, strict=True))
    lines = [f"{n}[N]" for n in MAPS] + [f"{n}[3]" for n in KERNELS] + ["where i : N", ranges]
    if layer.inner:
        lines.append(f"h[i] = {term_text(layer.inner)}")
    # Both sides have all tensors, so that a question is about the same ones.
    missing = "".join(f" + 0*{n}[i]" for n in MAPS if n not in used)
    missing += "".join(f" + 0*{n}[u]" for n in KERNELS if n not in used)
    return "; ".join([*lines, "y[i] = " + " + ".join(map(term_text, layer.terms)) + missing])


# Values.
Point = dict[str, list[Fraction]]


def read(values: Sequence[Fraction], form: Form, at: tuple[int, int, int]) -> Fraction | None:
    place = sum(c * p for c, p in zip(form, at, strict=False)) + form[3]
    return values[place] if 0 <= place < len(values) else None


def term_value(term: Term, least: tuple[int, int], point: Point, i: int) -> Fraction:
    own = [
        any(form[k] for _, form in term.reads) or any(o == n for _, o in term.kernels) for k, n in ((1, "u"), (2, "v"))
    ]
    ranges = [range(a, a + 3) if summed else range(1) for a, summed in zip(least, own, strict=True)]
    total = Fraction(0)
    for u, v in product(*ranges):
        value = term.number
        for name, form in term.reads:
            value *= read(point[name], form, (i, u, v)) or 0
        for name, offset in term.kernels:
            value *= point[name][u - least[0] if offset == "u" else v - least[1]]
        total += value
    if term.reduced:
        kind, name, form, scale = term.reduced
        inside = [read(point[name], form, (i, u, 0)) for u in range(least[0], least[0] + 3)]
        have = [scale * value for value in inside if value is not None]
        total *= max(have) if kind == "max" else sum(have, Fraction(0)) / max(1, len(have))
    return total


def layer_values(layer: Layer, point: Point, n: int) -> list[Fraction]:
    if layer.inner:
        point = {**point, "h": [term_value(layer.inner, layer.least, point, i) for i in range(n)]}
    return [sum((term_value(t, layer.least, point, i) for t in layer.terms), Fraction(0)) for i in range(n)]


def agree(left: Layer, right: Layer, random: Random) -> bool:
    for n in (1, 2, 3, 4, 5, 6):
        point = {name: [Fraction(random.randint(-9, 9)) for _ in range(n)] for name in MAPS}
        point |= {name: [Fraction(random.randint(-9, 9)) for _ in range(3)] for name in KERNELS}
        if layer_values(left, point, n) != layer_values(right, point, n):
            return False
    return True


# Drawing.
def drawn_form(random: Random) -> Form:
    return random.choice(FORMS)


FORMS = (
    *((1, 1, 0, 0), (1, 0, 1, 0), (1, 1, 1, 0), (1, -1, 0, 0), (2, 1, 0, 0)),
    *((1, 2, 0, 0), (1, 0, 0, 0), (1, 0, 0, 1), (1, 1, 0, -1)),
)


def drawn(random: Random) -> Layer:
    inner = None
    if random.random() < 0.35:
        inner = Term(Fraction(1), tuple((random.choice(MAPS), (1, 0, 0, 0)) for _ in range(random.choice((1, 2)))))
    names = (*MAPS, "h") if inner else MAPS
    terms = []
    for _ in range(random.choice((1, 1, 2))):
        reads = tuple((random.choice(names), drawn_form(random)) for _ in range(random.choice((1, 1, 2))))
        used = [n for k, n in ((1, "u"), (2, "v")) if any(form[k] for _, form in reads)]
        kernels = tuple((random.choice(KERNELS), n) for n in used if random.random() < 0.7)
        reduced = None
        if random.random() < 0.2:
            reads = tuple(r for r in reads if not (r[1][1] or r[1][2]))
            form = random.choice([(1, 1, 0, 0), (1, -1, 0, 0)])
            kernels, reduced = (), (random.choice(("max", "mean")), random.choice(MAPS), form, Fraction(1))
        terms.append(Term(Fraction(random.choice((1, 2, -1, 3)), random.choice((1, 2))), reads, kernels, reduced))
    if inner and not any(n == "h" for t in terms for n, _ in t.reads):
        inner = None
    return Layer(tuple(terms), inner=inner)


def rewritten(layer: Layer, random: Random) -> Layer:
    """Return the same layer in other words: orders, names, ranges, halves, signs of offsets, definitions put in."""
    for _ in range(random.choice((1, 2, 3))):
        kind = random.choice(("order", "names", "range", "halves", "mirror", "inline", "scale"))
        terms, k = list(layer.terms), random.randrange(len(layer.terms))
        term = terms[k]
        if kind == "order":
            random.shuffle(terms)
            terms = [replace(t, reads=tuple(random.sample(t.reads, len(t.reads)))) for t in terms]
        elif kind == "names" and layer.least == (-1, -1) and not term.reduced:
            reads = tuple((n, (f[0], f[2], f[1], f[3])) for n, f in term.reads)
            terms[k] = replace(term, reads=reads, kernels=tuple((n, "v" if o == "u" else "u") for n, o in term.kernels))
        elif kind == "range" and layer.least[0] == -1:
            # u = t - 1 with t from 0 on; a kernel's slot counts from the least value.
            def shifted(f: Form) -> Form:
                return (f[0], f[1], f[2], f[3] - f[1])

            for j, t in enumerate(terms):
                reduced = t.reduced and (*t.reduced[:2], shifted(t.reduced[2]), t.reduced[3])
                terms[j] = replace(t, reads=tuple((n, shifted(f)) for n, f in t.reads), reduced=reduced)
            layer = replace(layer, least=(0, layer.least[1]))
        elif kind == "halves":
            terms[k : k + 1] = [replace(term, number=term.number / 2)] * 2
        elif kind == "mirror" and layer.least == (-1, -1) and not any(o == "u" for _, o in term.kernels):
            reads = tuple((n, (f[0], -f[1], f[2], f[3])) for n, f in term.reads)
            flipped = term.reduced and (*term.reduced[:2], (1, -term.reduced[2][1], 0, 0), term.reduced[3])
            terms[k] = replace(term, reads=reads, reduced=flipped)
        elif kind == "inline" and layer.inner:
            inner = layer.inner
            for j, t in enumerate(terms):
                reads = tuple(
                    r for n, f in t.reads for r in ([(m, f) for m, _ in inner.reads] if n == "h" else [(n, f)])
                )
                terms[j] = replace(t, reads=reads)
            layer = replace(layer, inner=None)
        elif kind == "scale" and term.reduced:
            reduced = (*term.reduced[:3], term.reduced[3] * 2)
            terms[k] = replace(term, number=term.number / 2, reduced=reduced)
        layer = replace(layer, terms=tuple(terms))
    return layer


def edited(layer: Layer, random: Random) -> Layer:
    """Return the layer with one edit."""
    terms, k = list(layer.terms), random.randrange(len(layer.terms))
    term = terms[k]
    kind = random.choice(("number", "place", "sign", "tensor", "kernel"))
    if kind in ("place", "sign", "tensor") and term.reads:
        j = random.randrange(len(term.reads))
        name, form = term.reads[j]
        changed = {
            "place": (name, (*form[:3], form[3] + random.choice((1, -1)))),
            "sign": (name, (form[0], -form[1], -form[2], form[3])),
            "tensor": ("z" if name == "x" else "x", form),
        }[kind]
        terms[k] = replace(term, reads=(*term.reads[:j], changed, *term.reads[j + 1 :]))
    elif kind == "kernel" and term.kernels:
        terms[k] = replace(term, kernels=tuple(("g" if n == "w" else "w", o) for n, o in term.kernels))
    else:
        terms[k] = replace(term, number=term.number * random.choice((2, -1, 3)))
    made = replace(layer, terms=tuple(terms))
    reads_inner = any(n == "h" for t in made.terms for n, _ in t.reads)
    return made if reads_inner else replace(made, inner=None)


def judged(number: int, near: bool) -> dict[str, Any]:
    """The prover's answer to a pair, and that of the loops."""
    random = Random(f"{number} {near}")
    left = drawn(random)
    right = rewritten(edited(left, random) if near else left, random)
    texts, same = (text(left), text(right)), agree(left, right, random)
    assert near or same, f"the loops tell apart what is equal: {texts}"
    start = time.process_time()
    try:
        verdict: Any = pa.prove(*texts, effort=EFFORT)
        status, reason = verdict.status, verdict.reason
    except pa.PolyattnError as error:
        verdict, status, reason = None, "refused", str(error)
    seconds = time.process_time() - start
    wrong = status == "equal" and not same
    if status == "different":
        found = verdict.counterexample
        n = found["sizes"]["N"]
        point = {name: [Fraction(0)] * (n if name in MAPS else 3) for name in (*MAPS, *KERNELS)}
        point |= {name: [Fraction(value) for value in array] for name, array in found["tensors"].items()}
        wrong = layer_values(left, point, n) == layer_values(right, point, n)
    return {"texts": texts, "status": status, "same": same, "wrong": wrong, "seconds": seconds, "reason": reason}


if __name__ == "__main__":
    judge_pairs(__doc__, "pairs with offsets", ("equal", "one edit apart"), judged)
