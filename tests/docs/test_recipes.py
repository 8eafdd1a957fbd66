"""The equations of docs/recipes.md, run as layers and held against plain torch written from the papers."""

import re
import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import polyattn as pa

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
RECIPES = dict(re.findall(r"^### (.+?)\n.*?```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S | re.M))
SIZES = {"B": 2, "N": 20, "M": 5, "C": 12, "E": 7, "D": 3, "H": 4, "G": 2, "Q": 3, "R": 5, "O": 6, "K": 4, "S": 3}
OTHER = {"Grouped-query attention": {"H": 2}, "Axial attention": {"W": 6}, "Gated linear unit": {"H": 9}}
GRID = {"H": 6, "W": 8}
OTHER |= {
    "Convolution": GRID,
    "Neighbourhood attention": {**GRID, "H": 9},
    "Depthwise convolution with stride": {**GRID, "S": 3, "T": 4},
}


def heads(x, w, h):
    """(B, N, C) through a projection to (B, h, N, D)."""
    return (x @ w).unflatten(-1, (h, -1)).transpose(1, 2)


def joined(o):
    return o.transpose(1, 2).flatten(2)


def attend(q, k, v, **options):
    return F.scaled_dot_product_attention(q, k, v, **options)


def multi_head(x, wq, wk, wv, wo):
    return joined(attend(*(heads(x, w, 4) for w in (wq, wk, wv)))) @ wo


def cross(x, z, wq, wk, wv, wo):
    return joined(attend(heads(x, wq, 4), heads(z, wk, 4), heads(z, wv, 4))) @ wo


def grouped(x, wq, wk, wv, wo):
    q, k, v = heads(x, wq, 4), heads(x, wk, 2), heads(x, wv, 2)
    return joined(attend(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1))) @ wo


def talking(x, wq, wk, wv, before, after, wo):
    q, k, v = (heads(x, w, 4) for w in (wq, wk, wv))
    mixed = torch.einsum("bhae,hi->biae", q @ k.mT / 3**0.5, before)
    return joined(torch.einsum("biae,ih->bhae", mixed.softmax(-1), after) @ v) @ wo


def masked(x, mask, wq, wk, wv):
    return attend(x @ wq, x @ wk, x @ wv, attn_mask=mask)


def pooling(x, q, wk, wv):
    return (q @ (x @ wk.T).mT / 12**0.5).softmax(-1) @ (x @ wv)


def cosine(x, wq, wk, t, wv):
    return (t * F.normalize(x @ wq, dim=-1) @ F.normalize(x @ wk, dim=-1).mT).softmax(-1) @ (x @ wv)


def cross_covariance(x, wq, wk, wv, t, wo):
    q, k, v = (heads(x, w, 4).mT for w in (wq, wk, wv))
    p = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * t[:, None, None]).softmax(-1)
    return (p @ v).permute(0, 3, 1, 2).flatten(2) @ wo


def axial(x, wq, wk, wv):
    return torch.stack([((r @ wq) @ (r @ wk).mT).softmax(-1) @ (r @ wv) for r in x.unbind(1)], 1)


def agent(x, wq, wk, pool, wv):
    agents = pool @ (x @ wq)
    return attend(x @ wq, agents, attend(agents, x @ wk, x @ wv))


def simplicial(x, wq, wk, wl, wv, wu):
    scores = torch.einsum("bad,bed,bfd->baef", x @ wq, x @ wk, x @ wl) / 3**0.5
    p = scores.flatten(2).softmax(-1).view_as(scores)
    return torch.einsum("baef,bec,bfc->bac", p, x @ wv, x @ wu)


def linear(x, wq, wk, wv):
    p = (F.elu(x @ wq) + 1) @ (F.elu(x @ wk) + 1).mT
    return p / p.sum(-1, keepdim=True) @ (x @ wv)


def relu_linear(x, wq, wk, wv):
    p = (x @ wq).relu() @ (x @ wk).relu().mT
    return p @ (x @ wv) / (p.sum(-1, keepdim=True) + 1e-6)


def efficient(x, wq, wk, wv):
    return (x @ wq).softmax(-1) @ ((x @ wk).softmax(1).mT @ (x @ wv))


