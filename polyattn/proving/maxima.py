"""Laws of relu and of maxima: their signs, shifts and bounds, and increasing functions of maxima."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from polyattn.algebra import Index, Monomial
from polyattn.proving import chosen
from polyattn.proving.certificate_terms import FlatSum
from polyattn.proving.content import is_negative
from polyattn.proving.given import access
from polyattn.proving.lawful import LawfulProof


def one_sign(proof: LawfulProof, f: FlatSum) -> list[FlatSum] | None:
    """relu(s) = s for s >= 0, 0 for s <= 0; of relu(s) and relu(-s) = relu(s) - s one is kept."""
    minus = [t.scaled(Fraction(-1)) for t in f.terms]
    if proof.positive(f.terms) or proof.positive(minus):
        proof.law("sign", f)
        proof.put(f, list(f.terms) if proof.positive(f.terms) else [])
        return []
    if not is_negative(proof, f):
        return None
    made = proof.new("relu", f.slots, minus)
    proof.law("relu", f, [made])
    proof.put(f, [access(made.name, f.slots), *f.terms])
    return [made]


def shift(proof: LawfulProof, f: FlatSum) -> list[FlatSum] | None:
    """max[e](s + t) = max[e](s) + t for t without e."""
    masks = {g for t in f.terms for g in t.factors if chosen.is_mask(proof, g)}
    own = [k for k, t in enumerate(f.terms) if not set(t.factors) & masks]
    out = [k for k in own if not set(f.over) & set(f.terms[k].all_indices())]
    if not out:
        return None
    rest = [t for k, t in enumerate(f.terms) if k not in out] if len(out) < len(own) else []
    made = [proof.new("max", f.slots, rest, tuple(i for i in f.letters if i in f.over))] if rest else []
    proof.law("shift", f, made, terms=out)
    proof.put(f, [*(f.terms[k] for k in out), *(access(m.name, f.slots) for m in made)])
    return made


INCREASING = ("relu", "sqrt", "log")


def monotone(proof: LawfulProof, f: FlatSum) -> list[FlatSum] | None:
    """max(g(s)) = g(max(s)) for an increasing g, g(-max(-s)) for a decreasing one, and the same for max(-g(s)).

    g is a product of exponentials, or one function; reciprocals decrease where their argument is above 0.
    """
    own, masks = chosen.divided(proof, f)
    if len(own) != 1 or own[0].powers or abs(own[0].coefficient) != 1 or not own[0].factors:
        return None
    (term,) = own
    inner = [proof.function(factor) for factor in term.factors]
    kinds = {g and g.function for g in inner}
    falls = len(inner) == 1 and inner[0] is not None and kinds == {"reciprocal"} and proof.positive(inner[0].terms) == 2
    if kinds != {"exp"} and not falls and not (len(inner) == 1 and kinds <= set(INCREASING)):
        return None
    sign = -term.coefficient if falls else term.coefficient
    terms: list[Monomial] = []
    for factor, g in zip(term.factors, inner, strict=True):
        assert g is not None
        proof.domain(g)
        terms += [t.scaled(sign) for t in at(g, factor.indices, (*f.letters, *term.all_indices()))]
    terms += [access(mask.tensor, mask.indices) for mask in masks]
    most = proof.new("max", f.slots, terms, tuple(i for i in f.letters if i in f.over))
    (kind,) = kinds
    one = proof.new(str(kind), f.slots, [access(most.name, f.slots).scaled(sign)])
    proof.law("monotone", f, [most, one], sign=int(term.coefficient))
    proof.put(f, [access(one.name, f.slots).scaled(term.coefficient)])
    return [most, one]


def separate(proof: LawfulProof, f: FlatSum) -> list[FlatSum] | None:
    """max[d,e](s + t) = max[d](s) + max[e](t) for s without e and t without d."""
    groups: list[tuple[set[Index], list[int]]] = []
    for k, term in enumerate(f.terms):
        if any(chosen.is_mask(proof, g) for g in term.factors):
            return None
        own, terms = set(f.over) & set(term.all_indices()), [k]
        for other in [g for g in groups if g[0] & own]:
            groups.remove(other)
            own, terms = own | other[0], other[1] + terms
        groups.append((own, terms))
    if len(groups) < 2:
        return None
    made = [
        proof.new("max", f.slots, [f.terms[k] for k in terms], tuple(i for i in f.letters if i in own))
        for own, terms in groups
    ]
    proof.law("parts", f, made, parts=[terms for _, terms in groups])
    proof.put(f, [access(m.name, f.slots) for m in made])
    return made


def clipped(proof: LawfulProof, f: FlatSum) -> list[FlatSum] | None:
    """relu(c - n*relu(s)) = relu(c - n*s) - relu(-n*s) for c >= 0, and relu(n*relu(s) - c) = relu(n*s - c).

    For each relu(s), relu(-s) + s is tried, too: that can give a c of one sign.
    """
    for k, term in enumerate(f.terms):
        inner = proof.function(term.factors[0]) if len(term.factors) == 1 else None
        if inner is None or inner.function != "relu" or not set(term.factors[0].indices) <= set(f.slots):
            continue
        rest = [t for j, t in enumerate(f.terms) if j != k]
        s = at(inner, term.factors[0].indices, f.letters)
        scaled = [t.scaled(term.coefficient, term.powers) for t in s]
        sign = Fraction(-1 if term.coefficient > 0 else 1)
        if rest and proof.positive([t.scaled(sign) for t in rest]):
            return _clip(proof, f, k, rest, scaled)
        bound = _added(proof, f, [*rest, *scaled])
        if not bound or not (proof.positive(bound) or proof.positive([t.scaled(Fraction(-1)) for t in bound])):
            continue
        back = proof.new("relu", f.slots, [t.scaled(Fraction(-1)) for t in s])
        last = access(back.name, f.slots).scaled(term.coefficient, term.powers)
        turned = proof.new("relu", f.slots, [*rest, *scaled, last])
        proof.law("turn", f, [back, turned], term=k)
        proof.put(f, [access(turned.name, f.slots)])
        proof.gather(turned)
        if not proof.positive([t.scaled(sign) for t in bound]):
            return [back, *(one_sign(proof, turned) or [])]
        place = next(j for j, t in enumerate(turned.terms) if t.names == last.names)
        rest = [t for j, t in enumerate(turned.terms) if j != place]
        return _clip(proof, turned, place, rest, [t.scaled(Fraction(-1)) for t in scaled])
    return None


def _clip(
    proof: LawfulProof, f: FlatSum, place: int, rest: Sequence[Monomial], scaled: Sequence[Monomial]
) -> list[FlatSum]:
    """Use the law with c = `rest` and the inner relu's argument times its factor."""
    falls = f.terms[place].coefficient < 0
    made = [proof.new("relu", f.slots, [*rest, *scaled])]
    if falls:
        made.append(proof.new("relu", f.slots, scaled))
    proof.law("clip", f, made, (), [t.scaled(Fraction(1 if falls else -1)) for t in rest], term=place)
    first, *second = (access(m.name, f.slots) for m in made)
    proof.put(f, [first, *(t.scaled(Fraction(-1)) for t in second)])
    return made


