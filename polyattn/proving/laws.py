"""The laws of functions, one row for each function: its replacements, tried in the order of the row.

A law is a function of the proof and of a function in it. It records its step, puts products in the function's place
and returns the new functions in them, or None where it does not apply. Functions in terms of others are text, in
`language.functions.TABLE`.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from fractions import Fraction
from math import gcd, prod

from polyattn.algebra import Index, Monomial, TensorFactor
from polyattn.algebra.monomial import multiply_powers
from polyattn.language.functions import TABLE
from polyattn.proving import chosen
from polyattn.proving.certificate_terms import FlatSum
from polyattn.proving.content import content, is_negative, parts
from polyattn.proving.given import access
from polyattn.proving.lawful import Law, LawfulProof
from polyattn.proving.maxima import at, clipped, compared, merge, monotone, one_sign, separate, shift
from polyattn.proving.roots import root

MAX_EXPONENT = 16
"""The largest power of an atom that the exponential of a multiple is taken for."""


class ZeroDenominatorError(Exception):
    """A denominator is 0 whatever its tensors are."""


def rows(function: str) -> tuple[Law, ...]:
    """Return the laws of a function, in the order in which they are tried."""
    own = ROWS.get(function, ())
    by_table = function in TABLE and TABLE[function].law and table not in own and function not in OPAQUE
    return (constant, *chosen.ROWS.get(function, ()), *((table,) if by_table else ()), *own)


OPAQUE = ("gelu_gate",)
"""Functions that proofs take as they are, although they have an expression in others; see `by_cases`."""


def rows_with_norms(function: str) -> tuple[Law, ...]:
    """Return the laws of a function, with that of `normalize`, which only holds for norms not below its least one."""
    return (norm, *rows(function)) if function == "normalize" else rows(function)


def norm(proof: LawfulProof, f: FlatSum) -> list[FlatSum] | None:
    """normalize(s) = s/sum(|s|)"""
    return _by_text(proof, f, "normalize", "s/sum(abs(s))", f.terms) if f.name in proof.claimed else None


# Functions in terms of others.
def table(proof: LawfulProof, f: FlatSum) -> list[FlatSum] | None:
    """Use a function's expression in `language.functions.TABLE`."""
    return _by_text(proof, f, f.function, TABLE[f.function].law, f.terms)


def composed(proof: LawfulProof, f: FlatSum) -> list[FlatSum] | None:
    """Use the law of a function whose argument is just another function."""
    if len(f.terms) != 1 or f.terms[0].powers or len(f.terms[0].factors) != 1:
        return None
    (factor,), number = f.terms[0].factors, f.terms[0].coefficient
    inner = proof.function(factor)
    if inner is None or inner.over or number.numerator != 1 or not set(factor.indices) <= set(f.slots):
        return None
    law = f"{f.function} {inner.function}" + (f"/{number.denominator}" if number != 1 else "")
    if law not in COMPOSED:
        return None
    return _by_text(proof, f, law, COMPOSED[law], at(inner, factor.indices, f.letters), inner)


COMPOSED = {
    "exp log": "s",
    "exp log/2": "sqrt(s)",
    "log exp": "s",
    "log reciprocal": "-log(s)",
    "log sqrt": "1/2*log(s)",
    "reciprocal reciprocal": "s",
    "reciprocal sqrt": "sqrt(s)/s",
    "sqrt exp": "exp(1/2*s)",
    "sqrt reciprocal": "sqrt(s)/s",
}
"""A function of another one of s, as an expression of s."""


def _by_text(
    proof: LawfulProof, f: FlatSum, law: str, text: str, s: Sequence[Monomial], inner: FlatSum | None = None
) -> list[FlatSum]:
    reader = _Reader(proof, f, s)
    _, products = reader.value(ast.parse(text, mode="eval").body)
    made = [new for _, new in reader.made.values()]
    if inner is not None:
        proof.domain(inner)
    proof.law(law, f, made)
    proof.put(f, products)
    return made