def external(x, mk, mv):
    p = (x @ mk.T).softmax(1)
    return p / p.sum(-1, keepdim=True) @ mv


def lambda_content(x, wk, wv, wq):
    return (x @ wq) @ ((x @ wk).softmax(1).mT @ (x @ wv))


def attention_free(x, wk, bias, wq, wv):
    weights = (bias[:, :, None] + (x @ wk)[:, None]).exp()
    return (x @ wq).sigmoid() * (weights * (x @ wv)[:, None]).sum(2) / weights.sum(2)


def non_local(x, wq, wk, wg, wo):
    return x + ((x @ wq) @ (x @ wk).mT).softmax(-1) @ (x @ wg) @ wo


def dot_product(x, wq, wk, wg, wo):
    return x + (x @ wq) @ (x @ wk).mT / 20 @ (x @ wg) @ wo


def poly_nl(x, w1, w2, w3):
    return (x * ((x @ w1) * (x @ w2)).mean(1, keepdim=True)) @ w3


def causal(x, wq, wk, wv, wo):
    return joined(attend(*(heads(x, w, 4) for w in (wq, wk, wv)), is_causal=True)) @ wo


def window(x, wq, wk, wv):
    seen = torch.ones(20, 20, dtype=torch.bool).tril() & torch.ones(20, 20, dtype=torch.bool).triu(-15)
    return attend(x @ wq, x @ wk, x @ wv, attn_mask=seen)


def causal_linear(x, wq, wk, wv):
    p = ((F.elu(x @ wq) + 1) @ (F.elu(x @ wk) + 1).mT).tril()
    return p / p.sum(-1, keepdim=True) @ (x @ wv)


def convolution(x, w):
    return F.conv2d(x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1), padding=1).permute(0, 2, 3, 1)


def strided(x, w):
    kernels = w.permute(2, 0, 1)[:, None]
    return F.conv2d(x.permute(0, 3, 1, 2), kernels, stride=2, padding=1, groups=12).permute(0, 2, 3, 1)


def neighbourhood(x, wq, wk, wv):
    h, w = x.shape[1:3]
    at = torch.cartesian_prod(torch.arange(h), torch.arange(w))
    near = ((at[:, None] - at).abs() <= 3).all(-1)
    y = attend(*((x @ m).flatten(1, 2) for m in (wq, wk, wv)), attn_mask=near)
    return y.unflatten(1, (h, w))


def relative(x, wq, wk, bias, wv):
    places = torch.arange(20)
    return attend(x @ wq, x @ wk, x @ wv, attn_mask=bias[places[:, None] - places + 19])


def squeeze(x, w1, b1, w2, b2):
    return x * ((x.mean(1) @ w1 + b1).relu() @ w2 + b2).sigmoid()[:, None]


def context(x, k, w):
    return x + ((x @ k).softmax(1)[:, None] @ x) @ w


def gated(x, w1, w2, w3):
    return (F.silu(x @ w1) * (x @ w2)) @ w3


def mixing(x, w1, w2):
    return x + (F.gelu(x.mT @ w1) @ w2).mT


def bilinear(x, z, w):
    return torch.stack([F.bilinear(x[:, n], z[:, n], w.permute(2, 0, 1)) for n in range(20)]).mean(0)


def low_rank(x, z, u, v, w):
    return ((x @ u).tanh() * (z @ v).tanh()) @ w


def machine(x, b, w, v):
    pairs = torch.triu(v @ v.T, 1)
    return b + x @ w + torch.einsum("bc,bd,cd->b", x, x, pairs)


def covariance(x):
    return torch.stack([torch.cov(sample.T, correction=0) for sample in x])


def rms_norm(x, g):
    return F.rms_norm(x, (12,), g, 1e-6)


def layer_norm(x, g, s):
    return F.layer_norm(x, (12,), g, s, 1e-5)


def triangle(x, wl, ul, wr, ur, wg, wo):
    left, right = (x @ wl).sigmoid() * (x @ ul), (x @ wr).sigmoid() * (x @ ur)
    return (x @ wg).sigmoid() * (torch.einsum("bikd,bjkd->bijd", left, right) @ wo)


