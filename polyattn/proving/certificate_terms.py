"""The expanded form of certificates: sums of products of tensors, with functions as tensors of their own.

A text of this form is one line, `y[n,c] = 1/2/N*x[n,c1]*w[c1,c] - x[n,c]`, with one index in each slot: a slot of
product size is several slots. A letter has one size in all of a certificate. `proofs/check.py` reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import count
from string import ascii_lowercase
from typing import Any

from polyattn.algebra import FunctionFactor, Index, Monomial, TensorFactor
from polyattn.algebra.canonical import canonical_order, collect_arguments
from polyattn.language.conditions import AT_MOST, LESS, is_condition
from polyattn.language.sizes import ROOT, letter_of
from polyattn.language.syntax import IDENTITY
from polyattn.proving.isomorphism import renamed_apart
from polyattn.proving.rewriting import bare, joined, normalised
from polyattn.proving.work import GRAPH, charge


@dataclass
class FlatSum:
    """A sum of a certificate under construction.

    Attributes:
        slots: the indices of the left.
        function: the function applied to the sum; "" if none is.
        over: the indices the function runs over; kept ones are among the slots.
        terms: products of tensors; identities between indices of the left come last.
    """

    name: str
    slots: tuple[Index, ...]
    function: str
    over: tuple[Index, ...]
    terms: list[Monomial]

    @property
    def letters(self) -> tuple[Index, ...]:
        return tuple(dict.fromkeys((*self.slots, *self.over)))

    def ordered(self, term: Monomial) -> Monomial:
        """Return the term without identities except between indices of the left; those come last, in their order."""
        term = normalised(term, frozenset(self.letters))
        plain = [f for f in term.factors if not is_identity(f)]
        pairs = [tuple(sorted(f.indices, key=self.letters.index)) for f in term.factors if is_identity(f)]
        # Steps count factors in this order, so it has to be the same wherever a term is built.
        last = sorted(pairs, key=lambda pair: self.letters.index(pair[1]))
        return Monomial(term.coefficient, term.powers, (*plain, *(TensorFactor(IDENTITY, pair) for pair in last)))

    def with_factors(self, term: Monomial, factors: Iterable[TensorFactor]) -> Monomial:
        """Return a term with other factors; lost summed indices count by their size."""
        summed = [i for i in term.indices() if i not in self.letters]
        return self.ordered(joined(Monomial(term.coefficient, term.powers, ()), list(map(bare, factors)), summed))


def is_identity(factor) -> bool:
    return isinstance(factor, TensorFactor) and factor.tensor == IDENTITY


@dataclass
class Letters:
    """Letters for indices: each size has its own, numbered in the order of use in a line."""

    sizes: dict[str, str] = field(default_factory=dict)
    _stems: dict[str, str] = field(default_factory=dict)

    def line(self, total: FlatSum) -> tuple[str, list[dict[Index, str]]]:
        """Return the text of a sum, and the letters of each of its terms."""
        left = self.named(total.letters, {})
        # Each term starts from the left's letters, so that summed letters are used again.
        terms = [self.named(t.indices(), left) for t in total.terms]
        body = sum_text(total.terms, terms)
        if total.function:
            over = f"[{','.join(left[i] for i in total.over)}]" if total.over else ""
            body = f"{total.function}{over}({body})"
        return f"{access_text(total.name, total.slots, left)} = {body}", terms

    def named(self, indices: Iterable[Index], have: dict[Index, str]) -> dict[Index, str]:
        found, taken = dict(have), set(have.values())
        for index in indices:
            if index not in found:
                stem = self._stem(index.size)
                letter = next(c for k in count() if (c := f"{stem}{k or ''}") not in taken)
                found[index] = letter
                taken.add(letter)
                self.sizes[letter] = index.size
        return found

    def _stem(self, size: str) -> str:
        if size not in self._stems:
            used, first = set(self._stems.values()), letter_of(size)
            # n, then a to z, then nn, aa, and so on: stems without digits, since the number follows
            # them.
            options = (s for k in count(1) for s in (first * k, *(letter * k for letter in ascii_lowercase)))
            self._stems[size] = next(s for s in options if s not in used)
        return self._stems[size]


def access_text(name: str, indices: Sequence[Index], letters: dict[Index, str]) -> str:
    return f"{name}[{','.join(letters[i] for i in indices)}]" if indices else name


def factor_text(factor: TensorFactor, letters: dict[Index, str]) -> str:
    """Return an access as text; an order has the indices of its two slots on its sides, `[n<n1]` or `[g,m<g1,m1]`."""
    if factor.tensor not in (LESS, AT_MOST):
        return access_text(factor.tensor, factor.indices, letters)
    half = len(factor.indices) // 2
    sides = (",".join(letters[i] for i in part) for part in (factor.indices[:half], factor.indices[half:]))
    return f"[{('<' if factor.tensor == LESS else '<=').join(sides)}]"


def sum_text(terms: Sequence[Monomial], letters: Sequence[dict[Index, str]]) -> str:
    text = ""
    for term, names in zip(terms, letters, strict=True):
        sign = "-" if term.coefficient < 0 else "+"
        lead = f" {sign} " if text else sign.strip("+")
        text += lead + product_text(term, names)
    return text or "0"


def size_text(size: str) -> str:
    """Return a size, or the root of a size or of a number, as a factor."""
    return f"sqrt({size[1:]})" if size[0] == ROOT else size


def product_text(term: Monomial, letters: dict[Index, str]) -> str:
    number, below = abs(term.coefficient.numerator), term.coefficient.denominator
    divide = ([str(below)] if below > 1 else []) + [size_text(s) for s, e in term.powers for _ in range(-e)]
    times = [size_text(s) for s, e in term.powers for _ in range(e)]
    times += [factor_text(f, letters) for f in term.factors if isinstance(f, TensorFactor)]
    # The text starts a quotient with a number: 1/N, not /N.
    first = [str(number)] if number != 1 or divide or not times else []
    if not first:
        return "*".join(times)
    return "*".join(["/".join([*first, *divide]), *times])


def _ranks(factor: FunctionFactor) -> Callable[[Index], int]:
    """Return an order of a function's indices that does not depend on its text."""
    if len(factor.free) < 2 and len(factor.over) < 2:
        # With one index of each kind any order will do, so the costly labelling is saved.
        return lambda index: 0
    charge(GRAPH * factor.length)
    alone = Monomial(Fraction(1), (), (factor,))
    _, labels = canonical_order(collect_arguments(alone, frozenset()), ())
    return lambda index: labels.get(index, len(labels))


