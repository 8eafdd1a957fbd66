"""Checks a certificate of equality that `polyattn.prove` wrote: python proofs/check.py [--certificate] FILE.json

Accepts with exit code 0 and prints the claim; refuses with 1 and the reason. Needs only Python's standard library. A
verdict is refused, since its texts are not checked here; --certificate takes the certificate out of it, and only that.

Two equations in expanded form, as `y[n,c] = 1/2/N*x[n,c1]*w[c1,c] - x[n,c]`: indices that are not on the left are
summed within their product, `indices` and `shapes` have all sizes, and `I[i,j]` is 1 where i = j, else 0. A function of
a sum is a tensor with a line in `functions`, `f1[n,n1] = softmax[n1](x[n,c]*x[n1,c])`. `steps` rewrite the sums "left",
"right" and "f1", whose terms (without those that are 0), and the factors of a term, are numbered from 0:
    {"use": 0, "in": "left", "term": 2, "factors": [1]}  These factors are the left side of given equation 0, and make
        place for its right side, behind the others; what it sums, `summed`, occurs nowhere else.
    {"add": 3, "to": 1, "in": "left", "factors": [0, 2, 1]}  Term 3 is term 1 with another number, which is added to it.
    {"same": "f2", "as": "f1", "letters": [1, 0], "terms": [[0, [1, 0]]]}  The functions are one, and f1 comes in place
        of f2: its indices are these of f2, term k of f2 is this term of f1. With "in", "term" and "factor": only there.
`renaming` lists further given equations, `u[i,j] = w[i,j]`, numbered behind the others: each says that a tensor which
the left side alone has is one that the right side alone has, no two the same one.
`factors` has the place in the first term of each factor of the second; indices have to correspond one to one, free ones
as the outputs do. Steps lead to `results`, whose terms correspond one to one as `pairs` says. The claim: at any sizes
the two are equal for all tensors of `shapes` that satisfy the given equations, where sizes are atomic: none is a
product of others. Whether they are expanded rightly from other texts is not checked.
"""

import json
import re
import sys
from collections import Counter, namedtuple
from fractions import Fraction
from itertools import chain

BYTES, WORK, BITS = 4_000_000, 1_500_000, 20_000  # of the file, slots made in all, length of a number
REDUCES = {"max", "min", "logsumexp", None}  # what these run over is gone; any other function keeps its indices
CLAIM = ("indices", "shapes", "functions", "given", "renaming", "left", "right")
LETTERS = r"(?:\[([a-z]\w*(?:,[a-z]\w*)*)\])?"
ACCESS = re.compile(rf"([A-Za-z]\w*){LETTERS}", re.A)
LINE = re.compile(rf"([A-Za-z]\w*){LETTERS} = (?:([a-z]\w*){LETTERS}\((.*)\)|(.*))", re.A)
ROOT = re.compile(r"sqrt\(\w+\)", re.A)  # of a size or a number: a number like a size, of which nothing is used

# An index is (letter, size), a factor (tensor, indices). A sum's letters: of its slots, then what it reduces over.
Term = namedtuple("Term", "number powers factors")
Sum = namedtuple("Sum", "name slots function letters over terms")


class Refused(Exception):
    """The certificate does not prove its claim."""


def need(condition, reason):
    if not condition:
        raise Refused(reason)


def fields(data, names):
    """An object's values; each name has its type in front: list, int, str, dict."""
    types = {name: kind for kind, name in (word.split(":") for word in names.split())}
    need(type(data) is dict and {k: type(v).__name__[0] for k, v in data.items()} == types, f"not an object of {names}")
    return [data[name] for name in types]


def distinct(pairs):
    """A JSON object whose keys are all different."""
    need(len({key for key, _ in pairs}) == len(pairs), "an object has a key twice")
    return dict(pairs)


def numbers(data, limit):
    """A list of different whole numbers from 0 to below the limit."""
    need(type(data) is list and all(type(k) is int and 0 <= k < limit for k in data), "no positions")
    need(len({*data}) == len(data), "a position occurs twice")
    return data


def inside(factors):
    return {*chain.from_iterable(indices for _, indices in factors)}


