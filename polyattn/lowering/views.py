"""`with_fewer_views`: a generated graph whose transpositions are moved through its operations until they cancel.

Each view costs a small layer about as much as Python's part of a call, and twice that where autograd records it. A
value is followed as a base and the base's axis of each of its axes: permutations and new axes of length 1 only change
that list, operations entry by entry run on the bases, and a view is made where an operation needs it, once. The result
computes the same sums in the same order, and every value lies in memory as before.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import fx
from torch.fx.node import map_arg

from polyattn.lowering.shapes import divided, multiplied, widened

ENTRYWISE = frozenset({torch.mul, torch.add, torch.sub, torch.neg, widened})
"""Functions of tensors entry by entry, with broadcasting."""
NUMBERS = frozenset({operator.mul, operator.add, operator.floordiv, divided, multiplied, torch.sym_sqrt})
"""Functions of numbers that are read from shapes."""
REMOVABLE = frozenset({"size", "permute", "unsqueeze"}) | NUMBERS
"""Operations that are left out where nothing reads their results."""

Axes = tuple[int | None, ...]


class View(NamedTuple):
    """A value: a node, and the node's axis of each of its axes; None is a new axis. Without a list nothing is known."""

    base: fx.Node
    axes: Axes | None

    @property
    def known(self) -> Axes:
        assert self.axes is not None
        return self.axes


def with_fewer_views(graph: fx.Graph, ranks: Mapping[str, int], positions: int | None = None) -> fx.Graph:
    """Return a graph that computes the same with fewer views.

    Args:
        graph: made by an emitter.
        ranks: number of axes of the placeholders, by their names.
        positions: if given, the first placeholder and the output of the new graph are maps (B, C, *positions) instead
            of (B, *positions, C): any number of axes for 1, else as many as the number says.
    """
    rewriter = Rewriter(fx.Graph(), ranks, positions)
    for node in graph.nodes:
        rewriter.values[node] = rewriter.rewritten(node)
    kept_lengths(rewriter.graph)
    for node in reversed(rewriter.graph.nodes):
        if not node.users and node.target in REMOVABLE:
            rewriter.graph.erase_node(node)
    return rewriter.graph


