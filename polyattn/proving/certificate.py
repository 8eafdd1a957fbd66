"""Certificates of equality: the data with which `proofs/check.py` checks a proof without trusting the prover.

A certificate has both sides in expanded form, with functions as tensors of their own, and steps that rewrite these sums
one place at a time until their terms correspond one to one. The rewriting of a finished proof is repeated here on such
sums, since the steps count terms and factors as the checker does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, count
from typing import Any

from polyattn.algebra import FunctionFactor, Index, Monomial, TensorFactor
from polyattn.algebra.order import parts
from polyattn.errors import BudgetError
from polyattn.language.sizes import is_name, names_in
from polyattn.language.syntax import is_fixed
from polyattn.proving.certificate_terms import (
    FlatSum,
    Functions,
    Letters,
    is_identity,
    renumbered,
    replaced,
    size_text,
    sum_text,
)
from polyattn.proving.derivation import Derivation
from polyattn.proving.given import (
    Given,
    Rule,
    Substitution,
    Symmetry,
    as_rule,
    exchanges,
    indices_of,
    rearranged,
    tensors_of,
)
from polyattn.proving.isomorphism import Forms, NoWitnessError, entries, moved
from polyattn.proving.rewriting import Use, applied, first_use
from polyattn.proving.slot_symmetry import slot_kinds
from polyattn.proving.work import charge

FORMAT = "polyattn equality 2"
MAX_STEPS = 20_000


def certificate(
    derivations: tuple[Derivation, Derivation], given: Sequence[Given], renaming: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the certificate of two derivations with equal final sums.

    Args:
        given: the equations between tensors that may be used.
        renaming: the texts of those that rename a tensor of the left side; the certificate lists them apart.

    Raises:
        NoWitnessError: steps of the certificate's kind do not lead from one side to the other.
        BudgetError: there would be too many steps.
    """
    proof = Proof(derivations, given)
    return renumbered(proof.run(), [proof.equations[text].data["equation"] for text in renaming])


@dataclass(frozen=True)
class _Equation:
    """A given equation, as a rule for the steps."""

    rule: Rule
    data: dict[str, Any]


