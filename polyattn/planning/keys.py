"""Keys of nodes: equal computations have equal keys, whatever their indices are called."""

from __future__ import annotations

from polyattn.algebra import Index
from polyattn.planning.steps import Add, Apply, Contract, Convolve, Identity, Leaf, Node, Pullback, placed


def nameless(node: Node) -> tuple[object, dict[Index, int]]:
    """Return a key of the node's computation that ignores index names, with the number of each of its indices.

    Indices are numbered by first appearance; the order of a contraction's output axes makes no difference.
    """
    numbers: dict[Index, int] = {}

    def move(indices: tuple[Index, ...]) -> tuple[tuple[int, str], ...]:
        return tuple((numbers.setdefault(i, len(numbers)), i.size) for i in indices)

    def related(node: Node) -> list[object]:
        return [(move(r.indices), tuple(c for _, c in r.terms), r.sizes, r.number) for r in placed(node)]

    operands = tuple((o.value, move(o.indices)) for o in node.operands)
    extra: object = None
    output: object = move(node.output)
    if isinstance(node, Leaf | Identity):
        extra = node.tensor
    elif isinstance(node, Contract):
        extra = node.coefficient
        # A set: a contraction's axes may come in any order, which `contract` translates back.
        output = frozenset(numbers[i] for i in node.output)
    elif isinstance(node, Convolve):
        extra = (node.coefficient, *related(node))
    elif isinstance(node, Add):
        extra = node.coefficients
    elif isinstance(node, Apply | Pullback):
        extra = (node.function, move(node.over), *related(node))
    return (type(node), operands, extra, output), numbers
