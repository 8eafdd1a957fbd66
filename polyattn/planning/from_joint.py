"""From the joint search to evaluation graphs: the chosen way of each value, written with the builder.

A function of a polynomial is one factor to the search; its argument is a sum of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count

from polyattn.algebra import FunctionFactor, Index, Monomial, Polynomial, TensorFactor
from polyattn.language.syntax import is_fixed
from polyattn.planning.builder import BATCH_INDEX, Builder
from polyattn.planning.from_polynomial import contract_sum, factor_operand
from polyattn.planning.graph import Graph
from polyattn.planning.joint import STEPS, Problem, Solution
from polyattn.planning.steps import BATCH, ONE, Coefficient, Operand, Sizes, numel
from polyattn.planning.trees import Tree, pairs_of, ranked_orders
from polyattn.planning.values import LEAF, SUM, Reference, TooLargeError, Values

TERMS = 8
"""Monomials up to which a sum is searched as a whole."""
WAYS = 12_000
"""Ways that are listed for one sum."""

Factor = TensorFactor | FunctionFactor


@dataclass(frozen=True)
class JointSum:
    """A sum of monomials with its listed values, the factors behind their labels, and the indices by number."""

    problem: Problem
    factors: tuple[Factor, ...]
    indices: Mapping[int, Index]

    @property
    def exact(self) -> bool:
        """Whether the lower bound holds for every evaluation in the model; products with the identity may be saved."""
        plain = all(isinstance(f, TensorFactor) and not is_fixed(f.tensor) for f in self.factors)
        return self.problem.values.exact and plain


@lru_cache(maxsize=256)
def joint_sum(terms: tuple[Monomial, ...], keep: frozenset[Index], inputs: frozenset[str]) -> JointSum | None:
    """List the values of a sum of monomials; None if there are too many.

    Args:
        terms: the monomials.
        keep: the indices that are not summed.
        inputs: the tensors with a batch.
    """
    if len(terms) > TERMS:
        return None
    for connected in (False, True):
        try:
            return _listed(terms, keep, inputs, connected)
        except TooLargeError:
            continue
    return None


def _listed(terms: tuple[Monomial, ...], keep: frozenset[Index], inputs: frozenset[str], connected: bool) -> JointSum:
    longest = max((len(t.factors) for t in terms), default=0)
    # The splits of all parts of the products; a sum has at least as many ways again to factor.
    if not connected and sum(3 ** len(t.factors) for t in terms) // 2 > WAYS // (2 if len(terms) > 1 else 1):
        raise TooLargeError
    if longest == 0:
        raise TooLargeError
    numbers: dict[Index, int] = {BATCH_INDEX: 0}
    for index in sorted(keep):
        numbers.setdefault(index, len(numbers))
    shared = dict(numbers)
    indices = {n: i for i, n in numbers.items()}
    labels: dict[object, int] = {}
    factors: list[Factor] = []
    values = Values({}, WAYS, connected)
    pieces = []
    fresh = count(len(numbers))
    for term in terms:
        names = dict(shared)
        atoms = []
        for factor in term.factors:
            plain = factor.renamed({i: Index(-2 - k, i.size) for k, i in enumerate(dict.fromkeys(factor.indices))})
            # A tensor is known by its name alone, a function with its argument.
            key: object = factor.tensor if isinstance(factor, TensorFactor) else plain
            has_batch = _has_batch(factor, inputs)
            if key not in labels:
                labels[key] = len(factors)
                factors.append(factor)
            at = [0] if has_batch else []
            for index in factor.indices:
                if index not in names:
                    names[index] = next(fresh)
                    indices[names[index]] = index
                at.append(names[index])
            atoms.append((labels[key], tuple(at)))
        pieces.append((values.scale(Coefficient(term.coefficient, term.powers)), tuple(atoms)))
    values.sizes.update((n, i.size) for n, i in indices.items())
    root = values.root(pieces, frozenset(shared.values()))
    return JointSum(Problem(values, root), tuple(factors), indices)


def _has_batch(factor: Factor, inputs: frozenset[str]) -> bool:
    if isinstance(factor, TensorFactor):
        return factor.tensor in inputs
    return any(_has_batch(f, inputs) for t in factor.terms for f in t.factors)


def joint_graphs(
    polynomial: Polynomial, sizes: Sizes, above: int, steps: int = STEPS
) -> tuple[list[tuple[Builder, Operand]], int]:
    """Return the best evaluations found, and a lower bound on every evaluation in the model.

    Args:
        polynomial: the sum.
        sizes: the number of every size.
        above: multiply-accumulates of a known evaluation.
        steps: the work that may be done.
    """
    inputs = frozenset(polynomial.signature.inputs)
    output = polynomial.signature.output_indices()
    found = joint_sum(polynomial.terms, frozenset(output), inputs)
    plain = _least(polynomial.terms, frozenset(output), inputs, sizes)
    if found is None:
        return [], plain
    solutions, lower = found.problem.solve(sizes, above, steps)
    made, arguments = [], _Arguments(inputs)
    for solution in solutions:
        builder = Builder(sizes, factor_sums=False)
        total = _Maker(found, solution, builder, arguments).root(frozenset(output), (BATCH_INDEX, *output))
        made.append((builder, builder.permuted(total, (BATCH_INDEX, *output))))
    return made, max(lower, plain) if found.exact else plain


def joint_products(term: Monomial, output: tuple[Index, ...]) -> Iterator[Graph]:
    """Yield the best evaluations of one product of tensors without a batch, such as an einsum's; sizes are numbers."""
    found = joint_sum((term,), frozenset(output), frozenset())
    if found is None:
        return
    for solution in found.problem.solve({})[0]:
        builder = Builder({}, factor_sums=False)
        total = _Maker(found, solution, builder, _Arguments(frozenset())).root(frozenset(output), output)
        yield Graph.of(builder.nodes, [builder.permuted(total, output)], {})


