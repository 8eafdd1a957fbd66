"""Given equations at work on monomials: definitions put in, symmetric slots put in order, rules applied.

Every function returns sums that are equal to what it was given wherever the given equations hold; nothing is said of
the other direction. The order of what comes out is part of the contract, since certificates refer to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count, product
from math import prod

from polyattn.algebra import FunctionFactor, Index, Monomial, TensorFactor
from polyattn.algebra.expand import MAX_FACTORS, MAX_MONOMIALS
from polyattn.algebra.monomial import Factor, contract_identities, multiply_powers, size_product, writable
from polyattn.errors import BudgetError
from polyattn.language.syntax import IDENTITY
from polyattn.proving.given import Rule, Substitution
from polyattn.proving.work import charge

Place = tuple[int, ...]
"""Where a monomial stands: its number in a sum; then, inside functions, the factor's position and the term's, again."""


def normalised(term: Monomial, free: frozenset[Index]) -> Monomial:
    """The monomial with identities contracted, those inside functions included; other factors keep their order."""
    reduced = contract_identities(term, free)
    if all(isinstance(f, TensorFactor) for f in reduced.factors):
        return reduced
    parts = [
        bare(f if isinstance(f, TensorFactor) else _with_terms(f, tuple(normalised(t, f.local) for t in f.terms)))
        for f in reduced.factors
    ]
    return joined(
        Monomial(reduced.coefficient, reduced.powers, ()), parts, [i for i in reduced.indices() if i not in free]
    )


def proper(term: Monomial) -> tuple[int, ...]:
    """The positions of the factors that are no identities."""
    return tuple(k for k, f in enumerate(term.factors) if not (isinstance(f, TensorFactor) and f.tensor == IDENTITY))


def substituted(terms: Sequence[Monomial], free: frozenset[Index], definition: Substitution) -> tuple[Monomial, ...]:
    """The sum with a definition put in for each access of its tensor, inside functions too."""
    found: list[Monomial] = []
    for term in terms:
        fresh = count(1 + max((i.id for i in (*term.all_indices(), *free)), default=-1))
        for new in _substituted(term, free, definition, fresh):
            found.append(normalised(new, free))
            if len(found) > MAX_MONOMIALS or len(new.factors) > MAX_FACTORS:
                limits = f"{MAX_MONOMIALS} monomials or {MAX_FACTORS} factors"
                raise BudgetError(f"with {definition.text!r} put in there are more than {limits}")
    return tuple(found)


def _substituted(
    term: Monomial, free: frozenset[Index], definition: Substitution, fresh: Iterator[int]
) -> Iterator[Monomial]:
    choices = [_alternatives(f, definition, fresh) for f in term.factors]
    if prod(map(len, choices)) > MAX_MONOMIALS:
        raise BudgetError(f"with {definition.text!r} put in there are more than {MAX_MONOMIALS} monomials")
    summed = [i for i in term.indices() if i not in free]
    for chosen in product(*choices):
        charge(10 * (10 + sum(part.length for part in chosen)))
        yield joined(term, chosen, summed)


def joined(term: Monomial, parts: Sequence[Monomial], summed: Sequence[Index]) -> Monomial:
    """The product of parts with a monomial's coefficient; indices that were summed and are gone count by their size."""
    factors = tuple(f for part in parts for f in part.factors)
    have = {i for f in factors for i in f.indices}
    number, powers = size_product(i.size for i in summed if i not in have)
    number, powers = number * term.coefficient, multiply_powers(powers, term.powers)
    for part in parts:
        number, powers = number * part.coefficient, multiply_powers(powers, part.powers)
    return writable(Monomial(number, powers, factors))


def _alternatives(factor: Factor, definition: Substitution, fresh: Iterator[int]) -> list[Monomial]:
    """The monomials that a factor stands for."""
    if isinstance(factor, FunctionFactor):
        terms = tuple(
            contract_identities(new, factor.local)
            for t in factor.terms
            for new in _substituted(t, factor.local, definition, fresh)
        )
        return [bare(_with_terms(factor, terms))]
    if factor.tensor != definition.tensor:
        return [bare(factor)]
    return [instance(t, dict(zip(definition.target, factor.indices, strict=True)), fresh) for t in definition.terms]


def bare(factor: Factor) -> Monomial:
    return Monomial(Fraction(1), (), (factor,))


def instance(term: Monomial, names: Mapping[Index, Index], fresh: Iterator[int]) -> Monomial:
    """A copy of a monomial at other indices, with summed indices of its own."""
    own = {i: Index(next(fresh), i.size) for i in dict.fromkeys(term.all_indices()) if i not in names}
    return term.renamed({**names, **own})


