"""Definitions that a person would not write are put into those that use them; nothing is multiplied out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction

from polyattn.language.functions import KEEPING, kind
from polyattn.reading.builder import push
from polyattn.reading.numbers import exact
from polyattn.reading.values import (
    ONE,
    Access,
    Affine,
    Body,
    Call,
    Coefficient,
    Index,
    Pick,
    Slot,
    Sum,
    Tensor,
    Term,
    free_copy,
    indices_of,
    map_access,
    map_sum,
    power_of,
    walk,
    with_terms,
)

MAX_FACTORS = 4
"""A product of more factors is written with definitions."""


def simplified(output: Tensor) -> None:
    """Simplify the definitions below the output, in place."""
    for _ in range(20):
        order = [t for t in walk(output) if t.kind == "definition"]
        uses = Counter(f.tensor for t in order for f in _accesses(t.body))
        # All of them, not up to the first that changes.
        changed = [_simplify(t, uses) for t in order]
        if not any(changed):
            break
    for tensor in walk(output):
        tensor.body = _with_sizes(tensor)


def _with_sizes(tensor: Tensor) -> Body:
    """Return a definition with 1/sqrt(D), or 1/C, for a number of this value where a product sums over D, or C."""
    body = tensor.body
    free = set(tensor.indices) | (set(body.over) if isinstance(body, Call) else set())

    def named(term: Term) -> Term:
        for index in dict.fromkeys(i for i in term.indices if i not in free and i.size.fixed):
            length = index.size.example
            for power in (Fraction(-1, 2), Fraction(-1)):
                number = (
                    exact(float(length) ** float(power)) if power.denominator > 1 else Coefficient(Fraction(1, length))
                )
                plain = Coefficient(abs(term.coefficient.number), term.coefficient.powers)
                if length > 1 and plain == number:
                    sign = Coefficient(Fraction(-1 if term.coefficient.number < 0 else 1))
                    return replace(term, coefficient=sign * power_of(index.size, power))
        return term

    return with_terms(body, lambda terms: tuple(map(named, terms)))


def _accesses(body: Body) -> list[Access]:
    return [f for t in (body.argument if isinstance(body, Call) else body) for f in t.factors]


def _simplify(tensor: Tensor, uses: Counter[Tensor]) -> bool:
    body = tensor.body
    free = set(tensor.indices) | (set(body.over) if isinstance(body, Call) else set())
    terms = body.argument if isinstance(body, Call) else body
    # A number times a definition goes into what uses it: it is not spread over a sum.
    alone = not isinstance(body, Call) and len(terms) == 1 and terms[0].coefficient != ONE and uses[tensor] > 0
    new: list[Term] = []
    for term in terms:
        new += _simplified_term(term, free, uses, body if isinstance(body, Call) else None, alone)
    result = tuple(new)
    if not isinstance(body, Call):
        result = _only_call(tensor, result, uses)
    else:
        result = replace(body, argument=result)
    changed = result != body
    tensor.body = result
    return changed


def _only_call(tensor: Tensor, terms: Sum, uses: Counter[Tensor]) -> Body:
    """Return the function itself where a definition only passes its result on."""
    if len(terms) != 1 or len(terms[0].factors) != 1:
        return terms
    (term,), (access,) = terms, terms[0].factors
    inner = access.tensor
    if not isinstance(inner.body, Call) or access.divides or term.coefficient.number != 1 or term.coefficient.powers:
        return terms
    plain = all(len(slot) == 1 and isinstance(slot[0], Index) for slot in access.slots)
    if uses[inner] != 1 or not plain or set(access.indices) != set(tensor.indices):
        return terms
    if len(set(access.indices)) != len(access.slots):
        return terms
    mapping = dict(zip(inner.indices, access.slots, strict=True))
    kept = [*inner.indices, *inner.body.over]
    over = tuple(mapping[i][0] if i in mapping else i for i in inner.body.over)
    argument = map_sum(free_copy(inner.body.argument, kept), mapping)
    where = tuple(map_access(c, mapping) for c in inner.body.where)
    return Call(inner.body.function, tuple(i for i in over if isinstance(i, Index)), argument, where)


def _simplified_term(term: Term, free: set[Index], uses: Counter[Tensor], call: Call | None, whole: bool) -> list[Term]:
    in_call, along = call is not None, call is not None and bool(call.over)
    term = _without_picks(term, free)
    for place, factor in enumerate(term.factors):
        inner = factor.tensor
        if inner.kind == "onehot" or inner.kind != "definition" or isinstance(inner.body, Call):
            continue
        if any(not isinstance(e, Index) for slot in factor.slots for e in slot):
            continue
        terms = inner.body
        # A function along offsets leaves out the places outside, which a definition is 0 at.
        if along and any(_has_offsets(f) for t in terms for f in t.factors):
            continue
        if not terms and not factor.divides:
            return []
        if len(terms) == 1 and _is_alias(terms[0], inner, factor):
            return [_put_in(term, place, terms[0], free)]
        if factor.divides or uses[inner] > 1:
            continue
        if len(terms) == 1:
            found = _put_in(term, place, terms[0], free)
            many = sum(f.tensor.kind != "onehot" for f in found.factors) > MAX_FACTORS
            if (not many or len(term.factors) == 1) and (not in_call or _sums_inside(found, free)):
                return [found]
        elif len(term.factors) == 1 and not whole:
            spliced = [_put_in(term, place, t, free) for t in terms]
            if not in_call or all(_sums_inside(t, free) for t in spliced):
                return spliced
    return [term]


def _has_offsets(access: Access) -> bool:
    return any(isinstance(e, Affine) for slot in access.slots for e in slot)


def _is_alias(term: Term, inner: Tensor, factor: Access) -> bool:
    """Return whether a definition is a number, or another tensor's entries times one, without a sum."""
    if not term.factors:
        return True
    first, *others = term.factors
    if others or (factor.divides and first.divides):
        return False
    return set(term.indices) <= set(inner.indices)


