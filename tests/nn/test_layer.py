"""`Layer`: any specification as a module, held against `Spec.evaluate` and plain torch; what it refuses."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import polyattn as pa
from polyattn.nn import Attention, Layer
from polyattn.nn.inputs import shared
from polyattn.testing import size_assignments, specifications

POOLING = "x[N,C]; q[Q,C]; p[i,n] = softmax[n](q[i,c]*k[c,d]*x[n,d]); y[i,c] = p[i,n]*x[n,c]"
BILINEAR = "x[N,C]; z[N,D]; where o : O; y[o] = 1/N * x[n,c]*w[c,d,o]*z[n,d]"
CROSS = """
    x[N,C]; z[M,C]; m[N,M]; where r : R
    q[a,r] = x[a,c]*wq[c,r]; k[e,r] = z[e,c]*wk[c,r]
    p[a,e] = softmax[e](1/R*q[a,r]*k[e,r] + m[a,e])
    y[a,b] = p[a,e]*z[e,c]*wv[c,b]
"""
KEPT = "x[N,C]; m[N]; y[a,b] = m[e]*x[e,c]*w[c,d]*x[a,d]*v[d,b]"


def cross(**options):
    return Layer(CROSS, {"C": 4, "R": 3}, dtype=torch.float64, **options)


def by_hand(layer, x, z, bias):
    w = layer.spec_parameters()
    p = ((x @ w["wq"]) @ (z @ w["wk"]).mT / 3 + bias).softmax(-1).nan_to_num(0.0)
    return p @ z @ w["wv"]


@settings(max_examples=15)
@given(data=st.data())
def test_any_specification_is_computed_with_its_inputs_with_and_without_the_batch_axis(data):
    spec = data.draw(specifications(max_inputs=3))
    sizes = data.draw(size_assignments(spec))
    known = spec.sizes.solve(sizes)
    layer = Layer(spec, sizes, dtype=torch.float64)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    alone = {
        name: torch.randn(2, *(int(s) if s.isdigit() else known[s] for s in shape), dtype=torch.float64)
        for name, shape in spec.inputs.items()
    }
    shares = {name: data.draw(st.booleans(), label=f"{name} is shared") for name in alone}
    inputs = {name: tensor[0] if shares[name] else tensor for name, tensor in alone.items()}
    parameters = {n: p.detach().numpy() for n, p in layer.spec_parameters().items()}
    samples = []
    for k in range(2):
        own = {n: (t if shares[n] else t[k]).numpy() for n, t in inputs.items()}
        samples.append(torch.from_numpy(np.array(spec.evaluate(own | parameters, sizes))))
    wanted = samples[0] if all(shares.values()) else torch.stack(samples)
    scale = max(1.0, wanted.abs().max().item())
    for y in (layer(*inputs.values()), layer(**inputs)):
        torch.testing.assert_close(y, wanted, rtol=1e-9, atol=1e-9 * scale)


def test_query_pooling_bilinear_pooling_and_other_channels_have_the_shapes_of_their_equations():
    x, z = torch.randn(2, 9, 4), torch.randn(2, 9, 3)
    assert Layer(POOLING, sizes={"C": 4})(x, q=torch.randn(5, 4)).shape == (2, 5, 4)
    assert Layer(BILINEAR, sizes={"C": 4, "D": 3, "O": 6})(x, z).shape == (2, 6)
    wider = Layer("x[H,W,C]; where o : D; y[i,j,o] = x[i,j,c]*w[c,o]", {"C": 4, "D": 7})
    assert wider(torch.randn(2, 3, 5, 4)).shape == (2, 3, 5, 7)
    assert Layer("x[N,C]; s[]; y[a,c] = s*x[a,c]")(x, torch.tensor([2.0, 3.0]))[1].equal(3 * x[1])


@pytest.mark.parametrize("shape", [(2, 6, 5), (6, 5)], ids=["of each sample", "shared"])
def test_a_boolean_mask_keeps_where_it_is_true_and_a_row_masked_out_is_zero_with_its_gradients(shape):
    layer, x, z = cross(), *torch.randn(2, 2, 6, 4, dtype=torch.float64)
    z = z[:, :5].clone().requires_grad_()
    mask = torch.rand(shape) > 0.4
    mask[..., 2, :] = False
    y = layer(x, z, mask)
    bias = torch.zeros(shape, dtype=torch.float64).masked_fill(~mask, -torch.inf)
    wanted = by_hand(layer, x, z, bias.masked_fill(~mask.any(-1, keepdim=True), 0.0)) * mask.any(-1, keepdim=True)
    torch.testing.assert_close(y, wanted)
    assert not y[:, 2].any()
    asked = (z, *layer.parameters())
    seed = torch.randn_like(y)
    for ours, theirs in zip(torch.autograd.grad(y, asked, seed), torch.autograd.grad(wanted, asked, seed), strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(layer(x, z, bias), y)  # the same as numbers
    with torch.no_grad():
        torch.testing.assert_close(layer(x, z, mask), y)


def test_a_boolean_mask_that_multiplies_keeps_where_it_is_true():
    layer, x = Layer(KEPT, {"C": 4}), torch.randn(2, 6, 4)
    mask = torch.tensor([True, False, True, True, False, False])
    torch.testing.assert_close(layer(x, mask), layer(x, mask.float()))
    w = layer.spec_parameters()
    torch.testing.assert_close(layer(x, mask), (x[:, mask] @ w["w"]).sum(1, keepdim=True) * x @ w["v"])


@pytest.mark.parametrize(
    "text",
    [
        "x[N,C]; m[N,N]; p[a,e] = softmax[e](m[a,e]*x[a,c]*x[e,c]); y[a,b] = p[a,e]*x[e,b]",
        "x[N,C]; m[N,N]; p[a,e] = softmax[e](x[a,c]*x[e,c] - m[a,e]); y[a,b] = p[a,e]*x[e,b]",
        "x[N,C]; m[N,N]; p[a,e] = softmax[e](x[a,c]*x[e,c] + m[a,e]); y[a,b] = m[a,e]*p[a,e]*x[e,b]",
        "x[N,C]; m[N,C]; y[a,b] = x[a,b] + m[a,b]",
    ],
    ids=["a factor", "subtracted", "both", "a term"],
)
def test_a_boolean_input_without_a_meaning_as_a_mask_is_refused(text):
    shape = (3, 4) if "m[N,C]" in text else (3, 3)
    with pytest.raises(pa.SizeError, match="`m` is boolean, but keeping entries"):
        Layer(text)(torch.randn(2, 3, 4), torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, z, m: ((x, z), {}), "missing: `m`; this layer takes x.N,C., z.M,C., m.N,M., by position"),
        (lambda x, z, m: ((x, z, m, m), {}), "4 inputs are given, but this layer takes"),
        (lambda x, z, m: ((x, z), {"mask": m}), "`mask` is not an input"),
        (lambda x, z, m: ((x, z, m), {"z": z}), "`z` is given twice"),
        (lambda x, z, m: ((x, z, [m]), {}), "`m` must be a tensor, not list"),
        (lambda x, z, m: ((x, z[:1], m), {}), "`z` has a batch of 1, but `x` one of 2: an input that all samples"),
        (lambda x, z, m: ((x, z, m[:, :4]), {}), r"`m` of shape \(6, 4\) has M = 4, but `z` has M = 5"),
        (lambda x, z, m: ((x, z[..., :3], m), {}), r"`z` of shape .* has C = 3, but the layer was made for C = 4"),
        (lambda x, z, m: ((x[0, 0], z, m), {}), r"`x` must have the shape \(B, N, C\) or, shared .* \(N, C\)"),
        (lambda x, z, m: ((x, z[:, :0], m[:, :0]), {}), "`z` is empty along M"),
        (lambda x, z, m: ((x, z, (m > 0).int()), {}), "`m` must be of a floating dtype, not torch.int32; a mask"),
        (lambda x, z, m: ((x, z, m.float()), {}), "`m` is torch.float32, but `x` is torch.float64"),
    ],
)
def test_wrong_inputs_are_refused_by_name_before_any_work(change, message):
    inputs, named = change(*(torch.randn(s, dtype=torch.float64) for s in ((2, 6, 4), (2, 5, 4), (6, 5))))
    with pytest.raises(pa.SizeError, match=message):
        cross()(*inputs, **named)


def test_wrong_sizes_are_refused_when_the_layer_is_made():
    with pytest.raises(pa.SizeError, match=r"missing size C \(for parameter 'k'\)"):
        Layer(POOLING)
    with pytest.raises(pa.SizeError, match="missing size D, which no input fixes"):
        Layer("x[N,C]; where d : D; y[a,d] = x[a,c]")
    with pytest.raises(pa.SizeError, match=r"unknown size 'c'.*did you mean C"):
        Layer(POOLING, {"c": 4})


def test_split_sizes_are_checked_against_the_inputs():
    layer = Layer("x[N,C]; where C = G*M; y[a,(g m)] = x[a,(g n)]*w[g,n,m]", {"G": 2, "M": 3})
    assert layer(torch.randn(2, 5, 6)).shape == (2, 5, 6)
    with pytest.raises(pa.SizeError, match=r"`x` of shape \(2, 5, 8\) has C = 8, but the layer was made for C = 6"):
        layer(torch.randn(2, 5, 8))


def test_a_shared_input_is_a_parameter_of_the_plan_where_its_sizes_are_known():
    spec = pa.Spec(CROSS)
    found = shared(spec, ["m"], {"C": 4, "R": 3})
    assert found is not None
    assert found.parameters["m"] == ("N", "M")
    assert shared(spec, ["z", "m"], {"C": 4, "R": 3}) is None  # each M would have a function of its own


def test_attention_is_a_layer_with_its_parameters_under_their_names():
    layer = Attention("x[N,C]; where e : C; y[a,b] = gain*x[a,d]*half[d,e]*alpha[e,b]", 4)
    assert isinstance(layer, Layer)
    assert list(layer.state_dict()) == ["gain", "half_", "alpha_", "alpha", "beta"]
    assert list(Layer(layer.spec, {"C": 4}).state_dict()) == ["gain", "half_", "alpha"]


def test_device_dtype_and_generator_are_as_in_torchs_factories():
    draws = [cross(generator=torch.Generator().manual_seed(s)).wq for s in (3, 3, 4)]
    assert draws[0].equal(draws[1])
    assert not draws[0].equal(draws[2])
    on_meta = Layer(CROSS, {"C": 4, "R": 3}, device="meta")
    assert {p.device.type for p in on_meta.parameters()} == {"meta"}


@pytest.mark.usefixtures("_nothing_compiled_before")
def test_layers_are_copied_pickled_compiled_exported_and_transformed():
    layer, x, z = cross(), *torch.randn(2, 2, 6, 4, dtype=torch.float64)
    mask = torch.rand(6, 6) > 0.3
    y = layer(x, z, mask)
    stored = io.BytesIO()
    torch.save(layer, stored)
    stored.seek(0)
    for other in (copy.deepcopy(layer), torch.load(stored, weights_only=False)):
        assert other(x, z, mask).equal(y)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")(x, z, mask)
    exported = torch.export.export(layer, (x, z, mask)).module()(x, z, mask)
    fresh = torch.compile(cross(), fullgraph=True, backend="aot_eager")(x, z, mask)
    assert fresh.shape == y.shape
    mapped = torch.vmap(layer, in_dims=(0, 0, None))(x, z, mask)
    for found in (compiled, exported, mapped):
        torch.testing.assert_close(found, y)
    v = torch.randn_like(x)
    _, tangent = torch.func.jvp(lambda x: layer(x, z, mask), (x,), (v,))
    steps = [layer(x + h * v, z, mask) for h in (1e-6, -1e-6)]
    torch.testing.assert_close(tangent, (steps[0] - steps[1]) / 2e-6, rtol=1e-5, atol=1e-7)


def test_a_batch_or_channels_first_in_the_equation_is_right_in_a_layer_and_refused_by_attention():
    x = torch.randn(2, 9, 4)
    batched = Layer("x[B,N,C]; y[b,n,d] = x[b,n,c]*w[c,d]*x[b,m,d]", {"C": 4})
    torch.testing.assert_close(batched(x), (x @ batched.w) * x.sum(1, keepdim=True))
    first = Layer("x[C,H,W]; y[d,i,j] = x[c,i,j]*w[c,d]", {"C": 4})
    maps = torch.randn(2, 4, 5, 6)
    torch.testing.assert_close(first(maps), torch.einsum("bcij,cd->bdij", maps, first.w))
    for text, written in (
        ("x[B,N,C]; y[b,n,d] = x[b,n,c]*w[c,d]", "write x.N,C."),
        ("x[H,W,B]; y[i,j,d] = x[i,j,d]", "write x.H,W."),
        ("x[C,H,W]; y[d,i,j] = x[c,i,j]*x[d,i,j]", "write x.H,W,C., not x.C,H,W."),
    ):
        with pytest.raises(pa.SpecError, match=written):
            Attention(text, 4)


@pytest.mark.parametrize("text", ["where r : C/8", "where R = C/8"])
def test_a_part_of_a_size_names_the_spelling_that_works(text):
    with pytest.raises(pa.SpecError, match=r"for an eighth of C, write 'where C = 8\*R' and 'where r : R'"):
        pa.Spec(f"x[N,C]; {text}; y[a,b] = x[a,c]*w[c,r]*v[r,b]")
    layer = Layer("x[N,C]; where C = 8*R; where r : R; y[a,b] = x[a,c]*w[c,r]*v[r,b]", {"C": 16})
    assert layer.w.shape == (16, 2)


def softer(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(1.5 * x)


def test_a_function_of_ones_own_is_run_differentiated_copied_and_compiled():
    text = "x[N,C]; where phi : function; y[a,b] = phi(x[a,c]*w[c,d])*v[d,b]; where d : R"
    layer = Layer(text, {"C": 4, "R": 3}, functions={"phi": softer})
    for n in (5, 7):
        x = torch.randn(2, n, 4, requires_grad=True)
        wanted = softer(x @ layer.w) @ layer.v
        for module in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            torch.testing.assert_close(module(x), wanted)
        inside = (x, layer.w, layer.v)
        got, expected = (torch.autograd.grad(y.square().sum(), inside) for y in (layer(x), wanted))
        torch.testing.assert_close(got, expected)
    torch.testing.assert_close(torch.compile(layer, backend="eager", fullgraph=True)(x), wanted)
    program = torch.export.export(layer, (x.detach(),), dynamic_shapes=(({1: torch.export.Dim("n", min=2)},),))
    torch.testing.assert_close(program.module()(x[:, :6].detach()), wanted[:, :6])


def test_a_function_of_ones_own_has_a_callable_and_each_layer_its_own():
    text = "x[N,C]; where phi : function; y[a,b] = phi(x[a,b])"
    with pytest.raises(pa.SpecError, match="phi"):
        Layer(text, {"C": 4})
    x = torch.rand(2, 3, 4)
    first, second = Layer(text, functions={"phi": torch.sin}), Layer(text, functions={"phi": torch.cos})
    torch.testing.assert_close(first(x), x.sin())
    torch.testing.assert_close(second(x), x.cos())
    # An input that all samples share takes another program, with the same function.
    text = "x[N,C]; z[M,C]; where phi : function; y[a] = x[a,c]*sum[e](phi(z[e,c]))"
    layer, z = Layer(text, functions={"phi": torch.exp}), torch.rand(5, 4)
    torch.testing.assert_close(layer(x, z), torch.einsum("bac,ec->ba", x, z.exp()))
