"""The contraction tree of a plan: what each step takes, which steps are shared, which are symmetric."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from polyattn.errors import SizeError
from polyattn.planning import BATCH, Contract, Graph, Identity, Leaf, Plan, Step
from polyattn.planning.steps import Node
from polyattn.study.pictures.style import INK, PAPER, QUIET, compact, figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PASSES = ("forward", "backward")
ACROSS, DOWN = 2.1, 1.25
"""Inches between neighbours, and between a step and those below it."""


def contraction_tree(plan: Plan, which: str = "forward") -> Figure:
    """A plan's steps from the tensors at the top to the output below, each with its equation and its cost.

    Tensors are drawn at each step that reads them: inputs, and other values of the batch, as filled circles, parameters
    as boxes.

    The darker a step, the more of all multiply-accumulates it takes. A step that several others read is drawn once,
    with a thick frame; a product of a value with itself whose result is symmetric, as a Gram matrix is, has a dashed
    one: a half of it says the other.

    Args:
        which: "forward", or "backward" for the planned backward pass of a training plan.

    Raises:
        SizeError: there is no such pass, or the plan has none.
        MissingPackageError: matplotlib is not installed.
    """
    if which not in PASSES:
        raise SizeError(f"unknown pass {which!r}; there are {' and '.join(PASSES)}")
    if which == "backward" and plan.backward is None:
        raise SizeError("this plan has no planned backward pass: plan with objective='training', without functions")
    graph = plan.backward.graph if which == "backward" and plan.backward is not None else plan.graph
    names, steps = (plan.names, plan.steps) if which == "forward" else (plan.backward_names, plan.backward_steps)
    return _drawn(graph, names, {s.name: s for s in steps}, which)


def is_symmetric(node: Node) -> bool:
    """Whether a step is a value times itself, and swapping the two sides only swaps axes of the result."""
    if not isinstance(node, Contract) or len(node.operands) != 2 or node.operands[0].value != node.operands[1].value:
        return False
    first, second = (o.indices for o in node.operands)
    swap: dict[object, object] = {}
    for a, b in zip(first, second, strict=True):
        if swap.setdefault(a, b) != b or swap.setdefault(b, a) != a:
            return False
    moved = [i for i in node.output if swap[i] != i]
    return bool(moved) and all(swap[i] in node.output for i in moved)


@dataclass
class _Tree:
    """The picture's vertices: each step once, and a leaf for each access of a tensor.

    Attributes:
        nodes: the graph's node of each vertex; None for a bend of a long edge.
        layers: how far each is from the result at the bottom.
        edges: between neighbouring layers, the upper vertex first.
    """

    nodes: list[int | None]
    layers: list[int]
    edges: list[tuple[int, int]]

    @classmethod
    def of(cls, graph: Graph) -> _Tree:
        depth = [0] * len(graph.nodes)
        for k in range(len(graph.nodes) - 1, -1, -1):
            for operand in graph.nodes[k].operands:
                depth[operand.value] = max(depth[operand.value], depth[k] + 1)
        made = cls([], [], [])
        steps = {k: made.add(k, depth[k]) for k, node in enumerate(graph.nodes) if node.operands}
        for k, node in enumerate(graph.nodes):
            seen: set[int] = set()
            for operand in node.operands:
                v = operand.value
                if not graph.nodes[v].operands:
                    made.edges.append((made.add(v, depth[k] + 1), steps[k]))
                elif v not in seen:
                    made.join(steps[v], steps[k])
                seen.add(v)
        for operand in graph.outputs:
            if operand.value not in steps:
                steps[operand.value] = made.add(operand.value, 0)
        return made

    def add(self, node: int | None, layer: int) -> int:
        self.nodes.append(node)
        self.layers.append(layer)
        return len(self.nodes) - 1

    def join(self, upper: int, lower: int) -> None:
        """An edge, with a bend in every layer that it passes."""
        for layer in range(self.layers[upper] - 1, self.layers[lower], -1):
            bend = self.add(None, layer)
            self.edges.append((upper, bend))
            upper = bend
        self.edges.append((upper, lower))

    def places(self) -> np.ndarray:
        """Coordinates in inches, by Sugiyama's method."""
        import igraph

        top = max(self.layers, default=0)
        graph = igraph.Graph(len(self.nodes), self.edges, directed=True)
        found = graph.layout_sugiyama(layers=[top - n for n in self.layers], hgap=1, vgap=1, maxiter=1000)
        return np.array(found.coords).reshape(-1, 2)[: len(self.nodes)] * np.array([ACROSS, -DOWN])


def _drawn(graph: Graph, names: tuple[str, ...], steps: dict[str, Step], which: str) -> Figure:
    tree = _Tree.of(graph)
    here = tree.places()
    low, high = (here.min(axis=0), here.max(axis=0)) if len(here) else (np.zeros(2), np.zeros(2))
    width, height = high - low + np.array([2.3, 1.1])
    made = figure(max(4.0, float(width)), float(height) + 0.5)
    axes = made.subplots()
    used = Counter(v for n in graph.nodes for v in {o.value for o in n.operands})
    for a, b in tree.edges:
        axes.plot(*zip(here[a], here[b], strict=True), color=QUIET, linewidth=1.3, zorder=1)
    for v, (x, y) in zip(tree.nodes, here, strict=True):
        if v is None:
            continue
        text, look = _step(graph, v, steps[names[v]], used[v]) if names[v] in steps else _leaf(graph, v, names[v])
        axes.text(x, y, plain(text), ha="center", va="center", zorder=3, **look)
    axes.set_xlim(low[0] - 1.15, high[0] + 1.15)
    axes.set_ylim(low[1] - 0.55, high[1] + 0.55)
    axes.set_axis_off()
    axes.set_title(plain(f"{which}: {compact(graph.macs)}MACs"), fontsize=9, loc="left")
    return made


def _leaf(graph: Graph, v: int, name: str) -> tuple[str, dict[str, Any]]:
    node = graph.nodes[v]
    if not isinstance(node, Leaf):
        name = "I" if isinstance(node, Identity) else "1"
    filled = isinstance(node, Leaf) and any(i.size == BATCH for i in node.output)
    shape, face = ("circle,pad=0.4", INK) if filled else ("square,pad=0.4", "#eeeeee")
    box = {"boxstyle": shape, "facecolor": face, "edgecolor": INK}
    return name, {"fontsize": 9, "color": PAPER if filled else INK, "bbox": box}


def _step(graph: Graph, v: int, step: Step, readers: int) -> tuple[str, dict[str, Any]]:
    share = step.macs / graph.macs if graph.macs else 0.0
    symmetric = is_symmetric(graph.nodes[v])
    left, _, right = step.equation.partition(" = ")
    lines = [f"{step.name}{left} =", *right.replace(" * ", " *\n").replace(" + ", "\n+ ").split("\n")]
    if len(right) <= 24:
        lines[1:] = [right]
    lines.append(f"{compact(step.macs)}MACs, {100 * share:.3g} %" if step.macs else f"{step.operation}: no MACs")
    lines += ["symmetric: half says all"] * symmetric + [f"shared by {readers} steps"] * (readers > 1)
    box = {
        "boxstyle": "round,pad=0.45",
        "facecolor": (1 - 0.42 * share, 1 - 0.22 * share, 1.0),
        "edgecolor": INK,
        "linestyle": "--" if symmetric else "-",
        "linewidth": 2.8 if readers > 1 else 1.0,
    }
    return "\n".join(lines), {"fontsize": 7.5, "color": INK, "bbox": box}
