"""Invariants against numbers: explicit tensors, evaluated layers, and the facts that the catalogue has by hand."""

import numpy as np
import pytest

import polyattn as pa
from polyattn.relating.relate import specification

ATTENTION = """x[N,C]; where r : R; q[a,r] = x[a,c]*wq[c,r]; k[a,r] = x[a,c]*wk[c,r]
    p[a,e] = softmax[e](q[a,r]*k[e,r]); y[a,b] = p[a,e]*x[e,c]*v[c,b]"""
NORMED = "x[N,C]; n[a,c] = x[a,c]/sqrt(x[a,d]*x[a,d]); y[a,b] = n[a,c]*w[c,b]"
SIZES = {"N": 3, "C": 2, "R": 2, "V": 3}


def drawn(spec, seed=0):
    draw = np.random.default_rng(seed)
    sizes = {s: SIZES[s] for s in spec.sizes.names}
    shapes = {**spec.inputs, **spec.parameters}
    return {n: draw.normal(size=[sizes[s] for s in shape]) for n, shape in shapes.items()}, sizes


@pytest.mark.parametrize(
    "name", ["nl", "poly_nl", "cp_nl", "pi_net_ccp", "ba_transform", "axial", "criss_cross", "tesa"]
)
def test_the_catalogue_says_the_same_by_hand(name):
    facts, found = pa.catalog.entry(name).facts, pa.invariants(name)
    assert set(found.equivariant) == set(facts.equivariant)
    assert found.degree == facts.degree


@pytest.mark.parametrize("name", ["nl", "poly_nl", "e_nl", "cp_nl"])
def test_no_unfolding_has_a_larger_rank_than_its_bounds(name):
    spec = pa.catalog.get(name)
    tensors, sizes = drawn(spec)
    found = pa.invariants(spec).ranks
    # Places are numbered as in the canonical form; the explicit tensor's follow its text.
    canonical = pa.Spec.of(spec.polynomial())
    explicit = canonical.interaction_tensor(sizes, {n: tensors[n] for n in spec.parameters})
    places = ["y", "x1", "x2", "x3"]
    for unfolding, bounds in found.items():
        rows = [2 * places.index(p) + k for p in unfolding.split() for k in (0, 1)]
        rest = [k for k in range(8) if k not in rows]
        matrix = explicit.transpose(rows + rest).reshape(int(np.prod([explicit.shape[k] for k in rows])), -1)
        least = min(int(np.prod([sizes[s] for s in bound.split("*")])) for bound in bounds)
        assert np.linalg.matrix_rank(matrix) <= least
        if name in ("nl", "poly_nl"):  # for weights without structure the bounds are reached
            assert np.linalg.matrix_rank(matrix) == least, unfolding


def test_the_channel_rank_of_poly_nl_is_c_and_that_of_nl_is_c_squared():
    assert pa.invariants("poly_nl").ranks["y x2"] == ("C",)
    assert "C*C" in pa.invariants("nl").ranks["y x1"]


def test_swaps_of_places():
    assert pa.invariants("nl").swaps == ()
    assert len(pa.invariants("x[N,C]; y[a,b] = x[a,b]*x[e,c]*x[f,c]").swaps) == 1
    assert pa.invariants("x[N,C]; y[a,b] = x[a,b]*x[a,b]*x[a,b]").swaps == ((1, 2), (1, 3), (2, 3))
    assert pa.invariants("poly_nl").exchanges == {(1, 3): {"w1": "w2", "w2": "w1"}}


@pytest.mark.parametrize(("text", "power"), [("nl", 3), (NORMED, 0), (ATTENTION, None), ("pi_net_ccp", None)])
def test_scaling(text, power):
    spec = specification(text)
    assert pa.invariants(spec).homogeneous == power
    tensors, sizes = drawn(spec)
    y, scaled = (spec.evaluate({**tensors, "x": s * tensors["x"]}, sizes) for s in (1.0, 2.0))
    powers = [k for k in range(7) if np.allclose(scaled, 2.0**k * y)]
    assert powers == ([] if power is None else [power])


def test_a_shift_of_keys_leaves_softmax_attention_the_same():
    found = pa.invariants(ATTENTION)
    assert "k" in found.shifts
    assert not {"q", "x", "p"} & set(found.shifts)


def test_rotation_of_channels_that_the_weights_follow():
    spec = specification("nl")
    assert pa.invariants(spec).rotations == ("C",)
    assert pa.invariants("poly_nl").rotations == ()
    tensors, sizes = drawn(spec)
    q = np.linalg.qr(np.random.default_rng(1).normal(size=(2, 2)))[0]
    turned = {"x": tensors["x"] @ q, "wf": q.T @ tensors["wf"] @ q, "wg": q.T @ tensors["wg"] @ q}
    assert np.allclose(spec.evaluate(turned, sizes), spec.evaluate(tensors, sizes) @ q)


def test_causal_layers_and_those_with_weights_over_positions_are_not_equivariant():
    assert pa.invariants("x[N,C]; y[a,b] = x[a,c]*x[e,c]*x[e,b]*[e <= a]").equivariant == ("C",)
    assert pa.invariants("x[N,C]; y[a,b] = w[a,e]*x[e,b]").equivariant == ("C",)


@pytest.mark.parametrize("name", ["nl", "poly_nl"])
def test_the_cost_grows_with_the_smallest_power(name):
    found = pa.invariants(name).exponents
    assert {size: e.power for size, e in found.items()} == {"N": 1, "C": 2}
    for size, exponent in found.items():
        sizes = {"N": 8, "C": 8, size: 2**16}
        macs = [pa.plan(exponent.plan.spec, {"B": 1, **sizes, size: n}, cost="macs").macs for n in (2**16, 2**18)]
        assert macs[1] / macs[0] == pytest.approx(4**exponent.power, rel=0.1)


def test_it_prints_and_is_data():
    found = pa.invariants("poly_nl")
    assert "needs         N^1 C^2" in str(found)
    assert found.data()["exponents"] == {"N": 1, "C": 2}
