"""Pairs of texts with functions, equal by randomly applied laws or one edit apart, and their values.

Nothing here knows polyattn: an expression is a tuple, its text is printed and its values are computed by mpmath from
the same tuple. Expressions have the free indices a (of size N) and e (of size M); reductions are along e.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import count, product
from random import Random
from typing import Any

import mpmath

Expr = tuple[Any, ...]
"""("s",) a tensor, ("number", 3/2), ("size", "M"), ("+" | "*" | "/", x, y), ("exp", x), ("softmax", x)."""

TENSORS = {"s": "ae", "t": "ae", "c": "a", "d": "a", "v": "e"}
ENTRYWISE = ("exp", "sigmoid", "tanh", "silu", "softplus", "relu", "abs", "elu", "gelu", "sin")
REDUCING = ("sum", "max", "min", "logsumexp", "mean")
DIGITS = 60
AGREE = mpmath.mpf(10) ** -30
LARGEST = 10**6
"""The largest argument of an exponential that is computed."""


def indices(x: Expr) -> frozenset[str]:
    """Return the free indices of an expression."""
    if x[0] in TENSORS:
        return frozenset(TENSORS[x[0]])
    found = frozenset().union(*(indices(part) for part in x[1:] if isinstance(part, tuple)))
    return found - {"e"} if x[0] in REDUCING else found


def length(x: Expr) -> int:
    return 1 + sum(length(part) for part in x[1:] if isinstance(part, tuple))


# Texts.
def text(x: Expr) -> str:
    """Return a specification whose output is the expression."""
    free = sorted(indices(x))
    names = sorted(tensors(x))
    heads = "; ".join(f"{n}[{','.join('NM'['ae'.index(i)] for i in TENSORS[n])}]" for n in names)
    left = f"y[{','.join(free)}]" if free else "y"
    return f"{heads}; {left} = {printed(x, {'a': 'a', 'e': 'e'}, count(1))}"


def tensors(x: Expr) -> set[str]:
    return {x[0]} if x[0] in TENSORS else set().union(*(tensors(p) for p in x[1:] if isinstance(p, tuple)))


def printed(x: Expr, letters: dict[str, str], fresh: Iterator[int]) -> str:
    kind = x[0]
    if kind in TENSORS:
        return f"{kind}[{','.join(letters[i] for i in TENSORS[kind])}]"
    if kind == "number":
        return f"({x[1]})" if x[1] < 0 else str(x[1])
    if kind == "size":
        return x[1]
    if kind in REDUCING:
        letter = f"e{next(fresh)}"
        return f"{kind}[{letter}]({printed(x[1], {**letters, 'e': letter}, fresh)})"
    inner = [printed(part, letters, fresh) for part in x[1:]]
    if kind == "+":
        return f"({inner[0]} + {inner[1]})"
    if kind == "*":
        return f"({inner[0]})*({inner[1]})"
    if kind == "/":
        return f"({inner[0]})/({inner[1]})"
    return f"softmax[{letters['e']}]({inner[0]})" if kind == "softmax" else f"{kind}({inner[0]})"


# Values.
class OutsideError(Exception):
    """The point is outside of the expression's domain."""


def values(x: Expr, point: dict[str, Any], sizes: dict[str, int]) -> list[Any]:
    """Return the expression's values at all of its free indices."""
    free = sorted(indices(x))
    ranges = [range(sizes["NM"["ae".index(i)]]) for i in free]
    return [value(x, dict(zip(free, at, strict=True)), point, sizes) for at in product(*ranges)]