def _least(terms: Iterable[Monomial], keep: frozenset[Index], inputs: frozenset[str], sizes: Sizes) -> int:
    """Return the least cost of a product with the largest factor of a monomial: a bound without a search."""
    least = 0
    for term in terms:
        if len(term.factors) < 2 or any(isinstance(f, TensorFactor) and is_fixed(f.tensor) for f in term.factors):
            continue
        uses = Counter(i for f in term.factors for i in set(f.indices))
        for factor in term.factors:
            open_ = {i for i in factor.indices if i in keep or uses[i] > 1}
            batch = sizes[BATCH] if _has_batch(factor, inputs) else 1
            least = max(least, batch * numel(open_, sizes))
    return least


_Best = tuple[JointSum, Solution]


@dataclass
class _Arguments:
    """The sums inside functions, each searched once however often and with whatever indices it is read.

    Attributes:
        inputs: the tensors with a batch.
        left: the ways that may be listed for them all.
    """

    inputs: frozenset[str]
    left: int = WAYS
    known: dict[object, _Best | None] = field(default_factory=dict)

    def best(self, terms: tuple[Monomial, ...], keep: frozenset[Index], sizes: Sizes) -> _Best | None:
        """Return the sum with its best evaluation; None if the search would be too large."""
        if (terms, keep) not in self.known:
            found = joint_sum(terms, keep, self.inputs) if self.left > 0 else None
            self.left -= found.problem.values.work if found else WAYS
            solutions = found.problem.solve(sizes)[0] if found else []
            self.known[terms, keep] = (found, solutions[0]) if found and solutions else None
        return self.known[terms, keep]


