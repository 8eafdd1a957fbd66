"""Building evaluation graphs: equal nodes are merged, however their indices are named.

Guarantees: every node's operands come before it; the coefficient of a product is applied once, preferably in the step
that sums the positions it divides by; terms of a sum with a common factor are added first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import count

from polyattn.algebra import Index
from polyattn.language.syntax import IDENTITY
from polyattn.planning.bounded import bounded
from polyattn.planning.keys import nameless
from polyattn.planning.pooling import pooled
from polyattn.planning.steps import (
    BATCH,
    ONE,
    Add,
    Apply,
    Coefficient,
    Constant,
    Contract,
    Convolve,
    Identity,
    Leaf,
    Node,
    Operand,
    Relation,
    Sizes,
    numel,
)
from polyattn.planning.windows import relations, windowed

Pairs = Sequence[tuple[int, int]]
"""Positions of the two operands to contract next; the result goes to the end of the list, as in opt_einsum."""

Order = Callable[[Sequence[tuple[Index, ...]], frozenset[Index]], Pairs]
"""Chooses the pairs for operands with the given indices and the indices to keep."""

BATCH_INDEX = Index(-1, BATCH)
"""The batch in graphs of a specification: one index, shared by all inputs."""


@dataclass
class Builder:
    """Collects nodes.

    Attributes:
        sizes: the number of every atomic size, the batch included.
        sum_early: whether an index of one operand alone is summed before the products (cheaper), or after them (as an
            author writes it: a projection, then a pooling).
        factor_sums: whether A*P + A*Q becomes A*(P + Q).
    """

    sizes: Sizes
    sum_early: bool = True
    factor_sums: bool = True
    nodes: list[Node] = field(default_factory=list)
    known: dict[object, int] = field(default_factory=dict)
    # Below the batch's -1, so that new ids meet neither it nor the specification's, which count up from 0.
    fresh: Iterator[int] = field(default_factory=lambda: count(-2, -1))

    def add(self, node: Node) -> int:
        # The key ignores index names, so the same computation is one node wherever it was written.
        key, _ = nameless(node)
        if key not in self.known:
            self.known[key] = len(self.nodes)
            self.nodes.append(node)
        return self.known[key]

    def leaf(self, tensor: str, indices: tuple[Index, ...]) -> Operand:
        """Return an access of a tensor; repeated indices become a diagonal."""
        output = tuple(Index(k, i.size) for k, i in enumerate(indices))
        return self.again(Operand(self.add(Leaf(tensor, output)), indices), indices)

    def identity(self, indices: tuple[Index, ...], tensor: str = IDENTITY) -> Operand:
        """Return the identity, or the condition of this name."""
        output = tuple(Index(k, i.size) for k, i in enumerate(indices))
        return self.again(Operand(self.add(Identity(output, tensor=tensor)), indices), indices)

    def constant(self) -> Operand:
        return Operand(self.add(Constant()), ())

    def again(self, operand: Operand, indices: tuple[Index, ...]) -> Operand:
        """Return a value accessed with other indices; repeated ones become a diagonal."""
        distinct = tuple(dict.fromkeys(indices))
        again = Operand(operand.value, indices)
        return again if len(distinct) == len(indices) else self.contract((again,), distinct)

    def numel(self, operand: Operand) -> int:
        return numel(operand.indices, self.sizes)

    def apply(self, function: str, over: tuple[Index, ...], operand: Operand, output: tuple[Index, ...]) -> Operand:
        window = pooled(function, over, operand, output, self)
        return Operand(self.add(window or Apply(function, over, (operand,), output)), output)

    def contract(self, operands: tuple[Operand, ...], output: tuple[Index, ...], scale: Coefficient = ONE) -> Operand:
        """Return a product, sum, diagonal or scaling.

        A known one is reused, whatever the order of its axes: the result has the axes of the known node.
        """
        if len(operands) == 2:
            operands = self.sides(*operands)
        node = Contract(operands, output, scale)
        key, numbers = nameless(node)
        value = self.known.get(key)
        if value is None:
            return Operand(self.add(node), output)
        have = self.nodes[value]
        # The key holds a set of output axes: translate the known node's order into this call's indices.
        indices = {number: index for index, number in numbers.items()}
        places = nameless(have)[1]
        return Operand(value, tuple(indices[places[i]] for i in have.output))

    def convolve(
        self,
        operands: tuple[Operand, ...],
        placed: tuple[Relation, ...],
        output: tuple[Index, ...],
        scale: Coefficient = ONE,
    ) -> Operand:
        """Return a product over neighbourhoods."""
        output = tuple(sorted(output, key=lambda i: i.size != BATCH))
        return Operand(self.add(Convolve(operands, placed, output, scale)), output)

    def scaled(self, operand: Operand, scale: Coefficient) -> Operand:
        """Multiply a value by a coefficient, within the product or sum that computes it if possible."""
        node = self.nodes[operand.value]
        if not isinstance(node, Contract):
            return self.contract((operand,), operand.indices, scale)
        made = self.contract(node.operands, node.output, node.coefficient.times(scale))
        names = dict(zip(node.output, operand.indices, strict=True))
        return Operand(made.value, tuple(names[i] for i in made.indices))

    def sum(self, terms: Sequence[tuple[Operand, Coefficient]], order: Sequence[Index] = ()) -> Operand:
        """Return the sum of terms, over the union of their indices, common factors extracted first.

        Args:
            terms: operands with their coefficients.
            order: leading axes of the result.
        """
        terms = self._factored(list(terms)) if self.factor_sums else list(terms)
        if len(terms) == 1:
            operand, scale = terms[0]
            return operand if scale.is_one else self.contract((operand,), operand.indices, scale)
        # The axes of the largest term come next, so the biggest operand is added without a transposing copy.
        largest = max((t[0] for t in terms), key=lambda o: (len(o.indices), self.numel(o)))
        have = {i for o, _ in terms for i in o.indices}
        union = dict.fromkeys(
            (*(i for i in order if i in have), *largest.indices, *(i for o, _ in terms for i in o.indices))
        )
        # Stable sort: the batch moves to the front, the other axes keep their order.
        output = tuple(sorted(union, key=lambda i: i.size != BATCH))
        node = Add(tuple(o for o, _ in terms), tuple(c for _, c in terms), output)
        return Operand(self.add(node), output)

    def permuted(self, operand: Operand, output: tuple[Index, ...]) -> Operand:
        """Return the operand with its axes in the given order, broadcast over the additional ones."""
        if operand.indices == output:
            return operand
        return Operand(self.add(Add((operand,), (ONE,), output)), output)

    def product(
        self, operands: Sequence[Operand], keep: Iterable[Index], coefficient: Coefficient, order: Order
    ) -> tuple[Operand, Coefficient]:
        """Contract operands over all indices but the kept ones.

        Returns:
            The result and the rest of the coefficient: 1, a sign for the surrounding sum to apply, or all of it for an
            empty product.
        """
        if not operands:
            return self.constant(), coefficient
        kept = frozenset((*keep, BATCH_INDEX))
        operands = bounded(operands, self)
        # The sign goes to the sum: x and -x then share one node.
        sign, scale = _split_sign(coefficient)
        operands, placed = relations(operands, kept, self)
        if placed:
            return windowed(operands, placed, kept, scale, self), sign
        current, scale = self._sum_private(list(operands), kept, scale)
        pairs = list(order([o.indices for o in current], kept)) if len(current) > 1 else []
        place = self._scale_place(current, pairs, kept, scale)
        if place < 0:
            position = -1 - place
            current[position] = self.contract((current[position],), current[position].indices, scale)
        for step, (i, j) in enumerate(pairs):
            a, b = current[i], current[j]
            rest = [o for k, o in enumerate(current) if k not in (i, j)]
            output = self._pair_output(a, b, rest, kept)
            current = [*rest, self.contract((a, b), output, scale if step == place else ONE)]
        (result,) = current
        # Indices private to one operand survive the pairs if sums are late; they are summed here.
        remaining = tuple(i for i in result.indices if i in kept)
        if remaining != result.indices:
            result = self.contract((result,), remaining, scale if place == len(pairs) else ONE)
        return result, sign

    def _sum_private(
        self, operands: list[Operand], kept: frozenset[Index], scale: Coefficient
    ) -> tuple[list[Operand], Coefficient]:
        """Sum the indices private to one operand; the first sum over a divided size takes the coefficient."""
        if not self.sum_early or len(operands) == 1:
            return operands, scale
        for k, operand in enumerate(operands):
            others = {i for n, o in enumerate(operands) if n != k for i in o.indices}
            wanted = tuple(i for i in operand.indices if i in kept or i in others)
            if wanted != operand.indices:
                takes = bool(scale.divided & {i.size for i in operand.indices if i not in wanted})
                operands[k] = self.contract((operand,), wanted, scale if takes else ONE)
                scale = ONE if takes else scale
        return operands, scale

    def _scale_place(self, operands: list[Operand], pairs: Pairs, kept: frozenset[Index], scale: Coefficient) -> int:
        """Choose the step for the coefficient; len(pairs) is the last sum, -1-k stands for scaling operand k first.

        A step that sums an index whose size the coefficient divides by has precedence, because its accumulator holds
        the sum in full precision. Otherwise the smallest tensor is scaled.
        """
        if scale.is_one:
            return len(pairs) + 1
        # Simulate the pairs with shadows: only indices matter here, so no node is added.
        current, sizes = list(operands), {-1 - k: self.numel(o) for k, o in enumerate(operands)}
        for step, (i, j) in enumerate(pairs):
            a, b = current[i], current[j]
            rest = [o for k, o in enumerate(current) if k not in (i, j)]
            output = self._pair_output(a, b, rest, kept)
            if scale.divided & {x.size for x in (*a.indices, *b.indices) if x not in output}:
                return step
            shadow = Operand(a.value, output)
            sizes[step] = self.numel(shadow)
            current = [*rest, shadow]
        if any(i not in kept for i in current[0].indices):
            return len(pairs)
        return min(sizes, key=lambda place: sizes[place])

    def _pair_output(
        self, a: Operand, b: Operand, rest: Sequence[Operand], kept: frozenset[Index]
    ) -> tuple[Index, ...]:
        needed = kept | {i for o in rest for i in o.indices}
        both = set(a.indices) & set(b.indices)
        # Without early sums, an index of one side alone stays until the final sum.
        stays = {i for i in (*a.indices, *b.indices) if i in needed or (i not in both and not self.sum_early)}
        return self.pair_indices(a, b, stays)

    def pair_indices(self, a: Operand, b: Operand, stays: Iterable[Index]) -> tuple[Index, ...]:
        """Return the natural order of a product's axes, the batch first.

        Shared, left, right for a matrix product; the larger operand's where nothing is summed.
        """
        stays = set(stays)
        both = set(a.indices) & set(b.indices)
        if both <= stays:
            large, small = (a, b) if self.numel(a) >= self.numel(b) else (b, a)
            order = [i for i in dict.fromkeys((*large.indices, *small.indices)) if i in stays]
        else:
            left, right = self.sides(a, b)
            order = [i for i in left.indices if i in both and i in stays]
            order += [i for i in left.indices if i in stays and i not in both]
            order += [i for i in right.indices if i in stays and i not in both]
        return tuple(sorted(order, key=lambda i: i.size != BATCH))

    def sides(self, a: Operand, b: Operand) -> tuple[Operand, Operand]:
        """Order the operands of a product: activations before weights, else the older value first.

        With a canonical order a product and its transposed copy are one node.
        """
        has_batch = [any(i.size == BATCH for i in o.indices) for o in (a, b)]
        if has_batch[0] != has_batch[1]:
            return (b, a) if has_batch[1] else (a, b)
        return (b, a) if b.value < a.value else (a, b)

    def _factored(self, terms: list[tuple[Operand, Coefficient]]) -> list[tuple[Operand, Coefficient]]:
        """Replace A*P + A*Q by A*(P + Q) as long as two terms have a common factor.

        The result of a merge is tried next, before all other terms; only terms that share a value are compared.
        """
        left = dict(enumerate(terms))
        readers: dict[int, set[int]] = {}
        for number, term in left.items():
            for value in self._factors(term):
                readers.setdefault(value, set()).add(number)
        # Merged terms get negative numbers: `n > first` then compares them with all older terms.
        open_, fresh = deque(left), count(-1, -1)
        while open_:
            first = open_.popleft()
            if first not in left:
                # It was merged into another term after it had been queued.
                continue
            sharing = {n for value in self._factors(left[first]) for n in readers[value] if n > first and n in left}
            # Sorted: the graph must not depend on the iteration order of a set.
            for second in sorted(sharing):
                merged = self._common_factor(left[first], left[second])
                if merged is not None:
                    del left[first], left[second]
                    new = next(fresh)
                    left[new] = merged
                    for value in self._factors(merged):
                        readers.setdefault(value, set()).add(new)
                    open_.appendleft(new)
                    break
        return [left[number] for number in sorted(left)]

    def _factors(self, term: tuple[Operand, Coefficient]) -> set[int]:
        """Return the values a term multiplies; empty unless it is a product of two."""
        node = self.nodes[term[0].value]
        return {o.value for o in node.operands} if isinstance(node, Contract) and len(node.operands) == 2 else set()

    def _common_factor(
        self, one: tuple[Operand, Coefficient], two: tuple[Operand, Coefficient]
    ) -> tuple[Operand, Coefficient] | None:
        """Return A * (P + Q) for two terms A*P and A*Q of equal shape, if P and Q are smaller than the terms."""
        a, b = self.nodes[one[0].value], self.nodes[two[0].value]
        if not (isinstance(a, Contract) and isinstance(b, Contract)) or not len(a.operands) == len(b.operands) == 2:
            return None
        if set(one[0].indices) != set(two[0].indices) or not a.summed:
            return None
        scales = one[1].times(a.coefficient), two[1].times(b.coefficient)
        # Rational multiples can move into the sum, powers of sizes have to be common to both.
        if scales[0].powers != scales[1].powers:
            return None
        outer, inner = self._renaming(a, one[0].indices), self._renaming(b, two[0].indices)
        summed_a, summed_b = {outer[i] for i in a.summed}, {inner[i] for i in b.summed}
        # Either operand of one product may be the common factor, and either of the other.
        for mine in (0, 1):
            for theirs in (0, 1):
                shared, other = _seen(a.operands[mine], outer), _seen(b.operands[theirs], inner)
                same = _unify(shared, other, summed_a, summed_b)
                if same is None:
                    continue
                inner_as_outer = {i: same.get(n, n) for i, n in inner.items()}
                p = _seen(a.operands[1 - mine], outer)
                q = _seen(b.operands[1 - theirs], inner_as_outer)
                # Adding P and Q must not cost more than adding the products.
                if set(p.indices) != set(q.indices) or self.numel(p) > self.numel(one[0]):
                    continue
                total = self.sum([(p, _rational(scales[0])), (q, _rational(scales[1]))])
                powers = Coefficient(Fraction(1), scales[0].powers)
                return self.contract((shared, total), one[0].indices, powers), ONE
        return None

    def _renaming(self, node: Contract, outside: tuple[Index, ...]) -> dict[Index, Index]:
        """Rename a node's own indices: those of its output to the outside's, summed ones to new names."""
        names = dict(zip(node.output, outside, strict=True))
        return names | {i: Index(next(self.fresh), i.size) for i in node.summed}


def _split_sign(coefficient: Coefficient) -> tuple[Coefficient, Coefficient]:
    """Split off a sign for the surrounding sum from the coefficient of the product."""
    if coefficient.number < 0:
        return Coefficient(Fraction(-1)), replace(coefficient, number=-coefficient.number)
    return ONE, coefficient


def _rational(coefficient: Coefficient) -> Coefficient:
    # The powers of sizes are common to both terms and stay outside the sum.
    return Coefficient(coefficient.number)


def _seen(operand: Operand, names: dict[Index, Index]) -> Operand:
    return Operand(operand.value, tuple(names[i] for i in operand.indices))


def _unify(a: Operand, b: Operand, summed_a: set[Index], summed_b: set[Index]) -> dict[Index, Index] | None:
    """Map the summed indices of b to those of a, if both are one value at equal outer indices; else return None."""
    if a.value != b.value:
        return None
    same: dict[Index, Index] = {}
    for mine, theirs in zip(a.indices, b.indices, strict=True):
        if (mine in summed_a) != (theirs in summed_b) or (mine not in summed_a and mine != theirs):
            return None
        if theirs in summed_b:
            same[theirs] = mine
    return same
