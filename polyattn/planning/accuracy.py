"""Digits that an order of contraction may lose on maps with a mean: bounds on the condition of its reductions.

A map X = μ 1 1ᵀ + X' with deviations of order 1 has entries of order μ. Where a channel axis meets a weight whose
columns sum to 0, the mean goes, and the digits that it took stay lost. Each value of a graph is followed with the power
of μ that its entries have, the channel axes along which its mean is constant, the axes along which it sums to 0, and
the powers of μ in its error, in units of the precision. Which axes of weights sum to 0 is not known, so plans are
compared with the author's order for all of them, for the first and for the last of each weight.

Powers do not see averages: the errors of single positions shrink in a sum over them, those of the sum do not. So sums
over positions of values that still have their mean are counted as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from polyattn.algebra import Index, Spec
from polyattn.planning.centring import deviations, is_deviation, position_axes
from polyattn.planning.graph import Graph
from polyattn.planning.steps import Add, Apply, Contract, Convolve, Leaf, Node, Operand

WEIGHTS: tuple[slice, ...] = (slice(None), slice(0, 1), slice(-1, None))
"""The axes of weights that sum to 0, in each of the cases that are compared."""


@dataclass(frozen=True)
class Accuracy:
    """Error bounds of a plan and of the author's order on maps of mean μ and deviation 1.

    The weights are those that remove the mean, and of these the ones for which the plan compares worst.

    Attributes:
        wide: the power of μ in the relative error, in units of the precision, where all values have the same.
        narrow: the same where maps have 16 bits and tensors as small as weights 32.
        sums: steps that sum positions of a map with its mean, as a Gram matrix does; where plans are made for 16 bits,
            of products alone, since sums of one map are held in 32.
        written: the three for the author's order.
        centred: whether the plan works on deviations from the mean.
    """

    wide: int
    narrow: int
    sums: int
    written: tuple[int, int, int]
    centred: bool

    @property
    def kept(self) -> bool:
        """Whether the plan loses no more than the author's order, as far as these bounds tell.

        With 16-bit maps the bound of an order that makes similarities does not see that their errors average out; so
        other orders may not lose any power there.
        """
        wide, narrow, sums = self.written
        return (self.wide, self.narrow, self.sums) == self.written or (
            self.wide <= wide and self.narrow <= min(0, narrow) and self.sums <= sums
        )

    def __str__(self) -> str:
        own, author = (_in_words(*w) for w in ((self.wide, self.narrow, self.sums), self.written))
        how = "deviations from the mean, " if self.centred else ""
        return f"error on maps of mean m: {how}{own}" + ("" if own == author else f"; as written: {author}")


def _in_words(wide: int, narrow: int, sums: int) -> str:
    whole, maps = ("eps" if p == 0 else "m eps" if p == 1 else f"m^{p} eps" for p in (wide, narrow))
    return f"{whole} (16-bit maps: {maps}" + (f"; reductions with the mean: {sums})" if sums else ")")


Errors = tuple[tuple[int, frozenset[int]], ...]
"""Parts of a value's error: the power of μ in each, and the axes along which it sums to 0, as a weight's columns do."""


@dataclass(frozen=True)
class _State:
    """One value.

    Attributes:
        power: of μ in its entries.
        means: for each mean in it that a weight can still remove, the axes along which that mean is constant.
        zero: the axes along which it sums to 0.
        wide, narrow: its errors where all values have one precision, and where maps alone are rounded.
        map: whether it has all positions of an input that it depends on, and so 16 bits where maps have.
        parameter: whether it is one.
        positions: its axes that run over positions of an input.
    """

    power: int = 0
    means: tuple[frozenset[int], ...] = ()
    zero: frozenset[int] = frozenset()
    wide: Errors = ()
    narrow: Errors = ()
    map: bool = False
    parameter: bool = False
    positions: frozenset[int] = frozenset()


def maps(graph: Graph, spec: Spec, renamed: dict[str, str] | None = None) -> tuple[bool, ...]:
    """Which values are maps: those with all positions of an input that they depend on.

    All others are as small as weights, and are held in 32 bits.

    Args:
        renamed: sizes that have another name in the graph than in the specification.
    """
    names = renamed or {}
    wanted = {}
    for tensor in (*spec.inputs, spec.output):
        atoms = [names.get(a, a) for slot in spec.shape(tensor)[:-1] for a in slot]
        wanted[tensor] = Counter(atoms)
    needs: list[list[Counter[str]]] = []
    found = []
    for node in graph.nodes:
        if isinstance(node, Leaf):
            # Besides inputs and parameters, a backward pass reads the output's gradient and kept values.
            known = node.tensor in wanted or node.tensor in spec.parameters
            tensors = [wanted[node.tensor]] if node.tensor in wanted else [] if known else list(wanted.values())
        else:
            tensors = [w for o in node.operands for w in needs[o.value]]
            tensors = [w for k, w in enumerate(tensors) if w not in tensors[:k]]
        needs.append(tensors)
        have = Counter(i.size for i in node.output)
        found.append(any(w <= have for w in tensors))
    return tuple(found)


@lru_cache(maxsize=4096)
def powers(graph: Graph, spec: Spec, narrow: bool = False) -> tuple[tuple[int, int, int, int], ...]:
    """The powers of μ in the output's entries, and in its error with one precision and with 16-bit maps; and `sums`.

    Args:
        narrow: whether maps have 16 bits.

    Returns:
        the four for each of `WEIGHTS`.
    """
    found, are_maps = [], maps(graph, spec)
    for axes in WEIGHTS:
        states: list[_State] = []
        for node, is_map in zip(graph.nodes, are_maps, strict=True):
            states.append(_follow(node, states, is_map, graph, spec, axes))
        output = states[graph.outputs[0].value]
        own, maps_alone = (max((p for p, _ in errors), default=0) for errors in (output.wide, output.narrow))
        found.append((output.power, own, maps_alone, _sums(graph, states, spec, narrow)))
    return tuple(found)


def accuracy(graph: Graph, written: Graph, spec: Spec, narrow: bool = False) -> Accuracy:
    """Return the error bounds of a graph and of the author's, both relative to the author's result.

    Args:
        narrow: whether maps have 16 bits, so that sums over their positions, in 32, lose nothing beside them.
    """
    is_centred = bool(deviations(graph.nodes, spec))
    found, both = [], (powers(graph, spec, narrow), powers(written, spec, narrow))
    for (_, *own, sums), (size, *author, others) in zip(*both, strict=True):
        wide, maps_alone, *theirs = (max(0, p - size) for p in (*own, *author))
        found.append(Accuracy(wide, maps_alone, sums, (theirs[0], theirs[1], others), is_centred))
    return max(found, key=lambda a: (not a.kept, a.wide - a.written[0], a.narrow - a.written[1], a.wide, a.narrow))


def _sums(graph: Graph, states: Sequence[_State], spec: Spec, narrow: bool) -> int:
    """Steps that sum positions of a value with its mean; the mean itself is not one of them.

    With 16-bit maps, products alone count: sums of one value are held in 32 bits.
    """
    centres = set(deviations(graph.nodes, spec).values())
    count = 0
    for number, node in enumerate(graph.nodes):
        if isinstance(node, Contract) and number not in centres and len(node.operands) > narrow:
            sides = [(o, states[o.value]) for o in node.operands]
            count += any(s.means and {o.indices[k] for k in s.positions} & set(node.summed) for o, s in sides)
    return count


def _follow(node: Node, states: Sequence[_State], is_map: bool, graph: Graph, spec: Spec, weights: slice) -> _State:
    if isinstance(node, Leaf):
        if node.tensor not in spec.inputs:
            return _State(zero=frozenset(range(len(node.output))[weights]), parameter=True)
        axes = position_axes(spec, node.tensor)
        if not axes:
            return _State()
        channels = frozenset(range(len(axes) + 1, len(node.output)))
        return _State(1, (channels,), map=True, positions=frozenset(axes))
    if is_deviation(node, graph.nodes, spec):
        return _State(wide=_rounding(0), narrow=_rounding(0), map=True)
    if isinstance(node, Contract):
        return _contracted(node, states, is_map)
    if isinstance(node, Convolve):
        power = sum(states[o.value].power for o in node.operands)
        return _State(power, wide=_rounding(power), narrow=_rounding(power) if is_map else (), map=is_map)
    if isinstance(node, Add):
        return _added(node, states, is_map)
    if isinstance(node, Apply):
        (inner,) = (states[o.value] for o in node.operands)
        wide, narrow = (tuple((p, frozenset[int]()) for p, _ in errors) for errors in (inner.wide, inner.narrow))
        return _State(
            wide=_largest((*wide, *_rounding(0))),
            narrow=_largest((*narrow, *_rounding(0))) if is_map else narrow,
            map=is_map,
        )
    return _State()


def _rounding(power: int) -> Errors:
    return ((power, frozenset()),)


def _largest(errors: Errors) -> Errors:
    """The parts that no other part is a bound of."""
    found: list[tuple[int, frozenset[int]]] = []
    for power, zero in sorted(set(errors), key=lambda e: (-e[0], len(e[1]))):
        if not any(p >= power and z <= zero for p, z in found):
            found.append((power, zero))
    return tuple(found)


def _contracted(node: Contract, states: Sequence[_State], is_map: bool) -> _State:
    sides = [(o, states[o.value]) for o in node.operands]
    power = sum(_left(state, o, _others(sides, k, node)) for k, (o, state) in enumerate(sides))
    means = tuple(
        frozenset(k for k, i in enumerate(node.output) if i in {operand.indices[a] for a in axes})
        for number, (operand, state) in enumerate(sides)
        for axes in state.means
        if all(operand.indices[a] in node.output for a in axes)
        and not any(operand.indices[a] in o.indices for a in axes for k, (o, _) in enumerate(sides) if k != number)
    )
    zero = _zero(node, [(o, s.zero) for o, s in sides])
    wide, narrow = _rounding(sum(s.power for _, s in sides)), _rounding(power) if is_map else ()
    for number, (_, state) in enumerate(sides):
        rounds = is_map and not (state.map or state.parameter) and len(sides) > 1
        own = (*state.narrow, *_rounding(state.power)) if rounds else state.narrow
        wide += _carried(node, sides, number, state.wide)
        narrow += _carried(node, sides, number, own)
    places = {o.indices[k] for o, s in sides for k in s.positions}
    positions = frozenset(k for k, i in enumerate(node.output) if i in places)
    return _State(power, means, zero, _largest(wide), _largest(narrow), is_map, positions=positions)


Sides = Sequence[tuple[Operand, _State]]


def _others(sides: Sides, number: int, node: Contract) -> list[tuple[Operand, frozenset[int]]]:
    """The other operands, with the axes along which they sum to 0 and are summed."""
    others = [side for k, side in enumerate(sides) if k != number]
    return [(o, frozenset(k for k in s.zero if o.indices[k] in node.summed)) for o, s in others]


def _left(state: _State, operand: Operand, others: Sequence[tuple[Operand, frozenset[int]]]) -> int:
    """The power of an operand once the others, with the summed axes along which they sum to 0, removed its means."""
    removing = {o.indices[k] for o, zero in others for k in zero}
    return state.power - sum(any(operand.indices[k] in removing for k in axes) for axes in state.means)


def _zero(node: Contract, sides: Sequence[tuple[Operand, frozenset[int]]]) -> frozenset[int]:
    """The axes of a product along which it sums to 0: those of one operand that no other has."""
    found = set[Index]()
    for number, (operand, zero) in enumerate(sides):
        rest = {i for k, (o, _) in enumerate(sides) if k != number for i in o.indices}
        found |= {operand.indices[k] for k in zero} - rest
    return frozenset(k for k, i in enumerate(node.output) if i in found)


def _carried(node: Contract, sides: Sides, number: int, errors: Errors) -> Errors:
    """Return an operand's errors in a product."""
    operand = sides[number][0]
    found: Errors = ()
    for power, zero in errors:
        replaced = [(o, zero if k == number else s.zero) for k, (o, s) in enumerate(sides)]
        removing = [(operand, frozenset(k for k in zero if operand.indices[k] in node.summed))]
        rest = sum(_left(s, o, removing) for k, (o, s) in enumerate(sides) if k != number)
        found += ((power + rest, _zero(node, replaced)),)
    return found


def _added(node: Add, states: Sequence[_State], is_map: bool) -> _State:
    found = [(o, states[o.value]) for o in node.operands]
    largest, top = max(found, key=lambda pair: pair[1].power)

    def moved(operand: Operand, axes: frozenset[int]) -> frozenset[int]:
        return frozenset(node.output.index(operand.indices[k]) for k in axes)

    def errors(which: Sequence[Errors]) -> Errors:
        return tuple((p, moved(o, z)) for (o, _), parts in zip(found, which, strict=True) for p, z in parts)

    zero = frozenset.intersection(*(moved(o, s.zero) for o, s in found))
    wide, narrow = errors([s.wide for _, s in found]), errors([s.narrow for _, s in found])
    rounding = _rounding(top.power)
    return _State(
        top.power,
        tuple(moved(largest, axes) for axes in top.means),
        zero,
        _largest((*wide, *rounding)),
        _largest((*narrow, *rounding)) if is_map else _largest(narrow),
        is_map,
        positions=frozenset[int]().union(*(moved(o, s.positions) for o, s in found)),
    )
