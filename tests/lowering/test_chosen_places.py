"""Softmax over places that conditions choose: fused attention gets booleans, or only hears that it is causal."""

import pytest
import torch

import polyattn as pa
from polyattn import kernels

QKV = "q[N,D]; k[N,D]; v[N,C]; "
SIZES = {"N": 12, "G": 4, "M": 3, "D": 2, "C": 2, "W": 3, "H": 2}
PLAIN = "p[a,e] = softmax[e](q[a,r]*k[e,r] where {}); y[a,b] = p[a,e]*v[e,b]"
HEADS = "where h : H; p[h,a,e] = softmax[e](q[a,r]*w[h,r,s]*k[e,s]{}); y[a,b] = p[h,a,e]*v[e,c]*wo[h,c,b]"
BLOCKS = "where N = G*M; p[g,m,f,n] = softmax[f,n](q[(g m),r]*k[(f n),r] where {}); y[(g m),b] = p[g,m,f,n]*v[(f n),b]"
FORMS = {
    "causal": (PLAIN.format("e <= a"), lambda a, e: e <= a, "causal"),
    "causal, exchanged": (PLAIN.format("a >= e"), lambda a, e: e <= a, "causal"),
    "composite": (BLOCKS.format("(f n) <= (g m)"), lambda a, e: e <= a, "causal"),
    "strict, a row without places": (PLAIN.format("e < a"), lambda a, e: e < a, "where"),
    "behind": (PLAIN.format("e >= a"), lambda a, e: e >= a, "where"),
    "window": (PLAIN.format("e <= a, a-e < W"), lambda a, e: 0 <= a - e < 3, "where"),
    "others": (PLAIN.format("e != a"), lambda a, e: e != a, "where"),
    "blocks": (BLOCKS.format("f <= g"), lambda a, e: e // 3 <= a // 3, "where"),
    "parts of blocks": (BLOCKS.format("f < g, m == n"), lambda a, e: e // 3 < a // 3 and a % 3 == e % 3, "where"),
    "heads": (HEADS.format(" where e <= a"), lambda a, e: e <= a, "causal"),
    "relative positions": (HEADS.format(" + bias[a-e] where e <= a"), lambda a, e: e <= a, "where"),
}


def tensors(spec):
    generator = torch.Generator().manual_seed(0)
    sizes = spec.sizes.solve({n: v for n, v in SIZES.items() if n in spec.sizes.names})
    lengths = {n: [23] if n == "bias" else [sizes[s] for s in shape] for n, shape in spec.parameters.items()}
    lengths |= {n: [2, *(sizes[s] for s in shape)] for n, shape in spec.inputs.items()}
    order = [*spec.inputs, *spec.parameters]
    return {n: torch.randn(lengths[n], dtype=torch.float64, generator=generator).requires_grad_() for n in order}


def expected(q, k, v, holds, w=None, wo=None, bias=None):
    """Return the layer's output, one row after the other."""
    rows = []
    for a in range(12):
        places = [e for e in range(12) if holds(a, e)]
        if not places:
            rows.append(0 * v[:, 0])
            continue
        heads = [q[:, a]] if w is None else [q[:, a] @ w[h] for h in range(len(w))]
        scores = [torch.stack([(r * k[:, e]).sum(-1) for e in places], -1) for r in heads]
        if bias is not None:
            scores = [s + bias[[a - e + 11 for e in places]] for s in scores]
        means = [torch.einsum("be,bec->bc", torch.softmax(s, -1), v[:, places]) for s in scores]
        rows.append(means[0] if wo is None else sum(m @ wo[h] for h, m in enumerate(means)))
    return torch.stack(rows, 1)


@pytest.mark.parametrize("name", FORMS)
def test_fused_attention_takes_conditions_as_booleans(name):
    text, holds, given = FORMS[name]
    spec = pa.Spec(QKV + text)
    plan = pa.plan(spec, {n: v for n, v in SIZES.items() if n in spec.sizes.names})
    graph, leaves = pa.lower(plan), tensors(spec)
    options = [n.kwargs for n in graph.graph.nodes if n.target is kernels.attention]
    assert len(options) == 1
    assert given in options[0]
    assert not [n for n in graph.graph.nodes if n.target is torch.log or "condition" in n.name]
    y, wanted = graph(**leaves), expected(**leaves, holds=holds)
    torch.testing.assert_close(y, wanted)
    seed = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    found = torch.autograd.grad(y, list(leaves.values()), seed)
    for gradient, right in zip(found, torch.autograd.grad(wanted, list(leaves.values()), seed), strict=True):
        torch.testing.assert_close(gradient, right)
    q, *rest = (t.detach() for t in leaves.values())
    pulled = torch.func.grad(lambda x: (graph(x, *rest) * seed).sum())(q)
    torch.testing.assert_close(pulled, found[0])


def test_two_softmaxes_share_one_mask():
    spec = pa.Spec(
        QKV
        + """
        p[a,e] = softmax[e](q[a,r]*k[e,r] where e < a); o[a,e] = softmax[e](q[a,r]*w[r,s]*k[e,s] where e < a)
        y[a,b] = p[a,e]*v[e,b] - 1/2*o[a,e]*v[e,b]
    """
    )
    graph = pa.lower(pa.plan(spec, {"N": 12, "D": 2, "C": 3}))
    masks = {n.kwargs["where"] for n in graph.graph.nodes if n.target is kernels.attention}
    assert len(masks) == 1
    assert "condition" not in graph.code


def test_causal_attention_stores_no_map():
    spec = pa.catalog.causal_softmax()
    small, large = (pa.plan(spec, {"N": n, "D": 16, "C": 16}).step_peak_bytes for n in (1024, 4096))
    assert large <= 4.5 * small
