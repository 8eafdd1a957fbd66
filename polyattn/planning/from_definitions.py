"""From the specification's text to an evaluation graph in the order of its definitions.

Each definition is computed once, as a value; brackets and functions likewise. `order` decides within a product: the
author's order (`written_order`), or the cheapest for that product by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count
from math import prod

from polyattn.algebra import Index, Spec
from polyattn.algebra.conditions import condition_factor, resized
from polyattn.algebra.expand import number_name
from polyattn.algebra.monomial import size_product
from polyattn.language.conditions import is_condition, sizes_in
from polyattn.language.functions import REDUCING, SUMS, kind
from polyattn.language.syntax import IDENTITY, Access, Bracket, Call, Number, SizeRef, Sum, Term
from polyattn.planning.builder import BATCH_INDEX, Builder, Order
from polyattn.planning.steps import ONE, Coefficient, Operand


def follow_definitions(spec: Spec, builder: Builder, order: Order) -> Operand:
    """Build the graph; return the output with its indices in the order of its atomic slots."""
    return _Writer(spec, builder, order).run()


@dataclass
class _Writer:
    spec: Spec
    builder: Builder
    order: Order
    fresh: count = field(default_factory=count)
    values: dict[str, tuple[Operand, tuple[Index, ...]]] = field(default_factory=dict)

    def run(self) -> Operand:
        for number, definition in enumerate(self.spec.core):
            # Each definition has letters of its own, so one name in two definitions cannot be confused.
            letters = {
                name: tuple(Index(next(self.fresh), atom) for atom in atoms)
                for name, atoms in self.spec.resolved.index_sizes[number].items()
            }
            target = tuple(i for name in definition.target.indices for i in letters[name])
            self.values[definition.name] = (self._body(definition.body, target, letters), target)
        operand, target = self.values[self.spec.output]
        return self.builder.permuted(operand, (BATCH_INDEX, *target))

    def _body(self, body: Sum | Call, target: tuple[Index, ...], letters: Mapping[str, tuple[Index, ...]]) -> Operand:
        if not isinstance(body, Call):
            return self._sum(body, frozenset(target), letters)
        over = tuple(i for name in body.over for i in letters[name])
        if body.function in SUMS:
            # A mean is a sum with 1 / (product of the lengths) folded into each term's coefficient.
            number, powers = size_product((i.size for i in over if body.function == "mean"), -1)
            return self._sum(body.argument, frozenset(target), letters, Coefficient(number, powers), over)
        argument = self._sum(body.argument, frozenset((*target, *over)), letters)
        present = argument.indices
        # Softmax needs its axes present even where the argument is constant along them.
        needed = tuple(dict.fromkeys((*present, *over)))
        argument = self.builder.permuted(argument, needed)
        gone = set(over) if kind(body.function) == REDUCING else set()
        return self.builder.apply(body.function, over, argument, tuple(i for i in needed if i not in gone))

    def _sum(
        self,
        total: Sum,
        keep: frozenset[Index],
        letters: Mapping[str, tuple[Index, ...]],
        scale: Coefficient = ONE,
        over: tuple[Index, ...] = (),
    ) -> Operand:
        """Sum over all indices but `keep`; `over` also count in terms without them."""
        return self.builder.sum([self._term(term, keep, letters, scale, over) for term in total.terms])

    def _term(
        self,
        term: Term,
        keep: frozenset[Index],
        letters: Mapping[str, tuple[Index, ...]],
        scale: Coefficient,
        over: tuple[Index, ...],
    ) -> tuple[Operand, Coefficient]:
        number = Fraction(-1 if term.negative else 1)
        operands: list[Operand] = []
        written: list[Index] = list(over)
        own = [frozenset(_indices(f, letters)) for f in term.factors]
        uses = Counter(i for indices in own for i in indices)
        for factor, divide, indices in zip(term.factors, term.divides, own, strict=True):
            if isinstance(factor, Number):
                number = number / factor.value if divide else number * factor.value
            elif isinstance(factor, SizeRef):
                scale = scale.times(
                    Coefficient(*size_product(self.spec.sizes.atoms(number_name(factor)), -1 if divide else 1))
                )
            elif isinstance(factor, Bracket):
                # A repeated, kept or averaged index cannot be summed inside the bracket.
                around = {i for i in indices if uses[i] > 1 or i in keep or i in over}
                operands.append(self._sum(factor.body, frozenset(around), letters))
                written += [i for i in _indices(factor, letters) if i in around]
            else:
                assert isinstance(factor, Access), "the core has functions as whole right-hand sides only"
                operands += self._access(factor, letters)
                written += _indices(factor, letters)
        # A summed index without a tensor along it repeats the term, so its length becomes a factor.
        have = {i for o in operands for i in o.indices}
        extra, more = size_product(i.size for i in dict.fromkeys(written) if i not in keep and i not in have)
        coefficient = scale.times(Coefficient(number * extra, more))
        return self.builder.product(operands, keep, coefficient, self.order)

    def _access(self, access: Access, letters: Mapping[str, tuple[Index, ...]]) -> list[Operand]:
        indices = _indices(access, letters)
        if is_condition(access.tensor):
            atoms = {s: self.spec.sizes.atoms(s) for s in sizes_in(access.tensor)}
            slots = [tuple(i for name in slot.indices for i in letters[name]) for slot in access.slots]
            factor = condition_factor(resized(access.tensor, atoms), slots)
            return [self.builder.identity(factor.indices, factor.tensor)]
        if access.tensor == IDENTITY:
            # One Kronecker delta for each atom: a split size has as many as it has parts.
            half = len(indices) // 2
            return [self.builder.identity(pair) for pair in zip(indices[:half], indices[half:], strict=True)]
        if access.tensor not in self.values:
            lead = (BATCH_INDEX,) if access.tensor in self.spec.inputs else ()
            return [self.builder.leaf(access.tensor, (*lead, *indices))]
        operand, target = self.values[access.tensor]
        names = {**dict(zip(target, indices, strict=True)), BATCH_INDEX: BATCH_INDEX}
        return [self.builder.again(operand, tuple(names[i] for i in operand.indices))]


def monomials(spec: Spec) -> int:
    """Return how many monomials the text has at most, multiplied out: those inside functions included."""
    known: dict[str, int] = {}
    inside = 0

    def count_sum(total: Sum) -> int:
        return sum(prod(count_factor(f) for f in term.factors) for term in total.terms)

    def count_factor(factor: object) -> int:
        if isinstance(factor, Bracket):
            return count_sum(factor.body)
        return known.get(factor.tensor, 1) if isinstance(factor, Access) else 1

    for definition in spec.core:
        body = definition.body
        if isinstance(body, Call) and body.function not in SUMS:
            inside += count_sum(body.argument)
            known[definition.name] = 1
        else:
            known[definition.name] = count_sum(body.argument if isinstance(body, Call) else body)
    return known[spec.output] + inside


def _indices(factor: object, letters: Mapping[str, tuple[Index, ...]]) -> tuple[Index, ...]:
    if isinstance(factor, Access):
        return tuple(i for name in factor.indices for i in letters[name])
    if isinstance(factor, Bracket):
        return tuple(i for term in factor.body.terms for f in term.factors for i in _indices(f, letters))
    return ()
