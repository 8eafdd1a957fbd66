"""Contraction trees for products of many factors: the best of several searches, improved part by part.

The searches are opt_einsum's for this number of factors (dynamic programming, or random greedy trees), dynamic
programming up to `DYNAMIC_UP_TO` factors, cotengra's where it is installed, and, where factors are one tensor, a greedy
one that contracts equal pairs together. Then each subtree of a few parts is replaced by the best tree over these parts,
until none changes. All of it is counted in trees, not in seconds, and the random searches have a fixed seed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

Tree = int | tuple["Tree", "Tree"]
"""A factor's number, or the two trees to contract."""

COMPLETE_UP_TO = 16
"""Factors up to which dynamic programming is enough."""
DYNAMIC_UP_TO = 20
"""Factors up to which dynamic programming is asked where opt_einsum's own choice would not."""
PARTS = 7
"""Parts of a subtree that are put into their best order at once."""
SWEEPS = 3
"""Passes over a tree."""
TRIED = 24
"""Repeated pairs that are tried in one step of the search for shared contractions."""


class Network:
    """Factors as bit masks of indices.

    Attributes:
        masks: the indices of each factor.
        kept: the indices that are not summed.
        lengths: the length of each index.
    """

    def __init__(self, masks: Sequence[int], kept: int, lengths: Sequence[int]):
        self.masks, self.kept, self.lengths = list(masks), kept, list(lengths)
        self.full = (1 << len(masks)) - 1
        self._open: dict[int, int] = {}
        self._volume: dict[int, int] = {0: 1}

    def volume(self, mask: int) -> int:
        """Return the product of the lengths of a set of indices."""
        if mask not in self._volume:
            low = mask & -mask
            self._volume[mask] = self.lengths[low.bit_length() - 1] * self.volume(mask ^ low)
        return self._volume[mask]

    def open(self, factors: int) -> int:
        """Return the indices that a set of factors shares with the rest or with the result."""
        if factors not in self._open:
            inside = outside = 0
            for k, mask in enumerate(self.masks):
                if factors >> k & 1:
                    inside |= mask
                else:
                    outside |= mask
            self._open[factors] = inside & (self.kept | outside)
        return self._open[factors]

    def macs(self, tree: Tree) -> int:
        """Return the multiply-accumulates of a tree, each of its products counted."""
        return self._macs(tree)[1]

    def _macs(self, tree: Tree) -> tuple[int, int]:
        if isinstance(tree, int):
            return 1 << tree, 0
        (left, a), (right, b) = map(self._macs, tree)
        return left | right, a + b + self.volume(self.open(left) | self.open(right))

    def improved(self, tree: Tree) -> Tree:
        """Return a tree of which no subtree of few parts has a better order."""
        for _ in range(SWEEPS):
            better = self._swept(tree)[0]
            if better == tree:
                break
            tree = better
        return tree

    def _swept(self, tree: Tree) -> tuple[Tree, int]:
        """Improve the subtrees of a tree from below; return it with its factors."""
        if isinstance(tree, int):
            return tree, 1 << tree
        (left, a), (right, b) = map(self._swept, tree)
        tree, factors = (left, right), a | b
        parts = self._parts(tree)
        if len(parts) > 2:
            best, least = self._best([mask for _, mask in parts])
            if least < self._between(tree, {mask for _, mask in parts})[1]:
                tree = _replaced(best, [part for part, _ in parts])
        return tree, factors

    def _parts(self, tree: Tree) -> list[tuple[Tree, int]]:
        """Return up to `PARTS` subtrees that make up a tree: those with the dearest products are opened first."""
        parts = [(tree, self._factors(tree))]
        while len(parts) < PARTS:
            inner = [
                (self.volume(self.open(mask)), -k) for k, (part, mask) in enumerate(parts) if isinstance(part, tuple)
            ]
            if not inner:
                break
            at = -max(inner)[1]
            part, _ = parts.pop(at)
            assert isinstance(part, tuple)
            parts += [(side, self._factors(side)) for side in part]
        return parts

    def _factors(self, tree: Tree) -> int:
        if isinstance(tree, int):
            return 1 << tree
        return self._factors(tree[0]) | self._factors(tree[1])

    def _between(self, tree: Tree, parts: set[int]) -> tuple[int, int]:
        """Return the multiply-accumulates above the parts of a tree."""
        factors = self._factors(tree)
        if factors in parts or isinstance(tree, int):
            return factors, 0
        (left, a), (right, b) = (self._between(side, parts) for side in tree)
        return factors, a + b + self.volume(self.open(left) | self.open(right))

    def _best(self, parts: list[int]) -> tuple[Tree, int]:
        """Return the best tree over a few sets of factors, by dynamic programming, with its multiply-accumulates."""
        count = len(parts)
        full = (1 << count) - 1
        union, open_ = [0] * (full + 1), [0] * (full + 1)
        best: list[tuple[int, Tree]] = [(0, 0)] * (full + 1)
        for subset in range(1, full + 1):
            low = subset & -subset
            union[subset] = union[subset ^ low] | parts[low.bit_length() - 1]
            open_[subset] = self.open(union[subset])
            rest = subset ^ low
            if not rest:
                best[subset] = (0, low.bit_length() - 1)
                continue
            least, at, part = -1, 0, rest
            while part:
                part = (part - 1) & rest
                left, right = part | low, rest ^ part
                macs = best[left][0] + best[right][0]
                if least < 0 or macs < least:
                    macs += self.volume(open_[left] | open_[right])
                    if least < 0 or macs < least:
                        least, at = macs, left
            best[subset] = (least, (best[at][1], best[subset ^ at][1]))
        return best[full][1], best[full][0]

    def greedy(self, start: Sequence[tuple[Tree, int]] = (), noise: random.Random | None = None) -> Tree:
        """Return the tree that always contracts the pair whose result grows least."""
        alive = list(start) or [(k, 1 << k) for k in range(len(self.masks))]
        pairs: dict[tuple[int, int], float] = {}
        sets = {k: self.open(mask) for k, (_, mask) in enumerate(alive)}
        parts = dict(enumerate(alive))

        def rank(a: int, b: int) -> float:
            union = parts[a][1] | parts[b][1]
            grown = self.volume(self.open(union)) - self.volume(sets[a]) - self.volume(sets[b])
            return grown * (1 if noise is None else noise.uniform(0.6, 1.6))

        names = sorted(parts)
        for n, a in enumerate(names):
            for b in names[n + 1 :]:
                if sets[a] & sets[b]:
                    pairs[a, b] = rank(a, b)
        fresh = len(names)
        while len(parts) > 1:
            if pairs:
                a, b = min(pairs, key=lambda p: (pairs[p], p))
            else:  # nothing is shared any more: the smallest outer product first
                a, b = sorted(sorted(parts, key=lambda k: (self.volume(sets[k]), k))[:2])
            parts[fresh] = ((parts[a][0], parts[b][0]), parts[a][1] | parts[b][1])
            sets[fresh] = self.open(parts[fresh][1])
            del parts[a], parts[b]
            pairs = {p: r for p, r in pairs.items() if a not in p and b not in p}
            for k in parts:
                if k != fresh and sets[k] & sets[fresh]:
                    pairs[k, fresh] = rank(k, fresh)
            fresh += 1
        ((tree, _),) = parts.values()
        return tree


