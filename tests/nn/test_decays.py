"""Decays between positions: masked, in chunks and step by step, against recurrences in plain torch."""

import pytest
import torch

import polyattn as pa
from polyattn.errors import RecurrenceError
from polyattn.nn.causal import ChunkRunner

QKV = "q[N,R]; k[N,R]; v[N,C]; "
N, R, C, H = 11, 3, 2, 2


def gla(q, k, v, g):
    """Gated linear attention: S_t = Diag(exp g_t) S_{t-1} + k_t v_t, y_t = q_t S_t."""
    state, rows = q.new_zeros(R, C), []
    for t in range(N):
        state = g[t].exp()[:, None] * state + torch.outer(k[t], v[t])
        rows.append(q[t] @ state)
    return torch.stack(rows)


def rwkv(q, k, v, g):
    """RWKV-6: the present position is read with a bonus of its own, here 2, and has not decayed."""
    state, rows = q.new_zeros(R, C), []
    for t in range(N):
        rows.append(q[t] @ (state + 2 * torch.outer(k[t], v[t])))
        state = g[t].exp()[:, None] * state + torch.outer(k[t], v[t])
    return torch.stack(rows)


def retnet(q, k, v, s):
    """RetNet: one constant decay for each head."""
    state, rows = q.new_zeros(H, R, C), []
    for t in range(N):
        state = s.exp()[:, None, None] * state + torch.outer(k[t], v[t])
        rows.append(q[t] @ state)
    return torch.stack(rows)


def ssd(q, k, v, dt, rate):
    """Mamba-2: a decay exp(-dt rate) for each head and position, and inputs times dt."""
    state, rows = q.new_zeros(H, R, C), []
    for t in range(N):
        kept = (-dt[t] * rate).exp()
        state = kept[:, None, None] * state + dt[t][:, None, None] * torch.outer(k[t], v[t])
        rows.append(q[t] @ state)
    return torch.stack(rows)


def second_order(q, k, v, g):
    """Second-order attention whose keys decay on their way to the output."""
    inner, outer, rows = q.new_zeros(R, R), q.new_zeros(R, C), []
    for t in range(N):
        kept = g[t].exp()[:, None]
        inner = kept * inner + torch.outer(k[t], k[t])
        outer = kept * outer + torch.outer(inner @ q[t], v[t])
        rows.append(q[t] @ outer)
    return torch.stack(rows)


DECAY = "c[a,r] = g[e,r]*[e <= a]; "
FORMS = {
    "gla": (gla, "g[N,R]; " + DECAY + "y[a,b] = q[a,r]*k[e,r]*exp(c[a,r] - c[e,r])*v[e,b]*[e <= a]"),
    "rwkv": (
        rwkv,
        "g[N,R]; d[a,r] = g[e,r]*[e < a]; "
        + DECAY
        + "y[a,b] = q[a,r]*k[e,r]*exp(d[a,r] - c[e,r])*v[e,b]*[e < a] + 2*q[a,r]*k[a,r]*v[a,b]",
    ),
    "retnet": (
        retnet,
        "where h : H; c[a,h] = s[h]*[e <= a]; y[a,h,b] = q[a,r]*k[e,r]*exp(c[a,h] - c[e,h])*v[e,b]*[e <= a]",
    ),
    "ssd": (
        ssd,
        "dt[N,H]; c[a,h] = dt[e,h]*rate[h]*[e <= a]; "
        "y[a,h,b] = q[a,r]*k[e,r]*exp(c[e,h] - c[a,h])*dt[e,h]*v[e,b]*[e <= a]",
    ),
    "second order": (
        second_order,
        "g[N,R]; " + DECAY + "y[a,b] = q[a,r]*k[i,r]*k[i,s]*q[j,s]*v[j,b]*exp(c[a,r] - c[i,r])*[i <= j]*[j <= a]",
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_all_executions_of_a_decay_are_its_recurrence(name):
    loop, text = FORMS[name]
    generator = torch.Generator().manual_seed(0)
    drawn = {n: torch.rand(N, c, generator=generator, dtype=torch.float64) - 0.5 for n, c in (("q", R), ("k", R))}
    drawn |= {"v": torch.rand(N, C, generator=generator, dtype=torch.float64)}
    drawn |= {n: torch.rand(N, c, generator=generator, dtype=torch.float64) for n, c in (("g", R), ("dt", H))}
    drawn["g"] = -3 * drawn["g"]
    layer = pa.nn.Layer(QKV + text, {"H": H} if "H" in text else None, dtype=torch.float64)
    own = {n: torch.tensor([0.3, 2.0], dtype=torch.float64) * (-1 if n == "s" else 1) for n in layer.spec.parameters}
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), own.values(), strict=True):
            parameter.copy_(value)
        inputs = [drawn[n][None] for n in layer.spec.inputs]
        wanted = loop(*(drawn[n] for n in layer.spec.inputs), *own.values())[None]
        torch.testing.assert_close(layer(*inputs), wanted)
        known = {"R": R, "C": C, "H": H}
        known = {n: known[n] for n in known if n in layer.spec.sizes.names}
        state, found = {n: torch.zeros(1, *s).double() for n, s in _plan(layer, known).state.items()}, []
        for t in range(N):
            y, state = layer.step(*(x[:, t] for x in inputs), state)
            found.append(y)
        torch.testing.assert_close(torch.stack(found, 1), wanted)
        runner = ChunkRunner(layer.spec, "N", known, "forward")
        torch.testing.assert_close(runner.run(inputs, own, None, 4)[0], wanted)


def _plan(layer, known):
    return pa.plan(layer.spec, known, "decoding")


def test_states_of_decays_are_the_papers():
    """No more numbers and multiply-accumulates than S = a S + k v and q S, of R*C each, with one for each decay."""
    sizes = {"R": 16, "C": 8, "H": 1}
    for name, states in (("gla", 128), ("rwkv", 128), ("retnet", 128), ("ssd", 128), ("second order", 256 + 128)):
        spec = pa.Spec(QKV + FORMS[name][1])
        plan = pa.plan(spec, {n: v for n, v in sizes.items() if n in spec.sizes.names}, "decoding")
        assert plan.state_numbers == states, name
        assert plan.macs <= 3 * states + 4 * 128, name


@pytest.mark.parametrize("objective", ["forward", "as_written", "training"])
def test_strong_decays_neither_overflow_nor_lose_their_gradients(objective):
    """exp(c[a] - c[e]) is infinite behind a in float32; times a condition that is 0 it would not be a number."""
    layer = pa.nn.Layer(QKV + FORMS["gla"][1], objective=objective)
    q, k, v = torch.randn(3, 1, 40, 2, generator=torch.Generator().manual_seed(0))
    g = torch.full((1, 40, 2), -50.0)
    inputs = [x.requires_grad_() for x in (q, k, v, g)]
    y = layer(*inputs)
    y.square().sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in inputs)
    # Nothing of the past is left.
    torch.testing.assert_close(y, (q * k).sum(-1, keepdim=True) * v)


def test_what_is_not_a_decay_is_refused():
    for body in ("exp(c[a,r] + c[e,r])", "exp(c[a,r]*k[e,r])", "exp(c[a,r] - 2*c[e,r])", "exp(g[a,r]*c[e,r])"):
        with pytest.raises(RecurrenceError, match="joins two positions"):
            pa.plan(QKV + "g[N,R]; " + DECAY + f"y[a,b] = k[e,r]*v[e,b]*{body}*[e <= a]", {"R": 3, "C": 2}, "decoding")
