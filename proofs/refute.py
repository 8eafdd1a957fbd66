"""Checks a counterexample that `polyattn.prove` found: python -m proofs.refute VERDICT.json

Accepts with exit code 0, refuses with 1 and the reason. Needs Python's standard library, `terms.py`, which needs no
more, and the interval arithmetic of mpmath, which comes with sympy: nothing of polyattn.

Both texts are multiplied out and evaluated at the counterexample's sizes and tensors, by loops over all values of all
indices. Values are fractions; where an exponential comes in, by softmax or sigmoid, they are intervals, computed with
50, 200 and 800 digits until those of the two sides are disjoint. If they never are, the counterexample is refused. A
tensor that a given equation defines is computed from it; every other given equation has to hold exactly, everywhere.

What is taken on trust: that the texts are valid specifications, the sizes of indices as far as `terms.py` says, and
that mpmath rounds outwards; its exponential is widened by 2^8 units in the last place.
"""

import json
import math
import operator
import re
import sys
from decimal import Decimal
from fractions import Fraction
from functools import reduce
from itertools import product

from mpmath import iv

from proofs.terms import (
    CONDITIONS,
    LETTERS,
    SPLIT,
    Refused,
    Texts,
    body,
    condition_holds,
    head,
    need,
    slots_in,
    tree,
)

BYTES, STEPS, DIGITS = 1_000_000, 3_000_000, (50, 200, 800)
EPSILON = Fraction(1, 10**12)  # normalize divides by the larger of the L1 norm and this
RULE = re.compile(r"([^=]+?)\s+summed\s+over\s+([\w\s,]+?)\s+is\s+([^=]+)", re.A)
LEFT_OUT = iv.mpf("-inf")  # the logarithm of a condition that does not hold: a function does not run over this place
EXACT = re.compile(r"-?\d+(/\d+)?", re.A)


def interval(number):
    return number if isinstance(number, iv.mpf) else iv.mpf(number.numerator) / number.denominator


def both(operation, a, b):
    """An operation on two numbers: exact for two fractions, else an interval."""
    if isinstance(a, iv.mpf) or isinstance(b, iv.mpf):
        return operation(interval(a), interval(b))
    return operation(Fraction(a), Fraction(b))


def plus(numbers):
    return reduce(lambda a, b: both(operator.add, a, b), numbers, Fraction(0))


def larger(a, b):
    return both(lambda a, b: (a + b + abs(a - b)) / 2, a, b)


def exp(number):
    if number == 0:
        return Fraction(1)
    return iv.exp(interval(number)) * (1 + iv.mpf([-1, 1]) * iv.mpf(2) ** (8 - iv.prec))


def widened(number):
    """mpmath's result, off by 2^8 units in the last place of 1 and of itself."""
    return number * (1 + iv.mpf([-1, 1]) * iv.mpf(2) ** (8 - iv.prec)) + iv.mpf([-1, 1]) * iv.mpf(2) ** (8 - iv.prec)


def log(number):
    need(not isinstance(number, iv.mpf) or number > 0, "a logarithm of what may be 0 or less")
    return Fraction(0) if number == 1 else widened(iv.log(interval(number)))


def root(number):
    """Exact for the square of a fraction."""
    if not isinstance(number, iv.mpf):
        parts = [math.isqrt(n) for n in number.as_integer_ratio()]
        if Fraction(parts[0] ** 2, parts[1] ** 2) == number:
            return Fraction(*parts)
    need(not isinstance(number, iv.mpf) or number >= 0, "a root of what may be below 0")
    return widened(iv.sqrt(interval(number)))


def written(number):
    """A number of the file: exact as an integer or fraction, else off by less than one unit of its last digit."""
    if type(number) is int or EXACT.fullmatch(str(number)):
        return Fraction(number)
    sign, digits, exponent = Decimal(f"{number:.8E}" if type(number) is float else number).as_tuple()
    whole = (-1) ** sign * int("".join(map(str, digits)))
    return (whole + iv.mpf([-1, 1])) * iv.mpf(10) ** exponent


