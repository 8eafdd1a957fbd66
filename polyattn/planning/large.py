"""Contraction trees for products of many factors: the best of several searches, improved part by part.

Greedy trees, some with noise, are improved: each subtree of a few parts is replaced by the best tree over these parts,
until none changes. The cheapest bounds the dynamic programming that follows up to `COMPLETE_UP_TO` factors, over sets
of factors that hang together. Of more factors, cotengra's tree is improved too, where that is installed; and where
factors are one tensor, another greedy search contracts equal pairs together. All of it is counted in trees, not in
seconds, and the noise has a fixed seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

Tree = int | tuple["Tree", "Tree"]
"""A factor's number, or the two trees to contract."""

COMPLETE_UP_TO = 20
"""Factors up to which dynamic programming is asked."""
PLAIN_UP_TO = 13
"""Factors up to which the first greedy tree bounds it well enough: to improve it would take longer."""
NOISY = 4
"""Greedy trees with noise that are improved, beside the one without."""
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

    def complete(self) -> Tree:
        """Return the tree with the fewest multiply-accumulates; parts without a common index are joined at the end."""
        found = [self._complete(own) for own in self._components()]
        while len(found) > 1:  # the smallest outer product first
            found.sort(key=lambda part: self.volume(self.open(part[1])))
            (a, left), (b, right), *rest = found
            found = [((a, b), left | right), *rest]
        return found[0][0]

    def _components(self) -> list[list[int]]:
        """Return the factors of each part that hangs together by indices of two factors or more."""
        found: list[tuple[int, list[int]]] = []
        for k in range(len(self.masks)):
            shown = self.open(1 << k)
            near = [f for f in found if f[0] & shown]
            mask, own = shown, [k]
            for other in near:
                mask, own = mask | other[0], own + other[1]
            found = [f for f in found if not f[0] & shown] + [(mask, own)]
        return [sorted(own) for _, own in found]

    def _complete(self, factors: Sequence[int]) -> tuple[Tree, int]:
        """Return the best tree over factors that hang together, by dynamic programming, with the set of them.

        A set is left out if its tree and one reading of its result take more than a tree that is known.
        """
        full = sum(1 << k for k in factors)
        known = self.greedy([(k, 1 << k) for k in factors])
        if len(factors) > PLAIN_UP_TO:
            known = self.improved(known)
        most, volumes, volume = self.macs(known), self._volume, self.volume
        best: dict[int, tuple[int, int]] = {}  # the two parts of a set
        by_count: list[list[tuple[int, int, int]]] = [[], [(1 << k, self.open(1 << k), 0) for k in factors]]
        for count in range(2, len(factors) + 1):
            found: dict[int, tuple[int, int, int]] = {}
            for smaller in range(1, count // 2 + 1):
                others = by_count[count - smaller]
                for k, (left, open_left, macs_left) in enumerate(by_count[smaller]):
                    room = most - macs_left
                    for right, open_right, macs_right in others[k + 1 :] if 2 * smaller == count else others:
                        if left & right or not open_left & open_right:
                            continue
                        loop = open_left | open_right
                        macs = (volumes.get(loop) or volume(loop)) + macs_right
                        if macs <= room:
                            whole, macs = left | right, macs + macs_left
                            if whole not in found or macs < found[whole][0]:
                                found[whole] = (macs, left, right)
            by_count.append([])
            for whole, (macs, left, right) in found.items():
                shown = self.open(whole)
                if whole == full or macs + volume(shown) <= most:
                    by_count[-1].append((whole, shown, macs))
                    best[whole] = (left, right)

        def tree(whole: int) -> Tree:
            return (tree(best[whole][0]), tree(best[whole][1])) if whole in best else whole.bit_length() - 1

        # Outer products among the factors are the greedy tree's alone.
        return (tree(full) if full in best else known), full

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
    if len(masks) <= COMPLETE_UP_TO:
        return [network.complete()]
    ranked: dict[Tree, int] = {}
    for tree in _found(network):
        better = network.improved(tree)
        ranked[better] = network.macs(better)
    return sorted(ranked, key=lambda t: ranked[t])


def _found(network: Network) -> Iterator[Tree]:
    yield network.greedy()
    draw = random.Random(len(network.masks))
    for _ in range(NOISY):
        yield network.greedy(noise=draw)
    if find_spec("cotengra") is not None:
        # Indices of one factor alone are summed before the products, so no path may depend on them. Numbers have the
        # same hashes in every process, so that the search visits them in one order.
        inputs = [tuple(_bits(network.open(1 << k))) for k in range(len(network.masks))]
        path = import_module("cotengra").array_contract_path(
            inputs, tuple(_bits(network.kept)), dict(enumerate(network.lengths)), optimize="auto-hq"
        )
        yield path_tree(path, len(inputs))


def _bits(mask: int) -> list[int]:
    return [k for k in range(mask.bit_length()) if mask >> k & 1]


def shared_trees(
    indices: Sequence[Sequence[Hashable]],
    labels: Sequence[Hashable],
    keep: frozenset,
    length: Callable[[Any], int],
) -> list[Tree]:
    """Return trees that contract equal pairs of factors together, while that saves multiply-accumulates.

    Args:
        indices: the indices of each factor's axes.
        labels: identity of the factor; equal for one tensor.
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
