"""Einsums of lengths that a compiler keeps symbolic or a tracer follows: planned for numbers, read from shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count

from torch import fx

from polyattn.algebra import Index
from polyattn.lowering.emit import Emitter
from polyattn.planning import Apply, Graph, Operand, Pullback

OPEN = -1
"""The length of an axis that is not known."""
NOMINAL = 64
"""The least length that a plan is made for where it is not known."""

Shapes = Sequence[tuple[int, ...]]


def nominal(terms: Sequence[Sequence[str]], shapes: Shapes) -> tuple[tuple[tuple[int, ...], ...], dict[str, int]]:
    """Return the shapes with numbers for open lengths, and the number of each open label, which nothing else has.

    Args:
        terms: the labels of each operand's axes.
        shapes: the shapes, with `OPEN` for open lengths; these are two or more.
    """
    given = [dict(zip(labels, shape, strict=True)) for labels, shape in zip(terms, shapes, strict=True)]
    known = {label: n for lengths in given for label, n in lengths.items() if n > 1}
    free = (n for n in count(NOMINAL) if n not in known.values())
    read: dict[str, int] = {}
    for lengths in given:
        for label, length in lengths.items():
            if length == OPEN and label not in known:
                read.setdefault(label, next(free))
    numbers = known | read
    pairs = zip(terms, shapes, strict=True)
    filled = [
        tuple(numbers[a] if n == OPEN else n for a, n in zip(labels, shape, strict=True)) for labels, shape in pairs
    ]
    return tuple(filled), read


def named(graph: Graph, read: Mapping[str, int]) -> Graph:
    """Return a graph whose sizes of open labels are names instead of their nominal numbers."""
    names = {str(number): name_of(label) for label, number in read.items()}

    def at(indices: tuple[Index, ...]) -> tuple[Index, ...]:
        return tuple(Index(i.id, names.get(i.size, i.size)) for i in indices)

    def of(operand: Operand) -> Operand:
        return Operand(operand.value, at(operand.indices))

    nodes = []
    for node in graph.nodes:
        over = {"over": at(node.over)} if isinstance(node, Apply | Pullback) else {}
        nodes.append(replace(node, output=at(node.output), operands=tuple(map(of, node.operands)), **over))
    known = {name_of(label): number for label, number in read.items()}
    return Graph(tuple(nodes), tuple(map(of, graph.outputs)), tuple(sorted({**graph.known, **known}.items())))


def name_of(label: str) -> str:
    """Return the name of the size of a label."""
    return f"length_{label.replace('...', 'dots')}"


def read_lengths(
    emitter: Emitter, terms: Sequence[Sequence[str]], shapes: Shapes, values: Sequence[fx.Node], read: Mapping[str, int]
) -> None:
    """Let an emitter read the lengths of open labels from its operands."""
    emitter.long = frozenset(emitter.long) | set(map(name_of, read))
    for labels, shape, value in zip(terms, shapes, values, strict=True):
        for axis, (label, length) in enumerate(zip(labels, shape, strict=True)):
            if label in read and length == read[label] and name_of(label) not in emitter.lengths:
                emitter.lengths[name_of(label)] = emitter.method("size", value, axis)
