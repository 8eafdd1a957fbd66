"""Facts of the joint search: the optimum over sums of products with sharing, and the bound that proves it."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyattn import Spec, catalog, lower, plan
from polyattn.planning import Graph, from_joint, question
from polyattn.planning.from_definitions import monomials
from polyattn.planning.from_joint import joint_graphs

ROWS = [
    # Multiply-accumulates counted by hand for the best form known.
    ("x[N,C]; y[a,b] = x[a,d]*w1[d,b] + x[a,d]*w2[d,b]", {"N": 196, "C": 1024}, 205_520_896),
    (
        "x[N,C]; y[a,b] = 1/N * x[e,h]*w1[h,d] * x[e,f]*w2[f,d] * x[a,d]*w3[d,b] + x[a,d]*w4[d,b]",
        {"B": 8, "N": 3136, "C": 256},
        3_423_600_640,
    ),
    (
        "x[N,C]; s[d] = sigmoid(x[e,f]*u[f,d]); y[a,b] = s[d]*x[a,d]*w[d,b] + x[a,d]*v[d,b]",
        {"B": 8, "N": 3136, "C": 256},
        1_645_215_744,
    ),
    (
        """x[N,C]; where r, s : R
           d1[a,r] = x[a,c]*w1[c,r]; d3[a,e] = d1[a,r]*d1[e,r]; d4[a,r] = d3[a,e]*d1[e,r]
           d6[a,s] = d1[a,r]*w2[r,s] + d4[a,s]; y[a,c] = d6[a,r]*w3[r,c]""",
        {"B": 4, "N": 784, "C": 512, "R": 32},
        112_394_240,
    ),
    (
        """x[N,C]; where r : R
           s[a,e] = x[a,c]*wq[c,r]*wk[d,r]*x[e,d]; t1[a,c] = s[a,e]*x[e,c]; t2[a,c] = s[a,e]*t1[e,c]
           t3[a,c] = s[a,e]*t2[e,c]; y[a,c] = x[a,c] + t1[a,c] + t2[a,c] + t3[a,c]""",
        {"N": 3136, "C": 256, "R": 32},
        106_496_000,
    ),
]


@pytest.mark.parametrize(("text", "sizes", "possible"), ROWS)
def test_sums_with_a_common_factor_take_what_the_best_form_takes(text: str, sizes: dict, possible: int):
    assert plan(text, sizes, cost="macs").macs <= possible


def elementwise(terms: list[str]) -> int:
    """Return the fewest products that make a sum of products of scalars, by trying every order of every factoring."""
    goal = frozenset(tuple(sorted(t)) for t in terms)

    def parts(value: frozenset) -> list[tuple[frozenset, ...]]:
        """Return all ways to write a value as one product of two values, or as a sum of two."""
        found = []
        monomials = sorted(value)
        if len(monomials) == 1:
            (m,) = monomials
            for n in range(1, len(m)):
                for chosen in combinations(range(len(m)), n):
                    left = tuple(m[k] for k in chosen)
                    right = tuple(m[k] for k in range(len(m)) if k not in chosen)
                    found.append(("times", frozenset([left]), frozenset([right])))
            return found
        for n in range(1, len(monomials)):
            for chosen in combinations(monomials, n):
                if monomials[0] in chosen:
                    found.append(("plus", frozenset(chosen), value - frozenset(chosen)))
        for n in range(1, len(monomials[0]) + 1):
            for chosen in combinations(monomials[0], n):
                rest = []
                for m in monomials:
                    left = list(m)
                    for factor in chosen:
                        if factor not in left:
                            break
                        left.remove(factor)
                    else:
                        rest.append(tuple(left))
                if len(rest) == len(monomials) and any(rest):
                    found.append(("times", frozenset([chosen]), frozenset(rest)))
        return found

    def within(open_: frozenset, made: frozenset, budget: int) -> bool:
        open_ = frozenset(v for v in open_ if v not in made and not (len(v) == 1 and len(next(iter(v))) < 2))
        if not open_:
            return True
        value = max(open_, key=lambda v: (sum(map(len, v)), sorted(v)))
        for kind, left, right in parts(value):
            cost = kind == "times"
            if cost <= budget and within(open_ - {value} | {left, right}, made | {value}, budget - cost):
                return True
        return False

    return next(n for n in range(12) if within(frozenset([goal]), frozenset(), n))


@settings(max_examples=15)
@given(st.lists(st.text("xuv", min_size=1, max_size=4), min_size=1, max_size=3, unique_by=lambda t: "".join(sorted(t))))
def test_the_optimum_of_scalar_sums_is_that_of_an_exhaustive_search(terms: list[str]):
    names = sorted(set("".join(terms)) | {"x"})
    heads = "; ".join(f"{n}[N]" for n in names)
    spec = Spec(f"{heads}; y[a] = " + " + ".join("*".join(f"{c}[a]" for c in t) for t in terms))
    made = plan(spec, {"N": 7}, cost="macs")
    assert made.optimal
    assert made.macs == 7 * elementwise(terms) == made.lower_bound


@st.composite
def sums(draw) -> str:
    """A sum of up to three products of x[N,C] and C x C weights, with any pattern of shared and summed indices."""
    terms = []
    for _ in range(draw(st.integers(1, 3))):
        factors = []
        for _ in range(draw(st.integers(1, 3))):
            name = draw(st.sampled_from("xxuv"))
            first = draw(st.sampled_from("ae" if name == "x" else "bcd"))
            factors.append(f"{name}[{first},{draw(st.sampled_from('bcd'))}]")
        terms.append("*".join([*factors, "x[a,b]"] if draw(st.booleans()) else [*factors, "x[a,c]", "u[c,b]"]))
    return "x[N,C]; where c, d : C; y[a,b] = " + " + ".join(terms)


@settings(max_examples=10)
@given(sums(), st.integers(2, 4), st.integers(2, 4))
def test_every_evaluation_found_computes_the_sum_and_none_is_below_the_bound(text: str, positions: int, channels: int):
    spec = Spec(text)
    sizes = {"N": positions, "C": channels, "B": 2}
    written = plan(spec, sizes, "as_written")
    known = dict(question(spec, sizes).sizes)
    made, bound = joint_graphs(spec.polynomial(), known, 10**9)
    x = torch.randn(2, positions, channels, dtype=torch.float64)
    weights = [torch.randn(channels, channels, dtype=torch.float64) for _ in spec.parameters]
    expected = lower(written)(x, *weights)
    for builder, output in made:
        graph = Graph.of(builder.nodes, [output], known)
        assert graph.macs >= bound
        torch.testing.assert_close(lower(replace(written, graph=graph))(x, *weights), expected)
    assert min(Graph.of(b.nodes, [o], known).macs for b, o in made) <= written.macs
    assert plan(spec, sizes, cost="macs").macs >= bound


def test_a_text_of_thousands_of_monomials_is_not_multiplied_out(monkeypatch: pytest.MonkeyPatch):
    steps = [f"d{k}[a,b] = d{k - 1}[a,c]*u{k}[c,b] + d{k - 1}[a,c]*v{k}[c,b]" for k in range(1, 13)]
    text = "; ".join(["x[N,C]", "where b : C", "d0[a,c] = x[a,c]", *steps])
    spec = Spec(text)
    assert monomials(spec) == 4096
    monkeypatch.setattr(Spec, "polynomial", lambda _: pytest.fail("the text was multiplied out"))
    assert plan(spec, {"N": 50, "C": 8}, cost="macs").macs == 12 * 50 * 8 * 8


@pytest.mark.parametrize("name", catalog.names("third_order"))
def test_the_monomials_of_a_text_are_counted_before_they_are_written(name: str):
    spec = catalog.get(name)
    assert len(spec.polynomial().terms) <= monomials(spec) <= 8


def test_an_argument_that_is_read_at_several_indices_is_searched_once(monkeypatch: pytest.MonkeyPatch):
    """The output, the inner function's argument, and the outer one's, which two terms read at other indices."""
    searched = []
    listed = from_joint._listed
    monkeypatch.setattr(from_joint, "_listed", lambda terms, *rest: searched.append(terms) or listed(terms, *rest))
    text = """
        x[N,C]; where c, e : C
        n[a,c] = x[a,c]*exp(x[a,d]*u[d,c] + x[a,d]*v[d,c])
        p[a,b] = exp(n[a,c]*w[c,b] + x[a,c]*w[c,b])*x[a,b]
        y[a,b] = p[a,b] + exp(n[a,c]*w[c,e] + x[a,c]*w[c,e])*k[e,b]*x[a,b]
    """
    asked = question(text, {"B": 2, "N": 9, "C": 5})
    made, _ = joint_graphs(asked.spec.polynomial(), dict(asked.sizes), 10**9)
    assert made
    assert len(searched) == 3