def _put_in(term: Term, place: int, inner: Term, free: set[Index]) -> Term:
    """Return a product with one of its factors replaced by the product that defines it."""
    factor = term.factors[place]
    mapping: dict[Index, Slot] = dict(zip(factor.tensor.indices, factor.slots, strict=True))
    (copied,) = free_copy((inner,), mapping)
    factors = tuple(replace(f, divides=f.divides != factor.divides) for f in map_sum((copied,), mapping)[0].factors)
    scale = copied.coefficient.inverse() if factor.divides else copied.coefficient
    found = Term(term.coefficient * scale, (*term.factors[:place], *factors, *term.factors[place + 1 :]))
    # An index that the product no longer has was summed: each of its entries counts.
    for index in set(term.indices) - free - set(found.indices):
        found = replace(found, coefficient=found.coefficient * power_of(index.size))
    return found


def _sums_inside(term: Term, free: set[Index]) -> bool:
    """Return whether the language takes every summed index of a function's argument as summed there."""
    counts = Counter(i for f in term.factors for i in dict.fromkeys(f.indices))
    return all(counts[i] > 1 for i in term.indices if i not in free)


def _without_picks(term: Term, free: set[Index]) -> Term:
    """Return a product without the sums over one entry."""
    for place, factor in enumerate(term.factors):
        if factor.tensor.kind != "onehot" or factor.divides or len(factor.slots[0]) != 1:
            continue
        (index,) = factor.slots[0]
        if not isinstance(index, Index) or index in free:
            continue
        others = [f for k, f in enumerate(term.factors) if k != place]
        if any(not _can_push(f, index) for f in others):
            continue
        entry: dict[Index, Slot] = {index: (Pick(factor.tensor.number, index.size),)}
        factors = tuple(push(map_access(f, entry)) for f in others)
        return _without_picks(replace(term, factors=factors), free)
    return term


def _can_push(access: Access, index: Index) -> bool:
    """Return whether an entry of an index can be taken out of a tensor without a further factor."""
    for slot, own in zip(access.slots, access.tensor.indices or access.slots, strict=False):
        if all(index not in indices_of(e) for e in slot):
            continue
        if access.tensor.kind in ("input", "condition") or index not in slot:
            return False
        if access.tensor.kind == "onehot":
            return len(slot) == 1
        body = access.tensor.body
        if isinstance(body, Call) and kind(body.function) == KEEPING and own in body.over:
            return False
        if access.tensor.kind == "definition":
            inside = _accesses(body)
            return all(_can_push(f, own) for f in inside if own in f.indices) if isinstance(own, Index) else False
    return True
