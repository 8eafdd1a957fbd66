"""Specifications multiplied out, for `refute.py`: Python's standard library only, and nothing of polyattn.

A text is a specification in polyattn's printed layout, one statement a line; that it is a valid one is not checked.
Brackets, intermediates, means, composite slots and identities are worked out; a function is an opaque factor of its
argument. The sizes of a text's letters are told, not inferred, but have to agree with what it declares.
"""

import ast
import operator
import re
from collections import Counter
from fractions import Fraction
from itertools import count, product
from math import prod

LIMIT, FACTORS, WORK, BITS = (
    5_000,
    600,
    1_000_000,
    20_000,
)  # terms of a text, factors of one and in all, numbers' length
KEEPING, REDUCING, SUMS = ("softmax", "normalize", "largest"), ("max", "min", "logsumexp"), ("sum", "mean")
ONE, FRESH = (Fraction(1), ()), count()  # every other function is entry by entry
SPLIT = re.compile(r"(?:where\s+)?([A-Z]\w*)\s*=([\w\s*]+)", re.A)
LETTERS = re.compile(r"(?:where\s+)?([a-z]\w*(?:\s*,\s*[a-z]\w*)*)\s*:\s*(\w+)", re.A)


class Refused(Exception):
    """The certificate does not prove its claim."""


def need(condition, reason):
    if not condition:
        raise Refused(reason)


def bounded(number):
    need(max(number.numerator.bit_length(), number.denominator.bit_length()) < BITS, "a number is too long")
    return number


# Conditions, `[e <= a]` and `[a-e < W]`: a tensor for each, of this name, with its text in numbered slots.
CONDITIONS = {}
CONDITION = re.compile(r"\[([^\[\]<>=!]*)(<=|>=|==|!=|<|>)([^\[\]<>=!]*)\]")
INDEX = re.compile(r"\([a-z]\w*(?:\s+[a-z]\w*)+\)|(?<!\w)[a-z]\w*", re.A)
EQUAL = re.compile(r"(?<![<>=!])=(?!=)")


def conditions_out(text):
    """A text with an access of a reserved tensor in the place of each condition."""

    def access(match):
        slots = {}

        def slot(found):
            return slots.setdefault(" ".join(found[0].strip("()").split()), f"{{{len(slots)}}}")

        sides = [
            re.sub(r"\([a-z]\w*(?:\s+[a-z]\w*)+\)|(?<!\w)[a-z]\w*", slot, side, flags=re.A)
            for side in match.group(1, 3)
        ]
        need(slots, f"{match[0]} compares no positions")
        name = CONDITIONS.setdefault(
            f"{sides[0]}{match[2]}{sides[1]}".replace(" ", ""), f"Condition_{len(CONDITIONS)}_"
        )
        return f"{name}[{','.join(s if ' ' not in s else f'({s})' for s in slots)}]"

    return CONDITION.sub(access, text)


def condition_holds(name, positions, length):
    """Whether a condition holds at the positions of its slots; `length` gives a size's number."""
    (text,) = (t for t, n in CONDITIONS.items() if n == name)
    left, relation, right = re.split(r"(<=|>=|==|!=|<|>)", text)
    values = []
    for side in (left, right):
        total = 0
        for sign, factor, what in re.findall(r"([+-]?)(?:(\d+)\*)?(\{\d+\}|[A-Z]\w*|\d+)", side, re.A):
            number = positions[int(what[1:-1])] if what[0] == "{" else int(what) if what.isdigit() else length(what)
            total += (-1 if sign == "-" else 1) * int(factor or 1) * number
        values.append(total)
    compare = {"<=": "le", ">=": "ge", "==": "eq", "!=": "ne", "<": "lt", ">": "gt"}[relation]
    return getattr(operator, compare)(*values)