def match(term, target, order, fixed):
    """The index of the target for each index of the term; `fixed` has the free ones."""
    need(len(numbers(order, len(term.factors))) == len(term.factors) == len(target.factors), "not factor by factor")
    need(term.powers == target.powers, "the powers of sizes differ")
    forward, back = dict(fixed), {j: i for i, j in fixed.items()}
    for (name, indices), (other, places) in zip((term.factors[k] for k in order), target.factors, strict=True):
        need(name == other, f"{name} is not {other}")
        for i, j in zip(indices, places, strict=True):
            need(i[1] == j[1] and forward.setdefault(i, j) == j and back.setdefault(j, i) == i, "indices do not agree")
    return forward


def bijection(left, right, terms, fixed):
    """How indices correspond, for each term of the left sum; `terms` has its number on the right, and the factors."""
    need(all(i[1] == j[1] for i, j in fixed.items()), "indices have different sizes")
    need(len(numbers([k for k, _ in terms], len(right.terms))) == len(left.terms) == len(right.terms), "not one to one")
    pairs = [(term, right.terms[k], order) for term, (k, order) in zip(left.terms, terms, strict=True)]
    need(all(term.number == target.number for term, target, _ in pairs), "the numbers in front differ")
    return [match(term, target, order, fixed) for term, target, order in pairs]


