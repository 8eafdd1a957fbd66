"""The tensor-network diagram of a specification."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from polyattn.algebra import Spec
from polyattn.optional import need
from polyattn.study.pictures.layout import Places, places
from polyattn.study.pictures.panels import Panel, panels
from polyattn.study.pictures.style import COLOURS, INK, LINES, PAPER, QUIET, figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Looks = Mapping[str, tuple[str, Any]]
"""The colour and the style of the lines of each size."""

LETTER: dict[str, Any] = {
    "color": INK,
    "bbox": {"boxstyle": "round,pad=0.18", "facecolor": PAPER, "edgecolor": "none"},
}
"""Of an index, over its line."""

COLUMNS, WIDEST = 3, 17
"""Panels side by side, and inches, at most."""
INCH = 1.0
"""Inches for the length of an edge."""
MARGIN = 0.75


def tensor_network(spec: Spec | str) -> Figure:
    """A specification as a diagram: tensors are nodes, indices are edges, a panel for each product of its sum.

    The input is a filled circle, the same one wherever it occurs: several circles of one name are one tensor.
    Parameters are boxes, results of functions are rounded boxes, and what such a function is of has panels of its own.
    An edge is an index, its line's style and colour the size it runs over; between two tensors it is summed over. An
    index in more than two places, or that an identity makes two of, is a dot with an edge to each. A loose end is an
    index of the output. The batch is not drawn.

    Raises:
        BudgetError: the expansion has more than 24 products.
        MissingPackageError: matplotlib is not installed.
    """
    spec = Spec(spec) if isinstance(spec, str) else spec
    shown = panels(spec)
    spots = [places(len(p.vertices), [e.ends for e in p.edges]) for p in shown]
    width = max([2.8, *(float(np.ptp(s[:, 0])) for s in spots if len(s))]) + 2 * MARGIN
    height = max([0.3, *(float(np.ptp(s[:, 1])) for s in spots if len(s))]) + 2 * MARGIN
    columns = max(1, min(COLUMNS, len(shown), int(WIDEST / (width * INCH))))
    rows = -(-len(shown) // columns)
    made = figure(columns * width * INCH, rows * height * INCH + 0.55)
    grid = made.subplots(rows, columns, squeeze=False)
    used = {e.size for p in shown for e in p.edges}
    sizes = [*(s for s in spec.sizes.names if s in used), *sorted(used.difference(spec.sizes.names))]
    looks = {s: (COLOURS[k % len(COLOURS)], LINES[k % len(LINES)]) for k, s in enumerate(sizes)}
    for axes, panel, here in zip(grid.flat, shown, spots, strict=False):
        _draw(axes, panel, here, looks)
        middle = (here.max(axis=0) + here.min(axis=0)) / 2 if len(here) else np.zeros(2)
        axes.set_xlim(middle[0] - width / 2, middle[0] + width / 2)
        axes.set_ylim(middle[1] - height / 2, middle[1] + height / 2)
    for axes in grid.flat:
        axes.set_aspect("equal")
        axes.set_axis_off()
    _legend(made, looks, shown)
    return made


def _draw(axes: Axes, panel: Panel, here: Places, looks: Looks) -> None:
    axes.set_title(plain(panel.title), fontsize=9, loc="left", color=INK)
    alike = Counter(frozenset(e.ends) for e in panel.edges)
    drawn: Counter[frozenset[int]] = Counter()
    for edge in panel.edges:
        pair = frozenset(edge.ends)
        bend = 0.0 if alike[pair] == 1 else 0.9 * (drawn[pair] - (alike[pair] - 1) / 2)
        drawn[pair] += 1
        a, b = sorted(edge.ends)
        _edge(axes, here[a], here[b], bend, edge.index if _labelled(panel, edge.ends) else "", looks[edge.size])
    for vertex, (x, y) in zip(panel.vertices, here, strict=True):
        if vertex.kind == "dot":
            axes.plot(x, y, marker="o", markersize=6, color=INK, zorder=4)
        elif vertex.kind == "free":
            axes.text(x, y, vertex.label, ha="center", va="center", fontsize=10, style="italic", zorder=5, **LETTER)
        else:
            axes.text(x, y, vertex.label, ha="center", va="center", fontsize=9, zorder=5, **_look(vertex.kind))


def _labelled(panel: Panel, ends: tuple[int, int]) -> bool:
    """Loose ends carry their index already."""
    return all(panel.vertices[v].kind != "free" for v in ends)


def _look(kind: str) -> dict[str, Any]:
    if kind == "input":
        return {
            "color": PAPER,
            "weight": "bold",
            "bbox": {"boxstyle": "circle,pad=0.45", "facecolor": INK, "edgecolor": INK},
        }
    style = "round,pad=0.35,rounding_size=0.9" if kind == "value" else "square,pad=0.35"
    return {"color": INK, "bbox": {"boxstyle": style, "facecolor": "#eeeeee", "edgecolor": INK, "linewidth": 1.0}}


def _edge(axes: Axes, a: Places, b: Places, bend: float, label: str, look: tuple[str, Any]) -> None:
    """A line, or one of several curves side by side, with its index in the middle."""
    path = need("matplotlib.path", "study").Path
    patch = need("matplotlib.patches", "study").PathPatch
    across = np.array([a[1] - b[1], b[0] - a[0]])
    middle = (a + b) / 2 + bend * across
    curve = path([a, middle, b], [path.MOVETO, path.CURVE3, path.CURVE3])
    colour, line = look
    axes.add_patch(patch(curve, facecolor="none", edgecolor=colour, linestyle=line, linewidth=1.8, zorder=2))
    if label:
        x, y = (a + b) / 4 + middle / 2
        axes.text(
            x,
            y,
            label,
            ha="center",
            va="center",
            fontsize=9,
            style="italic",
            zorder=3,
            **LETTER,
        )


def _legend(made: Figure, looks: Looks, shown: tuple[Panel, ...]) -> None:
    line = need("matplotlib.lines", "study").Line2D
    handles = [line([], [], color=c, linestyle=s, linewidth=1.8, label=plain(n)) for n, (c, s) in looks.items() if n]
    inputs = dict.fromkeys(v.label for p in shown for v in p.vertices if v.kind == "input")
    handles += [
        line([], [], marker="o", markersize=8, color=INK, linestyle="none", label=f"{n}, the same tensor everywhere")
        for n in inputs
    ]
    made.legend(
        handles=handles,
        loc="outside lower center",
        ncols=max(1, min(len(handles), int(made.get_size_inches()[0] / 0.95))),
        frameon=False,
        fontsize=8,
        labelcolor=QUIET,
        handlelength=3,
    )
