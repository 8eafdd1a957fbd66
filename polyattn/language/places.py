"""Functions over chosen places, `softmax[e](s where e <= a)`, in terms of functions over all places.

softmax[e](s where c)   softmax[e](s + log(c)), for log(0) is minus infinity; a row without a place is 0
max, logsumexp          the same; min of s - log(c)
sum[e](s where c)       sum[e](s*c); normalize likewise
mean[e](s where c)      sum[e](s*c) over the number of places, or over 1 without places
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from polyattn.language.syntax import Bracket, Call, Definition, Factor, Number, Sum, Term

_MASKED = {"softmax": False, "max": False, "logsumexp": False, "min": True, "largest": False}
"""The functions to whose argument the logarithm of the conditions is added, and whether it is subtracted."""


def everywhere(definition: Definition) -> Definition:
    """Return a definition whose functions run over all places."""
    body = definition.body
    if isinstance(body, Call):
        made = _call(body)
        return replace(definition, body=made if isinstance(made, Call) else made.body)
    return replace(definition, body=_sum(body))


def _sum(total: Sum) -> Sum:
    return Sum(tuple(replace(t, factors=tuple(map(_factor, t.factors))) for t in total.terms))


def _factor(factor: Factor) -> Factor:
    if isinstance(factor, Bracket):
        return replace(factor, body=_sum(factor.body))
    return _call(factor) if isinstance(factor, Call) else factor


def _call(call: Call) -> Call | Bracket:
    argument = _sum(call.argument)
    if not call.where:
        return replace(call, argument=argument)
    chosen = Term(False, call.where, (False,) * len(call.where), call.at)
    if call.function in _MASKED:
        kept = Call("log", (), Sum((chosen,)), call.at)
        last = Term(_MASKED[call.function], (kept,), (False,), call.at)
        return replace(call, argument=Sum((*argument.terms, last)), where=())
    terms = (
        replace(t, factors=(*t.factors, *call.where), divides=(*t.divides, *chosen.divides)) for t in argument.terms
    )
    product = Sum(tuple(terms))
    if call.function != "mean":
        return replace(call, argument=product, where=())
    total, number = Call("sum", call.over, product, call.at), Call("sum", call.over, Sum((chosen,)), call.at)
    one = Number(Fraction(1), call.at)
    none = Call("relu", (), Sum((_alone(one), replace(_alone(number), negative=True))), call.at)
    places = Bracket(Sum((_alone(number), _alone(none))), call.at)
    return Bracket(Sum((Term(False, (total, places), (False, True), call.at),)), call.at)


def _alone(factor: Factor) -> Term:
    return Term(False, (factor,), (False,), factor.at)
