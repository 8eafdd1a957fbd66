"""Content: the common factors of the terms of an argument, as far as a function lets them out.

`1/(cs) = 1/c 1/s` for any content, `relu(cs) = c relu(s)` and `max(cs) = c max(s)` for c >= 0, root and logarithm for
c > 0; a square leaves a root as an absolute value. The rest is the function's key: equal up to content means equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from functools import reduce
from math import gcd, lcm

from polyattn.algebra import Index, Monomial, TensorFactor
from polyattn.algebra.monomial import Factor, multiply_powers, size_product
from polyattn.language.sizes import ROOT
from polyattn.proving.certificate_terms import FlatSum
from polyattn.proving.chosen import divided
from polyattn.proving.given import access
from polyattn.proving.lawful import LawfulProof, powers_json

ONE = Monomial(Fraction(1), (), ())


def content(proof: LawfulProof, f: FlatSum) -> list[FlatSum] | None:
    """Take the common factors of an argument's terms out of a function."""
    own, masks = divided(proof, f)
    if not own:
        return None
    if masks:  # a positive factor leaves minus infinity as it is
        f = FlatSum(f.name, f.slots, f.function, f.over, own)
    else:
        _equal_powers(proof, f, LEAST[f.function])
    least = LEAST[f.function]
    shared = [Counter(g for g in t.factors if _may_leave(proof, f, g, least)) for t in f.terms]
    common = reduce(lambda a, b: a & b, shared)
    if f.function in ("sqrt", "log"):
        common += _squares(proof, f)
    if len(f.terms) == 1 and f.function != "relu" and f.function != "max" and _is_atom(f):
        return None
    powers = _common_powers(f.terms)
    if f.function == "sqrt":  # fourth roots of sizes are no numbers of the language
        powers = tuple((size, e) for size, e in powers if size[0] != ROOT)
    number = _common_number(f.terms)
    if f.function in ("reciprocal", "inverse") and is_negative(proof, f):
        number = -number
    trivial = not powers and number == 1 and f.terms != [ONE]
    if not common and (trivial or (f.function == "log" and _is_prime(f.terms))):
        return None
    places = []
    for term in f.terms:
        have, wanted = [], Counter(common)
        for k, factor in enumerate(term.factors):
            if wanted[factor]:
                wanted[factor] -= 1
                have.append(k)
        places.append(have)
    inverse = tuple((size, -e) for size, e in powers)
    rest = [
        Monomial(
            t.coefficient / number,
            multiply_powers(t.powers, inverse),
            tuple(g for k, g in enumerate(t.factors) if k not in at),
        )
        for t, at in zip(f.terms, places, strict=True)
    ]
    taken = [f.terms[0].factors[k] for k in places[0]]
    rest += [access(mask.tensor, mask.indices) for mask in masks]
    return _take_out(proof, f, number, powers, taken, places, [] if rest[:1] == [ONE] and len(f.terms) == 1 else rest)


