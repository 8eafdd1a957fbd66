"""Proofs by laws of functions, on the sums of a certificate.

Functions come in their normal form, the innermost first: each law puts products in the place of one function,
everywhere, and may make new functions, which come in their normal form in turn. There remain exponentials of
monomials, reciprocals, roots, logarithms and maxima of sums without content, and relus of one sign; equal ones are
one. Then both sides are sums of products of such atoms. Every step is one of the certificate, which `proofs/check.py`
does again with laws of its own; a slip here can lose a proof, but not make one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import count
from typing import Any

from polyattn.algebra import Index, Monomial, TensorFactor
from polyattn.algebra.monomial import size_product
from polyattn.errors import BudgetError
from polyattn.language.conditions import AT_MOST, LESS
from polyattn.proving.certificate import Proof
from polyattn.proving.certificate_terms import FlatSum, size_text
from polyattn.proving.derivation import Derivation
from polyattn.proving.given import Given, Rule, access, tensors_of
from polyattn.proving.rewriting import Use, applied, bare, first_use, instance, joined
from polyattn.proving.slot_symmetry import slot_kinds
from polyattn.proving.work import charge

MAX_TERMS = 400
"""The largest number of terms of a sum that laws may make."""

MAX_REWRITES = 400
"""The largest number of rewritings of one sum."""


Law = Callable[["LawfulProof", FlatSum], "list[FlatSum] | None"]
"""A law: records its step and returns the new functions, or None where it does not apply."""


class LawfulProof(Proof):
    """A proof under construction whose functions have laws; its sums change in place, one recorded step at a time."""

    def __init__(
        self, derivations: tuple[Derivation, Derivation], given: Sequence[Given], rows: Callable[[str], Sequence[Law]]
    ):
        """Begin a proof.

        Args:
            rows: the laws of each function.
        """
        super().__init__(derivations, given)
        self.rows = rows
        self.bases: dict[Any, Fraction] = {}
        """For the exponential of each monomial, the multiple of the monomial in its atom."""
        self.splits = 0
        self.assumed = self.domains()
        """The function of the claim that makes a tensor at least 0 (1) or above 0 (2) wherever it is defined."""
        self.needed: set[str] = set()
        """The functions of the claim that have to be defined."""
        self.noting = False

    @property
    def conditional(self) -> set[str]:
        """Return the tensors that stand for conditions."""
        return set(self.functions.conditions.values())

    def domains(self) -> dict[str, tuple[str, int]]:
        """Return the tensors all of whose entries are above 0 (2), or at least 0 (1), where the claim is defined."""
        found: dict[str, tuple[str, int]] = {}
        for f in self.functions.sums.values():
            if f.function in ("sqrt", "log") and len(f.terms) == 1 and f.terms[0].coefficient > 0:
                factor, *more = (*f.terms[0].factors, None)
                if not isinstance(factor, TensorFactor) or more != [None]:
                    continue
                name, at = factor.tensor, factor.indices
                known = f.name, 2 if f.function == "log" else 1
                if name not in self.functions.sums and len(set(at) & set(f.slots)) == len(at):
                    found[name] = max(known, found.get(name, known), key=lambda pair: pair[1])
        fixed = {"I", LESS, AT_MOST, *self.conditional}
        return {name: known for name, known in found.items() if name not in fixed}

    def copy(self, function: FlatSum) -> FlatSum:
        copied = self.new(function.function, function.slots, function.terms, function.over)
        self.law("copy", function, [copied])
        self.replaced[copied.name] = function.name  # used up at once
        return copied

    def shapes(self) -> dict[str, list[str]]:
        made = set(self.functions.sums) - self.claimed
        return {name: sizes for name, sizes in super().shapes().items() if name not in made}

    def live(self) -> list[FlatSum]:
        return [s for name, s in self.functions.sums.items() if name not in self.replaced] + [self.left, self.right]

    def function(self, factor: Any) -> FlatSum | None:
        """Return the function that a factor is of, None for a tensor."""
        name = factor.tensor if isinstance(factor, TensorFactor) else factor
        return None if name in self.replaced else self.functions.sums.get(name)

    def is_mask(self, f: FlatSum) -> bool:
        """Return whether a function is the logarithm of conditions."""
        if f.function != "log":
            return False
        have = {g.tensor for t in f.terms for g in t.factors if isinstance(g, TensorFactor)}
        return bool(have) and have <= {"I", LESS, AT_MOST, *self.conditional}

    def has_masks(self, f: FlatSum) -> bool:
        inner = (self.function(g) for t in f.terms for g in t.factors)
        return any(g is not None and self.is_mask(g) for g in inner)

    # Steps.
    def new(self, function: str, slots: Sequence[Index], terms: Sequence[Monomial], over: Sequence[Index] = ()):
        """Return a new function."""
        made = FlatSum(self.functions.fresh(), tuple(slots), function, tuple(over), [])
        made.terms = [made.ordered(t) for t in terms if t.coefficient]
        self.functions.sums[made.name] = made
        return made

    def law(
        self,
        name: str,
        f: FlatSum,
        made: Sequence[FlatSum] = (),
        taken: Sequence[TensorFactor] = (),
        rest: Sequence[Monomial] = (),
        total: FlatSum | None = None,
        **more: Any,
    ) -> None:
        """Record a law of a function, and the functions that have to be defined for it.

        Args:
            made: the new functions.
            taken, rest: the factors, and the sum, whose signs the law rests on.
            total: the sum that the law rewrites one term of, if any.
        """
        self.noting = True
        self.domain(f)
        for factor in taken:
            self.sign_of(factor.tensor)
        self.positive(rest)
        if name == "sign" and not self.positive(f.terms):
            self.positive([t.scaled(Fraction(-1)) for t in f.terms])
        self.noting = False
        if name == "normalize":
            self.needed.add(f.name)
        place = {} if total is None else {"in": self.called(total)}
        self.step(**{"law": name, "of": f.name, "make": [m.name for m in made], **more, **place})

    def domain(self, f: FlatSum) -> None:
        """Note that a function has to be defined, unless it always is."""
        if f.name in self.claimed and f.function in ("reciprocal", "log", "sqrt"):
            noting, self.noting = self.noting, True
            known = self.positive(f.terms)
            if f.function == "reciprocal" and self.positive([t.scaled(Fraction(-1)) for t in f.terms]) == 2:
                known = 2
            if known < (1 if f.function == "sqrt" else 2):
                self.needed.add(f.name)
            self.noting = noting

    @property
    def claimed(self) -> set[str]:
        return set(self.functions.lines.values())

    def put(self, f: FlatSum, products: Sequence[Monomial]) -> None:
        """Put products in the place of a function everywhere."""
        rule = Rule("", {}, access(f.name, f.slots), tuple(products), f.slots)
        self.replaced[f.name] = ""
        for total in self.live():
            k = 0
            while k < len(total.terms):
                factors = total.terms[k].factors
                at = (j for j, g in enumerate(factors) if isinstance(g, TensorFactor) and g.tensor == f.name)
                place = next(at, None)
                if place is None:
                    k += 1
                    continue
                self.rewrite_term(total, k, rule, (place,))

    def rewrite_term(self, total: FlatSum, place: int, rule: Rule, factors: tuple[int, ...]) -> None:
        charge(20 + total.terms[place].length * (1 + len(rule.right)))
        new = applied([total.terms[place]], frozenset(total.letters), rule, Use((0,), factors))
        total.terms[place : place + 1] = [total.ordered(t) for t in new if t.coefficient]
        _check_length(total)

    def insert(self, f: FlatSum, total: FlatSum, place: int, at: Sequence[Index]) -> None:
        """Multiply a term by a denominator and its reciprocal, which is `f`, at these indices.

        An index that the term does not have is a new one; the sum over it counts, and its size divides.
        """
        term, letters = total.terms[place], total.letters
        where, have = [], term.indices()
        news = [i for i in dict.fromkeys(at) if i not in have and i not in letters]
        for index in at:
            if index in news:
                where.append([-2, news.index(index)])
            elif index in letters:
                where.append([-1, letters.index(index)])
            else:
                where.append(
                    next([k, g.indices.index(index)] for k, g in enumerate(term.factors) if index in g.indices)
                )
        self.law("insert", f, total=total, term=place, at=where)
        fresh = count(1 + max((i.id for i in (*term.all_indices(), *letters, *at)), default=-1))
        number, powers = size_product((i.size for i in news), -1)
        names, summed = dict(zip(f.slots, at, strict=True)), [i for i in term.indices() if i not in letters]
        new = []
        for t in f.terms:
            charge(20 + term.length + t.length)
            body = Monomial(t.coefficient, t.powers, (*t.factors, TensorFactor(f.name, f.slots)))
            made = instance(body, names, fresh).scaled(number, powers)
            new.append(joined(term, [*map(bare, term.factors), made], summed))
        total.terms[place : place + 1] = [total.ordered(t) for t in new if t.coefficient]
        _check_length(total)

    # Normal forms.
    def normal(self, name: str) -> None:
        """Bring a function, whose inner functions are in normal form, into its own."""
        if name in self.replaced:
            return
        total = self.functions.sums[name]
        charge(50 + 20 * sum(t.length for t in total.terms))
        if self.is_mask(total) or (self.has_masks(total) and total.function not in OVER_PLACES):
            self.gather(total)
            self.settle(name)
            return
        self.ordered(total)
        self.tidy(total)
        for law in self.rows(total.function):
            made = law(self, total)
            if made is not None:
                for new in made:
                    self.normal(new.name)
                return
        self.settle(name)

    def ordered(self, total: FlatSum) -> None:
        """Split an argument by weak orders."""

    def settle(self, name: str) -> None:
        """Replace a function in normal form by the first one equal to it."""
        total = self.functions.sums[name]
        key = self.key(self.standing_alone(total), ())
        other = self.settled.setdefault(key, name)
        if other != name:
            self.replace(total, self.functions.sums[other])
            return
        kinds = slot_kinds(total, lambda term: self.key(term, total.letters))
        if len(set(kinds)) < len(kinds):
            self.kinds[name] = kinds

    def normalise_anew(self) -> None:
        """Bring all functions into their normal forms again after their arguments changed."""
        before, self.settled = list(self.settled.values()), {}
        for name in before:
            self.normal(name)

    def tidy(self, total: FlatSum, kept: frozenset[str] = frozenset()) -> None:
        """Add equal terms up and use the laws of products until none applies.

        Args:
            kept: reciprocals that are not cancelled.
        """
        for _ in range(MAX_REWRITES):
            self.gather(total)
            if not self.rewrite_products(total, kept):
                return
        raise BudgetError("a sum is rewritten too often")

    def rewrite_products(self, total: FlatSum, kept: frozenset[str]) -> bool:
        if self.rewrite_conditions(total):
            return True
        for name in sorted(tensors_of(total.terms)):
            f = self.function(name)
            if f is None or name in kept:
                continue
            for law, left, right, more in _product_rules(self, f):
                charge(10 * sum(t.length for t in total.terms))
                use = first_use(total.terms, frozenset(total.letters), Rule("", {}, left, (), f.slots))
                if use is not None:
                    place, factors = use.place[0], list(use.factors)
                    made, products = right()
                    self.law(law, f, made, total=total, term=place, factors=factors, **more)
                    rule = Rule("", {}, left, tuple(products), f.slots)
                    self.rewrite_term(total, place, rule, use.factors)
                    for new in made:
                        self.normal(new.name)
                    return True
        return False

    def rewrite_conditions(self, total: FlatSum) -> bool:
        """Leave out a condition that a term has twice."""
        conditional = self.conditional
        for k, term in enumerate(total.terms if conditional else ()):
            seen: dict[TensorFactor, int] = {}
            for place, factor in enumerate(term.factors):
                if isinstance(factor, TensorFactor) and factor.tensor in conditional:
                    if factor in seen:
                        self.step(twice=[seen[factor], place], term=k, **{"in": self.called(total)})
                        kept = [g for j, g in enumerate(term.factors) if j != place and isinstance(g, TensorFactor)]
                        total.terms[k] = total.with_factors(term, kept)
                        return True
                    seen[factor] = place
        return False

    # Signs: 2 for what is above 0, 1 for at least 0, 0 for unknown.
    def positive(self, terms: Sequence[Monomial]) -> int:
        found = [self.above(t) for t in terms]
        return 0 if 0 in found else 2 if 2 in found else 1

    def above(self, term: Monomial) -> int:
        charge(5 + len(term.factors))
        found = 2 if term.coefficient > 0 else 0
        for factor in set(term.factors):
            assert isinstance(factor, TensorFactor)
            found = min(found, max(self.sign_of(factor.tensor), 1 - term.factors.count(factor) % 2))
        return found

    def sign_of(self, name: str) -> int:
        f = self.function(name)
        if f is None:
            log, known = self.assumed.get(name, ("", int(name in ("I", LESS, AT_MOST) or name in self.conditional)))
            if log and self.noting:
                self.needed.add(log)
            return known
        if f.function in SIGNS:
            return SIGNS[f.function]
        if f.function == "inverse":
            return int(self.positive(f.terms) > 0)
        if f.function in ("reciprocal", "sqrt", "max"):
            found = self.positive(f.terms)
            if self.noting and (f.function == "sqrt" or (f.function == "reciprocal" and found)):
                self.domain(f)
            return {"reciprocal": 2 if found else 0, "sqrt": max(found, 1), "max": found}[f.function]
        return 0


OVER_PLACES = ("softmax", "logsumexp", "max", "min")
"""The functions with laws for arguments with logarithms of conditions, minus infinity where these do not hold."""

SIGNS = {"exp": 2, "normal_cdf": 2, "gelu_gate": 2, "relu": 1, "abs": 1}


Products = Callable[[], tuple[list[FlatSum], list[Monomial]]]
"""The new functions of a law, and the sum in the place of a product."""


def _product_rules(proof: LawfulProof, f: FlatSum) -> list[tuple[str, Monomial, Products, dict[str, Any]]]:
    """Return the laws of products with a function: its name, the product, its sum, and the step's further entries."""
    one = access(f.name, f.slots)
    if f.function == "reciprocal" and f.terms:
        lead = max(range(len(f.terms)), key=lambda k: _rank(f.terms[k]))
        first = f.terms[lead]
        if any(isinstance(g, TensorFactor) and g.tensor == "I" for g in first.factors):
            return []
        left = Monomial(one.coefficient, (), (*first.factors, *one.factors))

        def cancelled() -> tuple[list[FlatSum], list[Monomial]]:
            below = tuple((size, -e) for size, e in first.powers)
            rest = [
                Monomial(-t.coefficient, t.powers, (*t.factors, *one.factors)).scaled(1 / first.coefficient, below)
                for k, t in enumerate(f.terms)
                if k != lead
            ]
            return [], [Monomial(Fraction(1), (), ()).scaled(1 / first.coefficient, below), *rest]

        return [("cancel", left, cancelled, {"lead": lead})]
    rules: list[tuple[str, Monomial, Products, dict[str, Any]]] = []
    if (square := _square(proof, f, one)) is not None:
        rules.append(("square", Monomial(one.coefficient, (), one.factors * 2), square, {}))
    if (factor := _exponent(proof, f)) is not None:

        def in_case() -> tuple[list[FlatSum], list[Monomial]]:
            both = _without_relu(proof, f, factor)
            return [both], [Monomial(Fraction(1), (), (*access(both.name, f.slots).factors, factor))]

        rules.append(("case", Monomial(one.coefficient, (), (*one.factors, factor)), in_case, {}))
    return rules


