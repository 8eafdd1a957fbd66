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
    """max(g(s)) = g(max(s)) for an increasing g, max(-g(s)) = -g(-max(-s)); g is a product of exponentials, or one."""
    own, masks = chosen.divided(proof, f)
    if len(own) != 1 or own[0].powers or abs(own[0].coefficient) != 1 or not own[0].factors:
        return None
    (term,) = own
    inner = [proof.function(factor) for factor in term.factors]
    kinds = {g and g.function for g in inner}
    if kinds != {"exp"} and not (len(inner) == 1 and inner[0] is not None and inner[0].function in INCREASING):
        return None
    terms: list[Monomial] = []
    for factor, g in zip(term.factors, inner, strict=True):
        assert g is not None
        proof.domain(g)
        terms += [t.scaled(term.coefficient) for t in at(g, factor.indices, (*f.letters, *term.all_indices()))]
    terms += [access(mask.tensor, mask.indices) for mask in masks]
    most = proof.new("max", f.slots, terms, tuple(i for i in f.letters if i in f.over))
    (kind,) = kinds
    one = proof.new(str(kind), f.slots, [access(most.name, f.slots).scaled(term.coefficient)])
    proof.law("monotone", f, [most, one], sign=int(term.coefficient))
    proof.put(f, [access(one.name, f.slots).scaled(term.coefficient)])
    return [most, one]


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
