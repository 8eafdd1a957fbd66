"""Laws of functions over chosen places: `softmax[e](s where c)`, the softmax of `s + log(c)` for a condition c.

Where c does not hold, `log(c)` is minus infinity, so that no law may move it; but `exp(s + log(c))` is `c*exp(s)`. A
softmax over no place is 0, hence its denominator is an `inverse`: 1/z, and 0 where z is 0. That of a sum which has a
place everywhere is the reciprocal, and so is one whose reciprocal the claim has.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import product

from polyattn.algebra import Monomial, TensorFactor
from polyattn.algebra.monomial import Factor, multiply_powers
from polyattn.algebra.order import parts
from polyattn.errors import BudgetError
from polyattn.language.conditions import AT_MOST, LESS
from polyattn.proving.certificate_terms import FlatSum
from polyattn.proving.given import access
from polyattn.proving.lawful import Law, LawfulProof

MAX_PARTS = 100
"""The largest number of weak orders that an argument is split by."""

INVERSE = "inverse"


def is_mask(proof: LawfulProof, factor: Factor) -> bool:
    """Return whether a factor is the logarithm of a condition, minus infinity where that does not hold."""
    f = proof.function(factor)
    return f is not None and proof.is_mask(f)


def divided(proof: LawfulProof, f: FlatSum) -> tuple[list[Monomial], list[TensorFactor]]:
    """Return an argument without the logarithms of conditions, and these."""
    masks: list[TensorFactor] = []
    rest: list[Monomial] = []
    for term in f.terms:
        if any(is_mask(proof, g) for g in term.factors):
            masks += [g for g in term.factors if isinstance(g, TensorFactor)]
        else:
            rest.append(term)
    return rest, masks


def places(proof: LawfulProof, f: FlatSum) -> list[FlatSum] | None:
    """softmax[e](s + log(c)) = c*exp(s)/sum[e](c*exp(s)), logsumexp[e](s + log(c)) = log(sum[e](c*exp(s)))"""
    rest, masks = divided(proof, f)
    if not masks:
        return None
    chosen = [proof.functions.sums[mask.tensor] for mask in masks]
    weights = [
        [t.renamed(dict(zip(c.slots, mask.indices, strict=True))) for t in c.terms]
        for c, mask in zip(chosen, masks, strict=True)
    ]
    letters = f.letters
    power = proof.new("exp", letters, rest)
    total = [_product((*ws, access(power.name, letters))) for ws in product(*weights)]
    if f.function == "logsumexp":
        made = [power, proof.new("log", f.slots, total)]
        products = [access(made[-1].name, f.slots)]
    else:
        slots = tuple(i for i in f.slots if i not in f.over)
        made = [power, proof.new(INVERSE, slots, total)]
        products = [_product((t, access(made[-1].name, slots))) for t in total]
    proof.law("places", f, made)
    proof.put(f, products)
    return made


def _product(factors: Sequence[Monomial]) -> Monomial:
    found = Monomial(Fraction(1), (), ())
    for one in factors:
        powers = multiply_powers(found.powers, one.powers)
        found = Monomial(found.coefficient * one.coefficient, powers, found.factors + one.factors)
    return found


def defined(proof: LawfulProof, f: FlatSum) -> list[FlatSum] | None:
    """inverse(s) = 1/s for s > 0, and inverse(0) = 0."""
    if f.terms and proof.positive(f.terms) < 2:
        return None
    made = [proof.new("reciprocal", f.slots, f.terms)] if f.terms else []
    proof.law("defined", f, made)
    proof.put(f, [access(m.name, f.slots) for m in made])
    return made


def inverses(proof: LawfulProof) -> None:
    """Replace inverses by the reciprocals of the claim, outside whose domain nothing is claimed."""
    settled = [proof.functions.sums[name] for name in dict.fromkeys(proof.settled.values())]
    known = {
        proof.key(proof.standing_alone(_called(f, INVERSE)), ()): f
        for f in settled
        if f.function == "reciprocal" and f.name not in proof.replaced
    }
    for f in settled:
        if f.function != INVERSE or f.name in proof.replaced:
            continue
        other = known.get(proof.key(proof.standing_alone(f), ()))
        if other is not None:
            letters, terms = proof.witness(_called(f, "reciprocal"), other)
            proof.law("defined", f, **{"as": other.name, "letters": letters, "terms": terms})
            proof.domain(other)
            proof.put(f, [access(other.name, tuple(f.slots[k] for k in letters))])


def _called(f: FlatSum, function: str) -> FlatSum:
    return FlatSum(f.name, f.slots, function, f.over, f.terms)


def in_order(proof: LawfulProof, f: FlatSum) -> None:
    """Split an argument with orders between positions by weak orders, so that equal ones have equal terms."""
    orders = [g for t in f.terms for g in t.factors if isinstance(g, TensorFactor) and g.tensor in (LESS, AT_MOST)]
    if not orders or any(is_mask(proof, g) for t in f.terms for g in t.factors):
        return
    if not set(f.slots) <= {i for t in f.terms for i in t.all_indices()}:  # the law of constants comes first
        return
    sizes = {i.size for g in orders for i in g.indices}
    split: list[Monomial] = []
    for term in f.terms:
        for part in parts(term, f.letters, sizes):
            split.append(f.ordered(part))
            if len(split) > MAX_PARTS:
                raise BudgetError(f"a function's argument has more than {MAX_PARTS} weak orders")
    proof.step(**{"order": sorted(sizes), "in": proof.called(f)})
    f.terms[:] = split


ROWS: dict[str, tuple[Law, ...]] = {"softmax": (places,), "logsumexp": (places,), INVERSE: (defined,)}
"""The laws of functions over chosen places, tried first."""