def maybe(a, b):
    """Whether two numbers may be equal: intervals that are not disjoint, or equal fractions."""
    difference = both(operator.sub, a, b)
    return not (difference > 0 or difference < 0)


class Point(Texts):
    """Tensors at which terms have values."""

    def __init__(self, lines, shapes, sizes, tensors):
        super().__init__(lines, shapes)
        need(all(type(n) is int and 0 < n < 10_000 for n in sizes.values()), "sizes are positive whole numbers")
        self.sizes, self.steps, self.definitions = sizes, 0, {}
        for size, parts in self.splits.items():
            need(sizes.get(size, self.length(size)) == self.length("*".join(parts)), f"size {size} is not its product")
        self.entries = {t: {} for t in tensors}
        for tensor, value in tensors.items():
            self.fill(self.entries[tensor], value, [self.atoms(s) for s in shapes[tensor]], ())

    def length(self, size):
        return math.prod(int(atom) if atom.isdigit() else self.sizes[atom] for atom in self.atoms(size))

    def fill(self, entries, value, slots, at):
        """Nested lists as {position, one number for each atomic slot: value}."""
        if not slots:
            need(type(value) in (int, str, float) and len(str(value)) < 400, "a number expected")
            entries[at] = written(value)
            return
        places = list(product(*(range(self.length(atom)) for atom in slots[0])))
        for place, part in zip(places, value, strict=True):
            self.fill(entries, part, slots[1:], at + place)

    def place(self, atoms, position):
        """A position in a slot as one number for each of its atomic sizes, the outer first."""
        return list(product(*(range(self.length(atom)) for atom in atoms)))[position]

    def values(self, indices):
        for values in product(*(range(self.length(size)) for _, size in indices)):
            self.steps += 1
            need(self.steps < STEPS, "too many steps")
            yield dict(zip(indices, values, strict=True))

    def total(self, terms, at):
        """The value of a sum with its free indices at the given places."""
        found = Fraction(0)
        for (number, powers), factors in terms:
            plan, have, waiting = [], {*at}, factors
            for index in [None, *(i for i in dict.fromkeys(slots_in(factors)) if i not in at)]:
                have.add(index)
                ready = [f for f in waiting if have.issuperset(f[1])]
                waiting = [f for f in waiting if f not in ready]
                plan.append((index, ready))
            scale = math.prod(Fraction(self.length(s)) ** e for s, e in powers if s[0] != "√")
            for size, exponent in (p for p in powers if p[0][0] == "√"):
                under = size[1:]
                value = root(Fraction(under) if under[0].isdigit() else Fraction(self.length(under)))
                for _ in range(abs(exponent)):
                    scale = both(operator.mul if exponent > 0 else operator.truediv, scale, value)
            found = plus(
                [found, both(operator.mul, both(operator.mul, number, scale), self.product(plan[0][1], plan[1:], at))]
            )
        return found

    def product(self, ready, plan, at):
        """The product of the factors that are ready, times the sum over the next index of what comes then."""
        value = Fraction(1)
        for factor in ready:
            value = both(operator.mul, value, self.factor(*factor, at))
            if value == 0:
                return value
        if not plan:
            return value
        (index, more), *rest = plan
        total = plus(self.product(more, rest, at | place) for place in self.values([index]))
        return both(operator.mul, value, total)

    def factor(self, name, indices, function, at):
        place = tuple(at[i] for i in indices)
        if not function:
            if name not in self.definitions:
                if name in CONDITIONS.values():
                    return self.condition(name, indices, place)
                return int(place[0] == place[1]) if name == "I" else self.entries[name][place]
            target, terms, known = self.definitions[name]
            if place not in known:
                known[place] = self.total(terms, dict(zip(target, place, strict=True)))
            return known[place]
        free, over, terms = function
        outside = {i: at[i] for i in free}
        argument = {tuple(v.values()): self.total(terms, outside | v) for v in self.values(over)}
        self.steps += len(argument) * iv.dps // 10
        tensors = {tensor for _, factors in terms for tensor, *_ in factors}
        if name == "log" and tensors and tensors <= {"I", *CONDITIONS.values()} and argument[()] == 0:
            return LEFT_OUT
        return apply(name, argument, place[len(free) :])

    def condition(self, name, indices, place):
        """1 where a condition holds, else 0; the position in a composite slot is that of the whole."""
        (text,) = (t for t, n in CONDITIONS.items() if n == name)
        width, positions = len(place) // len({*re.findall(r"{\d+}", text)}), []
        for start in range(0, len(place), width):
            whole = 0
            for k in range(start, start + width):
                whole = whole * self.length(indices[k][1]) + place[k]
            positions.append(whole)
        return int(condition_holds(name, positions, self.length))

    def defines(self, line, letters):
        """Whether a given equation defines a tensor, which it then does."""
        left, _, right = line.partition("=")
        if not right or "*" in left:
            return False
        name, slots = head(tree(left))
        letter = [i for slot in slots for i in slot]
        _, _, sums = body(right)
        if len({*letter}) < len(letter) or any(name == other for *_, p in sums for other, _ in p):
            return False
        need(name not in self.definitions, f"{name} is defined twice")
        _, (_, target, terms) = self.define(line, letters, {})
        self.definitions[name] = target, terms, {}
        return True

    def satisfies(self, line, letters):
        """Whether any other given equation holds exactly."""
        stated = RULE.fullmatch(line)
        left, right = (stated[1], stated[3]) if stated else line.split("=")
        (_, _, sums), (function, _, others) = body(left), body(right)
        need(not function, "a product is given as a function")
        here, there = ({i for *_, p in s for _, slots in p for slot in slots for i in slot} for s in (sums, others))
        free = here - {*re.split(r"[\s,]+", stated[2])} if stated else here & there
        indices = [i for letter in sorted(free) for i in letters[letter]]
        mine, theirs = (self.expand(s, letters, {*indices}, {}) for s in (sums, others))
        for at in self.values(indices):
            gap = both(operator.sub, self.total(mine, at), self.total(theirs, at))
            need(gap == 0, f"{line} does not hold, or not certainly")