def value(x: Expr, at: dict[str, int], point: dict[str, Any], sizes: dict[str, int]) -> Any:
    kind = x[0]
    if kind in TENSORS:
        return point[kind][tuple(at[i] for i in TENSORS[kind])]
    if kind == "number":
        return mpmath.mpf(x[1].numerator) / x[1].denominator
    if kind == "size":
        return mpmath.mpf(sizes[x[1]])
    if kind in REDUCING or kind == "softmax":
        each = [value(x[1], {**at, "e": e}, point, sizes) for e in range(sizes["M"])]
        if kind in ("softmax", "logsumexp") and max(map(abs, each)) > LARGEST:
            raise OutsideError
        if kind == "softmax":
            return mpmath.exp(each[at["e"]]) / mpmath.fsum(map(mpmath.exp, each))
        if kind == "logsumexp":
            return mpmath.log(mpmath.fsum(map(mpmath.exp, each)))
        total = {"sum": mpmath.fsum, "mean": mpmath.fsum, "max": max, "min": min}[kind](each)
        return total / len(each) if kind == "mean" else total
    inner = [value(part, at, point, sizes) for part in x[1:]]
    if kind == "+":
        return inner[0] + inner[1]
    if kind == "*":
        return inner[0] * inner[1]
    if kind == "/":
        if abs(inner[1]) <= sizes.get("near 0", 0) * mpmath.eps:
            raise OutsideError
        return inner[0] / inner[1]
    return function(kind, inner[0])


def function(kind: str, s: Any) -> Any:
    if (kind == "log" and s <= 0) or (kind == "sqrt" and s < 0) or (kind == "reciprocal" and not s):
        raise OutsideError
    if abs(s) > LARGEST and kind not in ("log", "sqrt", "relu", "abs"):
        raise OutsideError
    logistic = 1 / (1 + mpmath.exp(-s))
    return {
        "exp": lambda: mpmath.exp(s),
        "log": lambda: mpmath.log(s),
        "sqrt": lambda: mpmath.sqrt(s),
        "sigmoid": lambda: logistic,
        "tanh": lambda: mpmath.tanh(s),
        "silu": lambda: s * logistic,
        "softplus": lambda: mpmath.log(1 + mpmath.exp(s)),
        "relu": lambda: max(s, mpmath.mpf(0)),
        "abs": lambda: abs(s),
        "elu": lambda: s if s > 0 else mpmath.expm1(s),
        "gelu": lambda: s * mpmath.ncdf(s),
        "sin": lambda: mpmath.sin(s),
    }[kind]()


def agree(left: Expr, right: Expr, random: Random, points: int = 6) -> bool | None:
    """Return whether two expressions have the same values at random points; None if both are defined at none."""
    names, tried = sorted(tensors(left) | tensors(right)), 0
    with mpmath.workdps(DIGITS):
        for number in range(points):
            sizes = {"N": 1 + number % 3, "M": 1 + (number + 1) % 3, "near 0": 10**20}
            point = {
                n: {
                    at: mpmath.mpf(random.randint(-9, 9)) / random.choice((1, 2, 7))
                    for at in product(*(range(sizes["NM"["ae".index(i)]]) for i in TENSORS[n]))
                }
                for n in names
            }
            try:
                one, other = values(left, point, sizes), values(right, point, sizes)
            except OutsideError:
                continue
            tried += 1
            scale = max(1, *map(abs, one), *map(abs, other))
            if any(abs(p - q) > AGREE * scale for p, q in zip(one, other, strict=True)):
                return False
    return True if tried else None


def differ_at(left: Expr, right: Expr, counterexample: dict[str, Any]) -> bool:
    """Return whether two expressions have other values at a counterexample."""
    sizes = {"N": 1, "M": 1} | counterexample["sizes"]
    with mpmath.workdps(2 * DIGITS):
        point = {}
        for name, array in counterexample["tensors"].items():
            point[name] = {}
            for at in product(*(range(sizes["NM"["ae".index(i)]]) for i in TENSORS[name])):
                entry = array
                for k in at:
                    entry = entry[k]
                exact = Fraction(entry)
                point[name][at] = mpmath.mpf(exact.numerator) / exact.denominator
        one, other = values(left, point, sizes), values(right, point, sizes)
        return any(abs(p - q) > mpmath.mpf(10) ** (10 - 2 * DIGITS) for p, q in zip(one, other, strict=True))


