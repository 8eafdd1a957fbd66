"""The contraction tree of a plan: the cost of each step, shared steps, symmetric steps."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from polyattn.errors import SizeError
from polyattn.language.syntax import IDENTITY
from polyattn.planning import BATCH, Graph, Identity, Leaf, Plan, Step
from polyattn.planning.graph import fixed_text
from polyattn.study.pictures.style import INK, PAPER, QUIET, compact, figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Boxes = NDArray[np.float64]

PASSES = ("forward", "backward")
FONT = 9.5
LETTER, LINE, PAD = 0.6 * FONT / 72, 1.2 * FONT / 72, 0.45 * FONT / 72
"""Inches: a letter's width, a line's height, and the padding of a text in its box."""
ACROSS, DOWN = 0.22, 0.4
"""Inches between neighbours, and between a step and those below it."""
HEAD = 0.3
SWEEPS = 8
TINT = (0.0, 0.447, 0.698)


def contraction_tree(plan: Plan, which: str = "forward") -> Figure:
    """Draw a plan's steps from the tensors at the top to the output below, each with its equation and its cost.

    Tensors are drawn at each step that reads them: inputs, and other values of the batch, as filled circles, parameters
    as boxes.

    The darker a step, the larger its share of all multiply-accumulates. A shared step is drawn once, with a thick
    frame; a symmetric product of a value with itself, such as a Gram matrix, has a dashed one: one triangle suffices.

    Args:
        which: "forward", or "backward" for the planned backward pass of a training plan.

    Raises:
        SizeError: unknown pass, or the plan does not have it.
        MissingPackageError: matplotlib is not installed.
    """
    if which not in PASSES:
        raise SizeError(f"unknown pass {which!r}; there are {' and '.join(PASSES)}")
    if which == "backward" and plan.backward is None:
        raise SizeError("this plan has no planned backward pass: plan with objective='training'")
    graph = plan.backward.graph if which == "backward" and plan.backward is not None else plan.graph
    names, steps = (plan.names, plan.steps) if which == "forward" else (plan.backward_names, plan.backward_steps)
    return _drawn(graph, names, {s.name: s for s in steps}, which)


@dataclass
class _Tree:
    """The picture's vertices: each step once, and a leaf for each access of a tensor.

    Attributes:
        nodes: the graph's node of each vertex; None for a bend of a long edge.
        layers: distance of each from the result at the bottom.
        edges: between neighbouring layers, the upper vertex first.
    """

    nodes: list[int | None]
    layers: list[int]
    edges: list[tuple[int, int]]

    @classmethod
    def of(cls, graph: Graph) -> _Tree:
        depth = [0] * len(graph.nodes)
        # Users come after their operands, so in reverse order every depth is final when it is passed on.
        for k in range(len(graph.nodes) - 1, -1, -1):
            for operand in graph.nodes[k].operands:
                depth[operand.value] = max(depth[operand.value], depth[k] + 1)
        made = cls([], [], [])
        steps = {k: made.add(k, depth[k]) for k, node in enumerate(graph.nodes) if node.operands}
        for k, node in enumerate(graph.nodes):
            seen: set[int] = set()
            for operand in node.operands:
                v = operand.value
                # A tensor is drawn at each of its readers: one vertex for all would tangle the edges.
                if not graph.nodes[v].operands:
                    made.edges.append((made.add(v, depth[k] + 1), steps[k]))
                elif v not in seen:
                    made.join(steps[v], steps[k])
                seen.add(v)
        for operand in graph.outputs:
            # A plan without steps passes a tensor through.
            if operand.value not in steps:
                steps[operand.value] = made.add(operand.value, 0)
        return made

    def add(self, node: int | None, layer: int) -> int:
        self.nodes.append(node)
        self.layers.append(layer)
        return len(self.nodes) - 1

    def join(self, upper: int, lower: int) -> None:
        """Add an edge, with a bend in every layer it passes."""
        for layer in range(self.layers[upper] - 1, self.layers[lower], -1):
            bend = self.add(None, layer)
            self.edges.append((upper, bend))
            upper = bend
        self.edges.append((upper, lower))

    def rows(self) -> list[list[int]]:
        """Return the vertices of each layer from the top, left to right, by Sugiyama's method: few edges cross."""
        import igraph

        top = max(self.layers, default=0)
        graph = igraph.Graph(len(self.nodes), self.edges, directed=True)
        found = graph.layout_sugiyama(layers=[top - n for n in self.layers], hgap=1, vgap=1, maxiter=1000)
        order = sorted(range(len(self.nodes)), key=lambda v: found[v][0])
        return [[v for v in order if self.layers[v] == layer] for layer in range(top, -1, -1)]

    def places(self, boxes: Boxes) -> Boxes:
        """Return coordinates in inches, (vertices, 2), for boxes of these widths and heights.

        Each row in turn moves as near as its boxes let it to the middle of its neighbours.
        """
        here, rows = np.zeros((len(self.nodes), 2)), self.rows()
        ends = [([a for a, b in self.edges if b == v], [b for a, b in self.edges if a == v]) for v in range(len(here))]
        bottom = 0.0
        for row in rows:
            tallest = boxes[row, 1].max()
            here[row, 1] = bottom - tallest / 2
            bottom -= tallest + DOWN
            here[row, 0] = _apart(np.zeros(len(row)), boxes[row, 0])
        for sweep in range(SWEEPS):
            # Alternating directions: down a row follows its operands, up its readers.
            down = sweep % 2 == 0
            for row in rows if down else rows[::-1]:
                joined = [ends[v][0 if down else 1] for v in row]
                middles = [here[to, 0].mean() if to else here[v, 0] for v, to in zip(row, joined, strict=True)]
                here[row, 0] = _apart(np.array(middles), boxes[row, 0])
        return here