def apply(name, argument, place):
    """A function of {position along what it runs over: value}, at one of these positions where it keeps them."""
    left_out = {at for at, v in argument.items() if isinstance(v, iv.mpf) and abs(v).a == math.inf}
    if left_out and name in ("softmax", "max", "min", "logsumexp"):
        if name == "softmax" and place in left_out:
            return Fraction(0)
        argument = {at: v for at, v in argument.items() if at not in left_out}
    need(not left_out or name in ("softmax", "max", "min", "logsumexp"), "minus infinity elsewhere")
    values = [*argument.values()]
    if name == "relu":
        return larger(argument[()], 0)
    if name == "max":
        return reduce(larger, values)
    if name == "min":
        return both(operator.mul, -1, reduce(larger, (both(operator.mul, -1, v) for v in values)))
    if name == "logsumexp":
        return log(plus(map(exp, values)))
    if name not in ("softmax", "sigmoid", "normalize"):
        return single(name, argument[()])
    if name == "normalize":
        return both(operator.truediv, argument[place], larger(plus(map(abs, values)), EPSILON))
    here = 0 if name == "sigmoid" else argument[place]  # a share is 1 over the sum of exp(other - here)
    others = [-argument[()], 0] if name == "sigmoid" else values
    return both(operator.truediv, 1, plus(exp(both(operator.sub, other, here)) for other in others))