# Drawing.
def leaf(random: Random, along: bool) -> Expr:
    if random.random() < 0.2:
        return number(random)
    return (random.choice([n for n, at in TENSORS.items() if along or "e" not in at]),)


def number(random: Random) -> Expr:
    return ("number", Fraction(random.choice((1, 2, 3, -1, -2)), random.choice((1, 1, 2, 3))))


def drawn(random: Random, depth: int, along: bool = True) -> Expr:
    """Return a random expression; one without e unless `along`."""
    if depth == 0:
        return leaf(random, along)
    kind = random.choice(("+", "*", "*", "/", "entry", "entry", "reduce", "softmax"))
    if kind in "+*":
        return (kind, drawn(random, depth - 1, along), drawn(random, depth - 1, along))
    if kind == "/":
        below = drawn(random, depth - 1, along)
        return (
            "/",
            drawn(random, depth - 1, along),
            random.choice((below, ("exp", below), ("+", ("number", Fraction(1)), ("exp", below)))),
        )
    if kind == "softmax" and along:
        return ("softmax", ("+", drawn(random, depth - 1, True), (random.choice("stv"),)))
    if kind in ("reduce", "softmax"):
        return (random.choice(REDUCING), ("+", drawn(random, depth - 1, True), (random.choice("stv"),)))
    return (random.choice(ENTRYWISE), drawn(random, depth - 1, along))


def minus(x: Expr) -> Expr:
    return ("*", ("number", Fraction(-1)), x)


ONE = ("number", Fraction(1))


def rewritten(x: Expr, random: Random) -> Expr:
    """Return the expression with one law applied at a random place."""
    return at_random(x, random, lambda part: random.choice(laws(part, random)))


def at_random(x: Expr, random: Random, change: Any) -> Expr:
    parts = [k for k, part in enumerate(x) if isinstance(part, tuple)]
    inside = sum(length(x[k]) for k in parts)
    if not parts or random.random() < 1 / (1 + inside):
        return change(x)
    k = random.choices(parts, [length(x[k]) for k in parts])[0]
    return (*x[:k], at_random(x[k], random, change), *x[k + 1 :])


