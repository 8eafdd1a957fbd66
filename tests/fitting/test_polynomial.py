"""Sums of orders and patterns: each in its own family, equal to the polynomial where the ranks suffice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import polyattn as pa
from polyattn.fitting import factorise, factorise_polynomial, recognise
from tests.drawing import share

C = 3
FULL = pa.Spec(
    """x[N,C]; where d, f, h : C
    y[a,b] = 1/N * x[a,d]*x[e,f]*x[e,h]*w3[d,f,h,b] + x[a,d]*x[e,f]*w2[d,f,b] + x[a,d]*w1[d,b] + w0[b]"""
)
"""Poly-NL, Eq. 3, with positions tied as NL ties them."""


def weights(seed=0, ranks=(2, 2, 2)):
    """CP cores of so many terms at the orders 3, 2 and 1."""
    random = np.random.default_rng(seed)
    texts = ("dr,fr,hr,br->dfhb", "dr,fr,br->dfb", "dr,br->db")
    cores = [
        np.einsum(t, *random.normal(size=(4 - k, C, r))) for k, (t, r) in enumerate(zip(texts, ranks, strict=True))
    ]
    return dict(zip(("w3", "w2", "w1", "w0"), [*cores, random.normal(size=C)], strict=True))


def by_loops(w, x):
    """The same polynomial, summed position by position."""
    y = np.zeros_like(x)
    for a in range(len(x)):
        y[a] = w["w0"] + x[a] @ w["w1"]
        for e in range(len(x)):
            y[a] += np.einsum("d,f,dfb", x[a], x[e], w["w2"])
            y[a] += np.einsum("d,f,h,dfhb", x[a], x[e], x[e], w["w3"]) / len(x)
    return y


FAMILIES = {3: "cp_nl", 2: "tucker_nl", 1: "tt_nl"}


def test_each_order_is_recovered_in_its_own_family_at_its_own_rank():
    w, x = weights(), np.random.default_rng(1).normal(size=(5, C))
    found = factorise_polynomial(FULL.channel_cores(C, w), FAMILIES, rank={3: 2, 2: (2, 2, 2), 1: (2,)})
    assert [(p.degree, p.name) for p in found.parts] == [(3, "3"), (2, "2"), (1, "1"), (0, "0")]
    assert found.error < 1e-6
    np.testing.assert_allclose(found.spec.evaluate({"x": x, **found.parameters}), by_loops(w, x), rtol=1e-5, atol=1e-6)
    assert {n: a.shape for n, a in found.parameters.items()} == {
        "wq3": (C, 2), "wk3": (C, 2), "wv3": (C, 2), "wo3": (2, C),
        "wq2": (C, 2), "wk2": (C, 2), "core2": (2, 2, 2), "wo2": (2, C), "wq1": (C, 2), "wo1": (2, C), "core0": (C,),
    }  # fmt: skip
    assert found.parameter_count == sum(a.size for a in found.parameters.values())
    assert "order 2, δ[y,x1]: tucker_nl of rank 2 x 2 x 2: relative error" in str(found)


def test_the_sum_passes_verify_and_trains_as_a_module():
    found = factorise_polynomial(
        FULL.channel_cores(C, weights()), FAMILIES, rank={3: 1, 2: (1, 1, 1), 1: (1,)}, starts=1, sizes={"N": 4}
    )
    assert pa.verify(found.plan, level="modular", seed=0)
    assert pa.verify(found.spec, {"N": 2, "C": 2}, level="symbolic")
    assert found.macs == found.plan.macs
    layer = pa.nn.Attention(found.spec, channels=C, residual=False)
    assert {n for n, _ in layer._parameters_of_spec()} == {*found.parameters}


def test_explicit_tensors_of_all_orders_are_taken_apart_too():
    w, x = weights(), np.random.default_rng(1).normal(size=(4, C))
    eye = np.eye(4)
    third = np.einsum("ac,eg,dfhb->abcdefgh", eye, eye, w["w3"])
    second = np.einsum("ac,dfb,e->abcdef", eye, w["w2"], np.ones(4))
    first, bias = np.einsum("ac,db->abcd", eye, w["w1"]), np.tile(w["w0"], (4, 1))
    found = factorise_polynomial([bias, third, first, second], "tt_nl", max_error=1e-9)
    y = by_loops({**w, "w3": 4 * w["w3"]}, x)
    np.testing.assert_allclose(found.spec.evaluate({"x": x, **found.parameters}), y, rtol=1e-6, atol=1e-8)


@share(0.2)
@given(st.integers(0, 1000), st.sampled_from(["cp_nl", "tt_nl"]), st.sampled_from(["pair", "none"]))
def test_the_bound_of_a_sum_holds_on_fresh_data(seed, family, symmetry):
    w, random = weights(seed), np.random.default_rng(seed)
    ranks = {"cp_nl": 1, "tt_nl": {3: (1, 1, 1), 2: (1, 1), 1: (1,)}}[family]
    found = factorise_polynomial(
        FULL.channel_cores(C, w), family, rank=ranks, symmetry=symmetry, starts=1, iterations=5
    )
    x = random.normal(size=(2, random.integers(1, 6), C)) * random.uniform(0.1, 5, size=C)
    off = [found.spec.evaluate({"x": s, **found.parameters}) - by_loops(w, s) for s in x]
    assert np.linalg.norm(off) <= found.bound(x) * (1 + 1e-9)
    assert found.bound(x) <= 100 * np.linalg.norm(off)  # it is no empty bound


MAPS = {
    "axial": {"H": 2, "W": 3, "C": 2, "R": 1},
    "criss_cross": {"H": 2, "W": 3, "C": 2, "R": 1},
    "tesa": {"H": 2, "W": 2, "C": 2, "R": 1},
    "ba_transform": {"H": 2, "W": 3, "G": 1, "M": 1, "K": 1},
    "ba_transform_block": {"S": 2, "U": 3, "V": 1, "G": 1, "M": 1, "K": 1},
}
"""Layers over rows, columns and blocks, at sizes whose explicit tensors are small."""


def layer_on_a_map(name, seed=0):
    spec, random = pa.catalog.get(name), np.random.default_rng(seed)
    known = spec.sizes.solve(MAPS[name], spec.sizes.names)
    parameters = {n: random.normal(size=[known[s] for s in shape]) for n, shape in spec.parameters.items()}
    return spec, parameters, spec.interaction_tensor(MAPS[name], parameters)


NAMES = ("cp_nl", "tucker_nl", "tt_nl", "block_term_nl")
TWO_OF_EACH = [
    pytest.param(name, NAMES[(k + j) % 4], marks=[pytest.mark.nightly] * j)
    for k, name in enumerate(MAPS)
    for j in (0, 1)
]
"""Every pattern with one family, and nightly with two; every family with one pattern or more."""


@pytest.mark.parametrize(("name", "family"), TWO_OF_EACH)
def test_patterns_of_rows_columns_and_blocks_are_factored_and_rebuilt(name, family):
    spec, parameters, w = layer_on_a_map(name)
    sizes = dict(zip("HW", w.shape, strict=False))
    found = factorise_polynomial(recognise(w, 3), family, max_error=1e-7, starts=2, iterations=60, sizes=sizes)
    x = np.random.default_rng(1).normal(size=w.shape[:3])
    y = spec.evaluate({"x": x, **parameters})
    np.testing.assert_allclose(
        found.spec.evaluate({"x": x, **found.parameters}), y, atol=1e-5 * np.abs(y).max(), rtol=1e-5
    )
    assert pa.verify(found.plan, level="modular", seed=0)
    coarse = {"cp_nl": 1, "tucker_nl": (1,) * 4, "tt_nl": (1,) * 3, "block_term_nl": (1, 1, 1)}[family]
    rough = factorise_polynomial(recognise(w, 3), family, rank=coarse, starts=1, iterations=5, sizes=sizes)
    off = np.linalg.norm(rough.spec.evaluate({"x": x, **rough.parameters}) - y)
    assert off <= rough.bound(x) * (1 + 1e-9)


def test_the_core_of_a_specification_over_columns_needs_no_explicit_tensor():
    spec, parameters, _ = layer_on_a_map("axial")
    (core,) = spec.channel_cores(2, parameters)
    found = factorise(core, "tt_nl", max_error=1e-10, sizes={"H": 30, "W": 20})
    x = np.random.default_rng(1).normal(size=(4, 3, 2))
    y = spec.evaluate({"x": x, **parameters})
    np.testing.assert_allclose(found.spec.evaluate({"x": x, **found.parameters}), y, rtol=1e-9)


def test_pooled_rows_and_columns_stay_pooled():
    _, _, w = layer_on_a_map("ba_transform")
    found = factorise(recognise(w, 3), "tt_nl", max_error=1e-9, sizes={"H": 2, "W": 3})
    shapes = {n: len(s) for n, s in found.spec.parameters.items()}
    assert shapes == {"wq": 3, "wk": 5, "wv": 4, "wo": 4}  # x1 has no weights along the width, x3 none along the height


def test_all_orders_of_x_that_a_pattern_lets_be_exchanged_are_used():
    """One position for all: a symmetric core's terms may stand in any of six orders."""
    random = np.random.default_rng(0)
    core = np.einsum("dr,fr,hr,br->bdfh", *random.normal(size=(4, 4, 3)))
    spec = pa.Spec("x[N,C]; y[a,b] = x[a,d]*x[a,f]*x[a,h]*w[d,f,h,b]")
    even = np.mean(
        [core.transpose(0, *o) for o in ((1, 2, 3), (2, 3, 1), (3, 1, 2), (1, 3, 2), (2, 1, 3), (3, 2, 1))], 0
    )
    (given_core,) = spec.channel_cores(4, {"w": np.moveaxis(even, 0, -1)})
    assert factorise(given_core, rank=3).error < 1e-6
    assert factorise(given_core, rank=3, symmetry="none", starts=2, iterations=50).error > 1e-2


