"""Derivatives of monomials: the product rule, and the chain rule through functions.

The derivative of a function entry by entry is an expression in the language, from the table of functions; it is put
together here from function factors of the same argument, so that a derivative is a polynomial in functions again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import count, product

from polyattn.algebra.monomial import Factor, FunctionFactor, Index, Monomial, TensorFactor, map_tensors
from polyattn.errors import BudgetError, NotPolynomialError
from polyattn.language.functions import RECIPROCAL, TABLE
from polyattn.language.parser import parse
from polyattn.language.syntax import IDENTITY, Access, Bracket, Call, Number, Sum, Term

L1_EPSILON = Fraction(1, 10**12)
MAX_TERMS = 4096
ONE = Monomial(Fraction(1), (), ())


def derivatives(
    term: Monomial, tensor: str, seed: str, free: tuple[Index, ...], output: tuple[Index, ...]
) -> list[Monomial]:
    """Return the terms of `seed` times the derivative of a monomial by a tensor.

    Args:
        free: the indices of the derivative's slots: 0, 1, ...
        output: those of the monomial.

    Raises:
        NotPolynomialError: the tensor is inside a function of the user's own.
        BudgetError: more than 4096 terms.
    """
    shift = len(free)
    # The output's numbers belong to the derivative's own slots now: the old indices move above them.
    names = {i: Index(i.id + shift, i.size) for i in (*output, *term.all_indices())}
    moved = term.renamed(names)
    start = 1 + max((i.id for i in (*free, *names.values())), default=0)
    factor = TensorFactor(seed, tuple(names[i] for i in output))
    found = _Chain(tensor, free, count(start)).term(moved)
    return [Monomial(t.coefficient, t.powers, (factor, *t.factors)) for t in found]


@dataclass
class _Chain:
    """The rules of one derivative.

    Attributes:
        fresh: ids of new indices.
    """

    tensor: str
    free: tuple[Index, ...]
    fresh: Iterator[int]

    def term(self, term: Monomial) -> list[Monomial]:
        """Apply the product rule."""
        found: list[Monomial] = []
        for position, factor in enumerate(term.factors):
            rest = (*term.factors[:position], *term.factors[position + 1 :])
            for part in self.factor(factor):
                whole = part.scaled(term.coefficient, term.powers)
                found.append(Monomial(whole.coefficient, whole.powers, (*rest, *part.factors)))
        return _bounded(found)

    def factor(self, factor: Factor) -> list[Monomial]:
        if isinstance(factor, TensorFactor):
            if factor.tensor != self.tensor:
                return []
            # The removed factor leaves a delta from each of its slots to the derivative's.
            deltas = tuple(TensorFactor(IDENTITY, pair) for pair in zip(self.free, factor.indices, strict=True))
            return [Monomial(Fraction(1), (), deltas)]
        if not depends(factor, self.tensor):
            return []
        rules = {
            "softmax": self.softmax,
            "normalize": self.normalize,
            "max": self.extreme,
            "min": self.extreme,
            "logsumexp": self.logsumexp,
        }
        if factor.function in rules:
            return _bounded(rules[factor.function](factor))
        row = TABLE.get(factor.function)
        if row is None:
            reason = "is opaque: it has no derivative in the language"
            raise NotPolynomialError(f"'{self.tensor}' occurs inside '{factor.function}', which {reason}")
        if not row.derivative:
            return []
        slope = self.text(_expression(row.derivative), factor)
        return self.times(slope, self.argument(factor, ()))

    def argument(self, factor: FunctionFactor, at: tuple[Index, ...]) -> list[Monomial]:
        """Return the derivative of a function's argument at other indices than those that the function runs over."""
        names = dict(zip(factor.over, at, strict=True))
        return [d for t in factor.terms for d in self.term(self.own(t, factor, names))]

    def own(self, term: Monomial, factor: FunctionFactor, names: dict[Index, Index]) -> Monomial:
        """Return a term of an argument with new summed indices, as a factor outside of the function."""
        summed = (i for i in dict.fromkeys(term.all_indices()) if i not in factor.local)
        return term.renamed(names | {i: self.new(i) for i in summed})

    def new(self, index: Index) -> Index:
        return Index(next(self.fresh), index.size)

    def times(self, *sums: Sequence[Monomial]) -> list[Monomial]:
        if len(sums) > 1 and len(sums[0]) * len(sums[1]) > MAX_TERMS:
            raise BudgetError(f"a derivative has more than {MAX_TERMS} terms")
        found = []
        for parts in product(*sums):
            total = ONE
            for part in parts:
                scaled = total.scaled(part.coefficient, part.powers)
                total = Monomial(scaled.coefficient, scaled.powers, (*total.factors, *part.factors))
            found.append(total)
        return found

    def softmax(self, factor: FunctionFactor) -> list[Monomial]:
        """ds_a = s_a (dx_a - Σ_e s_e dx_e)."""
        there = tuple(map(self.new, factor.over))
        here = self.times([_single(factor)], self.argument(factor, factor.at))
        return here + self.times([_single(factor, -1)], [_single(_at(factor, there))], self.argument(factor, there))

    def extreme(self, factor: FunctionFactor) -> list[Monomial]:
        """dm = Σ_e (e's share of the maximum) dx_e."""
        there, sign = tuple(map(self.new, factor.over)), 1 if factor.function == "max" else -1
        terms = tuple(t.scaled(Fraction(sign)) for t in factor.terms)
        share = FunctionFactor("largest", factor.over, factor.free, terms, there)
        return self.times([_single(share)], self.argument(factor, there))

    def logsumexp(self, factor: FunctionFactor) -> list[Monomial]:
        there = tuple(map(self.new, factor.over))
        share = FunctionFactor("softmax", factor.over, factor.free, factor.terms, there)
        return self.times([_single(share)], self.argument(factor, there))

    def normalize(self, factor: FunctionFactor) -> list[Monomial]:
        """dn_a = dx_a/m - x_a/m/m [n > 1e-12] Σ_e sign(x_e) dx_e with n = Σ_e |x_e|, m the larger of n and 1e-12."""
        there = tuple(map(self.new, factor.over))
        inside = (*factor.free, *factor.over)
        size = FunctionFactor("abs", (), inside, factor.terms)
        above = (_single(size), Monomial(-L1_EPSILON, (), ()))
        larger = (Monomial(L1_EPSILON, (), ()), _single(FunctionFactor("relu", (), factor.free, above)))
        over = _single(FunctionFactor(RECIPROCAL, (), factor.free, larger))
        counts = _single(FunctionFactor("step", (), factor.free, above))
        names = dict(zip(factor.over, there, strict=True))
        signs = []
        for sign in (1, -1):
            terms = tuple(t.scaled(Fraction(sign)) for t in factor.terms)
            signs.append(_single(FunctionFactor("step", (), inside, terms).renamed(names), -sign))
        here = dict(zip(factor.over, factor.at, strict=True))
        value = [self.own(t, factor, here) for t in factor.terms]
        first = self.times([over], self.argument(factor, factor.at))
        common = self.times([over], [over], [counts], value)
        return first + self.times(self.times(common, signs), self.argument(factor, there))

    def text(self, total: Sum, factor: FunctionFactor) -> list[Monomial]:
        """Return an expression of the table with the function's argument for `s`."""
        return _bounded([t for term in total.terms for t in self.text_term(term, factor)])

    def text_term(self, term: Term, factor: FunctionFactor) -> list[Monomial]:
        found = [Monomial(Fraction(-1 if term.negative else 1), (), ())]
        for part, divide in zip(term.factors, term.divides, strict=True):
            if isinstance(part, Number):
                scale = 1 / part.value if divide else part.value
                found = [t.scaled(scale) for t in found]
                continue
            if isinstance(part, Access):
                inside = list(factor.terms)
                value = inside if divide else [self.own(t, factor, {}) for t in inside]
            elif isinstance(part, Bracket):
                value = self.text(part.body, factor)
            else:
                assert isinstance(part, Call)
                value = [_single(_function(part.function, self.text(part.argument, factor), factor.free))]
            found = self.times(found, [_single(_function(RECIPROCAL, value, factor.free))] if divide else value)
        return [t for t in found if t.coefficient]


def depends(factor: Factor, tensor: str) -> bool:
    names: list[str] = []
    map_tensors(Monomial(Fraction(1), (), (factor,)), lambda f: names.append(f.tensor))
    return tensor in names


def _function(name: str, terms: Sequence[Monomial], free: tuple[Index, ...]) -> FunctionFactor:
    present = {i for t in terms for i in t.all_indices()}
    return FunctionFactor(name, (), tuple(i for i in free if i in present), tuple(terms))


def _at(factor: FunctionFactor, at: tuple[Index, ...]) -> FunctionFactor:
    return FunctionFactor(factor.function, factor.over, factor.free, factor.terms, at)


def _single(factor: FunctionFactor, sign: int = 1) -> Monomial:
    return Monomial(Fraction(sign), (), (factor,))


def _bounded(terms: list[Monomial]) -> list[Monomial]:
    if len(terms) > MAX_TERMS:
        raise BudgetError(f"a derivative has more than {MAX_TERMS} terms")
    return terms


@lru_cache(maxsize=64)
def _expression(text: str) -> Sum:
    # The table's functions count as declared: they are in the parser's own table.
    body = parse(f"f = 1*({text})").definitions[0].body
    assert isinstance(body, Sum)
    return body
