"""Slots at combinations, through every stage, against loops over every place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

import polyattn as pa
from polyattn.planning import shard
from polyattn.proving.independent import refusal
from tests.neighbourhoods import Case, cases


@given(cases(), st.integers(0, 99))
def test_evaluation_is_the_loops(case: Case, seed: int):
    arrays = case.arrays(seed)
    spec = pa.Spec(case.text)
    np.testing.assert_allclose(spec.evaluate(arrays, case.sizes), case.loops(arrays), rtol=1e-9, atol=1e-9)


@given(cases())
def test_the_printed_text_is_the_specification(case: Case):
    spec = pa.Spec(case.text)
    assert pa.Spec(str(spec)) == spec
    assert spec.latex()
    assert spec.mathml()
    assert {n: len(s) for n, s in spec.parameters.items()} == {n: len(case.shapes[n]) for n in case.parameters}


@given(cases(), st.integers(0, 99), st.sampled_from(["forward", "as_written", "training"]))
def test_a_lowered_plan_is_the_loops(case: Case, seed: int, objective: str):
    spec = pa.Spec(case.text)
    graph = pa.lower(pa.plan(spec, case.sizes, objective))
    both = [case.arrays(seed), case.arrays(seed + 1)]
    inputs = {n: torch.tensor(np.stack([a[n] for a in both])) for n in spec.inputs}
    parameters = {n: torch.tensor(both[0][n]) for n in case.parameters}
    both[1] |= {n: both[0][n] for n in case.parameters}
    expected = np.stack([case.loops(a) for a in both])
    np.testing.assert_allclose(graph(**inputs, **parameters).numpy(), expected, rtol=1e-9, atol=1e-9)


@given(cases(), st.integers(0, 99), st.sampled_from(["forward", "training"]))
def test_a_layers_gradients_are_the_differences_of_the_loops(case: Case, seed: int, objective: str):
    spec = pa.Spec(case.text)
    arrays = case.arrays(seed)
    layer = pa.nn.Layer(spec, case.sizes, objective=objective, dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in layer.spec_parameters().items():
            parameter.copy_(torch.tensor(arrays[name]))
    inputs = {n: torch.tensor(arrays[n][None], requires_grad=True) for n in spec.inputs}
    value = layer(**inputs)
    rng = np.random.default_rng(seed)
    seeds = rng.standard_normal(value.shape)
    leaves = {**inputs, **layer.spec_parameters()}
    gradients = torch.autograd.grad(value, [*leaves.values()], torch.tensor(seeds), allow_unused=True)
    for (name, _), gradient in zip(leaves.items(), gradients, strict=True):
        direction = rng.standard_normal(arrays[name].shape)
        ends = [case.loops(arrays | {name: arrays[name] + h * direction}) for h in (1e-6, -1e-6)]
        slope = ((ends[0] - ends[1]) / 2e-6 * seeds[0]).sum()
        found = 0.0 if gradient is None else float((gradient.numpy().reshape(direction.shape) * direction).sum())
        np.testing.assert_allclose(found, slope, rtol=1e-4, atol=1e-5)


CONVOLUTION = "x[H,W,C]; where u, v : -1..1; where b : D; y[i,j,b] = x[i+u,j+v,c]*w[u,v,c,b]"


def test_a_convolution_is_one_step_and_torchs_convolution_with_its_gradients():
    layer = pa.nn.Layer(CONVOLUTION, {"C": 4, "D": 3})
    x = torch.randn(2, 6, 5, 4, requires_grad=True)
    again, w = x.detach().clone().requires_grad_(), layer.w.detach().clone().requires_grad_()
    expected = functional.conv2d(again.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1), padding=1).permute(0, 2, 3, 1)
    value = layer(x)
    seed = torch.randn_like(value)
    value.backward(seed)
    expected.backward(seed)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(x.grad, again.grad)
    torch.testing.assert_close(layer.w.grad, w.grad)
    plan = pa.plan(CONVOLUTION, {"H": 6, "W": 5, "C": 4, "D": 3})
    assert [s.operation for s in plan.steps] == ["convolve"]
    assert plan.macs == 6 * 5 * 9 * 4 * 3


def test_a_depthwise_convolution_of_a_projection_is_two_cheap_steps():
    text = "x[H,W,C]; where u, v : -1..1; where b : D; y[i,j,b] = x[i+u,j+v,c]*w1[c,b]*w2[u,v,b]"
    plan = pa.plan(text, {"H": 8, "W": 8, "C": 16, "D": 4})
    assert plan.macs == 64 * 16 * 4 + 64 * 9 * 4


def test_relative_positions_have_one_entry_for_each_difference():
    text = "q[N,R]; k[N,R]; p[a,e] = softmax[e](q[a,r]*k[e,r] + bias[a-e])"
    spec = pa.Spec(text)
    assert spec.parameters == {"bias": ("2*N-1",)}
    q, k, bias = (np.random.default_rng(0).standard_normal(s) for s in ((4, 2), (4, 2), (7,)))
    scores = np.exp([[q[a] @ k[e] + bias[a - e + 3] for e in range(4)] for a in range(4)])
    expected = scores / scores.sum(1, keepdims=True)
    arrays = {"q": q, "k": k, "bias": bias}
    np.testing.assert_allclose(spec.evaluate(arrays), expected)
    graph = pa.lower(pa.plan(spec, {"N": 4, "R": 2}))
    found = graph(torch.tensor(q)[None], torch.tensor(k)[None], bias=torch.tensor(bias))
    np.testing.assert_allclose(found[0].numpy(), expected)


def test_a_number_picks_a_part_of_a_fused_parameter():
    text = """x[N,C]; where h : H; where d : D
        q[a,(h d)] = x[a,c]*w[c,(0 h d)]
        k[a,(h d)] = x[a,c]*w[c,(1 h d)]
        y[a,e] = q[a,(h d)]*k[e,(h d)]"""
    spec = pa.Spec(text)
    assert spec.parameters == {"w": ("C", "2*H*D")}
    x, w = (np.random.default_rng(1).standard_normal(s) for s in ((3, 2), (2, 12)))
    both = x @ w
    found = spec.evaluate({"x": x, "w": w}, {"H": 2, "D": 3})
    np.testing.assert_allclose(found, both[:, :6] @ both[:, 6:].T)


def test_two_convolutions_in_a_row_see_zeros_around_the_first():
    text = "x[N,C]; where u : -1..1; t[i,c] = x[i+u,c]*w[u]; y[i,c] = t[i+u,c]*w[u]"
    x, w = np.ones((1, 1)), np.array([1.0, 1.0, 1.0])
    assert pa.Spec(text).evaluate({"x": x, "w": w}) == 1
    x = np.ones((2, 1))
    assert pa.Spec(text).evaluate({"x": x, "w": w}).ravel().tolist() == [4, 4]


def test_shifts_of_a_range_and_the_order_of_a_sum_are_one_form():
    shifted = CONVOLUTION.replace("-1..1", "0..2").replace("i+u,j+v", "i+u-1,v-1+j")
    verdict = pa.prove(CONVOLUTION, shifted)
    assert verdict.status == "equal"
    assert refusal(verdict.certificate) == ""


def test_relative_positions_are_told_apart_by_their_sign():
    text = "q[N,R]; k[N,R]; p[a,e] = softmax[e](q[a,r]*k[e,r] + bias[a-e])"
    assert pa.prove(text, text.replace("q[a,r]*k[e,r] + bias[a-e]", "bias[a-e] + k[e,r]*q[a,r]")).status == "equal"
    assert pa.prove(text, text.replace("a-e", "e-a")).status == "different"


def test_two_convolutions_in_a_row_are_not_the_one_of_their_kernels():
    two = "x[N,C]; where u : -1..1; t[i,c] = x[i+u,c]*w[u]; y[i,c] = t[i+u,c]*v[u]"
    one = "x[N,C]; where u, s : -1..1; y[i,c] = x[i+u+s,c]*w[u]*v[s]"
    verdict = pa.prove(two, one)
    assert verdict.status == "different"
    found = verdict.counterexample
    assert found is not None
    tensors = {n: np.array(v, dtype=float) for n, v in found["tensors"].items()}
    values = [pa.Spec(t).evaluate(tensors, {})[tuple(found["entry"])] for t in (two, one)]
    assert values == [found["left"], found["right"]]


def test_a_derivative_with_left_out_places_is_a_text_again():
    pooled = pa.Spec("x[H,C]; where u : -1..1; y[i,c] = max[u](x[i+u,c])")
    derivative = pooled.derivative("x", seed="dy")
    x, dy = np.random.default_rng(3).standard_normal((2, 4, 2))
    expected = np.zeros_like(x)
    for i in range(4):
        for c in range(2):
            rows = range(max(0, i - 1), min(4, i + 2))
            expected[max(rows, key=lambda k: x[k, c]), c] += dy[i, c]
    np.testing.assert_allclose(derivative.evaluate({"x": x, "dy": dy}), expected)


def test_neighbours_on_other_devices_are_refused_and_other_sizes_are_split():
    sizes = {"H": 4, "W": 4, "C": 2, "D": 2}
    plan = pa.plan(CONVOLUTION, sizes)
    with pytest.raises(pa.PolyattnError, match="reads the neighbours of positions"):
        shard(plan.graph, plan.names, "H", 2, ["x"])
    frames = "x[T,H,W,C]; where u, v : -1..1; where b : D; y[t,i,j,b] = x[t,i+u,j+v,c]*w[u,v,c,b]"
    plan = pa.plan(frames, {"T": 4, **sizes})
    assert [type(n).__name__ for n in shard(plan.graph, plan.names, "T", 2, ["x"]).graph.nodes] == [
        "Leaf",
        "Leaf",
        "Convolve",
    ]