# Reading. A product is (number, [(size, exponent)], [(tensor, slots)]); a slot is a list of letters. Python's parser
# sees the text with names and numbers as names that are no keywords, and and composite slots as lists.
def tree(text):
    text = conditions_out(text)
    need(re.fullmatch(r"[\w\s\[\](),*/+.-]*", text, re.A), "an unexpected character")
    text = re.sub(r"\((\s*[a-z]\w*(?:\s+[a-z]\w*)+\s*)\)", lambda m: f"[{','.join(m[1].split())}]", text, flags=re.A)
    marked = re.sub(r"[A-Za-z]\w*|\d+\.?\d*|\.\d+", lambda m: "_" + m[0].replace(".", "_"), text, flags=re.A)
    return ast.parse(marked.strip(), mode="eval").body


def head(node):
    """A name and its slots."""
    slots = []
    if isinstance(node, ast.Subscript):
        slots = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        slots, node = [[n.id[1:] for n in getattr(slot, "elts", [slot])] for slot in slots], node.value
    return node.id[1:], slots


def products(node):
    """A sum with its brackets multiplied out."""
    spine = []
    while isinstance(node, ast.BinOp):
        spine, node = [*spine, node], node.left
    found = atom(node)
    for step in reversed(spine):
        right, kind = products(step.right), type(step.op)
        if kind is ast.Div:
            need(len(right) == 1 and right[0][0] and not right[0][2], "only a number or a size divides")
            right = [(1 / right[0][0], [(s, -e) for s, e in right[0][1]], [])]
        if kind in (ast.Add, ast.Sub):
            found = found + [(n if kind is ast.Add else -n, s, a) for n, s, a in right]
        else:
            need(kind in (ast.Mult, ast.Div) and len(found) * len(right) <= LIMIT, "too many products")
            found = [(bounded(m * n), s + t, a + b) for m, s, a in found for n, t, b in right]
    return found


def atom(node):
    if isinstance(node, ast.UnaryOp):
        return [(n if isinstance(node.op, ast.UAdd) else -n, s, a) for n, s, a in products(node.operand)]
    if isinstance(node, ast.Call):  # the root of a size or a number is a number
        (name, _), (inside,) = head(node.func), node.args
        need(name == "sqrt", f"{name} within a product")
        return [(Fraction(1), [("√" + head(inside)[0].replace("_", "."), 1)], [])]
    name, slots = head(node)
    if name[0].isalpha():
        is_size = name[0].isupper() and not slots
        return [(Fraction(1), [(name, 1)] if is_size else [], [] if is_size else [(name, slots)])]
    return [(Fraction(name.replace("_", ".")), [], [])]


def body(text):
    """A right-hand side: its function, the letters that this runs over, and the products."""
    node, function, over = tree(text), None, []
    if isinstance(node, ast.Call):
        (function, over), (inside,) = head(node.func), node.args
        constant = function == "sqrt" and isinstance(inside, ast.Name) and not inside.id[1:2].islower()
        function, node = (None, node) if constant else (function, inside)
    return function, [i for (i,) in over], products(node)


# Terms: (coefficient, factors), a coefficient (number, powers of sizes), an index (id, atomic size). A factor is (name,
# indices, None), or for a function (name, free + at, (free, over, terms)): `over` is bound, and a kept one read `at`.
def times(*coefficients):
    number, powers = Fraction(1), Counter()
    for n, more in coefficients:
        number *= n
        for size, exponent in more:
            number *= Fraction(int(size)) ** exponent if size.isdigit() else 1
            powers[size] += 0 if size.isdigit() else exponent
    return bounded(number), tuple(sorted((s, e) for s, e in powers.items() if e))


def slots_in(factors):
    return [i for _, indices, _ in factors for i in indices]


def inside(factors):
    """Every index of some factors, those inside functions included."""
    within = [i for *_, f in factors if f for i in (*f[0], *f[1], *(j for _, inner in f[2] for j in inside(inner)))]
    return slots_in(factors) + within


