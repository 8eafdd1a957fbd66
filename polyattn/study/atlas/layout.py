"""The places of classes and edges in the picture of an atlas: general layers above, special ones below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polyattn.study.atlas.build import Atlas, Edge

LETTER, LINE, PADDING = 7.4, 18, 12
"""Width of a letter, height of a line and of the padding, in the picture's own units."""

GAP_X, GAP_Y, WIDEST = 28, 70, 1150
"""Distance of boxes beside and below each other, and the width at which a row is broken."""


@dataclass(frozen=True)
class Box:
    """A class of layers.

    Attributes:
        names: the members.
        x, y, width, height: the place of its upper left corner, and its extent.
    """

    names: tuple[str, ...]
    x: float
    y: float
    width: float
    height: float

    def baseline(self, line: int) -> float:
        """Return the height of a member's name."""
        return self.y + PADDING + 13 + LINE * line

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


@dataclass(frozen=True)
class Line:
    """An edge between two classes, as a path of SVG; `number` is its place among the atlas's edges."""

    edge: Edge
    number: int
    path: str


@dataclass(frozen=True)
class Layout:
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    width: float
    height: float


def layout(atlas: Atlas) -> Layout:
    """Return the picture of an atlas. Classes without an edge stand below all others."""
    groups = atlas.classes
    group = {name: k for k, members in enumerate(groups) for name in members}
    between = [(n, e) for n, e in enumerate(atlas.edges) if group[e.first] != group[e.second]]
    links = [(group[e.first], group[e.second]) for _, e in between]
    rows = _rows(len(groups), links)
    boxes: dict[int, Box] = {}
    y = 20.0
    for row in rows:
        line: list[int] = []
        for k in [*sorted(row, key=lambda k: (_weight(k, links, boxes), groups[k])), -1]:
            extent = sum(_extent(groups[j])[0] + GAP_X for j in line)
            if line and (k < 0 or extent + _extent(groups[k])[0] > WIDEST):
                boxes |= _placed(line, groups, y, extent)
                y += max(_extent(groups[j])[1] for j in line) + (GAP_Y if k < 0 else GAP_X)
                line = []
            line.append(k)
    lines = tuple(Line(e, n, _path(boxes[group[e.first]], boxes[group[e.second]])) for n, e in between)
    return Layout(tuple(boxes[k] for k in sorted(boxes)), lines, WIDEST + 60, y)


def _rows(count: int, links: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return the classes by the length of the longest way down to them; those without a link last."""
    rank = dict.fromkeys((k for link in links for k in link), 0)
    for _ in range(len(rank)):
        for first, second in links:
            rank[second] = max(rank[second], rank[first] + 1)
    # A class stands directly above the highest of those below it.
    for _ in range(len(rank)):
        for first in rank:
            below = [rank[b] for a, b in links if a == first]
            if below:
                rank[first] = max(rank[first], min(below) - 1)
    rows: list[list[int]] = [[] for _ in range(1 + max(rank.values(), default=-1))]
    for k, r in rank.items():
        rows[r].append(k)
    alone = [k for k in range(count) if k not in rank]
    return [row for row in (*rows, alone) if row]


def _weight(k: int, links: Sequence[tuple[int, int]], boxes: dict[int, Box]) -> float:
    """Return the mean place of the classes above."""
    above = [boxes[a].middle for a, b in links if b == k and a in boxes]
    return sum(above) / len(above) if above else WIDEST


def _extent(names: tuple[str, ...]) -> tuple[float, float]:
    return max(map(len, names)) * LETTER + 2 * PADDING, len(names) * LINE + 2 * PADDING - 4


def _placed(line: Sequence[int], groups: Sequence[tuple[str, ...]], y: float, extent: float) -> dict[int, Box]:
    x = max(20.0, 30 + (WIDEST - extent) / 2)
    found = {}
    for k in line:
        width, height = _extent(groups[k])
        found[k] = Box(groups[k], x, y, width, height)
        x += width + GAP_X
    return found


def _path(first: Box, second: Box) -> str:
    x0, y0, x1, y1 = first.middle, first.y + first.height, second.middle, second.y - 5
    half = (y1 - y0) / 2
    return f"M{x0:.0f},{y0:.0f} C{x0:.0f},{y0 + half:.0f} {x1:.0f},{y1 - half:.0f} {x1:.0f},{y1:.0f}"
