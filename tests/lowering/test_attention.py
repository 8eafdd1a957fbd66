"""Softmax attention in many spellings: it runs on fused attention, computes what its equation says, stores no map."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import polyattn as pa
from polyattn.lowering import differentiable

HEAD = "x[N,C]; bias[N,N]; where r : R; q[a,r] = x[a,c]*wq[c,r]; k[e,r] = x[e,c]*wk[c,r]; v[e,b] = x[e,c]*wv[c,b]"
SPELLINGS = {
    "one product": """
        x[N,C]; where r : R
        p[a,e] = softmax[e](0.3*x[a,c]*wq[c,r]*x[e,d]*wk[d,r]); y[a,b] = p[a,e]*x[e,b]
    """,
    "scale and bias": f"{HEAD}; p[a,e] = softmax[e](scale*q[a,r]*k[e,r] + bias[a,e]); y[a,b] = p[a,e]*v[e,b]",
    "bias first": f"{HEAD}; p[a,e] = softmax[e](2*bias[a,e] - 1/R*k[e,r]*q[a,r]); y[a,b] = v[e,b]*p[a,e]",
    "scale on the keys": f"""
        {HEAD}; s[e,r] = scale*k[e,r]
        p[a,e] = softmax[e](q[a,r]*s[e,r] + bias[a,e]); y[a,b] = p[a,e]*v[e,b]
    """,
    "scaled product": f"""
        {HEAD}; t[N]; s[a,e] = q[a,r]*k[e,r]; l[a,e] = t[a]*s[a,e] + bias[a,e]
        p[a,e] = softmax[e](l[a,e]); y[a,b] = 1/N*p[a,e]*v[e,b]
    """,
    "heads": """
        x[N,C]; bias[J,N,N]; where C = J*D; where r : R; where d : D; where j : J
        q[a,j,r] = x[a,c]*wq[c,j,r]; k[a,j,r] = x[a,c]*wk[c,j,r]; v[a,j,d] = x[a,c]*wv[c,(j d)]
        p[j,a,e] = softmax[e](t[j]*q[a,j,r]*k[e,j,r] + bias[j,a,e])
        o[a,(j d)] = p[j,a,e]*v[e,j,d]; y[a,b] = o[a,c]*wo[c,b]
    """,
    "rows and columns": """
        x[H,W,C]; where r : R; q[i,j,r] = x[i,j,c]*wq[c,r]; k[i,j,r] = x[i,j,c]*wk[c,r]
        p[i,j,k,l] = softmax[k,l](q[i,j,r]*k[k,l,r]); y[i,j,b] = p[i,j,k,l]*x[k,l,c]*wv[c,b]
    """,
    "two maps": "x[N,C]; z[M,C]; p[a,e] = softmax[e](x[a,c]*w[c,d]*z[e,d]); y[a,b] = p[a,e]*z[e,b]",
}
SIZES = {"N": 13, "M": 14, "H": 4, "W": 5, "C": 4, "R": 3, "J": 2, "D": 2}
SIZES_OF = {"two maps": {**SIZES, "N": 15}, "rows and columns": SIZES}


def question(name):
    spec = pa.Spec(SPELLINGS[name])
    known = SIZES_OF.get(name, SIZES)
    return spec, {size: known[size] for size in spec.sizes.names if size in known}


def tensors(spec, sizes, dtype=torch.float64):
    torch.manual_seed(0)
    shapes = {**spec.inputs, **spec.parameters}
    lead = {name: (2,) if name in spec.inputs else () for name in shapes}
    known = spec.sizes.solve(sizes)
    return {n: torch.randn((*lead[n], *(known[s] for s in shape)), dtype=dtype) / 2 for n, shape in shapes.items()}


@pytest.mark.parametrize("objective", ["forward", "training"])
@pytest.mark.parametrize("name", SPELLINGS)
def test_each_spelling_runs_on_fused_attention_and_is_its_equation(name, objective):
    spec, sizes = question(name)
    plan = pa.plan(spec, {"B": 2, **sizes}, objective)
    plain = pa.plan(spec, {"B": 2, **sizes}, objective, kernels="off")
    graph, given = pa.lower(plan), tensors(spec, sizes)
    assert "polyattn_kernels_attention" in graph.code
    assert "softmax" not in graph.code
    y = graph(**given)
    for k in range(2):
        sample = {n: (t[k] if n in spec.inputs else t).numpy() for n, t in given.items()}
        torch.testing.assert_close(y[k], torch.from_numpy(np.array(spec.evaluate(sample, sizes))))
    assert plan.step_peak_bytes < plain.step_peak_bytes
    assert "attention" in str(plan)


@pytest.mark.parametrize("name", SPELLINGS)
def test_gradients_are_those_of_the_definition_and_can_be_differentiated(name):
    spec, sizes = question(name)
    plan = pa.plan(spec, {"B": 2, **sizes}, "training")
    given = [t.requires_grad_() for t in tensors(spec, sizes).values()]
    function, definition = differentiable(plan), pa.lower(plan, kernels="off")
    seed = torch.randn_like(function(*given))
    ours, theirs = (torch.autograd.grad(f(*given), given, seed, create_graph=True) for f in (function, definition))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    second = [torch.autograd.grad(sum(g.square().sum() for g in found), given[0])[0] for found in (ours, theirs)]
    torch.testing.assert_close(*second)


def test_under_transforms_and_in_forward_mode_it_is_the_definition():
    spec, sizes = question("heads")
    plan = pa.plan(spec, {"B": 2, **sizes}, "training")
    (x, *rest), function = tensors(spec, sizes).values(), differentiable(plan)
    v = torch.randn_like(x)
    _, tangent = torch.func.jvp(lambda x: function(x, *rest), (x,), (v,))
    _, wanted = torch.func.jvp(lambda x: pa.lower(plan, kernels="off")(x, *rest), (x,), (v,))
    torch.testing.assert_close(tangent, wanted)
    mapped = torch.vmap(lambda x: function(x, *rest))(torch.stack([x, v]))
    torch.testing.assert_close(mapped, torch.stack([function(x, *rest), function(v, *rest)]))


def test_the_memory_of_a_large_map_is_not_in_the_plan_and_its_arithmetic_is():
    spec, _ = question("scale and bias")
    sizes = {"B": 1, "N": 3136, "C": 64, "R": 64}
    fused, stored = (pa.plan(spec, sizes, "training", kernels=kernels) for kernels in ("auto", "off"))
    assert stored.step_peak_bytes > 4 * 3136**2
    assert fused.step_peak_bytes < 4 * 3136**2 / 8
    products, projections = 2 * 3136**2 * 64, 3 * 3136 * 64**2
    assert products < fused.macs <= products + projections
    assert fused.step_kept_bytes < 4 * 3136**2 / 8


@pytest.mark.parametrize(
    "text",
    [
        "x[N,C]; p[a,e] = softmax[e](x[a,c]*x[e,c]); y[a,b] = p[a,e]*x[e,b] + p[e,a]*x[e,b]",  # the map is read twice
        "x[N,C]; p[a,e] = softmax[a](x[a,c]*x[e,c]); y[a,b] = p[a,e]*x[e,b]",  # normalised over the queries
        "x[N,C]; p[a,e] = softmax[e](x[a,c]*x[e,c]*x[a,d]*x[e,d]); y[a,b] = p[a,e]*x[e,b]",  # a squared product
        "x[N,C]; m[N,N]; p[a,e] = softmax[e](x[a,c]*x[e,c]); y[a,b] = p[a,e]*x[e,b]*x[a,b]*m[a,e]",  # a factor between
    ],
)
def test_what_is_no_attention_is_computed_as_it_stands(text):
    spec, sizes = pa.Spec(text), {"N": 11, "C": 3}
    graph, given = pa.lower(pa.plan(spec, {"B": 2, **sizes})), tensors(spec, sizes)
    sample = {n: (t[0] if n in spec.inputs else t).numpy() for n, t in given.items()}
    torch.testing.assert_close(graph(**given)[0], torch.from_numpy(np.array(spec.evaluate(sample, sizes))))


@settings(max_examples=12)
@given(data=st.data())
def test_any_mixture_of_scales_masks_and_orders_is_its_equation(data):
    factors = ["q[a,r]", "k[e,r]", *data.draw(st.lists(st.sampled_from(["0.5", "t", "u[a]", "w[e]"]), unique=True))]
    product = "*".join(data.draw(st.permutations(factors)))
    masks = data.draw(st.lists(st.sampled_from(["m[a,e]", "2*n[e]", "g[a]"]), unique=True))
    logits = " + ".join(data.draw(st.permutations([product, *masks])))
    output = data.draw(st.sampled_from(["p[a,e]*v[e,b]", "3*v[e,b]*p[a,e]", "p[a,e]*x[e,c]*wv[c,b]"]))
    value = "" if "v[" not in output.replace("wv[", "") else "v[e,b] = x[e,c]*wv[c,b];"
    spec = pa.Spec(
        f"x[N,C]; m[N,N]; n[N]; g[N]; u[N]; w[N]; where r : R; q[a,r] = x[a,c]*wq[c,r]; k[e,r] = x[e,c]*wk[c,r];"
        f"{value} p[a,e] = softmax[e]({logits}); y[a,b] = {output}"
    )
    sizes = {"N": 11, "C": 4, "R": 3}
    plan = pa.plan(spec, {"B": 2, **sizes}, data.draw(st.sampled_from(["forward", "training", "as_written"])))
    given_ = tensors(spec, sizes)
    y = pa.lower(plan)(**given_)
    sample = {n: (t[1] if n in spec.inputs else t).numpy() for n, t in given_.items()}
    torch.testing.assert_close(y[1], torch.from_numpy(np.array(spec.evaluate(sample, sizes))))


def test_fused_attention_is_verified():
    spec, sizes = question("scale and bias")
    assert "attention" in str(pa.plan(spec, sizes))
    assert pa.verify(spec, sizes, level="numeric")
