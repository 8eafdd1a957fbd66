"""Canonical forms: relabelled products meet, different ones do not; functions are opaque tensors of their argument.

A graph is written as a product: a vertex is an index, an edge from a to b the factor x[a,b].
"""

from fractions import Fraction
from itertools import combinations, permutations, product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyattn import Spec
from polyattn.algebra import Index, Monomial, TensorFactor
from polyattn.algebra.canonical import canonical_monomial
from polyattn.testing import edited, renamed, size_assignments, specification_texts

from .arrays import agree, evaluated

Edges = list[tuple[int, int]]


def form(edges: Edges, tensors: str = "") -> Monomial:
    """The canonical form of a graph whose k-th edge is the tensor tensors[k], or x."""
    names = tensors or "x" * len(edges)
    factors = (TensorFactor(n, (Index(a, "N"), Index(b, "N"))) for n, (a, b) in zip(names, edges, strict=True))
    return canonical_monomial(Monomial(Fraction(1), (), tuple(factors)), ())


def relabelled(edges: Edges, seed: int) -> Edges:
    random = Random(seed)
    vertices = sorted({v for edge in edges for v in edge})
    names = dict(zip(vertices, random.sample(range(100), len(vertices)), strict=True))
    return random.sample([(names[a], names[b]) for a, b in edges], len(edges))


def undirected(edges: Edges) -> Edges:
    return [pair for a, b in edges for pair in ((a, b), (b, a))]


def cycle(length: int, start: int = 0) -> Edges:
    return [(start + k, start + (k + 1) % length) for k in range(length)]


def regular(vertices: int, degree: int, random: Random) -> Edges:
    """A random regular graph, by pairing half-edges until no loop and no double edge is left."""
    while True:
        halves = random.sample([v for v in range(vertices) for _ in range(degree)], vertices * degree)
        pairs = {tuple(sorted(pair)) for pair in zip(halves[::2], halves[1::2], strict=True)}
        if len(pairs) == vertices * degree // 2 and all(a != b for a, b in pairs):
            return sorted(pairs)


def isomorphic(one: Edges, other: Edges) -> bool:
    a, b = ({v for edge in edges for v in edge} for edges in (one, other))
    target = sorted(other)
    return len(a) == len(b) and any(
        sorted((names[u], names[v]) for u, v in one) == target
        for names in (dict(zip(sorted(a), order, strict=True)) for order in permutations(sorted(b)))
    )


def test_all_directed_graphs_with_loops_on_three_vertices_have_104_forms():
    pairs = list(product(range(3), repeat=2))
    graphs = [[p for p, chosen in zip(pairs, bits, strict=True) if chosen] for bits in product((0, 1), repeat=9)]
    assert len({form(edges) for edges in graphs}) == 104


def test_all_graphs_on_five_vertices_have_34_forms():
    pairs = list(combinations(range(5), 2))
    graphs = [[p for p, chosen in zip(pairs, bits, strict=True) if chosen] for bits in product((0, 1), repeat=10)]
    assert len({form(undirected(edges)) for edges in graphs}) == 34


def test_all_pairs_of_two_products_of_three_edges_agree_with_brute_force():
    pairs = [*combinations(range(3), 2), (1, 0), (2, 2)]
    graphs = [list(edges) for edges in product(pairs, repeat=3)]
    for one, other in zip(graphs, Random(0).sample(graphs, len(graphs)), strict=True):
        assert (form(one) == form(other)) == isomorphic(one, other)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=7), st.integers(0, 9), st.data())
def test_two_multigraphs_have_one_form_exactly_if_they_are_isomorphic(edges, seed, data):
    assert form(relabelled(edges, seed)) == form(edges)
    place = data.draw(st.integers(0, len(edges) - 1))
    changed = [*edges[:place], data.draw(st.tuples(st.integers(0, 4), st.integers(0, 4))), *edges[place + 1 :]]
    assert (form(changed) == form(edges)) == isomorphic(changed, edges)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 12])
