"""The contraction tree of a plan: what each step takes, which steps are shared, which are symmetric."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from polyattn.errors import SizeError
from polyattn.optional import need
from polyattn.planning import BATCH, Contract, Graph, Leaf, Plan
from polyattn.planning.steps import Node
from polyattn.study.pictures.style import INK, PAPER, QUIET, compact, figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PASSES = ("forward", "backward")


def contraction_tree(plan: Plan, which: str = "forward") -> Figure:
    """A plan's steps from the tensors at the top to the output below, each with its equation and its cost.

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
    graph = plan.graph if which == "forward" or plan.backward is None else plan.backward.graph
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


def _places(graph: Graph) -> np.ndarray:
    import igraph

    edges = [(o.value, k) for k, n in enumerate(graph.nodes) for o in n.operands]
    tree = igraph.Graph(len(graph.nodes), sorted(set(edges)), directed=True)
    return np.array(tree.layout_sugiyama(hgap=1, vgap=1, maxiter=500).coords)[: len(graph.nodes)]


def _drawn(graph: Graph, names: tuple[str, ...], steps: dict, which: str) -> Figure:
    here = _places(graph)
    here = here * np.array([2.9, -1.25])
    span = np.ptp(here, axis=0) if len(here) else np.zeros(2)
    made = figure(float(span[0]) + 3.4, float(span[1]) + 1.6)
    axes = made.subplots()
    used = Counter(o.value for n in graph.nodes for o in dict.fromkeys(n.operands))
    for k, node in enumerate(graph.nodes):
        for operand in dict.fromkeys(o.value for o in node.operands):
            axes.annotate(
                "",
                here[k],
                here[operand],
                arrowprops={"arrowstyle": "-|>", "color": QUIET, "shrinkA": 16, "shrinkB": 26},
            )
    for k, node in enumerate(graph.nodes):
        x, y = here[k]
        if isinstance(node, Leaf) or names[k] not in steps:
            filled = isinstance(node, Leaf) and any(i.size == BATCH for i in node.output)
            look = {
                "boxstyle": "circle,pad=0.4" if filled else "square,pad=0.4",
                "facecolor": INK if filled else "#eeeeee",
            }
            axes.text(
                x,
                y,
                plain(names[k]),
                ha="center",
                va="center",
                fontsize=9,
                color=PAPER if filled else INK,
                bbox={**look, "edgecolor": INK},
            )
            continue
        step = steps[names[k]]
        share = step.macs / graph.macs if graph.macs else 0
        cost = f"{compact(step.macs)}MACs, {100 * share:.3g} %" if step.macs else step.operation
        marks = [m for m, there in (("symmetric", is_symmetric(node)), (f"read {used[k]} times", used[k] > 1)) if there]
        label = "\n".join([f"{step.name}{step.equation}", cost, *marks])
        frame = {"linestyle": "--" if is_symmetric(node) else "-", "linewidth": 2.6 if used[k] > 1 else 1.0}
        axes.text(
            x,
            y,
            plain(label),
            ha="center",
            va="center",
            fontsize=7.5,
            color=INK,
            zorder=4,
            bbox={
                "boxstyle": "round,pad=0.5",
                "facecolor": (1 - 0.45 * share, 1 - 0.25 * share, 1.0),
                "edgecolor": INK,
                **frame,
            },
        )
    low, high = (here.min(axis=0), here.max(axis=0)) if len(here) else (np.zeros(2), np.zeros(2))
    axes.set_xlim(low[0] - 1.6, high[0] + 1.6)
    axes.set_ylim(low[1] - 0.7, high[1] + 0.7)
    axes.set_axis_off()
    axes.set_title(plain(f"{which}: {compact(graph.macs)}MACs"), fontsize=9, loc="left")
    need("matplotlib", "study")
    return made
