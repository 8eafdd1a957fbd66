"""Checks a certificate of equality that `polyattn.prove` wrote: python -m proofs.check CERTIFICATE.json

Accepts with exit code 0, refuses with 1 and the reason. Needs Python's standard library and `terms.py`, which needs no
more: nothing of polyattn.

What is checked. Each side's text is multiplied out here. It has to be, term by term, the next text of that side's
chain: the certificate says which factor is which, indices have to follow suit, one to one, free ones to themselves,
each with its size, and coefficients (numbers times powers of sizes) have to add up. A step may put in a given
definition, or use a given rule at one place; that is done again here. Slots may change places only as given symmetries
allow. The nonzero terms of the two last texts have to correspond one to one, as `pairs` says.

What is taken on trust: that the given equations hold; that the texts are valid specifications; and the shapes of
tensors and sizes of indices, which have to agree with what the texts declare and with each other, but are not inferred
again. The claim is equality of the two first texts for all tensors of those shapes, at every size.
"""

import json
import re
import sys
from collections import Counter
from fractions import Fraction

from proofs.terms import LETTERS, SPLIT, Refused, Texts, body, inside, need, normal, rename, slots_in, times

BYTES = 4_000_000
RULE = re.compile(r"([^=]+?)\s+summed\s+over\s+([\w\s,]+?)\s+is\s+([^=]+)", re.A)


def fields(data, *names):
    need(isinstance(data, dict) and set(data) == set(names), f"an object with {', '.join(names)} expected")
    return [data[name] for name in names]


# Correspondence. A witness has, for each term, [number of its target, [an entry for each factor of the target]]; an
# entry is the factor's own position, or [position, whose slot comes where, the witness of a function's terms].
def match(term, target, order, fixed, groups):
    forward, back, said, mine, theirs = {}, {}, {}, *([f for f in t[1] if f[0] != "I"] for t in (term, target))
    same = {}
    for _, (i, j), _ in (f for f in term[1] + target[1] if f[0] == "I"):
        old, new = same.get(i, i), same.get(j, j)
        same |= dict.fromkeys((i, j, *(k for k, v in same.items() if v == old)), new)

    def pair(i, j):
        said.setdefault(i, j)
        i, j = same.get(i, i), same.get(j, j)
        need(i[1] == j[1] and forward.setdefault(i, j) == j and back.setdefault(j, i) == i, "indices do not correspond")

    for i, j in fixed:
        pair(i, j)
    entries = [e if isinstance(e, list) and len(e) > 1 else [e] for e in order]
    need(sorted(e[0] for e in entries) == [*range(len(mine))] and len(theirs) == len(mine), "factors do not correspond")
    for entry, (name, indices, function) in zip(entries, theirs, strict=True):
        other, left, right = mine[entry[0]], mine[entry[0]][1], indices
        need(other[0] == name and bool(other[2]) == bool(function), f"{other[0]} is not {name}")
        need(len(entry) == 3 if function else len(entry) < 3, f"the entry of {name} is not what it should be")
        if function:
            left, right, free = other[2][0] + other[2][1], function[0] + function[1], len(function[0])
        slots = entry[1] if len(entry) > 1 else [*range(len(right))]
        need(sorted(slots) == [*range(len(left))] and len(left) == len(right), f"the slots of {name} do not correspond")
        if function:
            need(all((s < free) == (k < free) for k, s in enumerate(slots)), f"{name} runs over another index")
            arrow(other[2][2], function[2], entry[2], [(left[s], right[k]) for k, s in enumerate(slots)], groups)
            left, right, slots = other[1], indices, slots[: len(indices)]
        allowed = function or slots == sorted(slots) or tuple(slots) in groups.get(name, ())
        need(allowed, f"slots of {name} change places")
        for k, s in enumerate(slots):
            pair(left[s], right[k])
    return said


