"""Places of the vertices of a small network: the best of several spring layouts.

Every spring layout (Kamada and Kawai's, by igraph) has another random start; the one with the fewest crossings and the
least crowding wins. The result is deterministic.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations
from math import hypot

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.float64]

STARTS = 48
ENOUGH = 8
"""Number of faultless layouts that end the search."""
CLEAR = 0.42
"""Least distance of a vertex from others' edges, in edge lengths."""


def places(count: int, edges: Sequence[tuple[int, int]]) -> Places:
    """Return the coordinates of each vertex, (count, 2), edges about 1 long, wider than high."""
    import igraph

    if count == 0:
        return np.zeros((0, 2))
    parts = igraph.Graph(count, edges).connected_components()
    found, left = np.zeros((count, 2)), 0.0
    # The layout needs distances along edges, which vertices of different parts do not have.
    for part in parts:
        number = {v: k for k, v in enumerate(part)}
        inside = [(number[a], number[b]) for a, b in edges if a in number]
        here = _connected(len(part), inside)
        here[:, 0] += left - here[:, 0].min()
        found[part] = here
        left = here[:, 0].max() + 1.2
    return found


def _connected(count: int, edges: Sequence[tuple[int, int]]) -> Places:
    import igraph

    if count == 1:
        return np.zeros((1, 2))
    graph = igraph.Graph(count, sorted({(min(e), max(e)) for e in edges})).simplify()
    best, least, good = np.zeros((count, 2)), float("inf"), 0
    for start in range(STARTS):
        # A generator for each start: the same network always looks the same.
        draw = random.Random(start)
        seed = [(draw.uniform(-1, 1), draw.uniform(-1, 1)) for _ in range(count)]
        here = np.array(graph.layout_kamada_kawai(seed=seed, maxiter=60 * count).coords)
        here = _scaled(_flat(here), graph.get_edgelist())
        faults = _faults(here, graph.get_edgelist())
        good += faults == 0
        badness = faults + 0.05 * float(np.ptp(here[:, 1]))
        # The margin keeps rounding from deciding between equally good layouts.
        if badness < least - 1e-9:
            best, least = here, badness
        if good == ENOUGH:
            break
    return best


def _scaled(here: Places, edges: Sequence[tuple[int, int]]) -> Places:
    """Scale the places to edges of length 1 on average."""
    lengths = [hypot(*(here[a] - here[b])) for a, b in edges]
    return here / max(float(np.mean(lengths)), 1e-9)


def _flat(here: Places) -> Places:
    """Rotate the places to be wider than high, and centre them."""
    here = here - here.mean(axis=0)
    _, _, axes = np.linalg.svd(here, full_matrices=False)
    turned = here @ axes.T
    # The sign of a singular vector is arbitrary.
    return turned * np.where(turned[np.abs(turned).argmax(axis=0), [0, 1]] < 0, -1, 1)


def _faults(here: Places, edges: Sequence[tuple[int, int]]) -> float:
    """Score crossings, vertices near others' edges, and vertices near each other."""
    total = 0.0
    for (a, b), (c, d) in combinations(edges, 2):
        # Edges that share a vertex meet there without crossing.
        if len({a, b, c, d}) == 4 and _cross(here[a], here[b], here[c], here[d]):
            total += 3
    for v in range(len(here)):
        for a, b in edges:
            if v not in (a, b):
                total += 4 * max(0.0, CLEAR - _distance(here[v], here[a], here[b]))
    for a, b in combinations(range(len(here)), 2):
        total += 6 * max(0.0, 0.8 - hypot(*(here[a] - here[b])))
    return total


def _cross(a: Places, b: Places, c: Places, d: Places) -> bool:
    def side(p: Places, q: Places, r: Places) -> float:
        return float((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))

    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


def _distance(p: Places, a: Places, b: Places) -> float:
    along = b - a
    share = float(np.clip(np.dot(p - a, along) / max(float(np.dot(along, along)), 1e-12), 0, 1))
    return hypot(*(p - a - share * along))
