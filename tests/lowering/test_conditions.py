"""Layers with conditions between positions, lowered as masks, against loops in plain Python."""

import math

import pytest
import torch

import polyattn as pa

QKV = "q[N,D]; k[N,D]; v[N,C]; "
N, D, C = 5, 3, 2


def inputs(grad: bool = False) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, N, D), (2, N, D), (2, N, C))
    return [torch.randn(s, dtype=torch.float64, generator=generator).requires_grad_(grad) for s in shapes]


def attention(q, k, v, keep, weigh):
    """Return attention by loops: `keep(a, e)` says which positions count, `weigh` makes weights of their scores."""
    out = torch.zeros_like(v)
    for b in range(len(q)):
        for a in range(N):
            places = [e for e in range(N) if keep(a, e)]
            weights = weigh([float(q[b, a] @ k[b, e]) for e in places])
            for e, weight in zip(places, weights, strict=True):
                out[b, a] += weight * v[b, e]
    return out


def softmax(scores):
    powers = [math.exp(s) for s in scores]
    return [p / sum(powers) for p in powers]


def plain(scores):
    return scores


FORMS = {
    "causal": ("y[a,b] = q[a,r]*k[e,r]*v[e,b]*[e <= a]", lambda a, e: e <= a, plain),
    "after": ("y[a,b] = q[a,r]*k[e,r]*v[e,b]*[e > a]", lambda a, e: e > a, plain),
    "others": ("y[a,b] = q[a,r]*k[e,r]*v[e,b]*[e != a]", lambda a, e: e != a, plain),
    "window": ("y[a,b] = q[a,r]*k[e,r]*v[e,b]*[e <= a]*[a-e < 2]", lambda a, e: e <= a and a - e < 2, plain),
    "multiples": ("y[a,b] = q[a,r]*k[e,r]*v[e,b]*[2*e+1 == a]", lambda a, e: 2 * e + 1 == a, plain),
    "softmax": (
        "p[a,e] = softmax[e](q[a,r]*k[e,r] where e <= a); y[a,b] = p[a,e]*v[e,b]",
        lambda a, e: e <= a,
        softmax,
    ),
    "softmax over none": (
        "p[a,e] = softmax[e](q[a,r]*k[e,r] where e < a, a-e < 3); y[a,b] = p[a,e]*v[e,b]",
        lambda a, e: 0 < a - e < 3,
        softmax,
    ),
    "softmax in a product": (
        "y[a,b] = softmax[e](q[a,r]*k[e,r] where e >= a)*v[e,b]",
        lambda a, e: e >= a,
        softmax,
    ),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("objective", ["training", "as_written"])
def test_a_layer_computes_its_loops(name, objective):
    text, keep, weigh = FORMS[name]
    q, k, v = inputs(grad=True)
    layer = pa.nn.Layer(QKV + text, objective=objective)
    assert torch.allclose(layer(q, k, v), attention(q.detach(), k.detach(), v.detach(), keep, weigh))
    assert torch.autograd.gradcheck(layer, (q, k, v))


def test_a_condition_holds_at_every_length_of_one_layer():
    layer = pa.nn.Layer("x[N,C]; y[a,b] = x[e,b]*[e <= a]*[a-e < W]", {"W": 2})
    for n in (1, 4, 7):
        x = torch.arange(float(n)).reshape(1, n, 1)
        wanted = [float(a + max(a - 1, 0)) for a in range(n)]
        assert layer(x).flatten().tolist() == wanted


@pytest.mark.parametrize("relation", ["<=", "<", ">=", ">", "==", "!="])
def test_composites_are_compared_outer_part_first(relation):
    text = f"x[N]; where N = G*M; y[(h m)] = x[(g n)]*[(g n) {relation} (h m)]"
    x = torch.arange(1.0, 7.0)
    compare = {"<=": "le", "<": "lt", ">=": "ge", ">": "gt", "==": "eq", "!=": "ne"}[relation]
    place = torch.arange(6)
    wanted = (x[None] * getattr(torch, compare)(place[None], place[:, None])).sum(1)
    assert torch.equal(pa.nn.Layer(text, {"G": 2, "M": 3})(x[None])[0], wanted)


def test_blocks_of_a_split_size_are_compared():
    text = "x[N]; where N = G*M; y[(h m)] = x[(g n)]*[g <= h]*I[m,m]"
    found = pa.nn.Layer(text, {"G": 2, "M": 3})(torch.arange(1.0, 7.0)[None])
    assert found.tolist() == [[6, 6, 6, 21, 21, 21]]


def test_places_without_a_tensor_are_counted_when_they_are_meant():
    found = pa.nn.Layer("x[N]; y[a] = mean[e](x[e] where e < a)")(torch.arange(1.0, 5.0)[None])
    assert found.tolist() == [[0, 1, 1.5, 2]]


def test_no_plan_of_two_conditions_is_cubic():
    text = "x[N,C]; y[a,b] = x[a,c]*x[e,c]*x[f,d]*w[d,b]*[e <= f]*[f < a]"
    plan = pa.plan(text, {"N": 512, "C": 16})
    assert plan.macs < 512**3
    with_table = str(plan)
    assert "[n<=n1]" in with_table
    assert "condition" in with_table