def rename(factors, names, bound=False):
    """Factors at other indices; with `bound`, all others become new ones."""
    names = {**{i: (next(FRESH), i[1]) for i in inside(factors) if bound}, **names}
    renamed = []
    for name, indices, function in factors:
        indices = tuple(names.get(i, i) for i in indices)
        if function:
            free, over = (tuple(names.get(i, i) for i in part) for part in function[:2])
            at, free = indices[len(free) :], tuple(dict.fromkeys(free))
            indices, function = free + at, (free, over, [(c, rename(inner, names)) for c, inner in function[2]])
        renamed.append((name, indices, function))
    return renamed


def normal(coefficient, factors, free, summed=()):
    """A product without identities of summed indices; what is summed and in no factor any more counts by its size."""
    summed = [i for i in dict.fromkeys([*summed, *slots_in(factors)]) if i not in free]
    pairs, rest, kept = [f[1] for f in factors if f[0] == "I"], [f for f in factors if f[0] != "I"], []
    while pairs:
        i, j = pairs.pop()
        if i in free and j in free and i != j:
            kept.append(("I", (i, j), None))
        elif i != j:
            old, new = (i, j) if i not in free else (j, i)
            summed.remove(old)
            pairs, rest = [tuple(new if k == old else k for k in p) for p in pairs], rename(rest, {old: new})
    for k, (name, indices, function) in enumerate(rest):
        if function:
            terms = [normal(c, inner, {*function[0], *function[1]}) for c, inner in function[2]]
            new = tuple(i for i in function[0] if any(i in slots_in(inner) for _, inner in terms))
            rest[k] = name, new + indices[len(function[0]) :], (new, function[1], terms)
    need(len(rest) <= LIMIT, "too many factors")
    return times(coefficient, (1, [(i[1], 1) for i in summed if i not in slots_in(rest)])), rest + kept


