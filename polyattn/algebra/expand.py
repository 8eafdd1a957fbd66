"""Expansion: a specification as a list of monomials in its inputs, parameters and functions.

Brackets are multiplied out and intermediates replaced by their definitions; the factors of each monomial stay in the
order of the text. An index summed by a product counts even if a term substituted for an intermediate does not
contain it: then the sum is a factor of its size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, count, product
from math import prod

from polyattn.algebra.canonical import collect_arguments
from polyattn.algebra.conditions import condition_terms, resized
from polyattn.algebra.monomial import (
    DEFINITION,
    Factor,
    FunctionFactor,
    Index,
    Monomial,
    Powers,
    TensorFactor,
    contract_identities,
    multiply_powers,
    size_product,
    writable,
)
from polyattn.errors import BudgetError, SizeError, SpecError
from polyattn.language import Specification
from polyattn.language.conditions import is_condition, sizes_in
from polyattn.language.functions import KEEPING, RECIPROCAL, SUMS, kind
from polyattn.language.sizes import ROOT
from polyattn.language.syntax import (
    IDENTITY,
    Access,
    Bracket,
    Call,
    Definition,
    Number,
    SizeRef,
    Sum,
    Term,
)

# The limits bound memory and time: nested definitions can double the number of monomials each.
MAX_MONOMIALS = 4096
MAX_FACTORS = 512
MAX_LENGTH = 4096
MAX_WORK = 200_000


@dataclass(frozen=True)
class Expansion:
    """Monomials with the free indices `output`, numbered 0, 1, ... in the order of the output's atomic slots."""

    output: tuple[Index, ...]
    terms: tuple[Monomial, ...]


def expand(spec: Specification, kept: str | None = None) -> Expansion:
    """Return the output of a specification as monomials, in the order of the text.

    Args:
        kept: an atomic size: sums that read one position of it, their own, stay one factor, `DEFINITION` of them.

    Raises:
        BudgetError: more than 4096 monomials, or one of more than 512 factors, or of 4096 with those inside functions.
    """
    return _Expander(spec, kept).run()


def text_products(
    total: Sum,
) -> Iterator[tuple[Fraction, tuple[SizeRef, ...], tuple[SizeRef, ...], tuple[Access, ...]]]:
    """Yield the products of a sum with its brackets multiplied out: number, sizes above, sizes below, accesses.

    Raises:
        BudgetError: more than 4096 products.
    """
    for position, found in enumerate(chain.from_iterable(map(_term_products, total.terms))):
        if position == MAX_MONOMIALS:
            raise BudgetError(f"multiplying the brackets out gives more than {MAX_MONOMIALS} monomials")
        yield found


def _vanishes(factor: FunctionFactor) -> bool:
    """Return whether all terms of a function's argument cancel."""
    alone = Monomial(Fraction(1), (), (factor,))
    (collected,) = collect_arguments(alone, frozenset(factor.indices)).factors
    return isinstance(collected, FunctionFactor) and not collected.terms


def number_name(ref: SizeRef) -> str:
    """Return the name of a size, or of its root, in the powers of a monomial."""
    return ROOT + ref.size if ref.root else ref.size


def _term_products(term: Term):
    number, above, below = Fraction(-1 if term.negative else 1), [], []
    choices: list[list] = []
    for factor, divide in zip(term.factors, term.divides, strict=True):
        if isinstance(factor, Number):
            number = number / factor.value if divide else number * factor.value
        elif isinstance(factor, SizeRef):
            (below if divide else above).append(factor)
        elif isinstance(factor, Bracket):
            choices.append(list(text_products(factor.body)))
        else:
            choices.append([(Fraction(1), (), (), (factor,))])
    # Refused before the product is enumerated.
    if prod(map(len, choices)) > MAX_MONOMIALS:
        raise BudgetError(f"multiplying the brackets out gives more than {MAX_MONOMIALS} monomials")
    for chosen in product(*choices):
        scale, up, down, accesses = number, tuple(above), tuple(below), ()
        for n, a, b, inner in chosen:
            scale, up, down, accesses = scale * n, up + a, down + b, accesses + inner
        yield scale, up, down, accesses