class Proof:
    """A proof under construction: two sums and their functions, which change in place, one recorded step at a time."""

    def __init__(self, derivations: tuple[Derivation, Derivation], given: Sequence[Given]):
        self.derivations, self.given, self.forms = derivations, given, derivations[0].forms
        self.steps: list[dict[str, Any]] = []
        letters = Letters()
        outputs = {d.side.signature.output for d in derivations}
        # Functions are named f1, f2, ...: no tensor of the question may have such a name already.
        tensors = {t for d in derivations for t in d.tensors}.union(outputs, *(g.mentioned for g in given))
        self.letters, self.functions = letters, Functions(letters, frozenset(tensors))
        self.left, self.right = (self.side(d) for d in derivations)
        self.equations: dict[str, _Equation] = {}
        self.start = [t for side in (self.left, self.right) for t in side.terms]
        self.settled: dict[Any, str] = {}
        self.replaced: dict[str, str] = {}
        self.copies: list[FlatSum] = []
        self.kinds: dict[str, tuple[int, ...]] = {}  # of the slots of functions that are symmetric in some

    def side(self, derivation: Derivation) -> FlatSum:
        made = FlatSum(derivation.side.signature.output, self.forms.free, "", (), [])
        made.terms = self.functions.flat(derivation.steps[0].terms, made.ordered)
        return made

    def equation(self, given: Given) -> _Equation:
        rule = as_rule(given)
        flat = Rule(rule.text, {}, rule.left, tuple(self.functions.flat(rule.right, lambda t: t)), rule.free)
        left = self.letters.named(flat.left.indices(), {})
        free = {i: left[i] for i in flat.free}
        # The right side's own letters must differ from all of the left's, even from summed ones.
        reserved = {Index(-1 - k, ""): letter for k, letter in enumerate(left.values())}
        texts = [self.letters.named(t.indices(), free | reserved) for t in flat.right]
        equation = f"{sum_text([flat.left], [left])} = {sum_text(flat.right, texts)}"
        summed = [left[i] for i in flat.left.indices() if i not in free]
        return _Equation(flat, {"equation": equation, "summed": summed})

    def run(self) -> dict[str, Any]:
        # Printed before any step, because the rewriting changes the sums in place.
        texts = [self.letters.line(side)[0] for side in (self.left, self.right)]
        self.rewrite(self.left)
        self.rewrite(self.right)
        done = 0
        while done < len(self.functions.sums):  # definitions may bring in more
            total = list(self.functions.sums.values())[done]
            self.start += total.terms
            self.rewrite(total)
            done += 1
        self.normalise()
        pairs, results = self.pairs()
        indices, shapes = dict(sorted(self.letters.sizes.items())), self.shapes()
        # A combination such as 2*N-1 is any size to the proof.
        used = {*indices.values(), *(size for shape in shapes.values() for size in shape)}
        sums = sorted(size for size in used if not (size.isdigit() or is_name(size)))
        taken = {s for size in used for s in names_in(size)}
        aliases = dict(zip(sums, (n for k in count(1) if (n := f"S{k}") not in taken), strict=False))
        return {
            "format": FORMAT,
            "indices": {i: aliases.get(size, size) for i, size in indices.items()},
            "shapes": {t: [aliases.get(size, size) for size in shape] for t, shape in shapes.items()},
            **({"sizes": {alias: size for size, alias in aliases.items()}} if aliases else {}),
            "functions": self.functions.texts(),
            **({"conditions": self.conditions()} if self.functions.conditions else {}),
            "given": [equation.data for equation in self.equations.values()],
            "left": texts[0],
            "right": texts[1],
            "steps": self.steps,
            "results": results,
            "pairs": pairs,
        }

    def normalise(self) -> None:
        """Make equal functions and equal terms one."""
        self.order()
        for name in list(self.functions.sums):
            self.settle(name)
        # Functions first: terms of the sides can only be equal once equal functions have one name.
        for side in (self.left, self.right):
            self.gather(side)

    def shapes(self) -> dict[str, list[str]]:
        """Return the sizes of the slots of every tensor, functions and outputs included."""
        sums = [self.left, self.right, *self.functions.sums.values(), *self.copies]
        found = {total.name: [i.size for i in total.slots] for total in sums}
        rules = [equation.rule for equation in self.equations.values()]
        for term in chain(self.start, *((r.left, *r.right) for r in rules)):
            tensors = (f for f in term.factors if isinstance(f, TensorFactor) and not is_fixed(f.tensor))
            found |= {f.tensor: [i.size for i in f.indices] for f in tensors}
        return dict(sorted(found.items()))

    def conditions(self) -> dict[str, str]:
        """Return the conditions that tensors stand for, those with numbers or sizes, `[{0}-{1}-W+1<=0]`."""
        return {name: condition for (condition, _), name in self.functions.conditions.items()}

    def step(self, **data: Any) -> None:
        self.steps.append(data)
        if len(self.steps) > MAX_STEPS:
            raise BudgetError(f"the certificate would have more than {MAX_STEPS:,} steps")

    def called(self, total: FlatSum) -> str:
        return "left" if total is self.left else "right" if total is self.right else total.name

    # Conditions between positions.
    def order(self) -> None:
        """Multiply both sides by the ordered sizes that they divide by, and split all sums by weak orders."""
        (one, _) = self.derivations
        sizes, scale = one.sizes, one.scale
        if not sizes:
            return
        if scale:
            self.step(times=dict(scale))
            for total in (self.left, self.right):
                total.terms[:] = [t.scaled(Fraction(1), scale) for t in total.terms]
        for total in self.ordered_sums():
            if any(i.size in sizes for i in (*total.letters, *indices_of(total.terms))) or _counts(total.terms, sizes):
                self.step(**{"order": sorted(sizes), "in": self.called(total)})
                split = [part for t in total.terms for part in parts(t, total.letters, sizes)]
                total.terms[:] = map(total.ordered, split)

    def ordered_sums(self) -> list[FlatSum]:
        """Return the sums to split by weak orders."""
        return [self.left, self.right, *self.functions.sums.values()]

    # Given equations.
    def rewrite(self, total: FlatSum) -> None:
        """Use definitions and rules until none applies, in the order of the derivation."""
        rules = [g for g in self.given if isinstance(g, Rule)]
        definitions = [g for g in self.given if isinstance(g, Substitution)]
        while True:
            charge(2 * sum(t.length for t in total.terms))
            have = tensors_of(total.terms)
            wanted = next((d for d in definitions if d.tensor in have), None)
            defining = [wanted] if wanted is not None else []
            order = [*rules, *defining] if self.derivations[0].rules_first else [*defining, *rules]
            for given in order:
                use = first_use(total.terms, frozenset(total.letters), as_rule(given))
                if use is not None:
                    self.use(total, given, use.place[0], use.factors)
                    break
            else:
                return

    def use(self, total: FlatSum, given: Given, place: int, factors: tuple[int, ...]) -> None:
        if given.text not in self.equations:
            self.equations[given.text] = self.equation(given)
        rule = self.equations[given.text].rule
        # A step matches products of tensors only, on a left side without a number in front.
        if rule.left.coefficient != 1 or rule.left.powers or any(map(is_identity, rule.left.factors)):
            raise NoWitnessError
        number, name = list(self.equations).index(given.text), self.called(total)
        self.step(**{"use": number, "in": name, "term": place, "factors": list(factors)})
        new = applied([total.terms[place]], frozenset(total.letters), rule, Use((0,), factors))
        total.terms[place : place + 1] = [total.ordered(t) for t in new if t.coefficient]

    # Equal terms and equal functions.
    def gather(self, total: FlatSum) -> None:
        """Add equal terms up, each to the first of its form."""
        first: dict[Any, int] = {}
        place = 0
        while place < len(total.terms):
            key = self.key(total.terms[place], total.letters)
            to = first.setdefault(key, place)
            if to == place:
                place += 1
                continue
            order = self.aligned(total, place, total.terms[to])
            self.step(**{"add": place, "to": to, "in": self.called(total), "factors": order})
            old, other = total.terms[to], total.terms.pop(place)
            number = old.coefficient + other.coefficient
            if number:
                total.terms[to] = Monomial(number, old.powers, old.factors)
            else:
                del total.terms[to], first[key]
                # Two terms are gone: later places move up, and the next term is at the same place as
                # before.
                first = {k: p - (p > to) for k, p in first.items()}
                place -= 1

    def key(self, term: Monomial, free: Sequence[Index]) -> Any:
        return self.forms_of(free).key(moved(term, free))

    def forms_of(self, free: Sequence[Index]) -> Forms:
        return Forms(tuple(free), {**self.forms.groups, **self.kinds})

    def aligned(self, total: FlatSum, place: int, target: Monomial) -> list[int]:
        """Return the places, in a term of the sum, of the factors of an equal term, once symmetries ordered its
        slots."""
        term, free = total.terms[place], total.letters
        found = entries(moved(term, free), moved(target, free), self.forms_of(free))
        return self.straight(total, place, found, len(target.factors))

    def straight(self, total: FlatSum, place: int, found: Sequence[Any], length: int) -> list[int]:
        order = [e if isinstance(e, int) else e[0] for e in found]
        plain = len(order)
        for k, entry in enumerate(found):
            if isinstance(entry, list):
                tensor = total.terms[place].factors[order[k]].tensor  # type: ignore[union-attr]
                if tensor in self.functions.sums:
                    self.exchange(total, place, order[k], tuple(entry[1]))
                    continue
                for symmetry in self.symmetries(tensor, tuple(entry[1])):
                    self.use(total, symmetry, place, (order[k],))
                    # A used symmetry removes its factor and appends the new one: positions behind it
                    # move up.
                    order = [p - (p > order[k]) for p in order]
                    order[k] = plain - 1
        return [*order, *range(plain, length)]

    def symmetries(self, tensor: str, order: tuple[int, ...]) -> list[Symmetry]:
        found = exchanges(self.given, tensor, order)
        if found is None:
            raise NoWitnessError
        return found

    def copy(self, function: FlatSum) -> FlatSum:
        """Return an equal function of another name."""
        copied = self.functions.copied(function)
        self.copies.append(copied)
        return copied

    def exchange(self, total: FlatSum, place: int, position: int, order: tuple[int, ...]) -> None:
        """Put slot `order[k]` of a symmetric function at place k, by way of an equal copy in this order."""
        factors = [f for f in total.terms[place].factors if isinstance(f, TensorFactor)]
        name, indices = factors[position].tensor, factors[position].indices
        function = self.functions.sums[name]
        copied = self.copy(function)
        here = {"in": self.called(total), "term": place, "factor": position}
        plain = [[k, list(range(len(t.factors)))] for k, t in enumerate(function.terms)]
        own = list(range(len(function.letters)))
        self.step(**{"same": name, "as": copied.name, "letters": own, "terms": plain}, **here)
        letters = [*order, *range(len(order), len(function.letters))]
        back = {function.letters[k]: letter for k, letter in zip(letters, function.letters, strict=True)}
        forms = self.forms_of(function.letters)
        targets = {forms.key(moved(t, function.letters)): k for k, t in enumerate(function.terms)}
        witness = []
        for k, term in enumerate(function.terms):
            at = moved(term.renamed(back), function.letters)
            target = function.terms[targets[forms.key(at)]]
            found = entries(at, moved(target, function.letters), forms)
            witness.append([targets[forms.key(at)], self.straight(copied, k, found, len(target.factors))])
        self.step(**{"same": copied.name, "as": name, "letters": letters, "terms": witness})
        factors[position] = TensorFactor(name, rearranged(indices, order))
        total.terms[place] = total.with_factors(total.terms[place], factors)

    def settle(self, name: str) -> None:
        """Replace a function by the first one equal to it, those inside it first."""
        total = self.functions.sums[name]
        for inner in sorted(tensors_of(total.terms) & set(self.functions.sums)):
            if inner not in self.replaced and inner not in self.settled.values():
                self.settle(inner)
        if name in self.replaced or name in self.settled.values():
            return
        self.gather(total)
        alone = self.standing_alone(total)
        free = [i for i in total.letters if i in indices_of(total.terms) or i in total.over]
        key = self.key(alone, ())
        # A function constant along a slot is replaced by one without that slot.
        if key not in self.settled and len(free) < len(total.letters):
            slots = tuple(i for i in total.slots if i in free)
            self.settled[key] = self.functions.add(FlatSum("", slots, total.function, total.over, list(total.terms)))
        other = self.settled.setdefault(key, name)
        first = self.functions.sums[other]
        kinds = slot_kinds(first, lambda term: self.key(term, first.letters))
        if len(set(kinds)) < len(kinds):
            self.kinds[other] = kinds
        if other != name:
            self.replace(total, first)

    def standing_alone(self, total: FlatSum) -> Monomial:
        """Return the function as the only factor of a term."""
        fresh = count(1 + max((i.id for i in (*total.letters, *indices_of(total.terms))), default=0))
        have = indices_of(total.terms)
        free = tuple(i for i in total.slots if i in have and i not in total.over)
        at = tuple(Index(next(fresh), i.size) for i in total.over) if set(total.over) <= set(total.slots) else ()
        factor = FunctionFactor(total.function, total.over, free, tuple(total.terms), at)
        return Monomial(Fraction(1), (), (factor,))

    def replace(self, old: FlatSum, new: FlatSum) -> None:
        letters, witness = self.witness(old, new)
        self.step(**{"same": old.name, "as": new.name, "letters": letters, "terms": witness})
        self.replaced[old.name] = new.name
        wanted = letters[: len(new.slots)]
        for total in (*self.functions.sums.values(), self.left, self.right):
            if total.name not in self.replaced or total in (self.left, self.right):
                total.terms[:] = [replaced(total, t, old.name, new.name, wanted) for t in total.terms]

    def witness(self, old: FlatSum, new: FlatSum) -> tuple[list[int], list[Any]]:
        """Return how the letters and terms of equal functions correspond."""
        mine, theirs = self.standing_alone(old), self.standing_alone(new)
        ((_, slots, terms),) = entries(moved(mine, ()), moved(theirs, ()), self.forms_of(()))
        (left,), (right,) = mine.factors, theirs.factors
        assert isinstance(left, FunctionFactor)
        assert isinstance(right, FunctionFactor)
        here, there = (*left.free, *left.over), (*right.free, *right.over)
        if len(there) < len(new.letters):
            raise NoWitnessError
        origin = {there[k]: old.letters.index(here[s]) for k, s in enumerate(slots)}
        letters = [origin[i] for i in new.letters]
        if letters != sorted(letters) and any(map(is_identity, chain(*(t.factors for t in new.terms)))):
            raise NoWitnessError  # which of several equal indices stands for all of them depends on their order
        witness = []
        for place, (target, found) in enumerate(terms):
            length = len(new.terms[target].factors)
            witness.append([target, self.straight(old, place, found, length)])
        return letters, witness

    # The end.
    def pairs(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the pairs of equal terms of both sides, and the text of each side."""
        free = self.forms.free
        places = {self.key(t, free): k for k, t in enumerate(self.right.terms)}
        if len(places) != len(self.left.terms):
            raise NoWitnessError
        orders = []
        for place, term in enumerate(list(self.left.terms)):
            key = self.key(term, free)
            if key not in places:
                raise NoWitnessError
            orders.append((places[key], self.aligned(self.left, place, self.right.terms[places[key]])))
        (left, mine), (right, theirs) = (self.letters.line(side) for side in (self.left, self.right))
        found = []
        for place, (other, order) in enumerate(orders):
            term, target = self.left.terms[place], self.right.terms[other]
            if (term.coefficient, term.powers) != (target.coefficient, target.powers):
                raise NoWitnessError
            indices = {mine[place][i]: theirs[other][i] for i in free}
            for k, factor in zip(order, target.factors, strict=True):
                both = zip(term.factors[k].indices, factor.indices, strict=True)
                indices |= {mine[place][i]: theirs[other][j] for i, j in both}
            found.append(
                {
                    "left": place,
                    "right": other,
                    "factors": order,
                    "indices": indices,
                    "coefficient": str(term.coefficient),
                    "powers": {size_text(s): e for s, e in term.powers},
                }
            )
        return found, [left, right]


def _counts(terms: Iterable[Monomial], sizes: Collection[str]) -> bool:
    return any(size in sizes and exponent > 0 for t in terms for size, exponent in t.powers)