class Texts:
    """Texts over common sizes, with the shapes of their tensors as lists of atomic sizes, slot by slot."""

    def __init__(self, lines, shapes):
        self.splits, self.inputs, self.used, self.made = {}, {}, set(), 0
        for match in filter(None, map(SPLIT.fullmatch, lines)):
            parts = re.sub(r"\s", "", match[2]).split("*")
            need(self.splits.setdefault(match[1], parts) == parts, f"size {match[1]} is two products")
        self.shapes = {tensor: [self.atoms(size) for size in slots] for tensor, slots in shapes.items()}

    def atoms(self, size, depth=0):
        """A product of sizes as its atomic sizes."""
        parts = [p for s in size.split("*") for p in self.splits.get(s, [s])]
        need(depth < 20 and len(parts) < 99, f"size {size} has too many parts")
        need(all(re.fullmatch(r"[A-Z]\w*|[1-9]\d{0,8}", p, re.A) for p in parts), f"{size} is no size")
        return parts if "*".join(parts) == size else self.atoms("*".join(parts), depth + 1)

    def letters(self, lines, sizes):
        """The indices of each letter, whose size has to be what the lines declare."""
        declared = {i: m[2] for m in filter(None, map(LETTERS.fullmatch, lines)) for i in re.split(r"[\s,]+", m[1])}
        for letter, size in sizes.items():
            need(self.atoms(declared.get(letter, size)) == self.atoms(size), f"the size of {letter} is another")
        return {letter: [(next(FRESH), atom) for atom in self.atoms(size)] for letter, size in sizes.items()}

    def access(self, name, slots, letters, env):
        """The terms that a factor stands for."""
        by_slot = [[i for letter in slot for i in letters[letter]] for slot in slots]
        indices, shape = [i for slot in by_slot for i in slot], [[size for _, size in slot] for slot in by_slot]
        if name in CONDITIONS.values():
            # With offsets a condition is an equation between positions of any sizes.
            alike = all(slot == shape[0] for slot in shape) or all(len(slot) == 1 for slot in shape)
            need(alike, "a condition compares positions of two sizes")
            return [(ONE, [(name, tuple(indices), None)])]
        if name == "I":
            need(len(shape) == 2 and shape[0] == shape[1], "the identity is square")
            return [(ONE, [("I", pair, None) for pair in zip(*by_slot, strict=True)])]
        need(shape == (env[name][0] if name in env else self.shapes[name]), f"{name} has another shape")
        if name in env:
            names = dict(zip(env[name][1], indices, strict=True))
            return [(c, rename(factors, names, bound=True)) for c, factors in env[name][2]]
        self.used.add(name)
        return [(ONE, [(name, tuple(indices), None)])]

    def expand(self, sums, letters, free, env, also=()):
        """The terms of products; `also` are summed indices that count even where a product lacks them."""
        terms = []
        for number, sizes, accesses in sums:
            choices = [self.access(*a, letters, env) for a in accesses]
            need(prod(map(len, choices)) + len(terms) <= LIMIT, "too many terms")
            scale = times((number, [(a, e) for s, e in sizes for a in ([s] if s[0] == "√" else self.atoms(s))]))
            written = [i for _, slots in accesses for slot in slots for letter in slot for i in letters[letter]]
            for chosen in product(*choices):
                factors = [f for _, more in chosen for f in more]
                self.made += len(factors)
                need(len(factors) <= FACTORS and self.made <= WORK, "too many factors")
                terms.append(normal(times(scale, *(c for c, _ in chosen)), factors, free, [*written, *also]))
        return terms

    def define(self, line, letters, env):
        """A definition: the tensor's name, and its shape, indices and terms."""
        left, right = EQUAL.split(line)
        (name, slots), (function, over, sums) = head(tree(left)), body(right)
        slots = [[i for letter in slot for i in letters[letter]] for slot in slots]
        target, over = [i for slot in slots for i in slot], [i for letter in over for i in letters[letter]]
        shape = [[size for _, size in slot] for slot in slots]
        need(len({*target}) == len(target), f"{name} is defined on a diagonal only")
        if function in SUMS:
            terms = self.expand(sums, letters, {*target}, env, over)
            share = [(s, -1) for _, s in over if function == "mean"]
            return name, (shape, target, [(times(c, (1, share)), fs) for c, fs in terms])
        terms = self.expand(sums, letters, {*target, *over}, env)
        if function:
            need({*over} <= {*target} if function in KEEPING else not {*over} & {*target}, f"what {function} runs over")
            need(not over or function in (*KEEPING, *REDUCING), f"{function} runs over an index")
            free = tuple(i for i in target if i not in over and any(i in slots_in(factors) for _, factors in terms))
            bound, at = {i: (next(FRESH), i[1]) for i in over}, tuple(over if function in KEEPING else ())
            inner = [(c, rename(factors, bound)) for c, factors in terms]
            terms = [(ONE, [(function, free + at, (free, tuple(bound.values()), inner))])]
        return name, (shape, target, terms)

    def read(self, text, indices, env):
        """The shape, indices and terms of a specification's output, and the letters of its definition."""
        lines = [line.strip() for line in text.split("\n")]
        equations = [line for line in lines if "=" in line and not SPLIT.fullmatch(line)]
        heads = [line for line in lines if line and "=" not in line and not LETTERS.fullmatch(line)]
        parts = [line.rstrip("]").partition("[") for line in heads]
        inputs = {name: [self.atoms(size) for size in sizes.split(",")] for name, _, sizes in parts}
        self.inputs = self.inputs or inputs
        need(inputs == self.inputs and inputs, "the texts have different inputs")
        need(all(self.shapes.get(name, shape) == shape for name, shape in inputs.items()), "an input has another shape")
        for line, sizes in zip(equations, indices, strict=True):
            letters = self.letters(lines, sizes)
            name, meaning = self.define(line, letters, env)
            env = {**env, name: meaning}
        return *meaning, letters