def arrow(terms, targets, witness, fixed, groups):
    """The terms add up to the targets; the target -1 - k is term k itself, and has to cancel."""
    sums = Counter({(k, c[1]): -c[0] for k, (c, _) in enumerate(targets)})
    for term, (k, order) in zip(terms, witness, strict=True):
        need(type(k) is int and -len(terms) <= k < len(targets), "no such target")
        match(term, targets[k] if k >= 0 else terms[~k], order, fixed if k >= 0 else [(i, i) for i, _ in fixed], groups)
        sums[k, term[0][1]] += term[0][0]
    need(not any(sums.values()), "the coefficients do not add up")


class Proof(Texts):
    """A certificate; making one checks it."""

    def __init__(self, data):
        kind, shapes, given, *sides, pairs = fields(data, "format", "shapes", "given", "left", "right", "pairs")
        need(kind == "polyattn equality 1" and isinstance(given, list), "another format")
        self.given = [(text[:5000].strip(), sizes) for text, sizes in (fields(g, "text", "indices") for g in given)]
        sides = [fields(side, "text", "indices", "steps") for side in sides]
        self.lines = [text for text, _ in self.given]
        super().__init__(self.lines + [line.strip() for text, *_ in sides for line in text.split("\n")], shapes)
        self.groups = {}
        about = [SPLIT.fullmatch(text) or LETTERS.fullmatch(text) for text in self.lines]
        self.unused = {k for k, given in enumerate(self.given) if not about[k] and not self.symmetry(*given)}
        ends = [self.chain(*side) for side in sides]
        need(self.used == set(self.shapes), "the shapes are those of other tensors")
        need(not self.unused, "an equation is given and not used")
        self.correspond(*ends, pairs)

    def chain(self, text, indices, steps):
        """The last text of a side, with every step up to it checked."""
        shape, target, terms, _ = self.read(text, indices, {})
        need(steps and steps[0]["by"] == "expansion", "the first step is to expand")
        for number, step in enumerate(steps):
            if step["by"] == "definition":
                by, given, new, sizes, witness = fields(step, "by", "given", "text", "indices", "terms")
                line, given_sizes = self.given[given]
                name, meaning = self.define(line, self.letters(self.lines, given_sizes), {})
                shape, target, terms, _ = self.read(text, indices, {name: meaning})
            elif step["by"] == "rule":
                by, given, place, factors, new, sizes, witness = fields(
                    step, "by", "given", "place", "factors", "text", "indices", "terms"
                )
                terms = use(terms, set(target), self.rule(*self.given[given]), place, factors)
            else:
                by, new, sizes, witness = fields(step, "by", "text", "indices", "terms")
                need(by == "expansion" and not number, "no such step")
            self.unused.discard(step.get("given"))
            text, indices = new, sizes
            old_shape, old_target, old = shape, target, terms
            shape, target, terms, letters = self.read(text, indices, {})
            need(shape == old_shape, "the output has another shape")
            arrow(old, terms, witness, list(zip(old_target, target, strict=True)), self.groups)
        return shape, target, terms, letters

    def correspond(self, left, right, pairs):
        need(left[0] == right[0], "the outputs have different shapes")
        fixed, (mine, theirs) = list(zip(left[1], right[1], strict=True)), (left[2], right[2])
        names = [{i: letter for letter, (i, *_) in end[3].items()} for end in (left, right)]
        for side, terms in (("left", mine), ("right", theirs)):
            paired, needed = sorted(p[side] for p in pairs), [k for k, (c, _) in enumerate(terms) if c[0]]
            need(paired == needed, f"the pairs do not cover the {side} side once")
        for pair in pairs:
            a, b, factors, indices, number, powers = fields(
                pair, "left", "right", "factors", "indices", "coefficient", "powers"
            )
            indices_of = match(mine[a], theirs[b], factors, fixed, self.groups)
            need(re.fullmatch(r"-?\d{1,4000}(/\d{1,4000})?", number, re.A), "a coefficient is a fraction")
            coefficient = Fraction(number), tuple(sorted(powers.items()))
            need(mine[a][0] == theirs[b][0] == coefficient, "the coefficients differ")
            said = {names[0][i]: names[1][j] for i, j in indices_of.items() if i in names[0] and j in names[1]}
            need(said == indices, "the indices correspond otherwise")

    def symmetry(self, text, indices):
        """Whether it is one, as `adj[k,l] = adj[l,k]`; then the exchanges of slots are allowed that it allows."""
        (_, _, left), (function, _, right) = map(body, text.split("=")) if "=" in text else ((0, 0, []),) * 2
        (name, slots), *others = [access for *_, accesses in left + right for access in accesses] or [(None, [])]
        if not left or len(left[0][2]) != 1 or name not in [other for other, _ in others]:
            return False
        plain = not function and [p[:2] for p in left + right] == [(1, [])] * 2 and len(others) == 1
        need(plain, f"{text} is circular")
        letters = self.letters(self.lines, indices)
        here, there = ([i for slot in s for letter in slot for i in letters[letter]] for s in (slots, others[0][1]))
        need(sorted(here) == sorted(there) and len({*here}) == len(here), f"{text} exchanges no slots")
        new, group = tuple(here.index(i) for i in there), self.groups.setdefault(name, {tuple(range(len(here)))})
        group.add(new)
        while more := {tuple(g[k] for k in h) for g in group for h in group} - group:
            group |= more
            need(len(group) <= 720, "too many symmetries")
        return bool(self.access(name, slots, letters, {}))

    def rule(self, text, indices):
        """The factors of a rule's left side, its right side's terms, and its free indices."""
        match = RULE.fullmatch(text.strip())
        left, right = (match[1], match[3]) if match else text.split("=")
        (_, _, ((number, sizes, accesses),)), (function, _, sums) = body(left), body(right)
        need(number == 1 and not sizes and not function, "a rule has tensors on its left, and no function")
        there = {letter for *_, product in sums for _, slots in product for slot in slots for letter in slot}
        here = {letter for _, slots in accesses for slot in slots for letter in slot}
        free = here - set(re.split(r"[\s,]+", match[2])) if match else here & there
        need(here & there <= free, "an index is summed on the left of a rule and on its right")
        letters = self.letters(self.lines, indices)
        at = {i for letter in free for i in letters[letter]}
        factors = [f for access in accesses for _, fs in self.access(*access, letters, {}) for f in fs]
        return factors, self.expand(sums, letters, at, {}), at


