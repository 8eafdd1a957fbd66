"""A census of factored layers of degree 3: every product of three x's and parameters of two slots, each once.

A layer is `y[a,b] = x[..]*x[..]*x[..]*w1[..]*w2[..]...`, connected, with indices of three kinds: positions N, channels
C, ranks R. Two are one layer if they differ in the order of factors, in names, or in a parameter that is transposed.
Left out is what another says with fewer factors: a parameter with an index that nothing else has, with one index twice,
or beside another with the same two indices.

Layers are made by adding one parameter at a time and kept once by canonical form. Each count is confirmed without
canonical forms: the number of labelled layers, counted one by one, is the sum of |G| / |Aut| over the census (--check).

python benchmarks/census.py --factors 5 --csv census.csv
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import Counter
from collections.abc import Iterator
from itertools import combinations, product
from math import factorial
from pathlib import Path
from typing import Any, NamedTuple

import polyattn as pa
from polyattn import catalog
from polyattn.algebra.canonical import _graph_class
from polyattn.relating.exponents import exponents
from polyattn.relating.network import network

KINDS = "NCR"


class Layer(NamedTuple):
    """A layer: the kind of each index; the x's as pairs of indices, the output's first; the parameters as pairs."""

    kinds: str
    maps: tuple[tuple[int, int], ...]
    parameters: tuple[tuple[int, int], ...]


def graph(layer: Layer) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the colours and the edges of a layer's graph: indices, then the output, the x's and the parameters."""
    colours = [KINDS.index(k) for k in layer.kinds] + [3] + [4] * 3 + [5] * len(layer.parameters)
    nodes = enumerate((*layer.maps, *layer.parameters), len(layer.kinds))
    return colours, [(node, index) for node, pair in nodes for index in pair]


def canonical(layer: Layer) -> Layer:
    """Return the layer with its indices and factors in canonical order."""
    colours, edges = graph(layer)
    order = _graph_class()(n=len(colours), edges=edges).canonical_permutation(color=colours)
    labels = [0] * len(order)
    for new, old in enumerate(order):
        labels[old] = new
    count = len(layer.kinds)
    ranks = sorted(range(count), key=lambda i: labels[i])
    place = {old: new for new, old in enumerate(ranks)}
    kinds = "".join(layer.kinds[i] for i in ranks)
    pairs = [(place[a], place[b]) for a, b in layer.maps]
    parameters = sorted((min(p), max(p)) for a, b in layer.parameters for p in [(place[a], place[b])])
    return Layer(kinds, (pairs[0], *sorted(pairs[1:])), tuple(parameters))


def automorphisms(layer: Layer) -> int:
    import igraph

    colours, edges = graph(layer)
    return int(igraph.Graph(n=len(colours), edges=edges).count_automorphisms(color=colours))