def _exponent(proof: LawfulProof, f: FlatSum) -> TensorFactor | None:
    """Return the relu that a function is the exponential of, a multiple included."""
    if f.function != "exp" or len(f.terms) != 1 or len(f.terms[0].factors) != 1 or f.terms[0].coefficient <= 0:
        return None
    (factor,) = f.terms[0].factors
    inner = proof.function(factor)
    relu = inner is not None and inner.function == "relu" and set(factor.indices) <= set(f.slots)
    return factor if relu and isinstance(factor, TensorFactor) else None


def _without_relu(proof: LawfulProof, f: FlatSum, factor: TensorFactor) -> FlatSum:
    """Return the exponential of n*s for one of n*relu(s)."""
    (term,), inner = f.terms, proof.functions.sums[factor.tensor]
    start = 1 + max(i.id for t in (term, *inner.terms) for i in (*f.letters, *inner.letters, *t.all_indices()))
    have = sorted({i for t in inner.terms for i in t.all_indices()})
    names = {i: Index(start + k, i.size) for k, i in enumerate(have)}
    names |= dict(zip(inner.slots, factor.indices, strict=True))
    return proof.new("exp", f.slots, [t.renamed(names).scaled(term.coefficient, term.powers) for t in inner.terms])


def has_square(proof: LawfulProof, f: FlatSum) -> bool:
    """Return whether a law writes a function's square as something else."""
    return _square(proof, f, access(f.name, f.slots)) is not None