class Proof:
    """A certificate; making one checks it."""

    def __init__(self, data):
        names = "s:format d:indices d:shapes l:functions l:given s:left s:right l:steps l:results l:pairs"
        renaming = (data := dict(data)).pop("renaming", [])
        kind, self.sizes, self.shapes, functions, given, left, right, steps, results, pairs = fields(data, names)
        need(kind == "polyattn equality 2", "another format")
        need(all(re.fullmatch(r"[A-Z]\w*|[1-9]\d{0,8}", s, re.A) for s in self.sizes.values()), "there is no such size")
        self.sums, self.used, self.work = {}, set(), 0
        for line in functions:
            new = self.read(line)
            defined = (new.name,) in self.used or new.name in {*self.sums, "I", "left", "right"}
            need(new.function and not defined, f"{new.name} is no new function")
            self.sums[new.name] = new
        rules = [self.rule(*fields(g, "s:equation l:summed")) for g in given]
        self.sums |= {"left": self.read(left), "right": self.read(right)}
        rules += self.renamed(renaming, rules) if renaming else []
        need({self.step(step, rules) for step in steps} >= {*range(len(rules))}, "an equation is given and not used")
        left, right = map(self.read, results)
        tensors = {(name,) for name in self.shapes if name not in (left.name, right.name)}
        need(self.used - {("I",)} == tensors | {*self.sizes}, "an index or a tensor is not used, or an output is")
        for total, end in ((self.sums["left"], left), (self.sums["right"], right)):
            need(total[:3] == end[:3] == (*end[:2], None), "the steps lead to another output")
            same = [[k, [*range(len(term.factors))]] for k, term in enumerate(total.terms)]
            bijection(total, end, same, {i: i for i in end.slots})
        pairs = [fields(pair, "i:left i:right l:factors d:indices s:coefficient d:powers") for pair in pairs]
        need([k for k, *_ in pairs] == [*range(len(left.terms))], "the pairs are not in order")
        terms, fixed = [pair[1:3] for pair in pairs], dict(zip(left.slots, right.slots, strict=True))
        for pair, term, found in zip(pairs, left.terms, bijection(left, right, terms, fixed), strict=True):
            said = [{i: j for (i, _), (j, _) in found.items()}, str(term.number), term.powers]
            need(json.dumps(pair[3:], sort_keys=True) == json.dumps(said, sort_keys=True), "a pair says otherwise")

    def effort(self, work, number):  # keeps time and memory in bounds
        self.work += work
        need(self.work <= WORK and max(map(int.bit_length, number.as_integer_ratio())) <= BITS, "too much work")

    def letters(self, names):
        need(len(names) < 100, "too many indices")
        self.used.update(names)
        return [(name, self.sizes[name]) for name in names]

    def products(self, text):
        """A sum's products, each a number, powers of sizes, and factors."""
        first, *others = re.split(r"(?:^| )([+-]) ?", text)
        for sign, product in [("+", first)] * bool(first) + [*zip(others[::2], others[1::2], strict=True)]:
            number, powers, factors, pieces = Fraction(f"{sign}1"), Counter(), [], re.split("([*/])", "*" + product)[1:]
            for by, piece in zip(pieces[::2], pieces[1::2], strict=True):
                found, exponent = ACCESS.fullmatch(piece), 1 if by == "*" else -1
                if re.fullmatch(r"\d{1,4000}", piece, re.A):
                    number *= Fraction(int(piece)) ** exponent
                    self.effort(1, number)
                elif (found and piece[0].isupper() and not found[2]) or ROOT.fullmatch(piece):
                    powers[piece] += exponent
                else:
                    need(found and by == "*", f"{piece!r} is no factor")
                    name, indices = found[1], self.letters(found[2].split(",") if found[2] else [])
                    shape = [size for _, size in indices]
                    need(shape == (shape[:1] * 2 if name == "I" else self.shapes[name]), f"{name} has another shape")
                    factors.append((name, indices))
                    self.used.add((name,))
            yield number, powers, factors

    def read(self, line):
        name, slots, function, over, argument, total = LINE.fullmatch(line).groups()
        slots, over = (self.letters(part.split(",") if part else []) for part in (slots, over))
        need(name != "I" and len({*slots}) == len(slots), f"{name} is the identity, or has an index twice")
        need(len({*over}) == len(over), f"{function} has an index twice")
        need([size for _, size in slots] == self.shapes[name], f"{name} has another shape")
        need(
            {*over} & {*slots} == ({*over} if function not in REDUCES else set()), f"{function} runs over other indices"
        )
        letters = slots + [i for i in over if i not in slots]
        terms = [self.term(*product, (), letters) for product in self.products(argument if function else total)]
        return Sum(name, slots, function, letters, {*over}, [t for t in terms if t.number])

    def rule(self, equation, summed):
        left, right = equation.split(" = ")
        ((number, powers, factors),), products = self.products(left), [*self.products(right)]
        there, over = inside(factors), {*self.letters(summed)}
        need(number == 1 and not powers and "I" not in dict(factors), "a given equation has tensors on its left")
        need(len(over) == len(summed) and over <= there, "it sums other indices than those of its left")
        need(not any(over & inside(f) for *_, f in products), "an index is summed on the left, and on the right")
        return factors, over, there - over, products

    def renamed(self, equations, rules):
        """The equations of a renaming as rules."""
        left, right, taken = self.tensors("left"), self.tensors("right"), set()
        taken |= {
            name for factors, _, _, products in rules for f in (factors, *(p[2] for p in products)) for name, _ in f
        }
        for factors, _, _, products in (made := [self.rule(equation, []) for equation in equations]):
            ((old, mine),), ((number, powers, ((new, theirs),)),) = factors, products
            need(number == 1 and not powers and mine == theirs and len({*mine}) == len(mine), "no renaming")
            need(old in left - right - taken and new in right - left - taken, f"{old} or {new} is elsewhere, too")
            taken |= {old, new}
        return made

    def tensors(self, name):
        found = {tensor for term in self.sums[name].terms for tensor, _ in term.factors}
        return found.union(*(self.tensors(tensor) for tensor in found & {*self.sums}))

    def term(self, number, powers, factors, summed, free):
        """A product without identities of summed indices; a summed one that no factor has any more counts by size."""
        identities, rank = [f for f in factors if f[0] == "I"], {i: k for k, i in enumerate(free)}
        root = {i: i for i in [*free, *summed, *chain(*(indices for _, indices in factors))]}
        self.effort((1 + len(identities)) * (1 + len(root)) + len(factors), number)
        for _, pair in identities:
            i, j = sorted((root[i] for i in pair), key=lambda i: rank.get(i, len(rank)))
            root = {k: i if r == j else r for k, r in root.items()}
        rest = [(name, [root[i] for i in indices]) for name, indices in factors if name != "I"]
        powers = Counter(powers)
        powers.update(size for _, size in {*root.values()} - inside(rest) - {*free})
        for size in [s for s in powers if s.isdigit()]:
            number *= Fraction(int(size)) ** powers.pop(size)
            self.effort(1, number)
        rest += [("I", [root[i], i]) for i in free if root[i] != i]
        return Term(number, {s: e for s, e in powers.items() if e}, rest)

    def step(self, step, rules):
        """Do a step; returns the number of the given equation that it used."""
        if "same" in step:
            return self.same(*fields(step, "s:same s:as l:letters l:terms" + " s:in i:term i:factor" * ("in" in step)))
        total = self.sums[step["in"]]
        if "add" in step:
            add, to, _, order = fields(step, "i:add i:to s:in l:factors")
            old, new = (total.terms[k] for k in numbers([add, to], len(total.terms)))
            match(old, new, order, {i: i for i in total.letters})
            total.terms[to] = new._replace(number=old.number + new.number)
            total.terms[:] = [term for k, term in enumerate(total.terms) if k != add and term.number]
            return self.effort(len(total.terms), old.number + new.number)
        use, _, at, them = fields(step, "i:use s:in i:term l:factors")
        need(0 <= use < len(rules) and 0 <= at < len(total.terms), "there is no such place")
        total.terms[at : at + 1] = [t for t in self.use(*rules[use], total.terms[at], them, total.letters) if t.number]
        return use

    def use(self, left, over, at, products, term, chosen, free):
        names, taken = {}, {*numbers(chosen, len(term.factors))}
        rest = [f for k, f in enumerate(term.factors) if k not in taken]
        for k, (name, indices) in zip(chosen, left, strict=True):
            need(name == term.factors[k][0], f"{term.factors[k][0]} is not {name}")
            need(all(names.setdefault(i, j) == j for i, j in zip(indices, term.factors[k][1], strict=True)), "no case")
        gone = {names[i] for i in over}
        elsewhere = {*free, *inside(rest), *(names[i] for i in at)}
        need(len(gone) == len(over) and not gone & elsewhere, "an index that the equation sums is not its own here")
        for number, powers, factors in products:
            own = {i: names[i] if i in at else (f"{self.work} {i[0]}", i[1]) for i in inside(factors)}
            made = rest + [(name, [own[i] for i in indices]) for name, indices in factors]
            together = {s: term.powers.get(s, 0) + powers[s] for s in {*term.powers, *powers}}
            yield self.term(term.number * number, together, made, inside(term.factors) - gone, free)

    def same(self, name, other, letters, terms, *place):
        f, g = self.sums[name], self.sums[other]
        self.used.add((other,))
        need(name != other and f.function and f.function == g.function, "these are no two functions of one kind")
        fixed = dict(zip([f.letters[k] for k in numbers(letters, len(f.letters))], g.letters, strict=True))
        need({i for i in fixed if fixed[i] in g.over} == f.over, "they run over other indices")
        need(all({*f.letters} & inside(t.factors) <= {*fixed} for t in f.terms), "an index is lost")
        bijection(f, g, terms, fixed)
        need(not place or self.sums[place[0]].terms[place[1]].factors[place[2]][0] == name, "it is not there")
        for where, total in self.sums.items():
            for k, (number, powers, factors) in enumerate(total.terms):
                for j, (tensor, at) in enumerate(factors := [*factors]):
                    if tensor == name and place in ((), (where, k, j)):
                        factors[j] = other, [at[s] for s in letters[: len(g.slots)]]
                total.terms[k] = self.term(number, powers, factors, inside(total.terms[k].factors), total.letters)
        self.sums = {key: total for key, total in self.sums.items() if place or key != name}


def check(text, inside=False):
    """Raises Refused where a certificate, as JSON text, does not prove its claim; `inside` takes it from a verdict."""
    need(len(text) <= BYTES, f"longer than {BYTES} bytes")
    try:
        data = json.loads(text, parse_constant=lambda n: need(False, f"{n} is no number"), object_pairs_hook=distinct)
        need(inside or "certificate" not in data, "a verdict's texts are not checked here: see --certificate")
        Proof(data := data["certificate"] if inside else data)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise Refused(f"malformed: {error!r}"[:300]) from error
    return {name: data[name] for name in CLAIM if name in data}


if __name__ == "__main__":
    try:
        with open(sys.argv[-1], encoding="utf-8") as file:
            claim = check(file.read(BYTES + 1), sys.argv[1:-1] == ["--certificate"])
    except (Refused, OSError, UnicodeError) as error:
        sys.exit(f"refused: {error}")
    print("accepted:", json.dumps(claim, indent=1))
