"""Given equations applied to monomials: definitions substituted, symmetric slots ordered, rules applied.

Every function returns sums equal to its arguments wherever the given equations hold; the converse is not claimed. The
order of the result is part of the contract, since certificates refer to it.
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
    """Return the monomial with identities contracted, those inside functions included; other factors keep their
    order."""
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
    """Return the positions of the factors other than identities."""
    return tuple(k for k, f in enumerate(term.factors) if not (isinstance(f, TensorFactor) and f.tensor == IDENTITY))


def substituted(terms: Sequence[Monomial], free: frozenset[Index], definition: Substitution) -> tuple[Monomial, ...]:
    """Return the sum with a definition substituted for each access of its tensor, inside functions too."""
    found: list[Monomial] = []
    for term in terms:
        # Fresh indices above the term's own and the free ones: substituted sums may not capture either.
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
    # Refused before the product is enumerated.
    if prod(map(len, choices)) > MAX_MONOMIALS:
        raise BudgetError(f"with {definition.text!r} put in there are more than {MAX_MONOMIALS} monomials")
    summed = [i for i in term.indices() if i not in free]
    for chosen in product(*choices):
        charge(10 * (10 + sum(part.length for part in chosen)))
        yield joined(term, chosen, summed)


def joined(term: Monomial, parts: Sequence[Monomial], summed: Sequence[Index]) -> Monomial:
    """Return the product of parts with a monomial's coefficient; summed indices found in no part count by their
    size."""
    factors = tuple(f for part in parts for f in part.factors)
    have = {i for f in factors for i in f.indices}
    number, powers = size_product(i.size for i in summed if i not in have)
    number, powers = number * term.coefficient, multiply_powers(powers, term.powers)
    for part in parts:
        number, powers = number * part.coefficient, multiply_powers(powers, part.powers)
    return writable(Monomial(number, powers, factors))


def _alternatives(factor: Factor, definition: Substitution, fresh: Iterator[int]) -> list[Monomial]:
    """Return the monomials that a factor stands for."""
    if isinstance(factor, FunctionFactor):
        terms = tuple(
            contract_identities(new, factor.local)
            for t in factor.terms
            for new in _substituted(t, factor.local, definition, fresh)
        )
        # Inside a function only its argument grows; the function stays one factor.
        return [bare(_with_terms(factor, terms))]
    if factor.tensor != definition.tensor:
        return [bare(factor)]
    return [instance(t, dict(zip(definition.target, factor.indices, strict=True)), fresh) for t in definition.terms]


def bare(factor: Factor) -> Monomial:
    return Monomial(Fraction(1), (), (factor,))


def instance(term: Monomial, names: Mapping[Index, Index], fresh: Iterator[int]) -> Monomial:
    """Return a copy of a monomial at other indices, with summed indices of its own."""
    own = {i: Index(next(fresh), i.size) for i in dict.fromkeys(term.all_indices()) if i not in names}
    return term.renamed({**names, **own})


def _with_terms(factor: FunctionFactor, terms: tuple[Monomial, ...]) -> FunctionFactor:
    """Return the function of another argument, without free indices lost by it."""
    present = {i for t in terms for i in t.indices()}
    free = tuple(i for i in factor.free if i in present)
    return FunctionFactor(factor.function, factor.over, free, terms, factor.at)


@dataclass(frozen=True)
class Use:
    """A use of a rule: the monomial, and the factors matched, in the order of the rule's left side."""

    place: Place
    factors: tuple[int, ...]


def first_use(terms: Sequence[Monomial], free: frozenset[Index], rule: Rule) -> Use | None:
    """Return the first place where a rule applies, outside before inside; None if it applies nowhere."""
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
    """Return the sum with a rule applied at one place."""
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
    # Indices summed by the rule are used up; the rest of the term's sums stay.
    gone = {names[i] for i in rule.left.indices() if i not in rule.free}
    rest = [bare(f) for k, f in enumerate(term.factors) if k not in factors]
    summed = [i for i in term.indices() if i not in free and i not in gone]
    fresh = count(1 + max((i.id for i in (*term.all_indices(), *free)), default=-1))
    at = {i: names[i] for i in rule.free}
    return [joined(term, [*rest, instance(t, at, fresh)], summed) for t in rule.right]


def _match(term: Monomial, free: frozenset[Index], rule: Rule) -> tuple[int, ...] | None:
    """Return positions of factors that are an instance of the rule's left side."""
    pattern = rule.left.factors
    charge(5 * term.length)
    uses: dict[Index, int] = {}
    for factor in term.factors:
        for index in set(factor.all_indices()):
            uses[index] = uses.get(index, 0) + 1

    def search(k: int, chosen: tuple[int, ...], names: dict[Index, Index]) -> tuple[int, ...] | None:
        if k == len(pattern):
            # Only a complete match can tell whether the summed indices occur elsewhere.
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
            # `setdefault` binds a letter of the rule at its first slot and compares it at the others.
            if all(new.setdefault(a, b) == b for a, b in zip(wanted.indices, factor.indices, strict=True)):
                found = search(k + 1, (*chosen, position), new)
                if found is not None:
                    return found
        return None

    return search(0, (), {})


def _private(
    rule: Rule, names: dict[Index, Index], chosen: list[Factor], uses: dict[Index, int], free: frozenset[Index]
) -> bool:
    """Return whether the rule's summed indices are summed in the monomial, and occur in these factors only."""
    summed = [names[i] for i in rule.left.indices() if i not in rule.free]
    # Two summed letters may not meet in one index, nor in a free one: that would be a diagonal, not a
    # sum.
    if len(set(summed)) < len(summed) or set(summed) & {names[i] for i in rule.free}:
        return False
    return all(i not in free and uses[i] == sum(i in f.indices for f in chosen) for i in summed)