def _replaced(tree: Tree, parts: Sequence[Tree]) -> Tree:
    if isinstance(tree, int):
        return parts[tree]
    return _replaced(tree[0], parts), _replaced(tree[1], parts)


def path_tree(path: Any, count: int) -> Tree:
    """Return the tree of a path of opt_einsum or cotengra: positions to contract, results at the end."""
    alive: list[Tree] = list(range(count))
    for contraction in path:
        chosen = [alive[k] for k in contraction]
        alive = [t for k, t in enumerate(alive) if k not in contraction]
        tree = chosen[0]
        # Several operands may be contracted in one step; planned nodes have at most two.
        for other in chosen[1:]:
            tree = (tree, other)
        alive.append(tree)
    tree = alive[0]
    for other in alive[1:]:
        tree = (tree, other)
    return tree


def large_trees(indices: Sequence[Sequence[Hashable]], keep: frozenset, length: Callable[[Any], int]) -> list[Tree]:
    """Return the best trees found for distinct factors, best first.

    Args:
        indices: the indices of each factor.
        keep: the indices that are not summed.
        length: of an index.
    """
    numbers = {i: k for k, i in enumerate(dict.fromkeys(i for labels in indices for i in labels))}
    masks = [sum(1 << numbers[i] for i in set(labels)) for labels in indices]
    kept = sum(1 << numbers[i] for i in keep if i in numbers)
    network = Network(masks, kept, [length(i) for i in numbers])
    # Numbers, whose hashes are the same in every process, so that the searches visit them in one order.
    sets = [frozenset(numbers[i] for i in labels) for labels in indices]
    out = frozenset(numbers[i] for i in keep if i in numbers)
    if len(masks) <= COMPLETE_UP_TO:
        return [path_tree(_dynamic(sets, out, network.lengths), len(masks))]
    ranked: dict[Tree, int] = {}
    for tree in _found(network, sets, out):
        better = network.improved(tree)
        ranked[better] = network.macs(better)
    return sorted(ranked, key=lambda t: ranked[t])


def _found(network: Network, sets: list[frozenset], keep: frozenset) -> Iterator[Tree]:
    # Imported here: only products of many factors need it.
    from opt_einsum.path_random import RandomGreedy

    count = len(sets)
    inputs = _shared(sets, keep)
    lengths: dict[Any, int] = dict(enumerate(network.lengths))
    if count <= DYNAMIC_UP_TO:
        yield path_tree(_dynamic(sets, keep, network.lengths), count)
    else:
        state = random.getstate()
        random.seed(count)
        try:
            greedy = RandomGreedy(max_repeats=64, minimize="flops", parallel=False)
            yield path_tree(greedy(inputs, keep, lengths), count)
        finally:
            random.setstate(state)
    if find_spec("cotengra") is not None:
        path = import_module("cotengra").array_contract_path(
            [tuple(labels) for labels in inputs], tuple(keep), lengths, optimize="auto-hq"
        )
        yield path_tree(path, count)
    yield network.greedy()


