"""The order of the atlas: classes of layers that are cases of each other, and the edges that imply all others."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

Pair = tuple[str, str]


def reachable(names: Sequence[str], pairs: Collection[Pair]) -> dict[str, set[str]]:
    """Return the names that each name reaches in one step or more."""
    follow: dict[str, set[str]] = {name: set() for name in names}
    for first, second in pairs:
        follow[first].add(second)
    found = {}
    for name in names:
        seen: set[str] = set()
        queue = list(follow[name])
        while queue:
            here = queue.pop()
            if here not in seen:
                seen.add(here)
                queue += follow[here]
        found[name] = seen
    return found


def classes(names: Sequence[str], pairs: Collection[Pair]) -> tuple[tuple[str, ...], ...]:
    """Return the names in classes that reach each other, each in the order of the names."""
    reach = reachable(names, pairs)
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        members = tuple(n for n in names if n == name or (n in reach[name] and name in reach[n]))
        found.setdefault(members[0], members)
    return tuple(found.values())


def reduced(names: Sequence[str], pairs: Mapping[Pair, int]) -> tuple[Pair, ...]:
    """Return the fewest edges that imply all others by steps in a row.

    Within a class, pairs that join all of its members remain: those of one member with each other if they are known.
    Between two classes the pair of the least weight remains, and none where a third class lies between.

    Args:
        pairs: the known pairs, each with the length of its condition.
    """
    groups = classes(names, pairs)
    group = {name: k for k, members in enumerate(groups) for name in members}
    kept = [pair for members in groups for pair in _inside(members, pairs)]
    best: dict[tuple[int, int], Pair] = {}
    for pair in sorted(pairs, key=lambda p: (pairs[p], p)):
        first, second = group[pair[0]], group[pair[1]]
        if first != second:
            best.setdefault((first, second), pair)
    follow = reachable([str(k) for k in range(len(groups))], [(str(a), str(b)) for a, b in best])
    for (first, second), pair in best.items():
        between = [k for k in range(len(groups)) if k != second and str(k) in follow[str(first)]]
        if not any(str(second) in follow[str(k)] for k in between):
            kept.append(pair)
    return tuple(sorted(kept))


def _inside(members: Sequence[str], pairs: Mapping[Pair, int]) -> list[Pair]:
    """Return pairs of a class that join all of its members: there and back between a member and the rest, if known."""
    if len(members) == 1:
        return []
    for centre in members:
        spokes = [(a, b) for m in members if m != centre for a, b in ((centre, m), (m, centre))]
        if all(pair in pairs for pair in spokes):
            return spokes
    inner = [(a, b) for a in members for b in members if a != b and (a, b) in pairs]
    # One by one, as long as the rest still joins all.
    for pair in sorted(inner, key=lambda p: (-pairs[p], p)):
        rest = [p for p in inner if p != pair]
        if len(classes(members, rest)) == 1:
            inner = rest
    return inner