def _apart(wanted: Boxes, widths: Boxes) -> Boxes:
    """Return the places nearest to the wanted ones at which boxes in a row keep their order and their distance.

    >>> _apart(np.array([0.0, 0.0]), np.array([1.0, 1.0])).tolist()
    [-0.61, 0.61]
    """
    # Without the offsets the order of the boxes is plain monotonicity.
    offsets = np.concatenate([[0.0], np.cumsum((widths[1:] + widths[:-1]) / 2 + ACROSS)])
    blocks: list[tuple[float, int]] = []  # isotonic regression: sums and counts of what stands close together
    for value in wanted - offsets:
        total, count = float(value), 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            # Neighbours out of order merge and share their mean.
            last = blocks.pop()
            total, count = total + last[0], count + last[1]
        blocks.append((total, count))
    return np.concatenate([np.full(n, total / n) for total, n in blocks]) + offsets


def _drawn(graph: Graph, names: tuple[str, ...], steps: dict[str, Step], which: str) -> Figure:
    tree = _Tree.of(graph)
    used = Counter(v for n in graph.nodes for v in {o.value for o in n.operands})
    shown: list[tuple[str, dict[str, Any]]] = [
        ("", {})
        if v is None
        else _step(graph, steps[names[v]], used[v])
        if names[v] in steps
        else _leaf(graph, v, names[v])
        for v in tree.nodes
    ]
    boxes = np.array([_size(text) for text, _ in shown]).reshape(-1, 2)
    here = tree.places(boxes)
    low = (here - boxes / 2).min(axis=0) - 0.1
    high = (here + boxes / 2).max(axis=0) + 0.1
    width, height = max(2.5, high[0] - low[0]), high[1] - low[1]
    made = figure(float(width), float(height) + HEAD, layout="none")
    axes = made.add_axes((0, 0, 1, float(height / (height + HEAD))))
    for a, b in tree.edges:
        ys = here[a, 1] - boxes[a, 1] / 2, here[b, 1] + boxes[b, 1] / 2
        axes.plot(here[[a, b], 0], ys, color=QUIET, linewidth=1.3, zorder=1)
    for (text, look), (x, y) in zip(shown, here, strict=True):
        if text:
            axes.text(x, y, text, ha="center", va="center", zorder=3, fontsize=FONT, **look)
    axes.set_xlim(low[0], low[0] + width)
    axes.set_ylim(low[1], high[1])
    axes.set_axis_off()
    title = plain(f"{which}: {compact(graph.macs)}MACs")
    made.text(0.1 / width, 1 - 0.06 / (height + HEAD), title, va="top", fontsize=FONT, color=INK)
    return made


def _size(text: str) -> tuple[float, float]:
    """Return the width and the height of a text's box in inches."""
    if not text:
        return 0.0, 0.0
    lines = text.split("\n")
    return max(map(len, lines)) * LETTER + 2 * PAD, len(lines) * LINE + 2 * PAD


def _constant(node: Identity) -> str:
    letters = [i.size[0].lower() + "'" * k for k, i in enumerate(node.output)]
    return "I" if node.tensor == IDENTITY else fixed_text(node, letters)


def _leaf(graph: Graph, v: int, name: str) -> tuple[str, dict[str, Any]]:
    node = graph.nodes[v]
    if not isinstance(node, Leaf):
        name = _constant(node) if isinstance(node, Identity) else "1"
    filled = isinstance(node, Leaf) and any(i.size == BATCH for i in node.output)
    shape, face = ("circle,pad=0.4", INK) if filled else ("square,pad=0.4", "#eeeeee")
    box = {"boxstyle": shape, "facecolor": face, "edgecolor": INK}
    return plain(name), {"color": PAPER if filled else INK, "bbox": box}


def _step(graph: Graph, step: Step, readers: int) -> tuple[str, dict[str, Any]]:
    share = step.macs / graph.macs if graph.macs else 0.0
    left, _, right = step.equation.partition(" = ")
    lines = [f"{step.name}{left} =", *right.replace(" * ", " *\n").replace(" + ", "\n+ ").split("\n")]
    if len(right) <= 24:
        lines[1:] = [right]
    lines.append(f"{compact(step.macs)}MACs, {100 * share:.1f} %" if step.macs else f"{step.operation}: no MACs")
    lines += ["symmetric: one triangle suffices"] * step.symmetric + [f"shared by {readers} steps"] * (readers > 1)
    box = {
        "boxstyle": "round,pad=0.45",
        "facecolor": (*TINT, 0.05 + 0.4 * share),
        "edgecolor": INK,
        "linestyle": "--" if step.symmetric else "-",
        "linewidth": 2.8 if readers > 1 else 1.0,
    }
    return plain("\n".join(lines)), {"color": INK, "bbox": box}
