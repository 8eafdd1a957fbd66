"""Building evaluation graphs: equal nodes are made once, whatever their indices are called.

Guarantees: every node's operands come before it; a value that an input reaches is batched; the coefficient of a
product is applied at one place, in the step that sums the positions it divides by where there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from polyattn.algebra import Index
from polyattn.planning.steps import (
    ONE,
    Add,
    Apply,
    Coefficient,
    Constant,
    Contract,
    Identity,
    Leaf,
    Node,
    Operand,
    Sizes,
    numel,
)

Pairs = Sequence[tuple[int, int]]
"""Positions of the two operands to contract next; the result goes to the end of the list, as in opt_einsum."""

Order = Callable[[Sequence[tuple[Index, ...]], Sequence[bool], frozenset[Index]], Pairs]
"""Chooses the pairs for operands with the given indices, of which the given ones are batched, and the output."""


@dataclass
class Builder:
    """Collects nodes.

    Attributes:
        sizes: the number of every atomic size.
        batch: the batch size.
        sum_early: whether an index that one operand alone has is summed before the products (cheaper), or after
            them (as an author writes it: a projection, then a pooling).
    """

    sizes: Sizes
    batch: int
    sum_early: bool = True
    nodes: list[Node] = field(default_factory=list)
    known: dict[object, int] = field(default_factory=dict)

    def add(self, node: Node) -> int:
        key = _nameless(node)
        if key not in self.known:
            self.known[key] = len(self.nodes)
            self.nodes.append(node)
        return self.known[key]

    def leaf(self, tensor: str, indices: tuple[Index, ...], batched: bool) -> Operand:
        """An access of an input or parameter; repeated indices become a diagonal."""
        output = tuple(Index(k, i.size) for k, i in enumerate(indices))
        return self._diagonal(Operand(self.add(Leaf(tensor, output, batched)), indices))

    def identity(self, indices: tuple[Index, ...]) -> Operand:
        output = tuple(Index(k, i.size) for k, i in enumerate(indices))
        return Operand(self.add(Identity(output)), indices)

    def again(self, operand: Operand, indices: tuple[Index, ...]) -> Operand:
        """A value that is there already, accessed with other indices."""
        return self._diagonal(Operand(operand.value, indices))

    def _diagonal(self, operand: Operand) -> Operand:
        distinct = tuple(dict.fromkeys(operand.indices))
        if len(distinct) == len(operand.indices):
            return operand
        return self._contract((operand,), distinct, ONE)

    def batched(self, operand: Operand) -> bool:
        return self.nodes[operand.value].batched

    def numel(self, operand: Operand) -> int:
        return numel(operand.indices, self.batched(operand), self.sizes, self.batch)

    def apply(self, function: str, over: tuple[Index, ...], operand: Operand, output: tuple[Index, ...]) -> Operand:
        node = Apply(function, over, (operand,), output, self.batched(operand))
        return Operand(self.add(node), output)

    def sum(self, terms: Sequence[tuple[Operand, Coefficient]]) -> Operand:
        """The sum of terms, over the union of their indices."""
        if len(terms) == 1:
            operand, coefficient = terms[0]
            return operand if coefficient.is_one else self._contract((operand,), operand.indices, coefficient)
        largest = max((t[0] for t in terms), key=lambda o: (len(o.indices), self.numel(o)))
        output = tuple(dict.fromkeys((*largest.indices, *(i for o, _ in terms for i in o.indices))))
        operands, coefficients = tuple(o for o, _ in terms), tuple(c for _, c in terms)
        return Operand(self.add(Add(operands, coefficients, output, any(map(self.batched, operands)))), output)

    def permuted(self, operand: Operand, output: tuple[Index, ...]) -> Operand:
        """The operand with its axes in the given order, broadcast over those that it lacks."""
        if operand.indices == output:
            return operand
        return Operand(self.add(Add((operand,), (ONE,), output, self.batched(operand))), output)

    def product(
        self, operands: Sequence[Operand], keep: Iterable[Index], coefficient: Coefficient, order: Order
    ) -> tuple[Operand, Coefficient]:
        """A product summed over all indices that are not kept.

        Returns:
            The result and what remains of the coefficient: 1, or a sign that the surrounding sum takes care of.
        """
        if not operands:
            return Operand(self.add(Constant()), ()), coefficient
        kept = frozenset(keep)
        sign, scale = _split_sign(coefficient)
        current, scale = self._sum_private(list(operands), kept, scale)
        pairs = list(order([o.indices for o in current], [self.batched(o) for o in current], kept))
        place = self._scale_place(current, pairs, kept, scale)
        if place < 0:
            current[-1 - place] = self._contract((current[-1 - place],), current[-1 - place].indices, scale)
        for step, (i, j) in enumerate(pairs):
            a, b = current[i], current[j]
            rest = [o for k, o in enumerate(current) if k not in (i, j)]
            output = self._pair_output(a, b, rest, kept)
            current = [*rest, self._contract(self._sides(a, b), output, scale if step == place else ONE)]
        (result,) = current
        remaining = tuple(i for i in result.indices if i in kept)
        if remaining != result.indices:
            result = self._contract((result,), remaining, scale if place == len(pairs) else ONE)
        return result, sign

    def _sum_private(
        self, operands: list[Operand], kept: frozenset[Index], scale: Coefficient
    ) -> tuple[list[Operand], Coefficient]:
        """Sum the indices that one operand alone has; the first sum over what the coefficient divides by takes it."""
        if not self.sum_early or len(operands) == 1:
            return operands, scale
        divided = {s for s, e in scale.powers if e < 0}
        for k, operand in enumerate(operands):
            others = {i for n, o in enumerate(operands) if n != k for i in o.indices}
            wanted = tuple(i for i in operand.indices if i in kept or i in others)
            if wanted != operand.indices:
                takes = bool(divided & {i.size for i in operand.indices if i not in wanted})
                operands[k] = self._contract((operand,), wanted, scale if takes else ONE)
                scale, divided = (ONE, set()) if takes else (scale, divided)
        return operands, scale

    def _scale_place(self, operands: list[Operand], pairs: Pairs, kept: frozenset[Index], scale: Coefficient) -> int:
        """Which step carries the coefficient; len(pairs) is the last sum, -1-k says that operand k is scaled first.

        The step that sums an index whose size the coefficient divides by goes before all others: there the
        accumulator holds the sum in full precision. Else the smallest tensor is scaled.
        """
        if scale.is_one:
            return len(pairs) + 1
        divided = {s for s, e in scale.powers if e < 0}
        current, sizes = list(operands), {-1 - k: self.numel(o) for k, o in enumerate(operands)}
        for step, (i, j) in enumerate(pairs):
            a, b = current[i], current[j]
            rest = [o for k, o in enumerate(current) if k not in (i, j)]
            output = self._pair_output(a, b, rest, kept)
            if divided & {x.size for x in (*a.indices, *b.indices) if x not in output}:
                return step
            shadow = Operand(a.value if self.batched(a) else b.value, output)
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
        stays = [i for i in dict.fromkeys((*a.indices, *b.indices)) if i in needed or (i not in both)]
        if self.sum_early:
            stays = [i for i in stays if i in needed]
        if not any(i not in stays for i in both):
            large, small = (a, b) if self.numel(a) >= self.numel(b) else (b, a)
            return tuple(i for i in dict.fromkeys((*large.indices, *small.indices)) if i in stays)
        left, right = self._sides(a, b)
        shared = [i for i in left.indices if i in both and i in stays]
        return tuple(
            [*shared, *(i for i in left.indices if i in stays and i not in both)]
            + [i for i in right.indices if i in stays and i not in both]
        )

    def _sides(self, a: Operand, b: Operand) -> tuple[Operand, Operand]:
        """Which operand goes left in the matrix product: activations before weights."""
        return (b, a) if self.batched(b) and not self.batched(a) else (a, b)

    def _contract(self, operands: tuple[Operand, ...], output: tuple[Index, ...], coefficient: Coefficient) -> Operand:
        node = Contract(operands, output, coefficient, any(map(self.batched, operands)))
        return Operand(self.add(node), output)


def _split_sign(coefficient: Coefficient) -> tuple[Coefficient, Coefficient]:
    """A sign for the surrounding sum, and what is left for the product."""
    if coefficient.number < 0:
        return Coefficient(-ONE.number), replace(coefficient, number=-coefficient.number)
    return ONE, coefficient


def _nameless(node: Node) -> object:
    """The node with its indices numbered by first appearance: equal for nodes that differ in names only."""
    numbers: dict[Index, int] = {}

    def move(indices: tuple[Index, ...]) -> tuple[tuple[int, str], ...]:
        return tuple((numbers.setdefault(i, len(numbers)), i.size) for i in indices)

    operands = tuple((o.value, move(o.indices)) for o in node.operands)
    extra = {
        Leaf: lambda n: (n.tensor, n.batched),
        Contract: lambda n: n.coefficient,
        Add: lambda n: n.coefficients,
        Apply: lambda n: (n.function, move(n.over)),
    }.get(type(node), lambda n: ())(node)
    return type(node).__name__, operands, extra, move(node.output)
