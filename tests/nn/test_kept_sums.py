"""States over sums at one position: features such as elu + 1, projections with a bias."""

import pytest
import torch

import polyattn as pa
from polyattn.lowering.chunking import LoweredChunks, chunked_plan
from polyattn.lowering.planner import whole_plan

N, D, C = 37, 3, 2
FEATURES = """
    q[N,D]; k[N,D]; v[N,C]
    f[a,r] = elu(q[a,r]) + 1
    g[e,r] = elu(k[e,r]) + 1
    z[a] = f[a,r]*g[e,r]*[e <= a]
    y[a,b] = f[a,r]*g[e,r]*v[e,b]*[e <= a]/z[a]
"""
BIASED = """
    x[N,C]; q[N,D]; v[N,C]
    k[e,r] = x[e,c]*w[c,r] + u[r]
    m[e,b] = v[e,b] + x[e,b]*v[e,b]
    y[a,b] = q[a,r]*k[i,r]*k[i,s]*q[j,s]*m[j,b]*[i <= j]*[j < a]
"""
SIZES = {"D": D, "C": C}


def features(q, k, v):
    """Return linear attention (Katharopoulos et al., Eq. 10 to 12) from its two sums so far."""
    phi = torch.nn.functional.elu
    s, z, rows = torch.zeros(len(q), D, C, dtype=q.dtype), torch.zeros(len(q), D, dtype=q.dtype), []
    for t in range(q.shape[1]):
        key = phi(k[:, t]) + 1
        s, z = s + key[:, :, None] * v[:, t, None, :], z + key
        query = phi(q[:, t]) + 1
        rows.append(torch.einsum("br,brc->bc", query, s) / (query * z).sum(-1, keepdim=True))
    return torch.stack(rows, 1)


def biased(x, q, v, w, u):
    k, m = x @ w + u, v + x * v
    g = s = torch.zeros(())
    rows = []
    for t in range(x.shape[1]):
        rows.append(torch.einsum("br,brc->bc", q[:, t], g + torch.zeros(len(x), D, C, dtype=x.dtype)))
        s = s + k[:, t, :, None] * k[:, t, None, :]
        g = g + torch.einsum("brs,bs,bc->brc", s, q[:, t], m[:, t])
    return torch.stack(rows, 1)


@pytest.mark.parametrize(
    ("text", "loop", "states"), [(FEATURES, features, [(D,), (D, C)]), (BIASED, biased, [(D, C), (D, D)])]
)
def test_the_states_of_sums_at_one_position_are_those_of_their_loop(text, loop, states):
    spec = pa.Spec(text)
    assert sorted(tuple(sorted(s)) for s in pa.plan(spec, SIZES, "decoding").state.values()) == sorted(
        tuple(sorted(s)) for s in states
    )
    layer = pa.nn.Layer(spec, SIZES, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    inputs = [
        torch.randn(2, N, SIZES[shape[-1]], dtype=torch.float64, generator=generator) for shape in spec.inputs.values()
    ]
    weights = [p.detach() for p in layer.parameters()]
    wanted = loop(*inputs, *weights)
    with torch.no_grad():
        y, state = layer(*(x[:, :20] for x in inputs), state=layer.initial_state(2))
        rows = [y]
        for t in range(20, N):
            y, state = layer.step(*(x[:, t] for x in inputs), state)
            rows.append(y[:, None])
    torch.testing.assert_close(torch.cat(rows, 1), wanted)
    sizes = {**SIZES, "N": N}
    torch.testing.assert_close(pa.lower(whole_plan(spec, sizes))(*inputs, *weights), wanted)
    leaves = [x.requires_grad_() for x in (*inputs, *weights)]
    chunks = LoweredChunks(chunked_plan(spec, sizes, length=16, training=True), True)(*leaves)
    torch.testing.assert_close(chunks, wanted)
    found = torch.autograd.grad(chunks.square().sum(), leaves)
    for gradient, right in zip(found, torch.autograd.grad(loop(*leaves).square().sum(), leaves), strict=True):
        torch.testing.assert_close(gradient, right)
