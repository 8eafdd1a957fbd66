"""Checks a certificate of equality that `polyattn.prove` wrote: python proofs/check.py [--certificate] FILE.json

Accepts with exit code 0 and prints the claim; refuses with 1 and the reason. Needs only Python's standard library. A
verdict is refused, since its texts are not checked here; --certificate takes the certificate out of it, and only that.

Two equations in expanded form, as `y[n,c] = 1/2/N*x[n,c1]*w[c1,c] - x[n,c]`: indices that are not on the left are
summed within their product, `indices` and `shapes` have all sizes, and `I[i,j]` is 1 where i = j, else 0. A function of
a sum is a tensor with a line in `functions`, `f1[n,n1] = softmax[n1](x[n,c]*x[n1,c])`. `steps` rewrite the sums "left",
"right" and "f1", whose terms (without those that are 0), and the factors of a term, are numbered from 0:
    {"use": 0, "in": "left", "term": 2, "factors": [1]}  These factors are the left side of given equation 0, and make
        place for its right side, behind the others; what it sums, `summed`, occurs nowhere else.
    {"times": {"N": 1}}  Both sides are multiplied by powers of sizes.
    {"order": ["N"], "in": "left"}  Each term is split by the weak orders of its indices of these sizes, those of the
        left included, and so are positive powers of the sizes: N counts an index that is nowhere else.
    {"add": 3, "to": 1, "in": "left", "factors": [0, 2, 1]}  Term 3 is term 1 with another number, which is added to it.
    {"same": "f2", "as": "f1", "letters": [1, 0], "terms": [[0, [1, 0]]]}  The functions are one, and f1 comes in place
        of f2: its indices are these of f2, term k of f2 is this term of f1. With "in", "term" and "factor": only there.
    {"law": "sigmoid", "of": "f1", "make": ["f7", "f8"]}  By a law of functions f1 is something else, which comes in its
        place everywhere; the law makes new functions of these names. See `Laws`.
A factor `[i<j]` or `[i<=j]` is 1 where it holds, else 0; `[i,k<j,l]` compares the first indices, then the second ones.
`conditions` says which tensors stand for other conditions, and `sizes` which sizes for combinations of others; the
claim holds for any tensors and sizes in their place.
`renaming` lists further given equations, `u[i,j] = w[i,j]`, numbered behind the others: each says that a tensor which
the left side alone has is one that the right side alone has, no two the same one. `where` lists functions of the claim
outside whose domain nothing is claimed: the argument of reciprocal is not 0, of log above 0, of sqrt not below 0, and
its norm in normalize not below 1e-12.
`factors` has the place in the first term of each factor of the second; indices have to correspond one to one, free ones
as the outputs do. Steps lead to `results`, the two sums and functions
that laws made; the terms of the two correspond one to one as `pairs` says. The claim: at any sizes
the two are equal for all tensors of `shapes` that satisfy the given equations, where sizes are atomic: none is a
product of others. Whether they are expanded rightly from other texts is not checked.
"""

import ast
import json
import re
import sys
from collections import Counter, namedtuple
from fractions import Fraction
from itertools import chain, pairwise, product, zip_longest

BYTES, WORK, BITS = 4_000_000, 1_500_000, 20_000  # of the file, slots made in all, length of a number
REDUCES = {"max", "min", "logsumexp", None}  # what these run over is gone; any other function keeps its indices
CLAIM = ("indices", "shapes", "functions", "given", "renaming", "where", "left", "right")
LETTERS = r"(?:\[([a-z]\w*(?:,[a-z]\w*)*)\])?"
ACCESS = re.compile(rf"([A-Za-z]\w*){LETTERS}", re.A)
ORDER = re.compile(r"\[([a-z][\w,]*)(<=?)([a-z][\w,]*)\]", re.A)
LINE = re.compile(rf"([A-Za-z]\w*){LETTERS} = (?:([a-z]\w*){LETTERS}\((.*)\)|(.*))", re.A)
ROOT = re.compile(r"sqrt\(\w+\)", re.A)  # of a size or a number: a number like a size, of which its square is used

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


