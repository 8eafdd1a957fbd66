"""The cheapest contraction trees of one product: the best few of all, or of several searches for many factors.

Up to `EXACT_UP_TO` factors, dynamic programming over subsets of the factors considers every tree, outer products
included. It keeps the best few trees of each subset, because this cost ignores values shared with other products and
the backward pass, and the planner weighs both afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from heapq import nsmallest

from polyattn.algebra import Index
from polyattn.planning.builder import Order, Pairs
from polyattn.planning.large import Tree, large_trees
from polyattn.planning.steps import Sizes, length

EXACT_UP_TO = 9
KEPT = 8
"""Trees kept for each subset of the factors."""

Ranked = tuple[int, int, Tree]
"""A tree's multiply-accumulates, the entries it writes, and the tree."""


def ranked_orders(sizes: Sizes, rank: int = 0) -> Order:
    """Return the order with the tree of a rank for each product (0: the cheapest; the last if there are fewer)."""
    numbers = tuple(sorted(sizes.items()))

    def order(indices: Sequence[tuple[Index, ...]], keep: frozenset[Index]) -> Pairs:
        trees = best_trees(tuple(indices), keep, numbers)
        return pairs_of(trees[min(rank, len(trees) - 1)], len(indices))

    return order


def fixed_order(pairs: Pairs) -> Order:
    """Return the order that contracts these pairs, whatever the operands are."""
    return lambda *_: pairs


def pairs_of(tree: Tree, count: int) -> list[tuple[int, int]]:
    """Return a tree as pairs of positions; each result goes to the end of the list."""
    alive: list[int] = list(range(count))
    pairs: list[tuple[int, int]] = []
    fresh = iter(range(count, 2 * count))

    def visit(node: Tree) -> int:
        if isinstance(node, int):
            return node
        a, b = visit(node[0]), visit(node[1])
        # The contract of `Pairs` is opt_einsum's: the smaller position first, the rest keeps its order.
        i, j = sorted((alive.index(a), alive.index(b)))
        pairs.append((i, j))
        new = next(fresh)
        alive[:] = [k for k in alive if k not in (a, b)] + [new]
        return new

    visit(tree)
    return pairs


# The candidates of one question contract the same products over and over.
@lru_cache(maxsize=4096)
def best_trees(
    indices: tuple[tuple[Index, ...], ...], keep: frozenset[Index], sizes: tuple[tuple[str, int], ...]
) -> tuple[Tree, ...]:
    """Find the trees with the fewest multiply-accumulates, ties by the entries written; best first."""
    known = dict(sizes)
    if len(indices) > EXACT_UP_TO:
        return tuple(large_trees(indices, keep, lambda i: length(i, known))[:KEPT])
    # Sets of indices as bit masks: unions and intersections dominate the search.
    numbers = {i: k for k, i in enumerate(dict.fromkeys(i for labels in indices for i in labels))}
    lengths = [length(i, known) for i in numbers]
    masks = [sum(1 << numbers[i] for i in set(labels)) for labels in indices]
    kept = sum(1 << numbers[i] for i in keep if i in numbers)
    return tuple(tree for _, _, tree in _search(masks, kept, _volumes(lengths)))


def _volumes(lengths: list[int]) -> Callable[[int], int]:
    known: dict[int, int] = {0: 1}

    def volume(mask: int) -> int:
        """Return the product of the lengths of a set of indices."""
        if mask not in known:
            # One multiplication for each new mask: the rest of the set is a smaller mask, cached as well.
            low = mask & -mask
            known[mask] = lengths[low.bit_length() - 1] * volume(mask ^ low)
        return known[mask]

    return volume


def _search(masks: list[int], kept: int, volume: Callable[[int], int]) -> list[Ranked]:
    count = len(masks)
    full = (1 << count) - 1
    # All indices of each subset, built from the subset without its lowest factor.
    inside = [0] * (full + 1)
    for subset in range(1, full + 1):
        low = subset & -subset
        inside[subset] = inside[subset ^ low] | masks[low.bit_length() - 1]
    # An index stays open while the output or a factor outside the subset still reads it.
    open_ = [inside[s] & (kept | inside[full ^ s]) for s in range(full + 1)]
    best: dict[int, list[Ranked]] = {1 << k: [(0, 0, k)] for k in range(count)}
    # A single factor keeps all its indices: sums within one factor are the builder's.
    for k in range(count):
        open_[1 << k] = masks[k]
    for subset in range(1, full + 1):
        # Every proper part of a set is a smaller number, so its trees are already known.
        if subset not in best:
            best[subset] = _merge(subset, best, open_, volume)
    return best[full]


def _merge(subset: int, best: dict[int, list[Ranked]], open_: list[int], volume: Callable[[int], int]) -> list[Ranked]:
    """Combine the best trees of the two parts of a set of factors, for the best splits.

    Each split yields at least one tree, so the best `KEPT` splits suffice.
    """
    written = volume(open_[subset])
    # The lowest factor stays on the left, so each split is visited once and not as its mirror image too.
    low = subset & -subset
    rest = subset ^ low
    ways = []
    part = rest
    while part:
        # Enumerate the submasks of `rest` in descending order.
        part = (part - 1) & rest
        left, right = part | low, rest ^ part
        cost_l, size_l, _ = best[left][0]
        cost_r, size_r, _ = best[right][0]
        ways.append((volume(open_[left] | open_[right]) + cost_l + cost_r, size_l + size_r, left, right))
    found: list[Ranked] = []
    for least, _, left, right in nsmallest(KEPT, ways):
        # Splits come by their best tree; a later one cannot improve on a full list.
        if len(found) >= KEPT and least > found[KEPT - 1][0]:
            break
        macs = least - best[left][0][0] - best[right][0][0]
        found += [
            (macs + cost_l + cost_r, written + size_l + size_r, (tree_l, tree_r))
            for cost_l, size_l, tree_l in best[left]
            for cost_r, size_r, tree_r in best[right]
        ]
        found.sort(key=_rank)
        del found[KEPT:]
    return found


def _rank(tree: Ranked) -> tuple[int, int]:
    return tree[:2]