@dataclass(frozen=True)
class _Inline:
    """An intermediate, ready to be substituted: its slots' indices and its monomials."""

    target: tuple[Index, ...]
    terms: tuple[Monomial, ...]


@dataclass
class _Expander:
    spec: Specification
    kept: str | None = None
    fresh: Iterator[int] = field(default_factory=count)
    known: dict[str, _Inline] = field(default_factory=dict)
    work: int = 0

    def run(self) -> Expansion:
        for number, definition in enumerate(self.spec.core):
            self.known[definition.name] = self._definition(number, definition)
        last = self.known[self.spec.output]
        # The output's indices are numbered first; canonical forms need free ids below all others.
        names = {old: Index(k, old.size) for k, old in enumerate(last.target)}
        return Expansion(tuple(names.values()), tuple(self._numbered(t, names) for t in last.terms))

    @staticmethod
    def _numbered(term: Monomial, names: dict[Index, Index]) -> Monomial:
        summed = [i for i in dict.fromkeys(term.all_indices()) if i not in names]
        more = {old: Index(len(names) + k, old.size) for k, old in enumerate(summed)}
        return term.renamed(names | more)

    def _definition(self, number: int, definition: Definition) -> _Inline:
        # Fresh numbers for every definition: letters are local to it.
        letters = {
            name: tuple(Index(next(self.fresh), atom) for atom in atoms)
            for name, atoms in self.spec.resolved.index_sizes[number].items()
        }
        target = tuple(i for name in definition.target.indices for i in letters[name])
        body = definition.body
        if not isinstance(body, Call):
            terms = self._sum(body, letters, frozenset(target))
            return _Inline(target, self._one(target, terms) if definition.name != self.spec.output else terms)
        over = tuple(i for name in body.over for i in letters[name])
        if body.function in SUMS:
            number_, powers = size_product((i.size for i in over), -1) if body.function == "mean" else (Fraction(1), ())
            terms = self._sum(body.argument, letters, frozenset(target), over)
            return _Inline(target, tuple(t.scaled(number_, powers) for t in terms))
        terms = self._sum(body.argument, letters, frozenset((*target, *over)))
        if sum(t.length for t in terms) > MAX_LENGTH:
            raise BudgetError(f"the argument of '{body.function}' has more than {MAX_LENGTH} factors, multiplied out")
        present = {i for t in terms for i in t.indices()}
        # Indices of the target in no term of the argument are not the function's: it is constant there.
        free = tuple(i for i in target if i in present and i not in over)
        at = over if kind(body.function) == KEEPING else ()
        # A function that keeps its indices is read at the target's; inside the argument other indices
        # run.
        bound = {i: Index(next(self.fresh), i.size) for i in over}
        terms = tuple(t.renamed(bound) for t in terms)
        factor = FunctionFactor(body.function, tuple(bound.values()), free, terms, at)
        if body.function == RECIPROCAL and _vanishes(factor):
            line, column = body.at.line, body.at.column
            raise SpecError("this denominator is 0 whatever its tensors are: its terms cancel", "", line, column)
        return _Inline(target, (Monomial(Fraction(1), (), (factor,)),))

    def _one(self, target: tuple[Index, ...], terms: tuple[Monomial, ...]) -> tuple[Monomial, ...]:
        """Return a sum at one position as one factor where such are kept, else its terms."""
        positions = [i for i in target if i.size == self.kept]
        read = {i for t in terms for i in t.all_indices() if i.size == self.kept}
        counts = any(size == self.kept for t in terms for size, _ in t.powers)
        if len(terms) < 2 or len(positions) != 1 or read != set(positions) or counts:
            return terms
        present = {i for t in terms for i in t.indices()}
        factor = FunctionFactor(DEFINITION, (), tuple(i for i in target if i in present), terms)
        return (Monomial(Fraction(1), (), (factor,)),)

    def _sum(
        self, total: Sum, letters: dict[str, tuple[Index, ...]], free: frozenset[Index], also: Sequence[Index] = ()
    ) -> tuple[Monomial, ...]:
        """Return the monomials of a sum; `also` are summed indices that count even if a term does not contain them."""
        terms: list[Monomial] = []
        for share, above, below, accesses in text_products(total):
            coefficient, powers = self._coefficient(share, above, below)
            written = [i for a in accesses for name in a.indices for i in letters[name]]
            # Collected from the text, not from the factors: a substituted term may have lost an index.
            summed = [i for i in dict.fromkeys((*written, *also)) if i not in free]
            for factors, scale, more in self._products(accesses, letters):
                have = {i for f in factors for i in f.indices}
                # The sum over an index that no factor has is its size.
                lost, lost_powers = size_product(i.size for i in summed if i not in have)
                all_powers = multiply_powers(powers, (*more, *lost_powers))
                term = writable(Monomial(coefficient * scale * lost, all_powers, factors))
                terms.append(contract_identities(term, free))
                if len(terms) > MAX_MONOMIALS:
                    raise BudgetError(f"the expansion has more than {MAX_MONOMIALS} monomials")
        return tuple(terms)

    def _charge(self, terms: Sequence[Monomial]) -> None:
        """Count the product of these monomials against the budgets, before it is computed."""
        length = sum(t.length for t in terms)
        self.work += length
        if sum(len(t.factors) for t in terms) > MAX_FACTORS:
            raise BudgetError(f"a monomial of the expansion has more than {MAX_FACTORS} factors")
        if length > MAX_LENGTH:
            raise BudgetError(f"a monomial has more than {MAX_LENGTH} factors, with those inside functions")
        if self.work > MAX_WORK:
            raise BudgetError(f"the expansion has more than {MAX_WORK} factors in all")

    def _coefficient(
        self, number: Fraction, above: tuple[SizeRef, ...], below: tuple[SizeRef, ...]
    ) -> tuple[Fraction, Powers]:
        up, up_powers = size_product(a for ref in above for a in self.spec.sizes.atoms(number_name(ref)))
        down, down_powers = size_product((a for ref in below for a in self.spec.sizes.atoms(number_name(ref))), -1)
        return number * up * down, multiply_powers(up_powers, down_powers)

    def _products(
        self, accesses: tuple[Access, ...], letters: dict[str, tuple[Index, ...]]
    ) -> Iterator[tuple[tuple[Factor, ...], Fraction, Powers]]:
        """Yield each choice of one monomial per access, as one list of factors with its coefficient."""
        choices = [self._access(access, letters) for access in accesses]
        if prod(map(len, choices)) > MAX_MONOMIALS:
            raise BudgetError(f"the expansion has more than {MAX_MONOMIALS} monomials")
        for chosen in product(*choices):
            self._charge(chosen)
            factors, scale, powers = [], Fraction(1), ()
            for term in chosen:
                factors += term.factors
                scale *= term.coefficient
                powers = multiply_powers(powers, term.powers)
            yield tuple(factors), scale, powers

    def _access(self, access: Access, letters: dict[str, tuple[Index, ...]]) -> list[Monomial]:
        indices = tuple(i for name in access.indices for i in letters[name])
        if is_condition(access.tensor):
            atoms = {s: self.spec.sizes.atoms(s) for s in sizes_in(access.tensor)}
            slots = [tuple(i for name in slot.indices for i in letters[name]) for slot in access.slots]
            try:
                return condition_terms(resized(access.tensor, atoms), slots)
            except SizeError as error:
                raise SpecError(str(error), "", access.at.line, access.at.column) from None
        if access.tensor == IDENTITY:
            # I[(a b),(c d)] is I[a,c]*I[b,d], atom by atom.
            half = len(indices) // 2
            pairs = zip(indices[:half], indices[half:], strict=True)
            return [Monomial(Fraction(1), (), tuple(TensorFactor(IDENTITY, pair) for pair in pairs))]
        if access.tensor not in self.known:
            return [Monomial(Fraction(1), (), (TensorFactor(access.tensor, indices),))]
        inline = self.known[access.tensor]
        names = dict(zip(inline.target, indices, strict=True))
        return [self._instance(term, names) for term in inline.terms]

    def _instance(self, term: Monomial, names: dict[Index, Index]) -> Monomial:
        """Return a copy of an intermediate's monomial at other indices, with summed indices of its own."""
        self._charge([term])
        # Summed indices are renewed at every use: in u*u, each u sums on its own.
        own = {i: Index(next(self.fresh), i.size) for i in dict.fromkeys(term.all_indices()) if i not in names}
        return term.renamed(names | own)