@dataclass
class Functions:
    """The functions of a certificate, as sums of their own; equal texts share one name."""

    letters: Letters
    taken: frozenset[str]
    sums: dict[str, FlatSum] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)  # the line of each
    conditions: dict[tuple[str, tuple[str, ...]], str] = field(default_factory=dict)
    """The names of the conditions with numbers or sizes, over the sizes of their indices: tensors to the checker."""

    def flat(self, terms: Iterable[Monomial], tidy: Callable[[Monomial], Monomial]) -> list[Monomial]:
        """Return terms with a tensor for each function."""
        found = []
        for term in terms:  # no comprehension: it would double the depth of the recursion
            if term.coefficient:
                found.append(tidy(Monomial(term.coefficient, term.powers, tuple(map(self._factor, term.factors)))))
        return found

    def _factor(self, factor) -> TensorFactor:
        if not isinstance(factor, FunctionFactor):
            return self._named(factor)
        # Slots in canonical order, so that equal functions get equal texts and share a name.
        rank = _ranks(factor)
        free = sorted(factor.free, key=rank)
        over = sorted(range(len(factor.over)), key=lambda k: rank(factor.over[k]))
        bound = tuple(factor.over[k] for k in over)
        new = FlatSum("", (*free, *(() if factor.reduces else bound)), factor.function, bound, [])
        # Of equal indices the first on the left stands for all: their numbers are in that order.
        if list(new.letters) != sorted(new.letters):
            names = {old: Index(k, old.size) for k, old in enumerate(new.letters)}
            new = FlatSum("", tuple(names[i] for i in new.slots), new.function, tuple(names[i] for i in bound), [])
            factor = replace(factor, terms=tuple(renamed_apart(t, names) for t in factor.terms))
        new.terms = self.flat(factor.terms, new.ordered)
        return TensorFactor(self.add(new), (*free, *(factor.at[k] for k in over if factor.at)))

    def _named(self, factor: TensorFactor) -> TensorFactor:
        """Return a tensor in the place of a condition with numbers or sizes, of which a proof uses nothing."""
        if not is_condition(factor.tensor) or factor.tensor in (LESS, AT_MOST):
            return factor
        key = factor.tensor, tuple(i.size for i in factor.indices)
        if key not in self.conditions:
            have = {*self.taken, *self.conditions.values()}
            self.conditions[key] = next(n for k in count(1) if (n := f"c{k}") not in have)
        return TensorFactor(self.conditions[key], factor.indices)

    def add(self, new: FlatSum) -> str:
        """Return the name of a function; functions of the same text share it."""
        text, _ = self.letters.line(new)
        if text not in self.lines:
            new.name = self.fresh()
            self.lines[text] = new.name
            self.sums[new.name] = new
        return self.lines[text]

    def copied(self, function: FlatSum) -> FlatSum:
        """Return an equal function of another name; its line comes behind all others."""
        copy = FlatSum(self.fresh(), function.slots, function.function, function.over, list(function.terms))
        self.copies[copy.name] = self.letters.line(copy)[0]
        return copy

    def fresh(self) -> str:
        have = {*self.taken, *self.sums, *self.copies}
        return next(n for k in count(len(self.sums) + len(self.copies) + 1) if (n := f"f{k}") not in have)

    def texts(self) -> list[str]:
        return [*(name + text for text, name in self.lines.items()), *self.copies.values()]


def replaced(total: FlatSum, term: Monomial, old: str, new: str, slots: Sequence[int]) -> Monomial:
    """Return a term with another function, which takes these slots of the old one."""
    factors = [f for f in term.factors if isinstance(f, TensorFactor)]
    if not any(f.tensor == old for f in factors):
        return term
    there = [TensorFactor(new, tuple(f.indices[k] for k in slots)) if f.tensor == old else f for f in factors]
    return total.with_factors(term, there)


def renumbered(found: dict[str, Any], renaming: Sequence[str]) -> dict[str, Any]:
    """Return the certificate with these of its given equations in a list of their own, numbered behind the others."""
    if not renaming:
        return found
    numbers = {g["equation"]: k for k, g in enumerate(found["given"])}
    kept = [g for g in found["given"] if g["equation"] not in renaming]
    order = {numbers[equation]: k for k, equation in enumerate([*(g["equation"] for g in kept), *renaming])}
    steps = [{**step, "use": order[step["use"]]} if "use" in step else step for step in found["steps"]]
    return {**found, "given": kept, "renaming": list(renaming), "steps": steps}