def _take_out(proof: LawfulProof, f: FlatSum, number, powers, taken, places, rest) -> list[FlatSum]:
    said = {"number": str(number), "powers": powers_json(powers), "factors": places}
    over = tuple(i for i in f.letters if i in f.over)
    made: list[FlatSum] = []

    def new(terms: Sequence[Monomial], over: tuple[Index, ...] = ()) -> TensorFactor:
        made.append(proof.new(f.function, f.slots, terms, over))
        return TensorFactor(made[-1].name, f.slots)

    def more() -> list[TensorFactor]:
        return [new(rest, over)] if rest else []

    parts = [Monomial(Fraction(1), (), (factor,)) for factor in taken]
    if f.function in ("relu", "max"):
        products = [Monomial(number, powers, (*taken, *more()))]
    elif f.function == "log":
        primes = [*_primes(number.numerator, 1), *_primes(number.denominator, -1)]
        said["primes"] = [list(p) for p in primes]
        sums = [(Fraction(e), Monomial(Fraction(p), (), ())) for p, e in primes]
        by_name = sorted(powers_json(powers).items())
        sizes = {name: size for name, (size, _) in zip(powers_json(powers), powers, strict=True)}
        for name, e in by_name:
            size = sizes[name]
            half = size[0] == ROOT
            sums.append((Fraction(e, 2 if half else 1), Monomial(*size_product([size.lstrip(ROOT)]), ())))
        products = [Monomial(n, (), (new([term]),)) for n, term in sums]
        for k, factor in enumerate(taken):
            if proof.sign_of(factor.tensor) >= LEAST["log"]:
                products.append(Monomial(Fraction(1), (), (new([parts[k]]),)))
            elif factor not in taken[:k]:  # log(t*t) = 2*log(abs(t))
                made.append(proof.new("abs", f.slots, [parts[k]]))
                one = access(made[-1].name, f.slots)
                products.append(Monomial(Fraction(taken.count(factor)), (), (new([one]),)))
        products += [Monomial(Fraction(1), (), (one,)) for one in more()]
    else:
        if f.function in ("reciprocal", "inverse", "abs"):
            factors = (*[new([part]) for part in parts], *more())
            if f.function != "abs":
                number, powers = 1 / number, tuple((s, -e) for s, e in powers)
            products = [Monomial(number, powers, factors)]
        else:
            halves: list[TensorFactor] = []
            for factor, times in Counter(taken).items():  # sqrt(c*c*d) = c*sqrt(d), sqrt(t*t) = abs(t)
                half, one = factor, [Monomial(Fraction(1), (), (factor,))]
                if times > 1 and not proof.sign_of(factor.tensor):
                    made.append(proof.new("abs", f.slots, one))
                    half = TensorFactor(made[-1].name, f.slots)
                halves += [half] * (times // 2) + ([new(one)] if times % 2 else [])
            factors = (*halves, *more())
            root, sizes = _root(number, powers)
            said["root"] = [str(root), powers_json(sizes)]
            products = [Monomial(root, sizes, factors)]
    signs = [] if f.function in ("reciprocal", "inverse", "abs") else taken
    proof.law("content", f, made, signs, rest if f.function == "sqrt" else (), **said)
    proof.put(f, [p.scaled(Fraction(1)) for p in products])
    return made


LEAST = {"reciprocal": 0, "inverse": 0, "abs": 0, "relu": 1, "max": 1, "sqrt": 2, "log": 2}
"""The sign that a factor needs to leave a function: 2 above 0, 1 at least 0, 0 any."""


def _may_leave(proof: LawfulProof, f: FlatSum, factor: Factor, least: int) -> bool:
    if not isinstance(factor, TensorFactor) or factor.tensor == "I":
        return False
    return set(factor.indices) <= set(f.slots) and proof.sign_of(factor.tensor) >= least


def _squares(proof: LawfulProof, f: FlatSum) -> Counter[TensorFactor]:
    """Return the squares that all terms of a root's argument have, of factors of any sign, if the rest is 0 or more."""
    even = []
    for term in f.terms:
        have = [g for g in term.factors if isinstance(g, TensorFactor) and _may_leave(proof, f, g, 0)]
        own = Counter(g for g in have if proof.sign_of(g.tensor) < LEAST[f.function])
        even.append(Counter({g: n - n % 2 for g, n in own.items() if n > 1}))
    common = reduce(lambda a, b: a & b, even)
    common = Counter({g: n - n % 2 for g, n in common.items() if n > 1})
    rest = []
    for term in f.terms:
        left = list(term.factors)
        for g in common.elements():
            left.remove(g)
        rest.append(Monomial(term.coefficient, term.powers, tuple(left)))
    return common if f.function == "log" or proof.positive(rest) else Counter()


def _is_atom(f: FlatSum) -> bool:
    """Return whether the argument is one factor at indices of the slots."""
    (term,) = f.terms
    return (
        term.coefficient == 1
        and not term.powers
        and len(term.factors) == 1
        and (set(term.factors[0].indices) <= set(f.slots))
    )


def _equal_powers(proof: LawfulProof, f: FlatSum, least: int) -> None:
    """Put an argument over a common denominator: each term gets the largest power of a reciprocal, which can leave."""
    order = {name: k for k, name in enumerate(proof.functions.sums)}
    done: set[TensorFactor] = set()
    while len(f.terms) > 1:
        have = {g for t in f.terms for g in t.factors if isinstance(g, TensorFactor)} - done
        have = {g for g in have if _may_leave(proof, f, g, least) and _is_reciprocal(proof, g)}
        if not have:
            return
        # The latest first: its denominator may have earlier ones.
        factor = max(have, key=lambda g: (order.get(g.tensor, 0), repr(g)))
        done.add(factor)
        inner = proof.functions.sums[factor.tensor]
        most = max(t.factors.count(factor) for t in f.terms)
        while (k := next((k for k, t in enumerate(f.terms) if t.factors.count(factor) < most), None)) is not None:
            proof.insert(inner, f, k, factor.indices)
        proof.tidy(f, frozenset(g.tensor for g in done))


def _is_reciprocal(proof: LawfulProof, factor: TensorFactor) -> bool:
    inner = proof.function(factor)
    return inner is not None and inner.function == "reciprocal" and bool(inner.terms)


def _common_powers(terms: Sequence[Monomial]):
    """Return the common powers of sizes, roots included."""
    halves: list[dict[str, int]] = []
    for term in terms:
        own: dict[str, int] = {}
        for size, e in term.powers:
            name = size.lstrip(ROOT)
            own[name] = own.get(name, 0) + (e if size[0] == ROOT else 2 * e)
        halves.append(own)
    names = {name for own in halves for name in own}
    least = {name: min(own.get(name, 0) for own in halves) for name in names}
    return multiply_powers([(ROOT + name, e) for name, e in least.items() if not name.isdigit() or e > 0], ())


def _common_number(terms: Sequence[Monomial]) -> Fraction:
    top = reduce(gcd, (t.coefficient.numerator for t in terms))
    return Fraction(abs(top), reduce(lcm, (t.coefficient.denominator for t in terms)))


def is_negative(proof: LawfulProof, f: FlatSum) -> bool:
    """Return whether of s and -s the second is taken, by their canonical forms."""
    if len(f.terms) == 1:
        return f.terms[0].coefficient < 0
    if f.function in ("reciprocal", "inverse") and proof.positive(f.terms):
        return False
    minus = FlatSum(f.name, f.slots, f.function, f.over, [t.scaled(Fraction(-1)) for t in f.terms])
    mine, other = (repr(proof.key(proof.standing_alone(g), ())) for g in (f, minus))
    return other < mine


def _root(number: Fraction, powers):
    """Return the root of a content as a number and powers."""
    value, sizes = size_product([ROOT + str(number)])
    halved = [(size, e) for size, e in powers if size[0] != ROOT]
    return value, multiply_powers(sizes, [(ROOT + size, e) for size, e in halved])


def _primes(number: int, sign: int) -> list[tuple[int, int]]:
    found, prime = [], 2
    while prime * prime <= number and prime < 1000:
        power = 0
        while number % prime == 0:
            number, power = number // prime, power + 1
        if power:
            found.append((prime, sign * power))
        prime += 1
    return [*found, (number, sign)] if number > 1 else found


def _is_prime(terms: Sequence[Monomial]) -> bool:
    """Return whether an argument is a prime number or a size."""
    if len(terms) > 1 or terms[0].factors:
        return False
    number, powers = terms[0].coefficient, terms[0].powers
    primes = [*_primes(number.numerator, 1), *_primes(number.denominator, -1)]
    return [e for _, e in (*primes, *powers)] == [1] and not any(size[0] == ROOT for size, _ in powers)


def parts(proof: LawfulProof, f: FlatSum) -> list[FlatSum] | None:
    """Write a reciprocal or a root of a product of sums of their own as a product."""
    if len(f.terms) != 1 or len(f.terms[0].factors) < 2:
        return None
    (term,) = f.terms
    groups: list[tuple[set[Index], list[int]]] = []
    for k, factor in enumerate(term.factors):
        own, places = set(factor.indices) - set(f.slots), [k]
        for other in [g for g in groups if g[0] & own]:
            groups.remove(other)
            own, places = own | other[0], other[1] + places
        groups.append((own, places))
    split = [tuple(term.factors[k] for k in places) for _, places in groups]
    terms = [Monomial(Fraction(1), (), part) for part in split]
    if len(groups) < 2 or (f.function == "sqrt" and not all(map(proof.above, terms))):
        return None
    made = [proof.new(f.function, f.slots, [t]) for t in terms]
    proof.law("parts", f, made, (), terms if f.function == "sqrt" else (), parts=[places for _, places in groups])
    proof.put(f, [Monomial(Fraction(1), (), tuple(TensorFactor(m.name, f.slots) for m in made))])
    return made
