"""Checks a counterexample that `polyattn.prove` found: python -m proofs.refute VERDICT.json

Accepts with exit code 0, refuses with 1 and the reason. Needs Python's standard library and `terms.py`, which needs no
more: nothing of polyattn.

Both texts are multiplied out and evaluated at the counterexample's sizes and tensors, by loops over all values of all
indices, in fractions; where softmax or sigmoid occur, these are taken in floating point, and the two values have to
differ by more than one part in a million. Every given equation is evaluated in the same way, for every entry.

What is taken on trust: that the texts are valid specifications, and the sizes of indices as far as `terms.py` says.
"""

import json
import math
import re
import sys
from fractions import Fraction
from itertools import product

from proofs.terms import LETTERS, SPLIT, Refused, Texts, body, need, slots_in

BYTES, STEPS, MARGIN = 1_000_000, 3_000_000, Fraction(1, 10**6)
EPSILON = Fraction(1, 10**12)  # normalize divides by the larger of the L1 norm and this
RULE = re.compile(r"([^=]+?)\s+summed\s+over\s+([\w\s,]+?)\s+is\s+([^=]+)", re.A)


class Point(Texts):
    """Tensors at which terms have values."""

    def __init__(self, lines, shapes, sizes, tensors):
        super().__init__(lines, shapes)
        need(all(type(n) is int and 0 < n < 10_000 for n in sizes.values()), "sizes are positive whole numbers")
        self.sizes, self.steps = sizes, 0
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
            entries[at] = Fraction(value)
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
            scale = math.prod(Fraction(self.length(s)) ** e for s, e in powers)
            found += number * scale * self.product(plan[0][1], plan[1:], at)
        return found

    def product(self, ready, plan, at):
        """The product of the factors that are ready, times the sum over the next index of what comes then."""
        value = Fraction(1)
        for factor in ready:
            value *= self.factor(*factor, at)
            if not value:
                return value
        if not plan:
            return value
        (index, more), *rest = plan
        return value * sum(self.product(more, rest, at | place) for place in self.values([index]))

    def factor(self, name, indices, function, at):
        place = tuple(at[i] for i in indices)
        if not function:
            return int(place[0] == place[1]) if name == "I" else self.entries[name][place]
        free, over, terms = function
        outside = {i: at[i] for i in free}
        argument = {tuple(v.values()): self.total(terms, outside | v) for v in self.values(over)}
        return apply(name, argument, place[len(free) :])

    def meaning(self, line, letters):
        """The two sides of a given equation as terms, with the indices that are free in it."""
        stated = RULE.fullmatch(line)
        left, right = (stated[1], stated[3]) if stated else line.split("=")
        (_, _, sums), (function, _, others) = body(left), body(right)
        accesses = [a for *_, p in sums for a in p]
        here, there = ({i for *_, p in s for _, slots in p for slot in slots for i in slot} for s in (sums, others))
        slots = [i for slot in accesses[0][1] for i in slot]
        defines = len(accesses) == 1 and len({*slots}) == len(slots)
        free = here - {*re.split(r"[\s,]+", stated[2])} if stated else here if defines else here & there
        indices = [i for letter in sorted(free) for i in letters[letter]]
        mine = self.expand(sums, letters, {*indices}, {})
        if not function:
            return mine, self.expand(others, letters, {*indices}, {}), indices
        _, (_, target, terms) = self.define(line, letters, {})
        return mine, terms, target

    def satisfies(self, line, letters, margin):
        left, right, free = self.meaning(line, letters)
        gaps = (abs(self.total(left, at) - self.total(right, at)) for at in self.values(free))
        need(all(gap <= margin for gap in gaps), f"{line} does not hold")


def apply(name, argument, place):
    """A function of {position along what it runs over: value}, at one of these positions where it keeps them."""
    values = argument.values()
    if name == "relu":
        return max(argument[()], 0)
    if name == "max":
        return max(values)
    if name == "normalize":
        return argument[place] / max(sum(map(abs, values)), EPSILON)
    if name == "sigmoid":
        return Fraction(1 / (1 + math.exp(-argument[()])))
    largest = max(values)
    return Fraction(math.exp(argument[place] - largest) / math.fsum(math.exp(v - largest) for v in values))


def refute(verdict):
    """Raises Refused where a verdict's counterexample is none."""
    left, right, found = verdict["left"], verdict["right"], verdict["counterexample"]
    need(verdict["status"] == "different", "the verdict has no counterexample")
    lines = [line.strip() for text in (left, right, *verdict["given"]) for line in text.split("\n")]
    point = Point(lines, found["shapes"], found["sizes"], found["tensors"])
    exact = found["values"] == "exact"
    equations = [g for g in map(str.strip, verdict["given"]) if not SPLIT.fullmatch(g) and not LETTERS.fullmatch(g)]
    for line, sizes in zip(equations, found["indices"]["given"], strict=True):
        point.satisfies(line, point.letters(lines, sizes), 0 if exact else MARGIN)
    values = []
    for text, indices in ((left, found["indices"]["left"]), (right, found["indices"]["right"])):
        shape, target, terms, _ = point.read(text, indices, {})
        places = [k for atoms, k in zip(shape, found["entry"], strict=True) for k in point.place(atoms, k)]
        values.append(point.total(terms, dict(zip(target, places, strict=True))))
    need(abs(values[0] - values[1]) > MARGIN * max(*map(abs, values)), "the two sides agree")
    for value, said in zip(values, (found["left"], found["right"]), strict=True):
        near = abs(value - Fraction(said)) <= (0 if exact else MARGIN * max(abs(value), 1))
        need(near, f"the value is {value}, not {said}")


def check(text):
    """Raises Refused where a verdict, as JSON text, has no counterexample that holds."""
    need(len(text) <= BYTES, f"longer than {BYTES} bytes")
    try:
        refute(json.loads(text, parse_constant=lambda name: need(False, f"{name} is no number")))
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