def laws(x: Expr, random: Random) -> list[Expr]:
    """Return forms equal to an expression wherever both are defined."""
    kind, along = x[0], "e" in indices(x)
    other, plain = drawn(random, 1, along), drawn(random, 1, False)
    positive = ("number", Fraction(random.choice((2, 3, 5)), random.choice((1, 2))))
    found: list[Expr] = [
        ("/", ("*", x, ("exp", other)), ("exp", other)),
        ("+", ("relu", x), minus(("relu", minus(x)))),
        ("+", ("+", x, other), minus(other)),
        ("+", ("softplus", x), minus(("softplus", minus(x)))),
        ("+", ("silu", x), minus(("silu", minus(x)))),
        ("log", ("exp", x)),
        ("*", ("*", x, positive), ("/", ONE, positive)),
    ]
    if kind in ("+", "*"):
        found.append((kind, x[2], x[1]))
    if kind == "*" and x[2][0] == "+":
        found.append(("+", ("*", x[1], x[2][1]), ("*", x[1], x[2][2])))
    if kind == "exp":
        found += [("/", ONE, ("exp", minus(x[1]))), ("*", *[("exp", ("*", ("number", Fraction(1, 2)), x[1]))] * 2)]
        if x[1][0] == "+":
            found += [("*", ("exp", x[1][1]), ("exp", x[1][2]))] * 3
    if kind == "sigmoid":
        found += [
            ("/", ONE, ("+", ONE, ("exp", minus(x[1])))),
            ("/", ("exp", x[1]), ("+", ONE, ("exp", x[1]))),
            ("+", ONE, minus(("sigmoid", minus(x[1])))),
        ]
    if kind == "tanh":
        two = ("*", ("number", Fraction(2)), x[1])
        found += [("+", ("*", ("number", Fraction(2)), ("sigmoid", two)), ("number", Fraction(-1)))] * 2
        found.append(minus(("tanh", minus(x[1]))))
    if kind == "silu":
        found.append(("*", x[1], ("sigmoid", x[1])))
    if kind == "softplus":
        found += [("log", ("+", ONE, ("exp", x[1]))), ("+", x[1], ("softplus", minus(x[1])))]
    if kind == "softmax":
        found += [("/", ("exp", x[1]), ("sum", ("exp", x[1]))), ("softmax", ("+", x[1], plain))]
        found.append(("softmax", ("+", x[1], minus(("max", x[1])))))
        found.append(("exp", ("+", x[1], minus(("logsumexp", x[1])))))
    if kind == "logsumexp":
        found += [("log", ("sum", ("exp", x[1]))), ("+", ("logsumexp", ("+", x[1], plain)), minus(plain))]
    if kind in ("max", "min"):
        found += [
            minus(({"max": "min", "min": "max"}[kind], minus(x[1]))),
            ("+", (kind, ("+", x[1], plain)), minus(plain)),
        ]
        found.append(("/", (kind, ("*", positive, x[1])), positive))
    if kind == "mean":
        found.append(("/", ("sum", x[1]), ("size", "M")))
    if kind == "relu":
        found += [("relu", x), ("+", x[1], ("relu", minus(x[1]))), ("/", ("relu", ("*", positive, x[1])), positive)]
    if kind == "abs":
        found += [("+", ("relu", x[1]), ("relu", minus(x[1]))), ("sqrt", ("*", x[1], x[1])), ("abs", minus(x[1]))]
    if kind == "elu":
        found.append(("+", ("+", ("relu", x[1]), ("exp", minus(("relu", minus(x[1]))))), ("number", Fraction(-1))))
    return found


def edited(x: Expr, random: Random) -> Expr:
    """Return the expression with one edit, which mostly changes its values."""

    def change(part: Expr) -> Expr:
        kind, along = part[0], "e" in indices(part)
        if kind == "number":
            return ("number", part[1] + random.choice((1, -2, Fraction(1, 2))))
        if kind in TENSORS:
            alike = [n for n in TENSORS if TENSORS[n] == TENSORS[kind] and n != kind]
            return (random.choice(alike),) if alike else minus(part)
        if kind in REDUCING:
            return (random.choice([r for r in REDUCING if r != kind]), part[1])
        if kind in ENTRYWISE:
            return (random.choice([f for f in ENTRYWISE if f != kind]), part[1])
        if kind == "softmax":
            return ("softmax", ("+", part[1], drawn(random, 1, along)))
        if kind == "/":
            return ("/", part[2], part[1])
        return ("*" if kind == "+" else "+", *part[1:]) if len(part) == 3 else minus(part)

    return at_random(x, random, change)


def pair(random: Random, near: bool) -> tuple[Expr, Expr]:
    """Return two expressions with the same tensors and free indices: equal by laws, or after one edit more."""
    while True:
        left = drawn(random, random.choice((1, 2, 2, 3)))
        right = left
        for _ in range(random.randint(1, 4)):
            right = rewritten(right, random)
        if near:
            right = edited(right, random)
        if max(length(left), length(right)) > 60 or not tensors(left):
            continue
        missing = tensors(left) ^ tensors(right)
        if missing or indices(left) != indices(right):
            both = tensors(left) | tensors(right)
            left, right = (with_all(x, both) for x in (left, right))
        if indices(left) == indices(right):
            return left, right


def with_all(x: Expr, names: set[str]) -> Expr:
    """Return the expression plus 0 times each tensor that it lacks, and over all indices."""
    for name in sorted(names):
        x = ("+", x, ("*", ("number", Fraction(0)), (name,)))
    return x
