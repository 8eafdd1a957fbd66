"""The cheapest evaluation of a sum of products as a whole: branch and bound over its factored evaluations with sharing.

Model: each value is a sum of parts or the product of two smaller values, and is paid for once. Sums, and sums within
one value, are free; a product costs its loop. Each monomial is made once: neither does one part stand for two monomials
by symmetry, nor do monomials cancel.

Bound: a value of which a solution can have at most n uses costs each of them 1/n of it, so that the cheapest way is
found value by value, from the small to the large. Where a solution of this relaxation uses a value less often than n
times, two cases are distinguished: it is used twice or more, and paid for in full, or once at most, and every use pays
in full. The bounds of the cases left open are a lower bound on every evaluation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from heapq import heappop, heappush
from itertools import count
from math import ceil, inf

from polyattn.language.sizes import number_of
from polyattn.planning.steps import Sizes
from polyattn.planning.values import LEAF, SUM, Reference, Value, Values

SOLUTIONS = 6
"""Evaluations that are handed on, cheapest first."""
STEPS = 400_000
"""Ways that the search may look at: the measure of its work, the same on every machine."""


@dataclass(frozen=True)
class Solution:
    """The way chosen for each value that the root needs.

    Attributes:
        macs: multiply-accumulates in the model.
        ways: numbers of ways by values.
    """

    macs: int
    ways: tuple[tuple[int, int], ...]

    @cached_property
    def way(self) -> dict[int, int]:
        return dict(self.ways)


@dataclass
class Problem:
    """A root among listed values, ready to be searched at any sizes."""

    values: Values
    root: Reference
    order: list[int] = field(init=False)
    uses: list[float] = field(init=False)

    def __post_init__(self):
        listed = self.values.values
        self.order = sorted(range(len(listed)), key=lambda k: (listed[k].length, listed[k].kind))
        # What a monomial can have of a piece: as often as its tensors allow, over disjoint sets of them.
        monomials = [Counter(label for label, _ in atoms) for _, atoms in listed[self.root.value].pieces]
        self.uses = [self._uses(v, monomials) for v in listed]

    def _uses(self, value: Value, monomials: list[Counter]) -> float:
        counts = [Counter(label for label, _ in atoms) for _, atoms in value.pieces if atoms]
        times = [sum(min(m[k] // n for k, n in c.items()) for m in monomials) for c in counts]
        return max(1, min(times, default=1))

    def solve(self, sizes: Sizes, above: int | None = None, steps: int = STEPS) -> tuple[list[Solution], int]:
        """Return the best evaluations found, cheapest first, and the lower bound of the values listed.

        Args:
            sizes: the number of every size.
            above: multiply-accumulates of a known evaluation; costlier ones need not be found.
            steps: the work that may be done.
        """
        return _Search(self, sizes, inf if above is None else above, steps).run()


@dataclass
class _Search:
    problem: Problem
    sizes: Sizes
    best: float
    left: int
    found: dict[tuple[tuple[int, int], ...], Solution] = field(default_factory=dict)

    def __post_init__(self):
        volumes: dict[tuple[str, ...], float] = {}
        self.ways: list[list[tuple[float, tuple[int, ...], int]]] = []
        for value in self.problem.values.values:
            listed = []
            for number, way in enumerate(value.ways):
                if way.loop not in volumes:
                    volumes[way.loop] = _volume(way.loop, self.sizes) if way.loop else 0
                if volumes[way.loop] <= self.best:
                    parts = tuple(dict.fromkeys(r.value for r in way.parts))
                    listed.append((0 if value.kind == SUM else volumes[way.loop], parts, number))
            self.ways.append(listed)
        self.order, self.leaves = self.problem.order, set[int]()

    def run(self) -> tuple[list[Solution], int]:
        root = self.problem.root.value
        fresh = count()
        nothing: frozenset[int] = frozenset()
        heap: list[tuple[float, int, frozenset[int], frozenset[int]]] = [(0.0, next(fresh), nothing, nothing)]
        lower = inf
        self._prune()
        while heap:
            bound, _, shared, single = heap[0]
            if bound >= self.best or self.left <= 0:
                lower = min(bound, self.best)
                break
            heappop(heap)
            price, chosen = self.relaxed(shared, single)
            bound = price[root] + sum(price[v] for v in shared)
            if bound == inf or (self.found and bound >= self.best * (1 - 1e-12)):
                lower = min(lower, max(bound, self.best))
                continue
            branch = self._take(root, price, chosen, shared, single)
            if branch is None:
                lower = min(lower, bound)
                continue
            # `bound` holds for both cases until they are looked at.
            heappush(heap, (bound, next(fresh), shared | {branch}, single))
            heappush(heap, (bound, next(fresh), shared, single | {branch}))
        lower = min(lower, self.best)
        ranked = sorted(self.found.values(), key=lambda s: s.macs)
        return ranked[:SOLUTIONS], ceil(lower * (1 - 1e-12)) if lower < inf else 0

    def _prune(self) -> None:
        """Leave out values that the root does not reach by ways as cheap as the known evaluation."""
        price, _ = self.relaxed(frozenset(), frozenset())
        values, root = self.problem.values.values, self.problem.root.value
        reached = {root}
        for k in reversed(self.problem.order):
            if k not in reached:
                self.ways[k] = []
                continue
            self.ways[k] = [w for w in self.ways[k] if all(price[p] < inf for p in w[1])]
            reached.update(p for _, parts, _ in self.ways[k] for p in parts)
        self.order = [k for k in self.problem.order if k in reached]
        self.leaves = {k for k in reached if values[k].kind == LEAF}

    def relaxed(self, shared: frozenset[int], single: frozenset[int]) -> tuple[list[float], dict[int, int]]:
        """Return the price of each value, and the cheapest of its ways."""
        values, uses = self.problem.values.values, self.problem.uses
        price = [inf] * len(values)
        share = [inf] * len(values)
        chosen: dict[int, int] = {}
        for k in self.order:
            if values[k].kind == LEAF:
                price[k] = share[k] = 0.0
                continue
            least, at = inf, -1
            for position, (own, parts, _) in enumerate(self.ways[k]):
                cost = own
                for p in parts:
                    cost += share[p]
                if cost < least:
                    least, at = cost, position
            self.left -= len(self.ways[k])
            price[k] = least
            share[k] = 0.0 if k in shared else least if k in single else least / uses[k]
            chosen[k] = at
        return price, chosen

    def _take(
        self, root: int, price: list[float], chosen: Mapping[int, int], shared: frozenset[int], single: frozenset[int]
    ) -> int | None:
        """Keep the solution of a relaxation; return the value whose number of uses is most in doubt."""
        readers: Counter[int] = Counter()
        ways: dict[int, int] = {}
        stack, total = [root], 0.0
        while stack:
            k = stack.pop()
            if k in ways or k in self.leaves:
                continue
            own, parts, number = self.ways[k][chosen[k]]
            ways[k] = number
            total += own
            readers.update(parts)
            stack += parts
        key = tuple(sorted(ways.items()))
        if total <= self.best:
            self.best = total
            self.found[key] = Solution(int(total), key)
        elif total < 2 * self.best:
            self.found[key] = Solution(int(total), key)
        uses = self.problem.uses
        doubt = {
            k: price[k] * (1 - readers[k] / uses[k])
            for k in ways
            if k != root and k not in shared and k not in single and readers[k] < uses[k] and price[k] > 0
        }
        return max(doubt, key=lambda k: (doubt[k], -k)) if doubt else None


def _volume(loop: tuple[str, ...], sizes: Sizes) -> int:
    volume = 1
    for size in loop:
        volume *= number_of(size, sizes)
    return volume