BAD = {
    "no family for order 1": lambda c: factorise_polynomial(c, {3: "cp_nl", 2: "cp_nl"}, rank=1),
    "exactly one of rank, .* for order 2; found none": lambda c: factorise_polynomial(c, rank={3: 1, 1: 1}),
    "rank is given for order 4; there are": lambda c: factorise_polynomial(c, rank={4: 1}),
    "rank 10 is too large for cp_nl: a core of shape 3 x 3 x 3": lambda c: factorise_polynomial(c, rank=10),
    "block_term_nl pairs the modes of a core of degree 3": lambda c: factorise_polynomial(
        c, "block_term_nl", max_error=1
    ),
    "unknown family 'svd'": lambda c: factorise_polynomial(c, "svd", rank=1),
    "there is no order to factor": lambda _: factorise_polynomial([], rank=1),
    'symmetry="shared" is for one core': lambda c: factorise_polynomial(c, rank=1, symmetry="shared"),
    "one pattern is factored at a time, and 2 were found": lambda _: factorise(
        recognise(layer_on_a_map("tesa")[2], 3), rank=1
    ),
    "a core of degree 0 is a bias": lambda c: factorise(c[3], rank=1),
    "different numbers of channels": lambda c: factorise_polynomial(
        [c[0], pa.Spec("x[N,C]; y[a,b] = x[a,d]*w[d,b]").channel_core(2, {"w": np.eye(2)})], rank=1
    ),
    "27 of 27 entries are not finite": lambda _: factorise_polynomial(
        FULL.channel_cores(C, {**weights(), "w2": np.full((C, C, C), np.nan)}), rank=1
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_with_what_was_found(message):
    with pytest.raises(pa.FittingError, match=message):
        BAD[message](FULL.channel_cores(C, weights()))