def holds(name, at, place):
    """Whether some indices come before others, or are equal; None where their places do not say it yet."""
    half = len(at) // 2
    for i, j in zip(at[:half], at[half:], strict=True):
        if i != j and (i not in place or j not in place):
            return None
        if i != j and place[i] != place[j]:
            return place[i] < place[j] and name != "I"
    return name != "<"


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
        renaming, where = (data := dict(data)).pop("renaming", []), data.pop("where", [])
        conditions, sums = data.pop("conditions", {}), data.pop("sizes", {})
        kind, self.sizes, self.shapes, functions, given, left, right, steps, results, pairs = fields(data, names)
        need(kind == "polyattn equality 2", "another format")
        need(all(re.fullmatch(r"[A-Z]\w*|[1-9]\d{0,8}", s, re.A) for s in self.sizes.values()), "there is no such size")
        self.sums, self.used, self.work, self.claimed, self.needed = {}, set(), 0, {*self.shapes}, set()
        need(all(name in self.shapes for name in conditions), "a condition stands for no tensor")
        self.conditions = {"I", "<", "<=", *conditions}
        need({*sums} <= {*self.sizes.values()}, "a combination of sizes stands for no size")
        for line in functions:
            new = self.read(line)
            defined = (new.name,) in self.used or new.name in {*self.sums, "I", "left", "right"}
            need(new.function and not defined, f"{new.name} is no new function")
            self.sums[new.name] = new
        self.assumed = self.domains()
        rules = [self.rule(*fields(g, "s:equation l:summed")) for g in given]
        self.sums |= {"left": self.read(left), "right": self.read(right)}
        rules += self.renamed(renaming, rules) if renaming else []
        lines, self.shapes = [*self.sums], dict(self.shapes)
        need({self.step(step, rules) for step in steps} >= {*range(len(rules))}, "an equation is given and not used")
        need(where == [name for name in lines if name in self.needed], "nothing is claimed outside of other domains")
        left, right, *made = map(self.read, results)
        for end in made:
            f = self.sums[end.name]
            fixed = dict(zip(f.letters, end.letters, strict=True))
            need(f.function == end.function and {fixed[i] for i in f.over} == end.over, f"{f.name} is another function")
            bijection(f, end, [[k, [*range(len(t.factors))]] for k, t in enumerate(f.terms)], fixed)
        tensors = {(name,) for name in self.claimed if name not in (left.name, right.name)}
        made = {(name,) for name in self.shapes if name not in self.claimed}
        used = self.used - {("I",)} - made
        need(used == tensors | {*self.sizes}, "an index or a tensor is not used, or an output is")
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

    def domains(self):
        """Tensors all of whose entries are above 0 (2) or at least 0 (1) in the domain of a function of the claim."""
        found = {}
        for f in self.sums.values():
            if f.function in ("sqrt", "log") and len(f.terms) == 1 and f.terms[0].number > 0:
                ((name, at), *more) = f.terms[0].factors or [("", [])]
                if not more and name in self.shapes and name not in self.sums and len({*at} & {*f.slots}) == len(at):
                    known = f.name, 2 if f.function == "log" else 1
                    found[name] = max(known, found.get(name, known), key=lambda pair: pair[1])
        return {name: known for name, known in found.items() if name not in self.conditions}

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
        for sign, text in [("+", first)] * bool(first) + [*zip(others[::2], others[1::2], strict=True)]:
            number, powers, factors, pieces = Fraction(f"{sign}1"), Counter(), [], re.split("([*/])", "*" + text)[1:]
            for by, piece in zip(pieces[::2], pieces[1::2], strict=True):
                found, exponent = ACCESS.fullmatch(piece), 1 if by == "*" else -1
                if re.fullmatch(r"\d{1,4000}", piece, re.A):
                    number *= Fraction(int(piece)) ** exponent
                    self.effort(1, number)
                elif order := ORDER.fullmatch(piece):
                    sides = [self.letters(side.split(",")) for side in (order[1], order[3])]
                    pairs = [*zip_longest(*sides, fillvalue=("", ""))]
                    need(all(i[1] == j[1] for i, j in pairs), f"{piece} compares positions of two sizes")
                    factors.append((order[2], [*chain(*sides)]))
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
        kept = {*over} if function not in REDUCES else set()
        need({*over} & {*slots} == kept, f"{function} runs over other indices")
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
        for root_of in [s for s in powers if ROOT.fullmatch(s)]:  # the square of a root is its size
            whole, powers[root_of] = divmod(powers[root_of], 2)
            powers[root_of[5:-1]] += whole
        for size in [s for s in powers if s.isdigit()]:
            number *= Fraction(int(size)) ** powers.pop(size)
            self.effort(1, number)
        rest += [("I", [root[i], i]) for i in free if root[i] != i]
        return Term(number, {s: e for s, e in powers.items() if e}, rest)

    def step(self, step, rules):
        """Do a step; returns the number of the given equation that it used."""
        if "law" in step:
            return Laws(self).do(step)
        if "same" in step:
            return self.same(*fields(step, "s:same s:as l:letters l:terms" + " s:in i:term i:factor" * ("in" in step)))
        if "times" in step:
            return self.times(*fields(step, "d:times"))
        total = self.sums[step["in"]]
        if "twice" in step:
            return self.twice(total, *fields(step, "l:twice s:in i:term")[::2])
        if "order" in step:
            return self.order(total, *fields(step, "l:order s:in")[:1])
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

    def twice(self, total, places, term):
        """A condition twice in a product is there once."""
        number, powers, factors = total.terms[term]
        (k, j) = numbers(places, len(factors))
        need(factors[k] == factors[j] and factors[k][0] in self.conditions, "not a condition twice")
        rest = [f for at, f in enumerate(factors) if at != j]
        total.terms[term] = self.term(number, powers, rest, inside(factors), total.letters)

    def times(self, exponents):
        """Both sides times sizes, which are at least 1."""
        need(all(type(e) is int and 0 < e < 99 and s in self.sizes.values() for s, e in exponents.items()), "no powers")
        for name in ("left", "right"):
            terms, free = self.sums[name].terms, self.sums[name].letters
            for k, (number, powers, factors) in enumerate(terms):
                together = {s: powers.get(s, 0) + exponents.get(s, 0) for s in {*powers, *exponents}}
                terms[k] = self.term(number, together, factors, (), free)

    def order(self, total, sizes):
        """Every place of a sum lies in one weak order of its indices: a term is the sum of its parts in each."""
        made, free = [], total.letters
        for number, powers, factors in total.terms:
            counts = [(f"{self.work} {s} {k}", s) for s in sorted(powers) if s in sizes for k in range(powers[s])]
            rest = {s: e for s, e in powers.items() if s not in sizes or e < 0}
            indices = [*dict.fromkeys([*free, *chain(*(at for _, at in factors)), *counts])]
            compared = [f for f in factors if f[0] in ("<", "<=") or (f[0] == "I" and f[1][0][1] in sizes)]
            others = [f for f in factors if f not in compared]
            for ranks in self.orders([i for i in indices if i[1] in sizes], {}, compared):
                equal = [("I", [m[0], j]) for chained in ranks.values() for m in chained for j in m[1:]]
                steps = [("<", [m[0], n[0]]) for chained in ranks.values() for m, n in pairwise(chained)]
                made.append(self.term(number, rest, [*others, *equal, *steps], indices, free))
        total.terms[:] = made

    def orders(self, indices, ranks, compared):
        """The weak orders in which the conditions hold: each index comes before, into and behind each rank."""
        place = {i: k for chained in ranks.values() for k, members in enumerate(chained) for i in members}
        self.effort(1 + len(place), Fraction(1))
        found = [holds(name, at, place) for name, at in compared]
        if False in found:
            return
        if not indices:
            need(None not in found, "a condition compares positions that are not ordered")
            yield ranks
            return
        (index, *rest), open_ = indices, [f for f, known in zip(compared, found, strict=True) if known is None]
        have = ranks.get(index[1], [])
        for k in range(len(have) + 1):
            yield from self.orders(rest, {**ranks, index[1]: [*have[:k], [index], *have[k:]]}, open_)
            if k < len(have):
                into = [*have[:k], [*have[k], index], *have[k + 1 :]]
                yield from self.orders(rest, {**ranks, index[1]: into}, open_)

    def use(self, left, over, at, products, term, chosen, free, names=()):
        names, taken = dict(names), {*numbers(chosen, len(term.factors))}
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
            together = {s: term.powers.get(s, 0) + powers.get(s, 0) for s in {*term.powers, *powers}}
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