@dataclass
class Rewriter:
    """Writes the nodes of a graph into another one."""

    graph: fx.Graph
    ranks: Mapping[str, int]
    positions: int | None
    values: dict[fx.Node, View] = field(default_factory=dict)
    made: dict[tuple[fx.Node, Axes], fx.Node] = field(default_factory=dict)
    map: fx.Node | None = None

    def rewritten(self, node: fx.Node) -> View:
        if node.op == "placeholder":
            return self.placeholder(node)
        if node.op == "output":
            return self.output(node)
        source = self.values.get(node.args[0]) if node.args and isinstance(node.args[0], fx.Node) else None
        if node.op == "call_method" and source is not None and not (node.kwargs.keys() - {"dtype"}):
            found = self.method(node, source, node.args[1:])
            if found is not None:
                return found
        if node.op == "call_function" and node.target in ENTRYWISE:
            found = self.entrywise(node)
            if found is not None:
                return found
        return self.as_it_is(node)

    def copied(self, node: fx.Node, args: Sequence[Any]) -> fx.Node:
        kwargs = map_arg(node.kwargs, lambda n: self.plain(self.values[n]))
        made = self.graph.create_node(node.op, node.target, tuple(args), kwargs, node.name)
        made.meta.update(node.meta)
        return made

    def placeholder(self, node: fx.Node) -> View:
        made = self.copied(node, node.args)
        rank = self.ranks.get(node.name)
        if self.positions is None or self.map is not None:
            return View(made, None if rank is None else tuple(range(rank)))
        self.map = made
        made = self.graph.call_method("flatten", (made, 2)) if self.positions == 1 else made
        return View(made, (0, *range(2, self.positions + 2), 1))

    def output(self, node: fx.Node) -> View:
        result: Any = node.args[0]
        if self.map is None or self.positions is None:
            return View(self.graph.output(map_arg(result, lambda n: self.plain(self.values[n]))), None)
        last = self.positions + 1
        y = self.plain(self.permuted(self.values[result], (0, last, *range(1, last))))
        if self.positions == 1:
            y = self.graph.call_method("view_as", (y, self.map))
        return View(self.graph.output(y), None)

    def as_it_is(self, node: fx.Node) -> View:
        """Write an operation on values as they are; its number of axes is known of a few only."""
        made = self.copied(node, map_arg(node.args, lambda n: self.plain(self.values[n])))
        ranks = [self.rank(a) for a in node.args if isinstance(a, fx.Node)]
        rank: int | None = None
        if node.target is torch.baddbmm:
            rank = 3
        elif node.target in NUMBERS:
            rank = 0
        elif node.target is torch.matmul and all(r is not None and r > 1 for r in ranks):
            rank = max(r for r in ranks if r is not None)
        return View(made, None if rank is None else tuple(range(rank)))

    def rank(self, node: fx.Node) -> int | None:
        axes = self.values[node].axes
        return None if axes is None else len(axes)

    def plain(self, view: View) -> fx.Node:
        """Return a node of the view itself."""
        if view.axes is None:
            return view.base
        key = view.base, view.axes
        if key not in self.made:
            value, order = view.base, [a for a in view.axes if a is not None]
            if order != sorted(order):
                value = self.graph.call_method("permute", (value, *order))
            for k, axis in enumerate(view.axes):
                if axis is None:
                    value = self.graph.call_method("unsqueeze", (value, k))
            self.made[key] = value
        return self.made[key]

    def method(self, node: fx.Node, source: View, args: Sequence[Any]) -> View | None:
        """Return the result of a method that is followed without writing a view; None for others."""
        target, axes = node.target, source.axes
        if target == "permute":
            return self.permuted(source, args)
        if axes is None:
            return None
        if target == "unsqueeze" and args[0] >= 0:
            return View(source.base, (*axes[: args[0]], None, *axes[args[0] :]))
        if target == "size" and args and axes[args[0]] is not None:
            return View(self.graph.create_node("call_method", "size", (source.base, axes[args[0]]), name=node.name), ())
        if target in ("sum", "mean") and isinstance(args[0], tuple):
            gone = [axes[k] for k in args[0]]
            left = [a for k, a in enumerate(axes) if k not in args[0]]
            # A sum lies in memory in the order of its axes, so that has to stay.
            if None not in gone and None not in left and left == sorted(left, key=lambda a: a or 0):
                made = self.copied(node, (source.base, tuple(sorted(a for a in gone if a is not None))))
                return View(made, tuple(range(len(left))))
        return None

    def permuted(self, source: View, order: Sequence[int]) -> View:
        if source.axes is None:
            return View(source.base, tuple(order))
        return View(source.base, tuple(source.axes[k] for k in order))

    def entrywise(self, node: fx.Node) -> View | None:
        """Write an operation on the axes in the order in which fewest views are needed."""
        operands = [self.values[a] for a in node.args if isinstance(a, fx.Node)]
        if any(v.axes is None for v in operands):
            return None
        rank = max(len(v.known) for v in operands)
        lists = [(None,) * (rank - len(v.known)) + v.known for v in operands]
        whole: list[tuple[int, ...]] = [tuple(range(rank))]
        for axes in lists:
            numbers = [a for a in axes if a is not None]
            if len(numbers) == rank:
                whole.append(tuple(sorted(range(rank), key=numbers.__getitem__)))
        order = min(whole, key=lambda order: sum(_views(_reordered(axes, order)) for axes in lists))
        sides = iter([View(v.base, _reordered(a, order)) for v, a in zip(operands, lists, strict=True)])
        args = [self.plain(_shortened(next(sides))) if isinstance(a, fx.Node) else a for a in node.args]
        return View(self.copied(node, args), tuple(order.index(k) for k in range(rank)))


def _reordered(axes: Axes, order: Sequence[int]) -> Axes:
    return tuple(axes[k] for k in order)


def _shortened(view: View) -> View:
    """Return a view without its leading new axes, which broadcasting adds."""
    first = next((k for k, a in enumerate(view.known) if a is not None), len(view.known))
    return View(view.base, view.known[first:])


def _views(axes: Axes) -> int:
    """Return the number of views that make a value of its base, where broadcasting adds leading axes."""
    first = next((k for k, a in enumerate(axes) if a is not None), len(axes))
    order = [a for a in axes if a is not None]
    return (order != sorted(order)) + axes[first:].count(None)


def kept_lengths(graph: fx.Graph) -> None:
    """Let sums over one axis keep it where nothing reads them without it."""
    for node in list(graph.nodes):
        source = node.args[0] if node.target == "unsqueeze" else None
        if not isinstance(source, fx.Node) or source.target not in ("sum", "mean") or len(source.users) > 1:
            continue
        if source.args[1:] == ((node.args[1],),) and not source.kwargs.get("keepdim"):
            source.kwargs = {**source.kwargs, "keepdim": True}
            node.replace_all_uses_with(source)
            graph.erase_node(node)