def use(terms, free, rule, place, chosen):
    """The terms with a rule used on some factors of one of them; a place inside a function is term, factor, term."""
    number, *inner = place
    coefficient, factors = terms[number]
    proper = [k for k, f in enumerate(factors) if f[0] != "I"]
    if inner:
        k = proper[inner[0]]
        name, indices, (own, over, argument) = factors[k]
        changed = name, indices, (own, over, use(argument, {*own, *over}, rule, inner[1:], chosen))
        new = [normal(coefficient, [*factors[:k], changed, *factors[k + 1 :]], free, slots_in(factors))]
    else:
        left, right, at = rule
        names, chosen = {}, [proper[k] for k in chosen]
        need(len({*chosen}) == len(chosen), "a factor is used twice")
        for (name, indices, _), k in zip(left, chosen, strict=True):
            need(factors[k][0] == name and not factors[k][2], f"the rule needs {name}")
            need(all(names.setdefault(i, j) == j for i, j in zip(indices, factors[k][1], strict=True)), "no instance")
        rest = [f for k, f in enumerate(factors) if k not in chosen]
        gone, seen = [names[i] for i in names if i not in at], {*free, *inside(rest), *(names[i] for i in at)}
        need(len({*gone}) == len(gone) and not {*gone} & seen, "the rule sums over an index that is elsewhere too")
        summed = [i for i in slots_in(factors) if i not in gone]
        at = {i: names[i] for i in at}
        new = [normal(times(coefficient, c), rest + rename(fs, at, bound=True), free, summed) for c, fs in right]
    need(number >= 0, "no such place")
    return [*terms[:number], *new, *terms[number + 1 :]]


def check(text):
    """Raises Refused where a certificate, as JSON text, does not prove its claim."""
    need(len(text) <= BYTES, f"longer than {BYTES} bytes")
    try:
        Proof(json.loads(text, parse_constant=lambda name: need(False, f"{name} is no number")))
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