def test_relabelled_cycles_meet(length):
    assert len({form(relabelled(cycle(length), seed)) for seed in range(10)}) == 1


def test_a_cycle_of_six_is_not_two_of_three_nor_one_with_an_edge_reversed():
    assert form(cycle(6)) != form(cycle(3) + cycle(3, 3))
    assert form(cycle(6)) != form([(b, a) if k == 0 else (a, b) for k, (a, b) in enumerate(cycle(6))])


def test_relabelled_random_regular_graphs_meet_and_others_do_not():
    random = Random(0)
    graphs = [regular(10, 3, random) for _ in range(12)]
    forms = [{form(relabelled(undirected(edges), seed)) for seed in range(5)} for edges in graphs]
    assert [len(found) for found in forms] == [1] * len(graphs)
    triangles = [sum({(a, b), (b, c), (a, c)} <= set(g) for a, b, c in combinations(range(10), 3)) for g in graphs]
    assert len(set(triangles)) > 2
    for (one, i), (other, j) in combinations(zip(forms, triangles, strict=True), 2):
        assert i == j or one != other


def test_strongly_regular_graphs_of_the_same_numbers_are_told_apart():
    """The 4 x 4 rook's graph and the Shrikhande graph: each vertex 6 neighbours, each pair 2 in common."""
    cells = list(product(range(4), repeat=2))

    def graph(joined) -> Edges:
        return [
            (4 * a + b, 4 * c + d) for (a, b), (c, d) in product(cells, repeat=2) if joined((c - a) % 4, (d - b) % 4)
        ]

    rook = graph(lambda i, j: (i == 0) != (j == 0))
    shrikhande = graph(lambda i, j: (i, j) in {(0, 1), (0, 3), (1, 0), (3, 0), (1, 1), (3, 3)})
    assert len(rook) == len(shrikhande) == 96
    assert form(rook) == form(relabelled(rook, 1)) != form(shrikhande) == form(relabelled(shrikhande, 2))


CUBE = [(a, a ^ bit) for a in range(8) for bit in (1, 2, 4) if not a & bit]
SYMMETRIC = {
    "cube": CUBE,
    "complete": list(combinations(range(6), 2)),
    "complete both ways": undirected(list(combinations(range(6), 2))),
    "eight apart": [(2 * k, 2 * k + 1) for k in range(8)],
    "eight alike": [(0, 1)] * 8,
    "four triangles": [edge for k in range(4) for edge in cycle(3, 3 * k)],
    "star": [(0, k) for k in range(1, 12)],
}


@pytest.mark.parametrize("edges", SYMMETRIC.values(), ids=SYMMETRIC)
def test_highly_symmetric_products_meet_under_every_relabelling(edges):
    assert len({form(relabelled(edges, seed)) for seed in range(8)}) == 1


def test_symmetric_products_are_all_different():
    assert len({form(edges) for edges in SYMMETRIC.values()}) == len(SYMMETRIC)


def test_twelve_factors_with_eight_of_one_tensor():
    tensors = "xxxxxxxxuvwz"
    edges = list(zip(CUBE, tensors, strict=True))
    forms = set()
    for seed in range(8):
        moved = Random(seed).sample(edges, 12)
        names = dict(enumerate(Random(seed).sample(range(50), 8)))
        forms.add(form([(names[a], names[b]) for (a, b), _ in moved], "".join(t for _, t in moved)))
    assert len(forms) == 1
    swapped = form(CUBE, "xxxxxxxxuvzw")
    assert swapped not in forms


def test_indices_of_different_sizes_and_free_indices_do_not_mix():
    one, same, other = (
        Spec(f"x[N,N]; where {index} : {size}; y = x[a,b]*w[{index}]*v[{index}]").polynomial()
        for index, size in (("c", "N"), ("d", "N"), ("c", "M"))
    )
    assert one == same != other
    assert Spec("x[N,N]; y[a,b] = x[a,b]").polynomial() != Spec("x[N,N]; y[b,a] = x[a,b]").polynomial()