# A function as others of its argument s; `sum` is over the indices that the function runs over. The second table is for
# a function whose argument is nothing but another function, of s.
TABLE = {
    "softmax": "exp(s)/sum(exp(s))",
    "logsumexp": "log(sum(exp(s)))",
    "sigmoid": "1/(1 + exp(-s))",
    "tanh": "2/(1 + exp(-2*s)) - 1",
    "silu": "s/(1 + exp(-s))",
    "softplus": "log(1 + exp(s))",
    "abs": "relu(s) + relu(-s)",
    "relu": "relu(-s) + s",
    "min": "-max(-s)",
    "elu": "relu(s) + exp(-relu(-s)) - 1",
    "gelu": "s*normal_cdf(s)",
    "gelu_tanh": "s*gelu_gate(s)",
    "normal_cdf": "1 - normal_cdf(-s)",
    "gelu_gate": "1 - gelu_gate(-s)",
    "normalize": "s/sum(abs(s))",  # where the sum is not below 1e-12
}
COMPOSED = {
    "exp log": "s",
    "exp log/2": "sqrt(s)",
    "log exp": "s",
    "log reciprocal": "-log(s)",
    "log sqrt": "1/2*log(s)",
    "reciprocal reciprocal": "s",
    "reciprocal sqrt": "sqrt(s)/s",
    "sqrt exp": "exp(1/2*s)",
    "sqrt reciprocal": "sqrt(s)/s",
}
SIGNS = {"exp": 2, "normal_cdf": 2, "gelu_gate": 2, "relu": 1, "abs": 1}
MADE = re.compile(r"[a-z]\w*", re.A)
RATIONAL = re.compile(r"-?\d{1,4000}(/\d{1,4000})?", re.A)


def amount(number, powers):
    """A number and powers of sizes, of a certificate."""
    need(RATIONAL.fullmatch(number), "no number")
    need(all(type(e) is int and abs(e) < 1000 for e in powers.values()), "no power")
    return Fraction(number), powers


def times(left, right):
    """The product of two sums."""
    return [
        (m * n, {s: p.get(s, 0) + q.get(s, 0) for s in {*p, *q}}, [*a, *b]) for m, p, a in left for n, q, b in right
    ]


def turned(sides, cos, sin, sign):
    """The products of cos and sin of a sum of angles, one of them by its own; sign is -1 for a difference."""
    cos, plus, minus = [(1, {}, cos)], [(sign, {}, sin)], [(-sign, {}, sin)]
    real, imaginary = sides["cos"], sides["sin"]
    return {"cos": times(real, cos) + times(imaginary, minus), "sin": times(imaginary, cos) + times(real, plus)}


