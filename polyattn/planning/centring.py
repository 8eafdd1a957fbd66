"""`centred`: an evaluation graph with its maps written as mean and deviation, X = 1 mᵀ + X', which is exact.

A Gram matrix of a map with a mean is nearly of rank 1: its condition is the square of the map's, and when weights
remove the mean, digits go with it. So XᵀX becomes the pair (X'ᵀX', N m mᵀ), in which the cross terms vanish, since X'
sums to 0 over the positions. The mean's part stays a product of vectors until each of them has met its weight, and only
then joins the other part: wᵀX'ᵀX'w + N (wᵀm)(mᵀw). It takes a few products of vectors more. The backward pass of such
a graph is rewritten in the same way: XᵀdY = X'ᵀdY + m (1ᵀdY)ᵀ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import count, product

from polyattn.algebra import Index, Spec
from polyattn.algebra.monomial import size_product
from polyattn.errors import SpecError
from polyattn.planning.builder import Builder
from polyattn.planning.graph import Graph
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
    Pullback,
    loop_indices,
)

MINUS = Coefficient(Fraction(-1))
MOST_TERMS = 12
"""A value of more terms is added up, whatever its means have met."""


def position_axes(spec: Spec, tensor: str) -> range:
    """The axes of an input that are positions: all but the batch and the last slot; none of a parameter."""
    slots = spec.shape(tensor) if tensor in spec.inputs else ()
    return range(1, 1 + sum(map(len, slots[:-1])))


STEPS = ("pools", "sums", "all")
"""Which steps read an input as mean and deviation: sums over its positions, products that sum them too, or all."""


def centred(graph: Graph, spec: Spec, steps: str, parts: Mapping[str, tuple[str, str]] | None = None) -> Graph:
    """The same function by way of deviations from the mean over positions.

    Args:
        graph: with the inputs of the specification as leaves.
        spec: the specification.
        steps: one of `STEPS`.
        parts: for inputs, the leaves that are their mean and the deviations from it, which a backward pass may read.
    """
    return _Centring(graph, spec, steps, parts or {}).run()


def is_deviation(node: Node, nodes: Sequence[Node], spec: Spec, means: Mapping[str, str] | None = None) -> bool:
    """Return whether a node is an input less its mean over all its positions.

    Args:
        node: one of `nodes`, or one that reads them.
        nodes: those of the graph.
        spec: the specification.
        means: leaves that are such means, with their inputs.
    """
    if not isinstance(node, Add) or node.coefficients != (ONE, MINUS):
        return False
    whole, mean = node.operands
    leaf, inner = nodes[whole.value], nodes[mean.value]
    if not isinstance(leaf, Leaf) or len(set(whole.indices)) < len(whole.indices):
        return False
    axes = position_axes(spec, leaf.tensor)
    if not axes or mean.indices != _without(axes, whole.indices):
        return False
    if isinstance(inner, Leaf):
        return (means or {}).get(inner.tensor) == leaf.tensor
    return isinstance(inner, Contract) and _is_mean(inner, whole.value, axes)


def deviations(nodes: Sequence[Node], spec: Spec, means: Mapping[str, str] | None = None) -> dict[int, int]:
    """Return the nodes that are an input less its mean over positions, each with the mean; arguments as above."""
    return {k: n.operands[1].value for k, n in enumerate(nodes) if is_deviation(n, nodes, spec, means)}


def _without(axes: range, indices: tuple[Index, ...]) -> tuple[Index, ...]:
    return tuple(i for k, i in enumerate(indices) if k not in axes)


def _is_mean(node: Contract, value: int, axes: range) -> bool:
    """Return whether a step is the mean of a value over these axes: not their sum, nor a mean over other ones."""
    if [o.value for o in node.operands] != [value]:
        return False
    (indices,) = (o.indices for o in node.operands)
    if len(set(indices)) < len(indices) or node.output != _without(axes, indices):
        return False
    try:
        count = Coefficient(*size_product(indices[k].size for k in axes))
    except SpecError:  # an axis of a composed size, which no coefficient divides by
        return False
    return node.coefficient.times(count).is_one


@dataclass(frozen=True)
class _Term:
    """A product of values that is not made yet, over indices of which none is summed."""

    factors: tuple[Operand, ...]
    scale: Coefficient = ONE

    @property
    def indices(self) -> tuple[Index, ...]:
        return tuple(dict.fromkeys(i for f in self.factors for i in f.indices))

    def renamed(self, names: dict[Index, Index], builder: Builder) -> _Term:
        """The term with other indices; repeated ones become diagonals."""
        moved = (builder.again(f, tuple(names[i] for i in f.indices)) for f in self.factors)
        return _Term(tuple(moved), self.scale)


@dataclass
class _Centring:
    """The rewriting of one graph.

    Attributes:
        given: for inputs, the leaves that are their mean and the deviations from it.
        values: the terms whose sum each node is, over the node's own indices; a term may lack some.
        parts: those of an input, as mean and deviation.
        means: the values that are means of inputs.
        zero: axes over which a value sums to 0.
    """

    graph: Graph
    spec: Spec
    steps: str
    given: Mapping[str, tuple[str, str]]
    builder: Builder = field(init=False)
    values: list[list[_Term]] = field(default_factory=list)
    parts: dict[int, list[_Term]] = field(default_factory=dict)
    means: set[int] = field(default_factory=set)
    zero: dict[int, frozenset[int]] = field(default_factory=dict)

    def run(self) -> Graph:
        used = [i.id for n in self.graph.nodes for i in (*n.output, *loop_indices(n))]
        self.builder = Builder(self.graph.known, fresh=count(min([-1, *used]) - 1, -1))
        for number, node in enumerate(self.graph.nodes):
            self.values.append(self.node(number, node))
        outputs = [self.builder.permuted(self.whole(o, o.indices), o.indices) for o in self.graph.outputs]
        return Graph.of(self.builder.nodes, outputs, self.graph.known)

    def node(self, number: int, node: Node) -> list[_Term]:
        if isinstance(node, Leaf):
            return self.leaf(number, node)
        if isinstance(node, Contract):
            return self.contract(node)
        if is_deviation(node, self.graph.nodes, self.spec, {mean: x for x, (mean, _) in self.given.items()}):
            return self.terms(node.operands[0], apart=True)[:1]
        if isinstance(node, Add):
            given = zip(node.operands, node.coefficients, strict=True)
            terms = [_Term(t.factors, t.scale.times(c)) for o, c in given for t in self.terms(o)]
            return self.merged(terms)
        if isinstance(node, Apply):
            (operand,) = node.operands
            argument = self.whole(operand, operand.indices)
            if node.relations:
                return [_Term((Operand(self.builder.add(replace(node, operands=(argument,))), node.output),))]
            return [_Term((self.builder.apply(node.function, node.over, argument, node.output),))]
        if isinstance(node, Convolve):
            # Borders of zeros are no mean: a neighbourhood's operands are whole.
            operands = tuple(self.whole(o, o.indices) for o in node.operands)
            made = self.builder.convolve(operands, node.relations, node.output, node.coefficient)
            return [_Term((made,))]
        if isinstance(node, Pullback):
            whole = tuple(self.whole(o, o.indices) for o in node.operands)
            made = replace(node, operands=whole)
            return [_Term((Operand(self.builder.add(made), node.output),))]
        assert isinstance(node, Identity | Constant)
        return [_Term((Operand(self.builder.add(node), node.output),))]

    def leaf(self, number: int, node: Leaf) -> list[_Term]:
        x = self.builder.leaf(node.tensor, node.output)
        for tensor, (mean, deviation) in self.given.items():
            if node.tensor == mean:
                self.means.add(x.value)
            elif node.tensor == deviation:
                self.zero[x.value] = frozenset(position_axes(self.spec, tensor))
        axes = position_axes(self.spec, node.tensor)
        itself = [_Term((x,))]
        if not axes:
            return itself
        mean, deviation = self.mean_and_deviation(node, x, [node.output[k] for k in axes])
        self.means.add(mean.value)
        self.zero[deviation.value] = frozenset(axes)
        self.parts[number] = [_Term((deviation,)), _Term((mean,))]
        return self.parts[number] if self.steps == "all" else itself

    def mean_and_deviation(self, node: Leaf, x: Operand, positions: Sequence[Index]) -> tuple[Operand, Operand]:
        rest = tuple(i for i in node.output if i not in positions)
        names = self.given.get(node.tensor)
        if names:
            mean = self.builder.leaf(names[0], rest)
        else:
            mean = self.builder.contract((x,), rest, Coefficient(*size_product((i.size for i in positions), -1)))
        if names and any(isinstance(n, Leaf) and n.tensor == names[1] for n in self.graph.nodes):
            return mean, self.builder.leaf(names[1], node.output)
        return mean, Operand(self.builder.add(Add((x, mean), (ONE, MINUS), node.output)), node.output)

    def terms(self, operand: Operand, *, apart: bool = False) -> list[_Term]:
        """The terms of an operand, over the indices that its axes have in the node that reads it."""
        names = dict(zip(self.graph.nodes[operand.value].output, operand.indices, strict=True))
        terms = self.parts[operand.value] if apart else self.values[operand.value]
        return [t.renamed(names, self.builder) for t in terms]

    def contract(self, node: Contract) -> list[_Term]:
        found = [self.terms(o, apart=self._summed_apart(o, node)) for o in node.operands]
        loop = loop_indices(node)
        made = []
        for chosen in product(*found):
            scale = node.coefficient
            for term in chosen:
                scale = scale.times(term.scale)
            term = self.product([f for t in chosen for f in t.factors], node.output, loop, scale)
            if term is not None:
                made.append(term)
        return self.merged(made)

    def _summed_apart(self, operand: Operand, node: Contract) -> bool:
        """Whether an input is read in two parts: where its positions are summed."""
        if operand.value not in self.parts or (self.steps == "pools" and len(node.operands) > 1):
            return False
        leaf = self.graph.nodes[operand.value]
        assert isinstance(leaf, Leaf)
        return any(operand.indices[k] in node.summed for k in position_axes(self.spec, leaf.tensor))

    def product(
        self, factors: list[Operand], output: Sequence[Index], loop: Sequence[Index], scale: Coefficient
    ) -> _Term | None:
        """A product summed over the indices that the output lacks; None where it vanishes."""
        have = {i for f in factors for i in f.indices}
        lost = [i for i in loop if i not in output and i not in have]
        scale = scale.times(Coefficient(*size_product(i.size for i in lost)))
        for place in range(len(factors)):
            others = {i for k, f in enumerate(factors) if k != place for i in f.indices}
            kept = tuple(i for i in factors[place].indices if i in output or i in others)
            if kept != factors[place].indices:
                made, scale = self._made((factors[place],), kept, scale)
                if made is None:
                    return None
                factors[place] = made
        while summed := [i for f in factors for i in f.indices if i not in output]:
            a, b, *_ = (k for k, f in enumerate(factors) if summed[0] in f.indices)
            rest = [f for k, f in enumerate(factors) if k not in (a, b)]
            needed = {*output, *(i for f in rest for i in f.indices)}
            axes = self.builder.pair_indices(factors[a], factors[b], needed)
            made, scale = self._made((factors[a], factors[b]), axes, scale)
            if made is None:
                return None
            factors = [*rest, made]
        return _Term(tuple(factors), scale)

    def _made(
        self, operands: tuple[Operand, ...], output: tuple[Index, ...], scale: Coefficient
    ) -> tuple[Operand | None, Coefficient]:
        """A contraction with the rest of the coefficient; None where a sum of deviations makes it vanish."""
        summed = {i for o in operands for i in o.indices if i not in output}
        zero: frozenset[Index] = frozenset()
        for operand in operands:
            own = {operand.indices[k] for k in self.zero.get(operand.value, ())}
            if own and not any(own & set(o.indices) for o in operands if o is not operand):
                if own <= summed:
                    return None, scale
                zero = frozenset(own - summed)
        takes = bool(summed) and (not scale.divided or bool(scale.divided & {i.size for i in summed}))
        made = self.builder.contract(operands, output, scale if takes else ONE)
        if zero:
            self.zero[made.value] = frozenset(k for k, i in enumerate(made.indices) if i in zero)
        return made, ONE if takes else scale

    def merged(self, terms: Iterable[_Term]) -> list[_Term]:
        """Terms of equal indices added up, where their means have met what they are multiplied by."""
        groups: dict[frozenset[Index], list[_Term]] = {}
        open_: list[_Term] = []
        for term in terms:
            if self.is_open(term):
                open_.append(term)
            else:
                groups.setdefault(frozenset(term.indices), []).append(term)
        closed = [group[0] if len(group) == 1 else self.added(group) for group in groups.values()]
        closed = [_Term((self.joined(t),), t.scale) if len(t.factors) > 1 else t for t in closed]
        return [*closed, *open_] if len(open_) + len(closed) <= MOST_TERMS else [self.added([*closed, *open_])]

    def is_open(self, term: _Term) -> bool:
        """Whether a weight may still remove a mean in a product: no other factor has the mean's channels."""
        for number, factor in enumerate(term.factors):
            if factor.value in self.means:
                others = {i for k, f in enumerate(term.factors) if k != number for i in f.indices if i.size != BATCH}
                if not others & set(factor.indices):
                    return True
        return False

    def added(self, terms: Sequence[_Term]) -> _Term:
        total = self.builder.sum([(self.joined(t), t.scale) for t in terms])
        zeros = [{f.indices[k] for f in t.factors[:1] for k in self.zero.get(f.value, ())} for t in terms]
        if all(zero == zeros[0] and zero for zero in zeros):
            self.zero[total.value] = frozenset(k for k, i in enumerate(total.indices) if i in zeros[0])
        return _Term((total,))

    def joined(self, term: _Term) -> Operand:
        """The product of a term's factors, smallest first."""
        left = sorted(term.factors, key=self.builder.numel)
        while len(left) > 1:
            a, b, *rest = left
            indices = (*a.indices, *b.indices)
            left = sorted(
                [self.builder.contract((a, b), self.builder.pair_indices(a, b, indices)), *rest],
                key=self.builder.numel,
            )
        return left[0]

    def whole(self, operand: Operand, output: tuple[Index, ...]) -> Operand:
        """An operand added up, with these axes."""
        # No term is left of a sum of deviations alone, which is 0.
        terms = self.terms(operand) or [_Term((self.builder.constant(),), Coefficient(Fraction(0)))]
        total = self.builder.sum([(self.joined(t), t.scale) for t in terms], (*output,))
        return self.builder.permuted(total, tuple(sorted(dict.fromkeys(output), key=lambda i: i.size != BATCH)))