EQUAL_WITH_FUNCTIONS = {
    "relu of a Gram matrix is symmetric": (
        "f[a,e] = relu(x[a,d]*x[e,d]); y[a,b] = f[a,e]*x[e,b]",
        "f[a,e] = relu(x[a,d]*x[e,d]); y[a,b] = f[e,a]*x[e,b]",
    ),
    "equal arguments are one function": (
        "f[a] = relu(x[a,d]*w[d]); g[e] = relu(w[c]*x[e,c]); y[a,b] = f[a]*g[e]*x[e,b]",
        "f[a] = relu(x[a,d]*w[d]); y[a,b] = f[e]*x[e,b]*f[a]",
    ),
    "like terms inside are collected": (
        "f[a] = relu(x[a,d]*w[d] + w[c]*x[a,c] - 3*x[a,d]*v[d] + 3*x[a,e]*v[e]); y[a,b] = f[a]*x[a,b]",
        "f[a] = relu(2*x[a,d]*w[d]); y[a,b] = x[a,b]*f[a]",
    ),
    "like terms inside a function inside a function are collected": (
        "f[a] = relu(x[a,d] + x[a,d]); g[a] = sigmoid(f[a] + f[a]); y[a,b] = g[a]*x[a,b]",
        "f[a] = relu(2*x[a,d]); g[a] = sigmoid(2*f[a]); y[a,b] = g[a]*x[a,b]",
    ),
    "summed indices inside are the function's own": (
        "f[a] = relu(x[a,d]*w[d]); y[a,b] = f[a]*x[a,d]*v[d,b]",
        "f[a] = relu(x[a,e]*w[e]); y[a,b] = f[a]*x[a,c]*v[c,b]",
    ),
    "and each product's own": (
        "f[a] = relu(x[a,d]*w[d] + x[e,c]*x[e,d]*u[c,d]); y[a,b] = f[a]*x[a,b]",
        "f[a] = relu(x[c,h]*u[h,f]*x[c,f] + x[a,b]*w[b]); y[a,b] = f[a]*x[a,b]",
    ),
    "softmax over two indices has no order": (
        "s[a,e] = softmax[a,e](x[a,d]*x[e,d]*u[a]); y[a,b] = s[a,e]*x[e,b]",
        "s[i,j] = softmax[j,i](u[i]*x[j,d]*x[i,d]); y[a,b] = s[a,e]*x[e,b]",
    ),
    "max is over a local index": (
        "f[a] = max[e](x[a,d]*x[e,d]); y[a,b] = f[a]*x[e,b]*u[e]",
        "f[e] = max[a](x[e,d]*x[a,d]); y[a,b] = f[a]*x[c,b]*u[c]",
    ),
    "terms inside that differ by a size only have no order": (
        "f[a] = relu(N*x[a,d]*x[a,c] + x[a,d]*x[a,c] + 1/N*x[a,d]*x[a,c]); y[a,b] = f[a]*x[a,b]",
        "f[a] = relu(x[a,d]*x[a,c] + 1/N*x[a,d]*x[a,c] + N*x[a,d]*x[a,c]); y[a,b] = f[a]*x[a,b]",
    ),
    "a function that is put in twice": (
        "s[a,e] = softmax[e](x[a,d]*x[e,d]); z[a,b] = s[a,e]*x[e,b]; y[a,b] = s[a,e]*z[e,b]",
        "s[a,e] = softmax[e](x[a,d]*x[e,d]); y[a,b] = s[a,c]*s[c,e]*x[e,b]",
    ),
}
DIFFERENT_WITH_FUNCTIONS = {
    "softmax of a Gram matrix is not symmetric": (
        "s[a,e] = softmax[e](x[a,d]*x[e,d]); y[a,b] = s[a,e]*x[e,b]",
        "s[a,e] = softmax[e](x[a,d]*x[e,d]); y[a,b] = s[e,a]*x[e,b]",
    ),
    "over which index": (
        "s[a,e] = softmax[e](x[a,d]*x[e,d]); y[a,b] = s[a,e]*x[e,b]",
        "s[a,e] = softmax[a](x[a,d]*x[e,d]); y[a,b] = s[a,e]*x[e,b]",
    ),
    "which function": ("f[a] = relu(x[a,d]); y[a,b] = f[a]*x[a,b]", "f[a] = sigmoid(x[a,d]); y[a,b] = f[a]*x[a,b]"),
    "where it is read": (
        "f[a] = relu(x[a,d]*w[d]); y[a,b] = f[a]*x[e,b]*u[e]",
        "f[a] = relu(x[a,d]*w[d]); y[a,b] = f[e]*x[e,b]*u[a]",
    ),
    "a sum inside and a sum of two": (
        "f[a] = relu(x[a,d]*w[d] + x[a,d]*v[d]); y[a,b] = f[a]*x[a,b]",
        "f[a] = relu(x[a,d]*w[d]); g[a] = relu(x[a,d]*v[d]); y[a,b] = f[a]*x[a,b] + g[a]*x[a,b]",
    ),
    "one summed index inside a product and two": (
        "f[a] = relu(x[a,d]*x[a,d]); y[a,b] = f[a]*x[a,b]",
        "f[a] = relu(x[a,d]*x[a,c]); y[a,b] = f[a]*x[a,b]",
    ),
    "coefficients inside": (
        "f[a] = relu(x[a,d]); y[a,b] = 2*f[a]*x[a,b]",
        "f[a] = relu(2*x[a,d]); y[a,b] = f[a]*x[a,b]",
    ),
    "sizes inside": (
        "f[a] = relu(x[a,d]); y[a,b] = f[a]*x[a,b]",
        "f[a] = relu(1/N*x[a,d]); y[a,b] = f[a]*x[a,b]",
    ),
}