@dataclass
class _Maker:
    found: JointSum
    solution: Solution
    builder: Builder
    arguments: _Arguments

    def root(self, keep: frozenset[Index], axes: Sequence[Index] = ()) -> Operand:
        reference = self.found.problem.root
        names = {n: self.found.indices[n] for n in reference.axes}
        if self.kind(reference) == SUM:
            return self.sum(reference, names, reference.scale, axes)
        return self.builder.sum([self.value(reference, names, reference.scale)], axes)

    def kind(self, reference: Reference) -> int:
        return self.found.problem.values.values[reference.value].kind

    def inner(self, reference: Reference, names: Mapping[int, Index]) -> dict[int, Index]:
        """Return the names of a value's own axes."""
        value = self.found.problem.values.values[reference.value]
        return {own: names[outer] for own, outer in zip(value.axes, reference.axes, strict=True)}

    def local(self, number: int, names: Mapping[int, Index]) -> dict[int, Index]:
        """Return names for all indices of a value: those of its axes, and new ones for the rest."""
        value = self.found.problem.values.values[number]
        every = {i for _, atoms in value.pieces for _, at in atoms for i in at}
        # Below the batch's -1, as all indices of the builder.
        own = {i: Index(next(self.builder.fresh), self.found.indices[i].size) for i in sorted(every - names.keys())}
        return own | dict(names)

    def sum(
        self, reference: Reference, names: Mapping[int, Index], scale: Coefficient = ONE, axes: Sequence[Index] = ()
    ) -> Operand:
        """Build a sum, times a coefficient, from the parts that were chosen."""
        value = self.found.problem.values.values[reference.value]
        local = self.local(reference.value, self.inner(reference, names))
        way = value.ways[self.solution.way[reference.value]]
        terms = [self.value(part, local, part.scale.times(scale)) for part in way.parts]
        return self.builder.sum(terms, axes)

    def value(
        self, reference: Reference, names: Mapping[int, Index], scale: Coefficient
    ) -> tuple[Operand, Coefficient]:
        """Build a product or a tensor, times a coefficient; return it with the rest of the coefficient."""
        operands, tree, more = self.flat(reference, names, scale)
        keep = [names[i] for i in reference.axes]
        if tree is None:
            return self.builder.constant(), more
        pairs = pairs_of(tree, len(operands))
        return self.builder.product(operands, keep, more, lambda *_: pairs)

    def flat(
        self, reference: Reference, names: Mapping[int, Index], scale: Coefficient, before: int = 0
    ) -> tuple[list[Operand], Tree | None, Coefficient]:
        """Return the factors of a product, the tree that contracts them, and the coefficient that is left."""
        number = reference.value
        value = self.found.problem.values.values[number]
        inner = self.inner(reference, names)
        if value.kind == SUM:
            # A division belongs to the product that sums the positions it divides by.
            return [self.sum(reference, names, scale)], before, ONE
        local = self.local(number, inner)
        if value.kind == LEAF:
            if not value.pieces[0][1]:
                return [], None, scale
            ((label, at),) = value.pieces[0][1]
            return [self.operand(label, tuple(local[i] for i in at))], before, scale
        left, right = value.ways[self.solution.way[number]].parts
        operands, first, scale = self.flat(left, local, scale, before)
        inside = ONE
        if self.kind(right) == SUM:
            summed = {local[i].size for i in left.axes if i not in inner}
            scale = scale.times(right.scale)
            if scale.divided and not scale.divided & summed:
                scale, inside = ONE, scale
        others, second, rest = self.flat(right, local, inside, before + len(operands))
        assert first is not None  # a constant is a part of sums alone
        assert second is not None
        return [*operands, *others], (first, second), scale.times(rest)

    def operand(self, label: int, indices: tuple[Index, ...]) -> Operand:
        factor = self.found.factors[label]
        own = indices[1:] if indices and indices[0].size == BATCH else indices
        if isinstance(factor, TensorFactor):
            factor = TensorFactor(factor.tensor, own)
        else:
            factor = factor.renamed(dict(zip(factor.indices, own, strict=True)))
        return factor_operand(factor, self.arguments.inputs, self.builder, self.argument)

    def argument(self, terms: tuple[Monomial, ...], keep: frozenset[Index]) -> Operand:
        """Build a function's argument by a search of its own; monomial by monomial if it is too large."""
        # By numbers of their own, so that one argument read at different indices is searched once.
        places = dict.fromkeys((*(i for t in terms for i in t.all_indices()), *sorted(keep)))
        names = {i: Index(k, i.size) for k, i in enumerate(places)}
        own = tuple(t.renamed(names) for t in terms)
        best = self.arguments.best(own, frozenset(names[i] for i in keep), self.builder.sizes)
        if best is None:
            return contract_sum(terms, keep, self.arguments.inputs, self.builder, ranked_orders(self.builder.sizes))
        made = _Maker(*best, self.builder, self.arguments).root(frozenset(names[i] for i in keep))
        before = {new: old for old, new in names.items()}
        return Operand(made.value, tuple(before.get(i, i) for i in made.indices))