class _Reader:
    """An expression of a function's argument `s`, as products; equal parts are one new function."""

    def __init__(self, proof: LawfulProof, f: FlatSum, s: Sequence[Monomial]):
        self.proof, self.f, self.s = proof, f, list(s)
        self.made: dict[str, tuple[tuple[Index, ...], FlatSum]] = {}

    def value(self, node: ast.expr) -> tuple[tuple[Index, ...], list[Monomial]]:
        """Return the free indices of a part, and its products."""
        letters = self.f.letters
        match node:
            case ast.Constant(value=int(number)):
                return letters, [Monomial(Fraction(number), (), ())]
            case ast.Name():
                return letters, self.s
            case ast.UnaryOp(operand=operand):
                free, terms = self.value(operand)
                return free, [t.scaled(Fraction(-1)) for t in terms]
            case ast.Call(func=ast.Name(id="sum"), args=[argument]):
                free, terms = self.value(argument)
                return tuple(i for i in free if i not in self.f.over), terms
            case ast.Call(func=ast.Name(id=name), args=[argument]):
                return self.called(name, *self.value(argument), ast.dump(node))
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
                free, terms = self.value(left)
                sign = Fraction(1 if isinstance(op, ast.Add) else -1)
                return free, [*terms, *(t.scaled(sign) for t in self.value(right)[1])]
            case ast.BinOp(left=left, op=op, right=right):
                free, terms = self.value(left)
                other, factors = self.value(right)
                if isinstance(op, ast.Div):
                    if isinstance(right, ast.Constant):
                        factors = [Monomial(1 / factors[0].coefficient, (), ())]
                    else:
                        other, factors = self.called("reciprocal", other, factors, "1/" + ast.dump(right))
                return free, [
                    Monomial(t.coefficient * g.coefficient, multiply_powers(t.powers, g.powers), t.factors + g.factors)
                    for t in terms
                    for g in factors
                ]
        raise AssertionError(ast.dump(node))

    def called(self, function: str, free: Sequence[Index], terms: Sequence[Monomial], key: str):
        if key not in self.made:
            over = tuple(i for i in self.f.letters if i in self.f.over) if function == "max" else ()
            slots = tuple(i for i in free if i not in over)
            self.made[key] = slots, self.proof.new(function, slots, terms, over)
        slots, made = self.made[key]
        return slots, [access(made.name, slots)]


# Laws of many functions.
def constant(proof: LawfulProof, f: FlatSum) -> list[FlatSum] | None:
    """Leave out slots along which a function is constant."""
    present = {i for t in f.terms for i in t.all_indices()}
    kept = tuple(i for i in f.slots if i in f.over or i in present)
    if len(kept) == len(f.slots):
        return None
    made = proof.new(f.function, kept, f.terms, tuple(i for i in f.letters if i in f.over))
    proof.law("constant", f, [made])
    proof.put(f, [access(made.name, kept)])
    return [made]


# Laws of one function.
def exponential(proof: LawfulProof, f: FlatSum) -> list[FlatSum] | None:
    """Write the exponential of a sum as a product of powers of atoms, the exponentials of monomials."""
    splits = -1
    powers: list[int] = []
    while splits != proof.splits:  # an atom that is split changes the others
        splits = proof.splits
        powers = [_power(proof, f, term) for term in f.terms]
    if powers == [1]:
        return None
    made, factors = [], []
    for term, power in zip(f.terms, powers, strict=True):
        new = proof.new("exp", f.slots, [term.scaled(Fraction(1, power))])
        made.append(new)
        if power < 0:
            new = proof.new("reciprocal", f.slots, [access(new.name, f.slots)])
            made.append(new)
        factors += [TensorFactor(new.name, f.slots)] * abs(power)
    proof.law("exp", f, made, powers=powers)
    proof.put(f, [Monomial(Fraction(1), (), tuple(factors))])
    return made


def _power(proof: LawfulProof, f: FlatSum, term: Monomial) -> int:
    """Return the power of the atom that the exponential of a term is."""
    key, number = (f.function == "exp", unit_key(proof, f, term)), term.coefficient
    old = proof.bases.get(key)
    if old is None:
        whole = f.function == "exp" and _has_powers(proof, term) and number.denominator <= 2
        old = Fraction(1, number.denominator) if whole else abs(number)
        proof.bases[key] = old
    if abs(number) == old:
        return 1 if number > 0 else -1
    base = Fraction(
        gcd(old.numerator * number.denominator, abs(number.numerator) * old.denominator),
        old.denominator * number.denominator,
    )
    if max(old / base, abs(number) / base) > MAX_EXPONENT:
        return 1 if number > 0 else -1
    if base != old:
        proof.bases[key] = base
        _split(proof, key, int(old / base))
    return int(number / base)