@pytest.mark.parametrize(("one", "other"), EQUAL_WITH_FUNCTIONS.values(), ids=EQUAL_WITH_FUNCTIONS)
def test_functions_of_equal_arguments_are_equal(one, other):
    a, b = Spec(f"x[N,C]; {one}"), Spec(f"x[N,C]; {other}")
    assert a.polynomial() == b.polynomial()
    assert agree(evaluated(a, {"N": 3, "C": 2}), evaluated(b, {"N": 3, "C": 2}))


@pytest.mark.parametrize(("one", "other"), DIFFERENT_WITH_FUNCTIONS.values(), ids=DIFFERENT_WITH_FUNCTIONS)
def test_functions_of_different_arguments_are_different(one, other):
    assert Spec(f"x[N,C]; {one}").polynomial() != Spec(f"x[N,C]; {other}").polynomial()


@given(st.data())
def test_a_text_written_otherwise_has_the_same_polynomial(data):
    text = data.draw(specification_texts())
    spec, other = Spec(text), Spec(data.draw(renamed(text)))
    assert other.polynomial() == spec.polynomial()
    assert other.polynomial().terms == spec.polynomial().terms


@given(st.data())
def test_equal_polynomials_are_equal_functions(data):
    text = data.draw(specification_texts())
    spec, other = Spec(text), Spec(data.draw(edited(text)))
    if spec.polynomial() == other.polynomial():
        sizes = data.draw(size_assignments(spec))
        assert agree(evaluated(spec, sizes), evaluated(other, sizes))


@given(st.data())
def test_different_polynomials_are_different_functions_at_some_sizes_above_their_number_of_indices(data):
    text = data.draw(specification_texts(functions=False, max_indices=4))
    spec, other = Spec(text), Spec(data.draw(edited(text)))
    shapes = {**spec.inputs, **spec.parameters}
    if shapes == {**other.inputs, **other.parameters} and spec.output_shape == other.output_shape:
        # Two, since a coefficient such as 1/C - 0.2 is zero at one.
        sizes = [{name: least + k for k, name in enumerate(spec.sizes.atomic)} for least in (5, 7)]
        equal = spec.polynomial() == other.polynomial()
        assert all(agree(evaluated(spec, s), evaluated(other, s)) for s in sizes) == equal