def partitions(count: int) -> Iterator[tuple[int, ...]]:
    """Yield the ways to put `count` things into classes, each as the class of every thing."""

    def extend(known: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(known) == count:
            yield known
            return
        for k in range(max(known, default=-1) + 2):
            yield from extend((*known, k))

    yield from extend(())


def starts() -> set[Layer]:
    """Return all ways in which the output and three x's share positions and channels."""
    found = set()
    for rows, columns in product(partitions(4), repeat=2):
        n = max(rows) + 1
        kinds = "N" * n + "C" * (max(columns) + 1)
        found.add(canonical(Layer(kinds, tuple((r, n + c) for r, c in zip(rows, columns, strict=True)), ())))
    return found


def missing(layer: Layer) -> tuple[int, int]:
    """Return the number of indices that a parameter has to join yet, and of parts beyond the first."""
    uses = Counter(i for pair in (*layer.maps[1:], *layer.parameters) for i in pair)
    inputs = {i for pair in layer.maps[1:] for i in pair}
    # An index of the output needs a use; one of parameters alone needs two.
    loose = sum(i not in uses for i in layer.maps[0]) + sum(
        n == 1 and i not in inputs and i not in layer.maps[0] for i, n in uses.items()
    )
    return loose, parts(layer) - 1


def parts(layer: Layer) -> int:
    groups: list[set[int]] = []
    for pair in (*layer.maps, *layer.parameters):
        joined = [g for g in groups if g & set(pair)]
        groups = [g for g in groups if g not in joined] + [set(pair).union(*joined)]
    return len(groups)


def grown(layer: Layer) -> Iterator[Layer]:
    """Yield the layers with one parameter more, which has an index that there is already."""
    count = len(layer.kinds)
    for pair in combinations(range(count), 2):
        if pair not in layer.parameters:
            yield layer._replace(parameters=(*layer.parameters, pair))
    for index, kind in product(range(count), KINDS):
        yield Layer(layer.kinds + kind, layer.maps, (*layer.parameters, (index, count)))


def census(most: int) -> list[set[Layer]]:
    """Return the layers by their number of parameters, up to `most`."""
    level, found = starts(), []
    for used in range(most + 1):
        found.append({layer for layer in level if missing(layer) == (0, 0)})
        left = most - used - 1
        if left < 0:
            break
        new: set[Layer] = set()
        for layer in level:
            for bigger in grown(layer):
                loose, apart = missing(bigger)
                # A parameter joins two loose indices, and two parts, at most.
                if loose <= 2 * left and apart <= left:
                    new.add(canonical(bigger))
        level = new
    return found


def labelled(count: int) -> int:
    """Count the layers with `count` parameters whose x's, parameters and slots are told apart, one by one."""
    total = 0
    for kinds in product(KINDS, repeat=2 * count):
        slots = {k: [("out",), ("x", 0), ("x", 1), ("x", 2)] if k != "R" else [] for k in KINDS}
        for k, kind in enumerate(kinds):
            slots[kind].append(("w", k))
        for choice in product(*(list(partitions(len(slots[k]))) for k in KINDS)):
            place = {
                (kind, *slot): (kind, number)
                for kind, numbers in zip(KINDS, choice, strict=True)
                for slot, number in zip(slots[kind], numbers, strict=True)
            }
            maps = [(place["N", "out"], place["C", "out"])]
            maps += [(place["N", "x", k], place["C", "x", k]) for k in range(3)]
            pairs = [tuple(place[kinds[2 * w + s], "w", 2 * w + s] for s in (0, 1)) for w in range(count)]
            total += _is_layer(maps, pairs)
    return total


def _is_layer(maps: list[Any], pairs: list[Any]) -> bool:
    """Return whether a labelled layer counts, by a walk over its factors."""
    if any(a == b for a, b in pairs) or len({frozenset(p) for p in pairs}) < len(pairs):
        return False
    uses = Counter(i for pair in (*maps, *pairs) for i in pair)
    inputs = {i for pair in maps[1:] for i in pair}
    if any(n < 2 and i not in inputs for i, n in uses.items()):
        return False
    reached, rest = set(maps[0]), [*maps[1:], *pairs]
    while near := [p for p in rest if reached & set(p)]:
        reached.update(*near)
        rest = [p for p in rest if p not in near]
    return not rest


def text(layer: Layer) -> str:
    """Return a layer as an equation."""
    letters: list[str] = []
    for k, kind in enumerate(layer.kinds):
        letters.append(f"{kind.lower()}{layer.kinds[:k].count(kind)}")
    output, *inputs = [f"[{letters[a]},{letters[b]}]" for a, b in layer.maps]
    factors = [f"x{i}" for i in inputs] + [
        f"w{k + 1}[{letters[a]},{letters[b]}]" for k, (a, b) in enumerate(layer.parameters)
    ]
    wheres = "".join(f"; where {i} : {kind}" for i, kind in zip(letters, layer.kinds, strict=True))
    return f"x[N,C]{wheres}; y{output} = {'*'.join(factors)}"


def published() -> dict[Layer, list[str]]:
    """Return the layers of the catalogue that are such products, by their canonical form."""
    found: dict[Layer, list[str]] = {}
    for name in catalog.names():
        spec = catalog.get(name)
        if tuple(spec.inputs.values()) != (("N", "C"),) or not spec.is_polynomial:
            continue
        polynomial = spec.polynomial()
        if len(polynomial.terms) != 1:
            continue
        net = network(polynomial, spec.parameters)
        (term,) = net.terms
        plain = all(n.name == "x" for n in term.fixed) and len(term.fixed) == 3
        if not plain or any(len(p.slots) != 2 for p in term.parameters) or len(net.output) != 2:
            continue
        kinds = "".join(net.sizes[i] if net.sizes[i] in "NC" else "R" for i in sorted(net.sizes))
        place = {i: k for k, i in enumerate(sorted(net.sizes))}
        maps = [net.output, *(n.slots for n in term.fixed)]
        layer = Layer(
            kinds,
            tuple((place[a], place[b]) for a, b in maps),
            tuple((place[a], place[b]) for a, b in (p.slots for p in term.parameters)),
        )
        found.setdefault(canonical(layer), []).append(name)
    return found


def row(layer: Layer, names: dict[Layer, list[str]], costs: bool) -> dict[str, Any]:
    """Return a line of the table."""
    slots = Counter(i for pair in (*layer.maps, *layer.parameters) for i in pair)
    line = {
        "equation": text(layer).rpartition("; ")[2],
        "factors": 3 + len(layer.parameters),
        "parameters": len(layer.parameters),
        "degree": 3,
        "equivariant in N": all(layer.kinds[i] != "N" for pair in layer.parameters for i in pair),
        "rotations of C": all(slots[i] == 2 for i, kind in enumerate(layer.kinds) if kind == "C"),
        "symmetries": automorphisms(layer),
        "published": " ".join(names.get(layer, [])),
    }
    if costs:
        line |= {f"power of {size}": e.power for size, e in exponents(pa.Spec(text(layer))).items()}
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--factors", type=int, default=5, choices=range(3, 9), help="the most factors, the x's included"
    )
    parser.add_argument("--check", type=int, default=1, help="confirm the counts up to this many parameters")
    parser.add_argument("--csv", type=Path, help="where to write the table")
    parser.add_argument("--costs", action="store_true", help="plan each layer, for the powers of N and C in its cost")
    args = parser.parse_args()
    began = time.perf_counter()
    found, names = census(args.factors - 3), published()
    for count, layers in enumerate(found):
        known = sum(layer in names for layer in layers)
        print(f"{3 + count} factors: {len(layers):,} layers, {known} of them published")
        if count <= args.check:
            group = factorial(3) * factorial(count) * 2**count
            orbits = sum(group // automorphisms(layer) for layer in layers)
            told = labelled(count)
            print(f"  told apart {told:,}; sum of |G| / |Aut| {orbits:,}")
            if told != orbits:
                raise SystemExit("the two counts differ")
    print(f"{time.perf_counter() - began:.1f} s")
    if args.csv is not None:
        rows = [row(layer, names, args.costs) for layers in found for layer in sorted(layers)]
        with args.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