def _added(proof: LawfulProof, f: FlatSum, terms: Sequence[Monomial]) -> list[Monomial]:
    """Return a sum with equal terms added up."""
    found: dict[object, Monomial] = {}
    for term in map(f.ordered, terms):
        old = found.setdefault(proof.key(term, f.letters), term.scaled(Fraction(0)))
        found[proof.key(term, f.letters)] = Monomial(old.coefficient + term.coefficient, old.powers, old.factors)
    return [t for t in found.values() if t.coefficient]


def compared(proof: LawfulProof, f: FlatSum) -> list[FlatSum] | None:
    """relu(exp(s) - exp(t)) = (exp(relu(s - t)) - 1)*exp(t), for products of exponentials, too."""
    if len(f.terms) != 2 or {t.coefficient for t in f.terms} != {Fraction(1), Fraction(-1)}:
        return None
    up, down = sorted(f.terms, key=lambda t: -t.coefficient)
    s: list[Monomial] = []
    for term in (up, down):
        for factor in term.factors:
            inner = proof.function(factor)
            if inner is None or inner.function != "exp" or not set(factor.indices) <= set(f.slots):
                return None
            s += [t.scaled(term.coefficient) for t in at(inner, factor.indices, f.letters)]
    if up.powers or down.powers:
        return None
    most = proof.new("relu", f.slots, s)
    power = proof.new("exp", f.slots, [access(most.name, f.slots)])
    proof.law("compare", f, [most, power])
    proof.put(f, [Monomial(Fraction(1), (), (*access(power.name, f.slots).factors, *down.factors)), down])
    return [most, power]


def merge(proof: LawfulProof, f: FlatSum) -> list[FlatSum] | None:
    """max[g](max[m](s)) = max[g,m](s)"""
    if len(f.terms) != 1 or f.terms[0].powers or f.terms[0].coefficient != 1 or len(f.terms[0].factors) != 1:
        return None
    (factor,) = f.terms[0].factors
    inner = proof.function(factor)
    if inner is None or inner.function != "max" or not set(factor.indices) <= set(f.letters):
        return None
    start = 1 + max(i.id for t in (*f.terms, *inner.terms) for i in (*f.letters, *inner.letters, *t.all_indices()))
    have = {i for t in inner.terms for i in t.all_indices()} | set(inner.over)
    names = {i: Index(start + k, i.size) for k, i in enumerate(sorted(have))}
    names |= dict(zip(inner.slots, factor.indices, strict=True))
    over = [*(i for i in f.letters if i in f.over), *(names[i] for i in inner.letters if i in inner.over)]
    made = proof.new("max", f.slots, [t.renamed(names) for t in inner.terms], over)
    proof.law("merge", f, [made])
    proof.put(f, [access(made.name, f.slots)])
    return [made]


def at(f: FlatSum, indices: Sequence[Index], taken: Sequence[Index]) -> list[Monomial]:
    """Return the argument of a function at other indices of its slots, with summed indices of its own."""
    start = 1 + max((i.id for t in f.terms for i in (*taken, *indices, *f.letters, *t.all_indices())), default=0)
    names = {i: Index(start + k, i.size) for k, i in enumerate(sorted({i for t in f.terms for i in t.all_indices()}))}
    names |= dict(zip(f.slots, indices, strict=True))
    return [t.renamed(names) for t in f.terms]