class Laws:
    """Laws of functions. Each makes new functions, and returns the products that come in the place of f everywhere; but
    "cancel", "insert", "square" and "case" rewrite one term, and "copy" only makes a second f."""

    def __init__(self, proof):
        self.proof, self.local, self.names = proof, False, []

    def do(self, step):
        law, name, self.names = (step := dict(step)).pop("law"), step.pop("of"), step.pop("make")
        need(type(self.names) is list, "no list of names")
        f = self.proof.sums[name]
        self.masks = self.logarithms_of_conditions()
        masked = any(tensor in self.masks for t in f.terms for tensor, _ in t.factors)
        over = ("copy", "constant", "same") if name in self.masks else ("places", "content", "shift", "monotone", "min")
        kept = not masked or law in (*over, "copy", "constant")
        need(kept, "a function runs over the places that a condition leaves")
        need(name not in self.masks or law in over, "a function runs over the places that a condition leaves")
        self.domain(f)
        if law in TABLE or law in COMPOSED:
            need(not step, "more than a law needs")
            products = self.table(law, f)
        else:
            by = getattr(self, f"by_{law}", None)
            need(by, "no law")
            products = by(f, **step)
        need(not self.names, "a name for nothing")
        if products is not None:
            need(all(tensor != name for *_, factors in products for tensor, _ in factors), f"{name} stays")
            del self.proof.sums[name]
            for total in self.proof.sums.values():
                self.replace(total, ([(name, f.slots)], set(), {*f.slots}, products))

    def logarithms_of_conditions(self):
        """Functions log(c), c made of conditions and 1 or 0: minus infinity where c does not hold. They may only be
        terms of what a function runs over, as `softmax[e](s + log(c))`."""
        known, found = self.proof.conditions, set()
        for f in self.proof.sums.values():
            have = {(t, *at) for term in f.terms for t, at in term.factors} if f.function == "log" else set()
            if have and all(name in known for name, *_ in have):
                need(len(have) <= 8, "a logarithm of too many conditions")
                need(all(inside(t.factors) <= {*f.slots} and not t.powers for t in f.terms), "a sum of conditions")
                for values in product((0, 1), repeat=len(have)):
                    at = dict(zip(sorted(have), values, strict=True))
                    held = [n for n, _, factors in f.terms if all(at[(t, *i)] for t, i in factors)]
                    need(sum(held) in (0, 1), "a logarithm of more than a condition")
                found.add(f.name)
        for f in self.proof.sums.values():
            for t in f.terms if found else ():
                sign = {"softmax": 1, "logsumexp": 1, "max": 1, "min": -1}.get(f.function)
                alone = t[:2] == (sign, {}) and len(t.factors) == 1
                need(alone or not any(name in found for name, _ in t.factors), "a condition's logarithm is elsewhere")
        return found

    def divided(self, f):
        """The terms of an argument without logarithms of conditions, and these."""
        masks = [t for t in f.terms if any(name in self.masks for name, _ in t.factors)]
        return [t for t in f.terms if t not in masks], masks

    def by_places(self, f):
        """softmax(s + log(c)) = c*exp(s)*inverse(sum(c*exp(s))), logsumexp(s + log(c)) = log(sum(c*exp(s))); inverse(z)
        is 1/z, and 0 where z is 0."""
        own, masks = self.divided(f)
        need(f.function in ("softmax", "logsumexp") and masks, "it runs over all places")
        weights = [self.at(self.proof.sums[name], at) for t in masks for name, at in t.factors]
        power = self.new("exp", f.letters, own)
        total = [power]
        for weight in reversed(weights):
            total = times(weight, total)
        if f.function == "logsumexp":
            return [self.new("log", f.slots, total)]
        inverse = self.new("inverse", [i for i in f.slots if i not in f.over], total)
        return [(n, p, [*have, *inverse[2]]) for n, p, have in total]

    def by_defined(self, f, **like):
        """inverse(s) = 1/s for s > 0, and where the claim has 1/s; inverse(0) = 0."""
        need(f.function == "inverse", "no inverse")
        if like:
            other, letters, terms = fields(like, "s:as l:letters l:terms")
            g = self.proof.sums[other]
            places = [f.slots[k] for k in numbers(letters, len(f.slots))]
            need(g.function == "reciprocal" and len(places) == len(f.slots), "no reciprocal")
            bijection(f, g, terms, dict(zip(places, g.slots, strict=True)))
            self.domain(g)
            return [(Fraction(1), {}, [(other, places)])]
        if not f.terms:
            return []
        need(self.positive(f.terms) == 2, "it may be 0")
        return [self.new("reciprocal", f.slots, f.terms)]

    def replace(self, total, rule):
        k = 0
        while k < len(total.terms):
            term = total.terms[k]
            place = next((j for j, (name, _) in enumerate(term.factors) if name == rule[0][0][0]), None)
            if place is None:
                k += 1
                continue
            new = self.proof.use(*rule, term, [place], total.letters)
            total.terms[k : k + 1] = [t for t in new if t.number]

    def new(self, function, slots, terms, over=()):
        """A new function as a product; its name is the next one."""
        need(self.names and MADE.fullmatch(name := self.names.pop(0)), "a name is missing")
        need(name not in {*self.proof.shapes, *self.proof.sums}, f"{name} is not new")
        letters = [*slots, *(i for i in over if i not in slots)]
        terms = [self.proof.term(*term, inside(term[2]), letters) for term in terms]
        self.proof.sums[name] = Sum(name, [*slots], function, letters, {*over}, [t for t in terms if t.number])
        self.proof.shapes[name] = [size for _, size in slots]
        return Fraction(1), {}, [(name, [*slots])]

    # Signs: 2 for what is above 0, 1 for at least 0, 0 for unknown.
    def positive(self, terms):
        found = [self.above(*term) for term in terms]
        return 0 if 0 in found else 2 if 2 in found else 1

    def above(self, number, powers, factors):
        counts, found = Counter((name, *indices) for name, indices in factors), 2 if number > 0 else 0
        for (name, *_), count in counts.items():
            found = min(found, max(self.sign_of(name), 1 - count % 2))
        return found

    def sign_of(self, name):
        f = self.proof.sums.get(name)
        self.proof.effort(1, Fraction(0))
        if f is None:
            log, known = self.proof.assumed.get(name, (None, int(name in self.proof.conditions)))
            self.proof.needed |= {log} - {None}
            return known
        if f.function in SIGNS:
            return SIGNS[f.function]
        found = self.positive(f.terms) if f.function in ("inverse", "reciprocal", "sqrt", "max") else 0
        if f.function == "sqrt" or (f.function == "reciprocal" and found):
            self.domain(f)  # where a reciprocal is defined, its argument is not 0
        return {"inverse": min(found, 1), "reciprocal": 2 * min(found, 1), "sqrt": max(found, 1)}.get(f.function, found)

    def domain(self, f):
        """Notes that f is to be defined, unless it always is."""
        if f.name in self.proof.claimed and f.function in ("reciprocal", "log", "sqrt"):
            negative = times([(-1, {}, [])], f.terms)
            known = max(self.positive(f.terms), 2 * (f.function == "reciprocal" and self.positive(negative) == 2))
            if known < (1 if f.function == "sqrt" else 2):
                self.proof.needed.add(f.name)

    # The laws of the tables.
    def table(self, law, f):
        function, _, other = law.partition(" ")
        other, _, below = other.partition("/")
        need(f.function == function, f"{f.name} is no {function}")
        if law == "normalize":
            need(f.name in self.proof.claimed, "its norm may be below 1e-12")
            self.proof.needed.add(f.name)
        if not other:
            return self.value(ast.parse(TABLE[law], mode="eval").body, f, f.terms, {})[1]
        part = Fraction(1, int(below or 1))
        need(len(f.terms) == 1 and f.terms[0][:2] == (part, {}) and len(f.terms[0].factors) == 1, "not of one function")
        ((name, indices),) = f.terms[0].factors
        inner = self.proof.sums[name]
        need(inner.function == other and not inner.over and {*indices} <= {*f.slots}, f"{name} is no {other}")
        self.domain(inner)
        return self.value(ast.parse(COMPOSED[law], mode="eval").body, f, self.at(inner, indices), {})[1]

    def at(self, f, indices):
        """The argument of f, at other indices of its slots."""
        names = {i: (f"{self.proof.work} {i[0]}", i[1]) for t in f.terms for i in inside(t.factors)}
        names |= dict(zip(f.slots, indices, strict=True))
        self.proof.effort(1 + len(names), Fraction(0))
        return [(n, p, [(name, [names[i] for i in where]) for name, where in factors]) for n, p, factors in f.terms]

    def value(self, node, f, s, made):
        """The free indices and the products of an expression of a table."""
        letters = f.letters
        if isinstance(node, ast.Constant):
            return letters, [(Fraction(node.value), {}, [])]
        if isinstance(node, ast.Name):
            return letters, s
        if isinstance(node, ast.UnaryOp):
            free, terms = self.value(node.operand, f, s, made)
            return free, [(-number, *rest) for number, *rest in terms]
        if isinstance(node, ast.Call):
            free, terms = self.value(node.args[0], f, s, made)
            if node.func.id == "sum":
                return [i for i in free if i not in f.over], terms
            return self.called(node.func.id, free, terms, f, made, ast.dump(node))
        (free, left), (other, right) = (self.value(part, f, s, made) for part in (node.left, node.right))
        if isinstance(node.op, ast.Add | ast.Sub):
            sign = 1 if isinstance(node.op, ast.Add) else -1
            return free, [*left, *((sign * number, *rest) for number, *rest in right)]
        if isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
            right = [(1 / right[0][0], {}, [])]
        elif isinstance(node.op, ast.Div):
            other, right = self.called("reciprocal", other, right, f, made, "1/" + ast.dump(node.right))
        one = any(all(inside(factors) <= {*letters} for *_, factors in side) for side in (left, right))
        need(one, "sums would meet")
        return free, times(left, right)

    def called(self, function, free, terms, f, made, key):
        if key not in made:
            over = [i for i in f.letters if i in f.over] if function in REDUCES else []
            slots = [i for i in free if i not in over]
            made[key] = slots, [self.new(function, slots, terms, over)]
        return made[key]

    # The other laws.
    def by_exp(self, f, powers):
        """exp(a + b) = exp(a/k)^k * exp(b/m)^m, with reciprocals for negative powers."""
        need(f.function == "exp" and len(powers) == len(f.terms), "no power for each term")
        factors = []
        for (number, *rest), power in zip(f.terms, powers, strict=True):
            need(type(power) is int and 0 < abs(power) <= 64, "no power")
            one = self.new("exp", f.slots, [(number / power, *rest)])
            one = one if power > 0 else self.new("reciprocal", f.slots, [one])
            factors += one[2] * abs(power)
        return [(Fraction(1), {}, factors)]

    def by_angles(self, f, powers):
        """cos(a + b) + i*sin(a + b) = (cos(a/k) + i*sin(a/k))^k * (cos(b/m) + i*sin(b/m))^m, conjugate for k < 0."""
        need(f.function in ("sin", "cos") and len(powers) == len(f.terms), "no power for each term")
        sides = {"cos": [(Fraction(1), {}, [])], "sin": []}
        for (number, *rest), power in zip(f.terms, powers, strict=True):
            need(type(power) is int and 0 < abs(power) <= 16, "no power")
            turn = [self.new(name, f.slots, [(number / power, *rest)])[2] for name in ("cos", "sin")]
            for _ in range(abs(power)):
                sides = turned(sides, *turn, 1 if power > 0 else -1)
                need(len(sides["cos"]) <= 64, "too many products")
        return sides[f.function]

    def by_monotone(self, f, sign):
        """max(g(s)) = g(max(s)) for an increasing g, g(-max(-s)) for a decreasing one, and the same for max(-g(s)).
        Exponentials may be a product; reciprocals decrease where their argument is above 0."""
        own, masks = self.divided(f)
        need(f.function == "max" and sign in (1, -1) and len(own) == 1, "no maximum of a function")
        (term,) = own
        inner = [self.proof.sums.get(name) for name, _ in term.factors]
        need(term[:2] == (sign, {}) and inner and None not in inner, "no maximum of a function")
        kinds, up = {g.function for g in inner}, sign
        if kinds == {"reciprocal"}:
            need(self.positive(inner[0].terms) == 2, "it may be 0")
            up = -sign
        alone = len(inner) == 1 and kinds <= {"relu", "sqrt", "log", "reciprocal"}
        need(kinds == {"exp"} or alone, "neither increasing nor decreasing")
        for g in inner:
            self.domain(g)
        pairs = zip(inner, term.factors, strict=True)
        terms = [t for g, (_, at) in pairs for t in times([(up, {}, [])], self.at(g, at))]
        most = self.new("max", f.slots, [*terms, *masks], [i for i in f.letters if i in f.over])
        one = self.new(*kinds, f.slots, [(up, *most[1:])])
        return [(Fraction(sign), *one[1:])]

    def clipped(self, f, term):
        """The terms of relu(c + n*relu(s)) but the one at a place; n; s; and n*s."""
        need(f.function == "relu" and type(term) is int and 0 <= term < len(f.terms), "no relu")
        (number, powers, ((name, at),)), rest = f.terms[term], [t for k, t in enumerate(f.terms) if k != term]
        need((inner := self.proof.sums[name]).function == "relu" and {*at} <= {*f.slots}, "no relu of a relu")
        return rest, (number, powers), (s := self.at(inner, at)), times([(number, powers, [])], s)

    def by_clip(self, f, term):
        """relu(c - n*relu(s)) = relu(c - n*s) - relu(-n*s) for c >= 0, and relu(n*relu(s) - c) = relu(n*s - c)."""
        rest, (number, _), _, scaled = self.clipped(f, term)
        need(self.positive(rest if number < 0 else [(-n, *more) for n, *more in rest]), "the bound may be negative")
        first = self.new("relu", f.slots, [*rest, *scaled])
        return [first, (Fraction(-1), *self.new("relu", f.slots, scaled)[1:])] if number < 0 else [first]

    def by_turn(self, f, term):
        """relu(s) = s + relu(-s) in the argument of a relu."""
        rest, by, s, scaled = self.clipped(f, term)
        back = self.new("relu", f.slots, times([(-1, {}, [])], s))
        return [self.new("relu", f.slots, [*rest, *scaled, (*by, back[2])])]

    def by_root(self, f, terms):
        """sqrt(q*q) = abs(q), log(q*q) = 2*log(abs(q)), relu(q*q) = q*q, relu(-q*q) = 0, for entries at f's indices."""
        need(len(terms) <= 400, "too many terms")
        q = [(*amount(*of), [f.terms[k].factors[j] for k, j in places]) for *of, places in terms]

        def added(products):
            found = Counter()
            for n, p, have in products:
                self.proof.effort(1 + len(have), n)
                number, powers, have = self.proof.term(n, p, have, (), f.letters)
                need("I" not in dict(have) and inside(have) <= {*f.slots}, "an index is summed")
                found[(*sorted((name, *at) for name, at in have), *sorted(powers.items()))] += number
            return {term: n for term, n in found.items() if n}

        same = added(times(q, q)), added(f.terms)
        below = f.function == "relu" and same[0] == {term: -n for term, n in same[1].items()}
        need(f.function in ("relu", "sqrt", "log") and (below or same[0] == same[1]), "no square")
        if f.function == "relu":
            return [] if below else f.terms
        if f.function == "sqrt":
            self.proof.needed.discard(f.name)  # a square is never below 0
        root = self.new("abs", f.slots, q)
        return [root] if f.function == "sqrt" else [(Fraction(2), *self.new("log", f.slots, [root])[1:])]

    def by_compare(self, f):
        """relu(exp(s) - exp(t)) = (exp(relu(s - t)) - 1)*exp(t), for products of exponentials, too."""
        need(f.function == "relu" and sorted(t[:2] for t in f.terms) == [(-1, {}), (1, {})], "no difference of two")
        s = []
        for number, _, factors in f.terms:
            for name, at in factors:
                inner = self.proof.sums[name]
                need(inner.function == "exp" and {*at} <= {*f.slots}, "no exponential")
                s += [(n * number, p, have) for n, p, have in self.at(inner, at)]
        (down,) = (t for t in f.terms if t[0] == -1)
        power = self.new("exp", f.slots, [self.new("relu", f.slots, s)])
        return [(Fraction(1), {}, [*power[2], *down[2]]), down]

    def by_merge(self, f):
        """max[g](max[m](s)) = max[g,m](s)"""
        need(f.function == "max" and len(f.terms) == 1 and f.terms[0][:2] == (1, {}), "no maximum")
        ((name, at),) = f.terms[0].factors
        inner = self.proof.sums.get(name)
        need(inner and inner.function == "max" and {*at} <= {*f.letters}, "no maximum of a maximum")
        over = [(f"{self.proof.work} {i[0]}", i[1]) for i in inner.letters if i in inner.over]
        return [self.new("max", f.slots, self.at(inner, at), [i for i in f.letters if i in f.over] + over)]

    def by_content(self, f, number, powers, factors, root=(), primes=()):
        """1/(cs) = 1/c 1/s; relu(cs) = c relu(s), max(cs) = c max(s) for c >= 0; root and logarithm of c > 0."""
        of, (own, masks) = ("reciprocal", "inverse", "relu", "max", "abs", "sqrt", "log"), self.divided(f)
        (number, _), rest, taken = amount(number, powers), [], []
        need(f.function in of and number and own and len(factors) == len(own), "no content")
        for (n, p, have), places in zip(own, factors, strict=True):
            taken.append([have[k] for k in numbers(places, len(have))])
            left = {size: p.get(size, 0) - powers.get(size, 0) for size in {*p, *powers}}
            rest.append((n / number, left, [h for k, h in enumerate(have) if k not in places]))
        need(all(sorted(t) == sorted(taken[0]) for t in taken), "not a content of each term")
        need(inside(taken[0]) <= {*f.slots}, "an index of the content is summed")
        if f.function == "abs":
            need(number > 0, "the number is negative")
        elif f.function not in ("reciprocal", "inverse"):
            least = 1 if f.function in ("relu", "max") else 2
            # The sign of t does not matter in log(t*t*u), nor in sqrt(t*t*u) with u >= 0.
            even = f.function == "log" or (f.function == "sqrt" and self.positive(rest))
            known = all(self.sign_of(g[0]) >= least for g in taken[0] if not even or taken[0].count(g) % 2)
            need(number > 0 and known, "the content may be negative")
        # What is left may be 1: its root, its reciprocal, its maximum are 1, too, and its logarithm is 0.
        whole = self.proof.term(*rest[0], (), f.letters)
        is_one, over = len(rest) == 1 and whole == (1, {}, []), [i for i in f.letters if i in f.over]
        more = [] if is_one else [lambda: self.new(f.function, f.slots, [*rest, *masks], over)]
        if f.function in ("relu", "max"):
            return [(number, powers, [*taken[0], *(one for make in more for one in make()[2])])]
        if f.function == "log":
            return self.logarithms(f, number, powers, taken[0], primes) + [make() for make in more]
        if f.function == "sqrt":
            each = self.halves(f, taken[0])
        else:
            each = [*chain(*(self.new(f.function, f.slots, [(Fraction(1), {}, [c])])[2] for c in taken[0]))]
        each += [one for make in more for one in make()[2]]
        if f.function in ("reciprocal", "inverse"):
            return [(1 / number, {size: -e for size, e in powers.items()}, each)]
        if f.function == "abs":
            return [(number, powers, each)]
        value, sizes = amount(*root)
        square = self.proof.term(value**2, {size: 2 * e for size, e in sizes.items()}, [], (), f.slots)
        need(value > 0 and square == self.proof.term(number, powers, [], (), f.slots), "the root is another")
        return [(value, sizes, each)]

    def halves(self, f, taken):
        """sqrt(c*c*d) = c*sqrt(d), and sqrt(t*t) = abs(t)."""
        found = []
        for k, (name, indices) in enumerate(taken):
            count, one = taken.count((name, indices)), [(Fraction(1), {}, [(name, indices)])]
            if (name, indices) in taken[:k]:
                continue
            if count > 1:
                half = one[0][2] if self.sign_of(name) else self.new("abs", f.slots, one)[2]
                found += half * (count // 2)
            found += self.new("sqrt", f.slots, one)[2] if count % 2 else []
        return found

    def logarithms(self, f, number, powers, taken, primes):
        """log(abc) = log(a) + log(b) + log(c), log(tt) = 2*log(abs(t))"""
        product, sums = Fraction(1), []
        for prime, power in primes:
            need(type(prime) is int and type(power) is int and prime > 1 and abs(power) <= 4000, "no prime")
            product *= Fraction(prime) ** power
            self.proof.effort(1, product)
            sums.append((Fraction(power), [(Fraction(prime), {}, [])]))
        need(product == number, "the number is another")
        for size, power in sorted(powers.items()):
            one, below = (size[5:-1], 2) if ROOT.fullmatch(size) else (size, 1)
            sums.append((Fraction(power, below), [(Fraction(1), {one: 1}, [])]))
        for k, factor in enumerate(taken):
            one = [(Fraction(1), {}, [factor])]
            if self.sign_of(factor[0]) >= 2:
                sums.append((Fraction(1), one))
            elif factor not in taken[:k]:
                sums.append((Fraction(taken.count(factor)), [self.new("abs", f.slots, one)]))
        return [(n, {}, self.new("log", f.slots, terms)[2]) for n, terms in sums]

    def by_parts(self, f, parts):
        """A product of sums of their own: 1/(ab) = 1/a 1/b, and the root of a product of a >= 0 and b >= 0; or a
        maximum of sums over indices of their own: max[d,e](s + t) = max[d](s) + max[e](t)."""
        most = f.function == "max"
        have = f.terms if most else f.terms[0].factors
        need(sorted(k for part in parts for k in numbers(part, len(have))) == [*range(len(have))], "no parts of it")
        split = [[have[k] for k in part] for part in parts]
        there = [inside(chain(*(t.factors for t in part)) if most else part) for part in split]
        own = [{*f.over} & indices if most else indices - {*f.slots} for indices in there]
        need(sum(map(len, own)) == len(set().union(*own)), "an index is summed in two parts")
        if most:
            over = [[i for i in f.letters if i in them] for them in own]
            return [self.new("max", f.slots, *part) for part in zip(split, over, strict=True)]
        need(f.function in ("reciprocal", "inverse", "sqrt"), "no product")
        need(len(f.terms) == 1 and f.terms[0][:2] == (1, {}), "no product")
        need(f.function != "sqrt" or all(self.above(1, {}, part) for part in split), "a part may be negative")
        each = [self.new(f.function, f.slots, [(Fraction(1), {}, part)])[2] for part in split]
        return [(Fraction(1), {}, [*chain(*each)])]

    def by_shift(self, f, terms):
        """max[e](s + t) = max[e](s) + t for t without e."""
        need(f.function == "max", "no maximum")
        out, (own, masks) = [f.terms[k] for k in numbers(terms, len(f.terms))], self.divided(f)
        need(out and not any(f.over & inside(t.factors) for t in out), "it depends on what the maximum runs over")
        need(not any(t in masks for t in out), "a condition's logarithm stays")
        # The maximum of nothing but the logarithms of conditions is 0.
        rest = [t for k, t in enumerate(f.terms) if k not in terms] if len(out) < len(own) else []
        return [*out, *([self.new("max", f.slots, rest, [i for i in f.letters if i in f.over])] if rest else [])]

    def by_constant(self, f):
        """A function that is constant along a slot is one without it."""
        kept = [i for i in f.slots if i in f.over or any(i in inside(t.factors) for t in f.terms)]
        need(len(kept) < len(f.slots), "it depends on each index")
        return [self.new(f.function, kept, f.terms, [i for i in f.letters if i in f.over])]

    def by_sign(self, f):
        """relu(s) = s for s >= 0, and 0 for s <= 0."""
        need(f.function == "relu", "no relu")
        need((known := self.positive(f.terms)) or self.positive(times([(-1, {}, [])], f.terms)), "the sign is unknown")
        return f.terms if known else []

    def by_copy(self, f):
        self.new(f.function, f.slots, f.terms, [i for i in f.letters if i in f.over])

    def one_term(self, place, term, left, over, f, products, chosen, names=()):
        need([*place] == ["in"], "more than a law needs")
        total = self.proof.sums[place["in"]]
        need(type(term) is int and 0 <= term < len(total.terms), "there is no such term")
        new = self.proof.use(left, over, {*f.slots}, products, total.terms[term], chosen, total.letters, names)
        total.terms[term : term + 1] = [t for t in new if t.number]

    def by_cancel(self, f, lead, term, factors, **place):
        """For z = a + b and f = 1/z: a*f = 1 - b*f."""
        need(f.function == "reciprocal" and type(lead) is int and 0 <= lead < len(f.terms), "no denominator")
        number, powers, them = f.terms[lead]
        need("I" not in dict(them), "an identity")
        one = [(f.name, f.slots)]
        rest = [(-n / number, p, [*a, *one]) for k, (n, p, a) in enumerate(f.terms) if k != lead]
        products = times([(1, {s: -e for s, e in powers.items()}, [])], [(1 / number, {}, []), *rest])
        self.one_term(place, term, [*them, *one], inside(them) - {*f.slots}, f, products, factors)

    def by_insert(self, f, term, at, **place):
        """For f = 1/z: 1 = z*f, at indices given by factor and slot, by -1 and the number of a free index, or by -2
        and a number of its own: a new index, whose size divides, since the sum over it counts."""
        need(f.function == "reciprocal" and f.terms, "no denominator")
        total = self.proof.sums[place["in"]]
        need(type(term) is int and 0 <= term < len(total.terms) and len(at) == len(f.slots), "there is no such term")
        lists, names, sizes = [indices for _, indices in total.terms[term].factors], {}, {}
        for i, (k, j) in zip(f.slots, at, strict=True):
            need(type(k) is int and type(j) is int and -2 <= k < len(lists) and j >= 0, "no place")
            if k == -2:
                names[i] = (f"{self.proof.work} new {j}", sizes.setdefault(j, i[1]))
            else:
                names[i] = (total.letters if k == -1 else lists[k])[j]
        need(all(i[1] == j[1] for i, j in names.items()), "an index of another size")
        below = {size: -n for size, n in Counter(sizes.values()).items()}
        products = times(f.terms, [(1, below, [(f.name, f.slots)])])
        self.one_term(place, term, [], set(), f, products, [], names)

    def by_square(self, f, term, factors, **place):
        """sqrt(s)^2 = s, relu(s)^2 = s*relu(s), sin(s)^2 = 1 - cos(s)^2, (p - 1)(p - exp s) = 0 for p = exp(relu s)."""
        need(f.function in ("sqrt", "relu", "sin", "exp"), "no root")
        one = [(f.name, f.slots)]
        products = [(n, p, [*them, *(one if f.function == "relu" else [])]) for n, p, them in f.terms]
        if f.function == "sin":
            ((*_, cos),) = [self.new("cos", f.slots, f.terms)]
            products = [(Fraction(1), {}, []), (Fraction(-1), {}, cos * 2)]
        elif f.function == "exp":
            _, most = self.without_relu(f)
            products = [(Fraction(1), {}, one), (Fraction(1), {}, one + most), (Fraction(-1), {}, most)]
        self.one_term(place, term, one * 2, set(), f, products, factors)

    def without_relu(self, f):
        """For exp(n*relu(s)): relu(s), and exp(n*s)."""
        ((number, powers, ((name, at),)),) = f.terms
        inner = self.proof.sums[name]
        relu = f.function == "exp" and inner.function == "relu" and {*at} <= {*f.slots}
        need(relu and number > 0, "no exponential of relu")
        return (name, at), self.new("exp", f.slots, times([(number, powers, [])], self.at(inner, at)))[2]

    def by_case(self, f, term, factors, **place):
        """relu(s)*exp(n*relu(s)) = relu(s)*exp(n*s)"""
        relu, most = self.without_relu(f)
        self.one_term(place, term, [(f.name, f.slots), relu], set(), f, [(Fraction(1), {}, [*most, relu])], factors)


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