def _with_terms(factor: FunctionFactor, terms: tuple[Monomial, ...]) -> FunctionFactor:
    """The function of another argument; free indices that the argument has lost are none."""
    present = {i for t in terms for i in t.indices()}
    free = tuple(i for i in factor.free if i in present)
    return FunctionFactor(factor.function, factor.over, free, terms, factor.at)


@dataclass(frozen=True)
class Use:
    """A rule used: on which monomial, and on which of its factors, in the order of the rule's left side."""

    place: Place
    factors: tuple[int, ...]


def first_use(terms: Sequence[Monomial], free: frozenset[Index], rule: Rule) -> Use | None:
    """The first place where a rule applies, outside before inside; None where there is none."""
    for number, term in enumerate(terms):
        factors = _match(term, free, rule)
        if factors is not None:
            return Use((number,), factors)
        for position, factor in enumerate(term.factors):
            if isinstance(factor, FunctionFactor):
                inner = first_use(factor.terms, factor.local, rule)
                if inner is not None:
                    return Use((number, position, *inner.place), inner.factors)
    return None


def applied(terms: Sequence[Monomial], free: frozenset[Index], rule: Rule, use: Use) -> tuple[Monomial, ...]:
    """The sum with a rule applied at one place."""
    number, *inside = use.place
    term = terms[number]
    if inside:
        position, *rest = inside
        factor = term.factors[position]
        assert isinstance(factor, FunctionFactor)
        inner = applied(factor.terms, factor.local, rule, Use(tuple(rest), use.factors))
        parts = [bare(f) for f in term.factors]
        parts[position] = bare(_with_terms(factor, inner))
        new = [joined(term, parts, [i for i in term.indices() if i not in free])]
    else:
        new = _replaced(term, free, rule, use.factors)
    return (*terms[:number], *(normalised(t, free) for t in new), *terms[number + 1 :])


def _replaced(term: Monomial, free: frozenset[Index], rule: Rule, factors: tuple[int, ...]) -> list[Monomial]:
    names: dict[Index, Index] = {}
    for k, position in enumerate(factors):
        names |= dict(zip(rule.left.factors[k].indices, term.factors[position].indices, strict=True))
    gone = {names[i] for i in rule.left.indices() if i not in rule.free}
    rest = [bare(f) for k, f in enumerate(term.factors) if k not in factors]
    summed = [i for i in term.indices() if i not in free and i not in gone]
    fresh = count(1 + max((i.id for i in (*term.all_indices(), *free)), default=-1))
    at = {i: names[i] for i in rule.free}
    return [joined(term, [*rest, instance(t, at, fresh)], summed) for t in rule.right]


def _match(term: Monomial, free: frozenset[Index], rule: Rule) -> tuple[int, ...] | None:
    """Positions of factors that are an instance of the rule's left side."""
    pattern = rule.left.factors
    charge(5 * term.length)
    uses: dict[Index, int] = {}
    for factor in term.factors:
        for index in set(factor.all_indices()):
            uses[index] = uses.get(index, 0) + 1

    def search(k: int, chosen: tuple[int, ...], names: dict[Index, Index]) -> tuple[int, ...] | None:
        if k == len(pattern):
            return chosen if _private(rule, names, [term.factors[c] for c in chosen], uses, free) else None
        wanted = pattern[k]
        # Of equal factors one is tried, and equal factors of the rule take theirs in order: other choices are the same.
        first = chosen[-1] + 1 if k and pattern[k - 1] == wanted else 0
        charge(len(term.factors) - first)
        tried: set[Factor] = set()
        for position, factor in enumerate(term.factors[first:], first):
            if position in chosen or not isinstance(factor, TensorFactor) or factor.tensor != wanted.tensor:  # type: ignore[union-attr]
                continue
            if factor in tried:
                continue
            tried.add(factor)
            new = dict(names)
            if all(new.setdefault(a, b) == b for a, b in zip(wanted.indices, factor.indices, strict=True)):
                found = search(k + 1, (*chosen, position), new)
                if found is not None:
                    return found
        return None

    return search(0, (), {})


def _private(
    rule: Rule, names: dict[Index, Index], chosen: list[Factor], uses: dict[Index, int], free: frozenset[Index]
) -> bool:
    """Whether the indices that the rule sums are summed in the monomial, and in these factors only."""
    summed = [names[i] for i in rule.left.indices() if i not in rule.free]
    if len(set(summed)) < len(summed) or set(summed) & {names[i] for i in rule.free}:
        return False
    return all(i not in free and uses[i] == sum(i in f.indices for f in chosen) for i in summed)
