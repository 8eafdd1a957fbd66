"""The reduction of edges against brute force: no edge can be left out, and the rest implies all."""

from itertools import combinations, permutations

from hypothesis import given
from hypothesis import strategies as st

from polyattn.study.atlas.order import classes, reduced

NAMES = "abcdef"


def closure(pairs):
    """Return all implied pairs, by adding steps until none is new."""
    found = set(pairs)
    while more := {(a, d) for a, b in found for c, d in found if b == c and a != d} - found:
        found |= more
    return {(a, b) for a, b in found if a != b}


edges = st.sets(st.sampled_from(list(permutations(NAMES, 2))), max_size=14)


@given(edges)
def test_the_kept_edges_imply_all_and_none_of_them_is_needless(pairs):
    kept = set(reduced(NAMES, dict.fromkeys(pairs, 1)))
    assert kept <= pairs
    assert closure(kept) == closure(pairs)
    for edge in kept:
        inside = any(set(edge) <= set(c) for c in classes(NAMES, pairs))
        # A class is written as a star, which may have one edge more than a cycle has.
        assert inside or closure(kept - {edge}) != closure(pairs)


@given(edges)
def test_classes_are_what_reaches_each_other(pairs):
    found, reach = classes(NAMES, pairs), closure(pairs)
    assert sorted(n for c in found for n in c) == sorted(NAMES)
    for a, b in combinations(NAMES, 2):
        together = any(a in c and b in c for c in found)
        assert together == ((a, b) in reach and (b, a) in reach)


def test_between_classes_the_shortest_condition_is_kept():
    assert reduced("abc", {("a", "b"): 9, ("b", "a"): 9, ("a", "c"): 5, ("b", "c"): 2}) == (
        ("a", "b"), ("b", "a"), ("b", "c"),
    )  # fmt: skip
