"""Texts with offsets: planned graphs are verified on symbols, modulo a prime and in floats, and wrong ones noticed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import polyattn as pa
from polyattn.errors import ProofError
from polyattn.lowering.neighbourhoods import neighbourhood
from polyattn.verifying.exact import over_places
from tests.drawing import share

CONVOLUTION = "x[H,W,C]; where u, v : -1..1; where b : D; y[i,j,b] = x[i+u,j+v,c]*w[u,v,c,b]"
POLYNOMIALS = {
    "convolution": (CONVOLUTION, {"H": 3, "W": 2, "C": 2, "D": 1}),
    "stride": ("x[H,C]; where u : -1..1; where i : K; y[i,b] = x[2*i+u,c]*w[u,c,b]", {"H": 5, "K": 3, "C": 2}),
    "dilation_and_squares": ("x[N,C]; where u : 0..1; y[i,c] = x[i+2*u,c]*x[i,c]*w[u]", {"N": 4, "C": 2}),
    "differences": ("x[N,C]; where a : N; y[a,c] = bias[a-e]*x[e,c]", {"N": 3, "C": 2}),
    "two_in_a_row": ("x[N,C]; where u, v : -1..1; h[i,c] = x[i+u,c]*f[u]; y[i,c] = h[i+v,c]*g[v]", {"N": 3, "C": 1}),
}
FUNCTIONS = {
    "max_pooling": ("x[N,C]; where u : -1..1; y[i,c] = max[u](x[i+u,c])", {"N": 4, "C": 2}),
    "mean_pooling": ("x[N,C]; where u : -1..1; y[i,c] = mean[u](x[i+u,c])", {"N": 4, "C": 2}),
    "neighbourhood_attention": (
        "q[N,R]; k[N,R]; v[N,C]; where u : -1..1; p[i,u] = softmax[u](q[i,r]*k[i+u,r]); y[i,c] = p[i,u]*v[i+u,c]",
        {"N": 4, "R": 2, "C": 2},
    ),
    "relative_positions": (
        "q[N,R]; k[N,R]; v[N,C]; p[a,e] = softmax[e](q[a,r]*k[e,r] + bias[a-e]); y[a,c] = p[a,e]*v[e,c]",
        {"N": 3, "R": 2, "C": 2},
    ),
}


@pytest.mark.parametrize("level", ["symbolic", "modular", "numeric"])
@pytest.mark.parametrize("name", POLYNOMIALS)
def test_graphs_with_offsets_are_verified(name: str, level: str):
    text, sizes = POLYNOMIALS[name]
    assert pa.verify(text, sizes, level=level, seed=0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_over_windows_are_verified_in_floats(name: str):
    text, sizes = FUNCTIONS[name]
    assert pa.verify(text, sizes, level="numeric", seed=0)


def test_a_graph_with_another_border_is_refuted():
    text, sizes = POLYNOMIALS["convolution"]
    graphs = [pa.lower(pa.plan(text.replace("-1..1", places), sizes)) for places in ("-1..1", "0..2")]
    assert [bool(pa.verify(lambda x, w, g=graph: g(x, w=w), text, sizes, seed=0)) for graph in graphs] == [True, False]


def test_a_candidate_that_compares_values_is_refused_by_name():
    text, sizes = FUNCTIONS["max_pooling"]
    with pytest.raises(ProofError, match="max_pool"):
        pa.verify(lambda x: torch.nn.functional.max_pool1d(x.mT, 3, 1, 1).mT, text, sizes)


def test_a_candidate_is_a_convolution_exactly():
    def conv(x, w, padding=1):
        return torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1), padding=padding).movedim(1, -1)

    text, sizes = CONVOLUTION, {"H": 4, "W": 3, "C": 2, "D": 2}
    assert pa.verify(conv, text, sizes, seed=0)
    assert not pa.verify(lambda x, w: conv(x.roll(1, 1), w), text, sizes, seed=0)


@share(0.5)
@given(st.data())
def test_the_definition_of_a_product_over_places_is_the_operation(data):
    draw = data.draw
    n, m, k = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    step, dilation, start = draw(st.sampled_from([1, 2, -1])), draw(st.sampled_from([1, 2])), draw(st.integers(-2, 2))
    letters = draw(st.sampled_from(["pc,ucb->ib", "pc,uc->ic", "ic,ucb->pb", "pc,ib->ucb"]))
    lengths = {"p": n, "i": m, "u": k, "c": 2, "b": 2}
    integers = st.integers(-3, 3)
    first, second = (
        torch.tensor(draw(st.lists(integers, min_size=count, max_size=count))).reshape(shape).double()
        for shape in ([lengths[i] for i in own] for own in letters.split("->")[0].split(","))
        for count in [torch.Size(shape).numel()]
    )
    relations, sizes = (("p", (("i", step), ("u", dilation)), start),), (("p", n), ("i", m), ("u", k))
    wanted = over_places([t.numpy().astype(object) for t in (first, second)], letters, relations, sizes, 0)
    found = neighbourhood(first, second, letters, relations, sizes)
    assert found.tolist() == wanted.astype(float).tolist()