def single(name, s):
    """A function of one number; one that is not here is the user's own, and taken to be s^3 + 2 s^2 + 3 s + 5."""

    def minus(a, b):
        return both(operator.sub, a, b)

    def times(*numbers):
        return reduce(lambda a, b: both(operator.mul, a, b), numbers)

    def over(a, b):
        return both(operator.truediv, a, b)

    def share(a):  # sigmoid
        return over(1, plus([1, exp(minus(0, a))]))

    need(
        name not in ("gelu", "gelu_tanh", "gelu_gate", "normal_cdf", "normal_pdf", "step", "largest"),
        f"{name} has no value here",
    )
    own = plus([times(s, s, s), times(2, s, s), times(3, s), 5])
    table = {
        "exp": lambda: exp(s),
        "log": lambda: log(s),
        "sqrt": lambda: root(s),
        "reciprocal": lambda: over(1, s),
        "abs": lambda: abs(s),
        "tanh": lambda: minus(times(2, share(times(2, s))), 1),
        "silu": lambda: times(s, share(s)),
        "softplus": lambda: log(plus([1, exp(s)])),
        "sin": lambda: widened(iv.sin(interval(s))),
        "elu": lambda: plus([larger(s, 0), exp(minus(0, larger(minus(0, s), 0))), -1]),
        "cos": lambda: widened(iv.cos(interval(s))),
    }
    return table[name]() if name in table else own


def refute(verdict):
    """Raises Refused where a verdict's counterexample is none."""
    need(verdict["status"] == "different", "the verdict has no counterexample")
    for iv.dps in DIGITS:
        left, right = sides(verdict)
        if not maybe(left, right):
            return
    raise Refused("the two sides agree, or the digits do not tell them apart")


def sides(verdict):
    """The values of both sides, after everything that is given; those that the file has may not be others."""
    left, right, found = verdict["left"], verdict["right"], verdict["counterexample"]
    lines = [line.strip() for text in (left, right, *verdict["given"]) for line in text.split("\n")]
    point = Point(lines, found["shapes"], found["sizes"], found["tensors"])
    equations = [g for g in map(str.strip, verdict["given"]) if not SPLIT.fullmatch(g) and not LETTERS.fullmatch(g)]
    given = [(g, point.letters(lines, s)) for g, s in zip(equations, found["indices"]["given"], strict=True)]
    for line, letters in [(line, letters) for line, letters in given if not point.defines(line, letters)]:
        point.satisfies(line, letters)
    for name, (target, _, _) in point.definitions.items():
        for place in point.values(target):
            value, said = point.factor(name, target, None, place), point.entries[name][tuple(place.values())]
            need(maybe(value, said), f"{name} is not as it is given")
    values = []
    for text, indices in ((left, found["indices"]["left"]), (right, found["indices"]["right"])):
        shape, target, terms, _ = point.read(text, indices, {})
        places = [k for atoms, k in zip(shape, found["entry"], strict=True) for k in point.place(atoms, k)]
        values.append(point.total(terms, dict(zip(target, places, strict=True))))
    for value, said in zip(values, (found["left"], found["right"]), strict=True):
        need(maybe(value, written(said)), f"the value is {value}, not {said}")
    return values


def refused_constant(name):
    need(False, f"{name} is no number")


def distinct(pairs):
    """A JSON object whose keys are all different."""
    need(len({key for key, _ in pairs}) == len(pairs), "an object has a key twice")
    return dict(pairs)


def check(text):
    """Raises Refused where a verdict, as JSON text, has no counterexample that holds."""
    need(len(text) <= BYTES, f"longer than {BYTES} bytes")
    try:
        refute(json.loads(text, parse_constant=refused_constant, object_pairs_hook=distinct))
    except (ArithmeticError, AttributeError, LookupError, RecursionError, SyntaxError, TypeError, ValueError) as error:
        raise Refused(f"malformed: {error!r}"[:300]) from error


def main(path):
    try:
        with open(path, encoding="utf-8") as file:
            check(file.read(BYTES + 1))
    except (Refused, OSError) as error:
        sys.exit(f"refused: {error}")
    print("accepted")


if __name__ == "__main__":
    main(*sys.argv[1:])