def _has_powers(proof: LawfulProof, term: Monomial) -> bool:
    """Return whether the powers of the exponential of a term are known: of a logarithm or a relu."""
    inner = proof.function(term.factors[0]) if len(term.factors) == 1 and not term.powers else None
    return inner is not None and inner.function in ("log", "relu")


def unit_key(proof: LawfulProof, f: FlatSum, term: Monomial):
    """Return a key that the exponentials of multiples of a term share."""
    unit = Monomial(Fraction(1), term.powers, term.factors)
    have = set(term.all_indices())
    alone = FlatSum("", tuple(i for i in f.slots if i in have), "exp", (), [unit])
    return proof.key(proof.standing_alone(alone), ())


def _split(proof: LawfulProof, key, power: int) -> None:
    """Write the atoms of this key as powers of new ones."""
    kinds = ("exp",) if key[0] else ("cos", "sin")
    settled = [f for f in map(proof.function, proof.settled.values()) if f is not None and f.function in kinds]
    atoms = [f for f in settled if len(f.terms) == 1 and unit_key(proof, f, f.terms[0]) == key[1]]
    if not atoms:
        return
    proof.splits += 1
    for atom in atoms:
        if key[0]:
            new = proof.new("exp", atom.slots, [atom.terms[0].scaled(Fraction(1, power))])
            proof.law("exp", atom, [new], powers=[power])
            proof.put(atom, [Monomial(Fraction(1), (), (TensorFactor(new.name, atom.slots),) * power)])
            made = [new]
        else:
            made = _turn(proof, atom, [power])
        for new in made:
            proof.settle(new.name)
    proof.normalise_anew()


def angles(proof: LawfulProof, f: FlatSum) -> list[FlatSum] | None:
    """Write the sine or cosine of a sum by those of its monomials."""
    if not f.terms:
        return _by_text(proof, f, "angles", str(int(f.function == "cos")), f.terms)
    splits = -1
    powers: list[int] = []
    while splits != proof.splits:
        splits = proof.splits
        powers = [_power(proof, f, term) for term in f.terms]
    if powers == [1] or prod(1 + abs(p) for p in powers) > MAX_TURNED:
        return None
    return _turn(proof, f, powers)


MAX_TURNED = 32
"""The most products that the sine of a sum is written as."""


def _turn(proof: LawfulProof, f: FlatSum, powers: Sequence[int]) -> list[FlatSum]:
    made: list[FlatSum] = []
    one = Monomial(Fraction(1), (), ())
    real: list[Monomial] = [one]
    imaginary: list[Monomial] = []

    def times(terms: Sequence[Monomial], factor: TensorFactor, sign: int) -> list[Monomial]:
        return [Monomial(sign * t.coefficient, (), (*t.factors, factor)) for t in terms]

    for term, power in zip(f.terms, powers, strict=True):
        cos, sin = (proof.new(name, f.slots, [term.scaled(Fraction(1, power))]) for name in ("cos", "sin"))
        made += [cos, sin]
        c, s, sign = TensorFactor(cos.name, f.slots), TensorFactor(sin.name, f.slots), 1 if power > 0 else -1
        for _ in range(abs(power)):
            real, imaginary = (
                times(real, c, 1) + times(imaginary, s, -sign),
                times(imaginary, c, 1) + times(real, s, sign),
            )
    proof.law("angles", f, made, powers=list(powers))
    proof.put(f, real if f.function == "cos" else imaginary)
    return made


def reciprocal(proof: LawfulProof, f: FlatSum) -> list[FlatSum] | None:
    """Refuse a denominator that is 0."""
    if not f.terms:
        raise ZeroDenominatorError
    return None


def complement(proof: LawfulProof, f: FlatSum) -> list[FlatSum] | None:
    """g(-s) = 1 - g(s) for the distribution of the normal law and the gate of `gelu_tanh`."""
    return _by_text(proof, f, f.function, f"1 - {f.function}(-s)", f.terms) if is_negative(proof, f) else None


ROWS: dict[str, tuple[Law, ...]] = {
    "exp": (composed, exponential),
    "log": (composed, content, root),
    "reciprocal": (reciprocal, composed, content, parts),
    "inverse": (content, parts),
    "sqrt": (composed, content, root, parts),
    "relu": (one_sign, content, root, clipped, compared),
    "abs": (content, table),
    "max": (shift, content, monotone, separate, merge),
    "sin": (angles,),
    "cos": (angles,),
    "normal_cdf": (complement,),
    "gelu_gate": (complement,),
}
"""The laws of each function, besides those in terms of other functions."""
