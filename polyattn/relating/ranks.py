"""Bounds of the ranks of the interaction tensor's unfoldings, from the cuts of its network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import combinations, product

from polyattn.algebra import Polynomial, Spec
from polyattn.relating.network import Product, network

MOST_PARAMETERS = 10
"""The most parameters of a product whose cuts are looked at: 2 to this power."""


def rank_bounds(spec: Spec, polynomial: Polynomial) -> dict[str, tuple[str, ...]]:
    """Return bounds of the rank of each unfolding of W, by its rows: "y", "x1" or "y x1", of products of sizes.

    The unfolding has the (position, channel) slots of the named places as its rows, those of all others as its columns.
    Each way to put the parameters on either side of the cut bounds the rank by the product of the sizes of all indices
    that it cuts. Those that are not a multiple of another are kept.
    """
    if not polynomial.is_polynomial or len(polynomial.terms) != 1 or len(spec.inputs) != 1:
        return {}
    found = network(polynomial, spec.parameters)
    term = found.terms[0]
    inputs = [n for n in term.fixed if n.name in spec.inputs]
    if len(inputs) < len(term.fixed) or len(term.parameters) > MOST_PARAMETERS or len(inputs) > 4:
        return {}
    places = {"y": set(found.output)} | {f"x{k + 1}": set(n.slots) for k, n in enumerate(inputs)}
    names = list(places)
    bounds = {}
    for count in range(1, len(names) // 2 + 1):
        for rows in combinations(names, count):
            # Of two halves, the one with the output is named.
            if 2 * count == len(names) and "y" not in rows:
                continue
            bounds[" ".join(rows)] = _bounds(term, found.sizes, places, set(rows))
    return bounds


def _bounds(term: Product, sizes: Mapping[int, str], places: dict[str, set[int]], rows: set[str]) -> tuple[str, ...]:
    fixed = [set().union(*(s for n, s in places.items() if (n in rows) == side)) for side in (True, False)]
    cuts: set[tuple[tuple[str, int], ...]] = set()
    for sides in product((0, 1), repeat=len(term.parameters)):
        ends = [set(f) for f in fixed]
        for parameter, side in zip(term.parameters, sides, strict=True):
            ends[side] |= set(parameter.slots)
        cuts.add(tuple(sorted(Counter(sizes[i] for i in ends[0] & ends[1]).items())))
    least = [c for c in cuts if not any(d != c and Counter(dict(d)) <= Counter(dict(c)) for d in cuts)]
    texts = ["*".join(s for s, n in cut for _ in range(n)) or "1" for cut in least]
    return tuple(sorted(texts, key=lambda t: (len(t), t)))
