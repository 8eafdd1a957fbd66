"""The tensor-network diagram of a specification."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

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
"""The colour and the line style of each size."""

LETTER: dict[str, Any] = {
    "color": INK,
    "bbox": {"boxstyle": "round,pad=0.18", "facecolor": PAPER, "edgecolor": "none"},
}
"""Style of an index over its line."""
CENTRED: dict[str, Any] = {"ha": "center", "va": "center"}

NARROWEST, WIDEST = 1.6, 8.0
"""Least width of a panel between its margins, and greatest width of a row of several, in inches: the letters stay
readable where a page shows the picture 690 pixels wide."""
INCH = 1.0
"""Inches for the length of an edge."""
MARGIN, HEAD = 0.6, 0.3


def tensor_network(spec: Spec | str) -> Figure:
    """Draw a specification as a diagram: tensors are nodes, indices are edges, products of its sum are panels.

    The input is a filled circle: several circles of one name are one tensor. Parameters are boxes, results of functions
    are rounded boxes, and the argument of such a function has panels of its own. An edge is an index, its line's style
    and colour the size of its range; between two tensors it is summed over. An index with more than two ends, or joined
    to another by an identity, is a dot with an edge to each. A loose end is an index of the output. The batch is not
    drawn.

    Raises:
        BudgetError: the expansion has more than 24 products.
        MissingPackageError: matplotlib is not installed.
    """
    spec = Spec(spec) if isinstance(spec, str) else cast(Spec, getattr(spec, "spec", spec))
    shown = panels(spec)
    spots = [places(len(p.vertices), [e.ends for e in p.edges]) for p in shown]
    extents = [np.ptp(s, axis=0) if len(s) else np.zeros(2) for s in spots]
    boxes = [(max(NARROWEST, float(w)) + 2 * MARGIN, max(0.3, float(h)) + 2 * MARGIN) for w, h in extents]
    rows = _rows([width for width, _ in boxes])
    used = {e.size for p in shown for e in p.edges}
    sizes = [*(s for s in spec.sizes.names if s in used), *sorted(used.difference(spec.sizes.names))]
    looks = {s: (COLOURS[k % len(COLOURS)], LINES[k % len(LINES)]) for k, s in enumerate(sizes)}
    handles = _handles(looks, shown)
    long = [0.85 + 0.07 * len(str(h.get_label())) for h in handles]
    room = max(sum(boxes[k][0] for k in row) for row in rows) * INCH
    # Labels in columns as wide as the longest, unless all fit into one row.
    beside = max(1, len(handles) if sum(long) <= room else int(room / max(long)))
    foot = 0.15 + 0.2 * -(-len(handles) // beside)
    heights = [max(boxes[k][1] for k in row) for row in rows]
    whole = sum(heights) + HEAD * len(rows) + foot
    # The places are known: a layout engine would only move them, slowly.
    made = figure(room, whole * INCH, layout="none")
    top = whole
    for row, height in zip(rows, heights, strict=True):
        top -= height + HEAD
        # The rest of the row is shared, so that its panels stand as far apart as they can.
        gap, left = (room / INCH - sum(boxes[k][0] for k in row)) / len(row), 0.0
        for number in row:
            panel, here, width = shown[number], spots[number], boxes[number][0] + gap
            axes = made.add_axes((left * INCH / room, top / whole, width * INCH / room, height / whole))
            left += width
            _draw(axes, panel, here, looks)
            title = _within(panel.title, width)
            axes.text(0.1 / width, 1, title, transform=axes.transAxes, va="bottom", fontsize=9, color=INK)
            middle = (here.max(axis=0) + here.min(axis=0)) / 2 if len(here) else np.zeros(2)
            axes.set_xlim(middle[0] - width / 2, middle[0] + width / 2)
            axes.set_ylim(middle[1] - height / 2, middle[1] + height / 2)
            axes.set_axis_off()
    made.legend(
        handles=handles,
        loc="lower center",
        ncols=beside,
        frameon=False,
        fontsize=8,
        labelcolor=QUIET,
        handlelength=3,
    )
    return made


def _rows(widths: Sequence[float]) -> list[list[int]]:
    """Return which panels stand in which row, in their order."""
    rows: list[list[int]] = [[]]
    for number, width in enumerate(widths):
        if rows[-1] and (sum(widths[k] for k in rows[-1]) + width) * INCH > WIDEST:
            rows.append([])
        rows[-1].append(number)
    return rows


def _draw(axes: Axes, panel: Panel, here: Places, looks: Looks) -> None:
    alike = Counter(frozenset(e.ends) for e in panel.edges)
    drawn: Counter[frozenset[int]] = Counter()
    for edge in panel.edges:
        pair = frozenset(edge.ends)
        # Parallel edges bend to both sides of the straight line.
        bend = 0.0 if alike[pair] == 1 else 0.9 * (drawn[pair] - (alike[pair] - 1) / 2)
        drawn[pair] += 1
        # Sorted ends: the bend must not depend on the direction in which an edge is stored.
        a, b = sorted(edge.ends)
        _edge(axes, here[a], here[b], bend, edge.index if _labelled(panel, edge.ends) else "", looks[edge.size])
    for vertex, (x, y) in zip(panel.vertices, here, strict=True):
        if vertex.kind == "dot":
            axes.plot(x, y, marker="o", markersize=6, color=INK, zorder=4)
        elif vertex.kind == "free":
            axes.text(x, y, plain(vertex.label), fontsize=10, style="italic", zorder=5, **CENTRED, **LETTER)
        else:
            axes.text(x, y, plain(vertex.label), fontsize=9, zorder=5, **CENTRED, **_look(vertex.kind))


def _within(title: str, inches: float) -> str:
    """Shorten a title to the width of its panel; three dots stand for the rest."""
    most = int(inches / 0.085)
    return plain(title if len(title) <= most else title[: most - 1] + "…")


def _labelled(panel: Panel, ends: tuple[int, int]) -> bool:
    """Test if an edge needs a label: loose ends carry their index already."""
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
    """Draw a line, or one of several curves side by side, with its index in the middle."""
    path = need("matplotlib.path", "study").Path
    patch = need("matplotlib.patches", "study").PathPatch
    across = np.array([a[1] - b[1], b[0] - a[0]])
    middle = (a + b) / 2 + bend * across
    curve = path([a, middle, b], [path.MOVETO, path.CURVE3, path.CURVE3])
    colour, line = look
    axes.add_patch(patch(curve, facecolor="none", edgecolor=colour, linestyle=line, linewidth=1.8, zorder=2))
    if label:
        # The middle of a quadratic curve: a quarter of each end and half of the control point.
        x, y = (a + b) / 4 + middle / 2
        axes.text(x, y, plain(label), fontsize=9, style="italic", zorder=3, **CENTRED, **LETTER)


def _handles(looks: Looks, shown: tuple[Panel, ...]) -> list[Any]:
    """Return the legend: the line of each size, and the circle of each input."""
    line = need("matplotlib.lines", "study").Line2D
    handles = [line([], [], color=c, linestyle=s, linewidth=1.8, label=plain(n)) for n, (c, s) in looks.items() if n]
    inputs = dict.fromkeys(v.label for p in shown for v in p.vertices if v.kind == "input")
    circle = {"marker": "o", "markersize": 8, "color": INK, "linestyle": "none"}
    return [*handles, *(line([], [], **circle, label=plain(f"{n}, the same tensor everywhere")) for n in inputs)]