def _square(proof: LawfulProof, f: FlatSum, one: Monomial) -> Products | None:
    """Return the sum that the square of a function is, if there is one."""
    if f.function in ("sqrt", "relu"):
        more = one.factors if f.function == "relu" else ()
        return lambda: ([], [Monomial(t.coefficient, t.powers, (*t.factors, *more)) for t in f.terms])
    if f.function == "sin" and f.terms:

        def cosine() -> tuple[list[FlatSum], list[Monomial]]:
            cos = proof.new("cos", f.slots, f.terms)
            squared = Monomial(Fraction(-1), (), access(cos.name, f.slots).factors * 2)
            return [cos], [Monomial(Fraction(1), (), ()), squared]

        return cosine
    if (factor := _exponent(proof, f)) is not None:

        def by_cases() -> tuple[list[FlatSum], list[Monomial]]:
            both = _without_relu(proof, f, factor)
            other = access(both.name, f.slots)
            product = Monomial(Fraction(1), (), (*one.factors, *other.factors))
            return [both], [one, product, other.scaled(Fraction(-1))]

        return by_cases
    return None


def _rank(term: Monomial) -> tuple[Any, ...]:
    """Return the rank of a term of a denominator: that of the highest rank is cancelled."""
    # Numbers such as exp(1) come last, since their inverses are common.
    return sum(1 for g in term.factors if g.indices), len(term.factors), term.names


def powers_json(powers: Sequence[tuple[str, int]]) -> dict[str, int]:
    return {size_text(size): e for size, e in powers}


def _check_length(total: FlatSum) -> None:
    if len(total.terms) > MAX_TERMS:
        raise BudgetError(f"by the laws of functions a sum has more than {MAX_TERMS} terms")