def _shared(sets: list[frozenset], keep: frozenset) -> list[frozenset]:
    """Leave out the indices of one factor alone: they are summed before the products, so no path may depend on them."""
    uses = Counter(i for labels in sets for i in labels)
    return [frozenset(i for i in labels if i in keep or uses[i] > 1) for labels in sets]


def _dynamic(sets: list[frozenset], keep: frozenset, lengths: Sequence[int]) -> Any:
    from opt_einsum.paths import dynamic_programming

    known: dict[Any, int] = dict(enumerate(lengths))
    return dynamic_programming(_shared(sets, keep), keep, known)


def shared_trees(
    indices: Sequence[Sequence[Hashable]],
    labels: Sequence[Hashable],
    keep: frozenset,
    length: Callable[[Any], int],
) -> list[Tree]:
    """Return trees that contract equal pairs of factors together, while that saves multiply-accumulates.

    Args:
        indices: the indices of each factor's axes.
        labels: what the factor is; equal for one tensor.
        keep: the indices that are not summed.
        length: of an index.
    """
    numbers = {i: k for k, i in enumerate(dict.fromkeys(i for at in indices for i in at))}
    masks = [sum(1 << numbers[i] for i in set(at)) for at in indices]
    kept = sum(1 << numbers[i] for i in keep if i in numbers)
    network = Network(masks, kept, [length(i) for i in numbers])
    # A part is its tree, its factors, its label, and its axes in an order that equal parts have in common.
    parts: list[tuple[Tree, int, Hashable, tuple[int, ...]]] = []
    for k, (at, label) in enumerate(zip(indices, labels, strict=True)):
        axes = tuple(numbers[i] for i in at)
        shown = network.open(1 << k)
        own = tuple(dict.fromkeys(i for i in axes if shown >> i & 1))
        # Two accesses are one value if the same axes are summed and the same are one diagonal.
        place = {i: n for n, i in enumerate(own)}
        parts.append((k, 1 << k, (label, tuple(place.get(i, -1 - axes.index(i)) for i in axes)), own))
    paid = 0
    rest = network.greedy([(t, f) for t, f, _, _ in parts])
    best, total = rest, network.macs(rest)
    found = [best]
    while True:
        groups: dict[Hashable, list[tuple[int, int]]] = {}
        for a in range(len(parts)):
            for b in range(a + 1, len(parts)):
                if set(parts[a][3]) & set(parts[b][3]):
                    key = _pair(network, parts[a], parts[b])[0]
                    groups.setdefault(key, []).append((a, b))
        repeated = []
        for pairs in groups.values():
            used: set[int] = set()
            chosen = []
            for a, b in pairs:
                if a not in used and b not in used:
                    used |= {a, b}
                    chosen.append((a, b))
            if len(chosen) > 1:
                a, b = chosen[0]
                macs = network.volume(network.open(parts[a][1]) | network.open(parts[b][1]))
                repeated.append((macs / len(chosen), chosen, macs))
        repeated.sort(key=lambda r: (r[0], r[1]))
        options = []
        for _, chosen, macs in repeated[:TRIED]:
            gone = {k for pair in chosen for k in pair}
            merged = [p for k, p in enumerate(parts) if k not in gone]
            merged += [_pair(network, parts[a], parts[b])[1] for a, b in chosen]
            tree = network.greedy([(t, f) for t, f, _, _ in merged])
            after = paid + macs + network.macs(tree) - sum(network.macs(t) for t, _, _, _ in merged)
            options.append((after, len(options), merged, tree, macs))
        if not options:
            break
        after, _, merged, tree, macs = min(options)
        if after >= total:
            break
        parts, paid, total = merged, paid + macs, after
        found.append(tree)
    return found[::-1]


Part = tuple[Tree, int, Hashable, tuple[int, ...]]


def _pair(network: Network, a: Part, b: Part) -> tuple[Hashable, Part]:
    """Return a key that equal pairs have in common, and the part that a pair makes."""
    if (repr(b[2]), b[3]) < (repr(a[2]), a[3]):
        a, b = b, a
    shown = network.open(a[1] | b[1])
    joint = tuple(a[3].index(i) if i in a[3] else -1 for i in b[3])
    gone = tuple(not shown >> i & 1 for i in (*a[3], *b[3]))
    key = (a[2], b[2], joint, gone)
    axes = tuple(dict.fromkeys(i for i in (*a[3], *b[3]) if shown >> i & 1))
    return key, ((a[0], b[0]), a[1] | b[1], key, axes)