def outer_mean(x, wl, wr, w):
    return torch.einsum("bsid,bsje->bijde", x @ wl, x @ wr).flatten(3) @ w.flatten(0, 1) / 3


def delta(s, k, v, beta):
    kept = torch.eye(3, dtype=s.dtype) - beta[:, None, None] * k[:, :, None] * k[:, None]
    return kept @ s + beta[:, None, None] * k[:, :, None] * v[:, None]


WRITTEN = {
    "Multi-head attention": multi_head,
    "Cross-attention": cross,
    "Grouped-query attention": grouped,
    "Talking heads": talking,
    "Masked attention": masked,
    "Attention pooling": pooling,
    "Cosine attention": cosine,
    "Cross-covariance attention": cross_covariance,
    "Axial attention": axial,
    "Agent attention": agent,
    "2-simplicial attention": simplicial,
    "Linear attention": linear,
    "ReLU linear attention": relu_linear,
    "Efficient attention": efficient,
    "External attention": external,
    "Lambda layer, content part": lambda_content,
    "Attention-free transformer": attention_free,
    "Non-local block": non_local,
    "Non-local block, dot product": dot_product,
    "Poly-NL": poly_nl,
    "Causal attention": causal,
    "Sliding window": window,
    "Causal linear attention": causal_linear,
    "Convolution": convolution,
    "Depthwise convolution with stride": strided,
    "Neighbourhood attention": neighbourhood,
    "Relative positions": relative,
    "Squeeze and excitation": squeeze,
    "Global context block": context,
    "Gated linear unit": gated,
    "Token mixing": mixing,
    "Bilinear pooling": bilinear,
    "Low-rank bilinear model": low_rank,
    "Factorisation machine": machine,
    "Covariance pooling": covariance,
    "RMS norm": rms_norm,
    "Layer norm": layer_norm,
    "Triangle multiplication": triangle,
    "Outer product mean": outer_mean,
    "One step of DeltaNet": delta,
    "The k largest": lambda q, k, v, mask: attend(q, k, v, attn_mask=mask),
}


def test_every_recipe_has_a_reference():
    assert list(RECIPES) == list(WRITTEN)


@pytest.mark.parametrize("name", WRITTEN)
def test_the_layer_and_its_gradients_are_those_of_plain_torch(name: str):
    spec = pa.Spec(RECIPES[name])
    sizes = {**SIZES, **OTHER.get(name, {})}
    sizes = {size: n for size, n in sizes.items() if size in spec.sizes.atomic}
    if name in ("Multi-head attention", "Cross-attention", "Talking heads", "Cross-covariance attention"):
        assert spec.sizes.parts("C") == ("H", "D")
    known = spec.sizes.solve(sizes, spec.sizes.names)
    layer = pa.nn.Layer(spec, sizes, dtype=torch.float64)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    generator = torch.Generator().manual_seed(0)
    shapes = [[known[s] for s in shape] for shape in spec.inputs.values()]
    inputs = [torch.randn(2, *s, generator=generator, dtype=torch.float64) for s in shapes]
    if name == "Masked attention":
        inputs[1] = torch.rand(2, 20, 20, generator=generator) > 0.3
    parameters = layer.spec_parameters()
    leaves = [x.requires_grad_() for x in inputs if x.is_floating_point()] + list(layer.parameters())
    expected = WRITTEN[name](*inputs, **parameters)
    got = layer(*inputs)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    seed = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    both = [torch.autograd.grad(y, leaves, seed) for y in (got, expected)]
    torch.testing.assert_close(*both, rtol=1e-9, atol=1e-9)


def test_the_generated_parts_and_pictures_are_those_of_the_equations():
    made, text = runpy.run_path(str(PAGE.parent / "_site" / "recipes.py")), PAGE.read_text(encoding="utf-8")
    assert text == made["written"](text), "run: python docs/_site/recipes.py"
    drawn = {path.name: path.read_text(encoding="utf-8") for path in made["PICTURES"].glob("*.svg")}
    assert drawn == made["pictures"](text), "run: python docs/_site/recipes.py"
