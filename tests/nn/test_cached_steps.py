"""Steps with the past kept, against loops in plain torch."""

import pytest
import torch

import polyattn as pa
from polyattn.errors import RecurrenceError, SizeError

QKV = "q[N,D]; k[N,D]; v[N,C]; "
D, C, W, N = 3, 2, 4, 21


def softmax(q, k, v, window=N):
    """Causal softmax attention over the last `window` positions."""
    rows = []
    for t in range(len(q)):
        first = max(0, t + 1 - window)
        scores = torch.stack([q[t] @ k[e] for e in range(first, t + 1)]) / D**0.5
        rows.append(scores.softmax(0) @ v[first : t + 1])
    return torch.stack(rows)


def linear(q, k, v):
    return torch.stack([sum((q[t] @ k[e]) * v[e] for e in range(max(0, t + 1 - W), t + 1)) for t in range(len(q))])


def forgetting(q, k, v):
    """Softmax of q·k minus the distance times a rate of 1/2, over strictly earlier positions; 0 at the first."""
    rows = [torch.zeros(C, dtype=q.dtype)]
    for t in range(1, len(q)):
        scores = torch.stack([q[t] @ k[e] - (t - e) / 2 for e in range(t)])
        rows.append(scores.softmax(0) @ v[:t])
    return torch.stack(rows)


def stacked(q, k, v):
    """One attention over the values of another."""
    return softmax(q, k, softmax(q, k, v))


SCORES = "1/sqrt(D)*q[a,r]*k[e,r]"
FORMS = {
    "softmax": (softmax, f"p[a,e] = softmax[e]({SCORES} where e <= a); y[a,b] = p[a,e]*v[e,b]", None),
    "window": (
        lambda q, k, v: softmax(q, k, v, W),
        f"p[a,e] = softmax[e]({SCORES} where e <= a, a-e < W); y[a,b] = p[a,e]*v[e,b]",
        W - 1,
    ),
    "linear window": (linear, "y[a,b] = q[a,r]*k[e,r]*v[e,b]*[e <= a]*[a-e < W]", W - 1),
    "forgetting": (
        forgetting,
        "c[a] = 0.5*[e <= a]; p[a,e] = softmax[e](q[a,r]*k[e,r] + c[e] - c[a] where e < a); y[a,b] = p[a,e]*v[e,b]",
        None,
    ),
    "stacked": (
        stacked,
        f"p[a,e] = softmax[e]({SCORES} where e <= a); o[a,b] = p[a,e]*v[e,b]; y[a,b] = p[a,e]*o[e,b]",
        None,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_steps_and_pieces_with_a_cache_are_the_loop(form):
    loop, text, reach = FORMS[form]
    layer = pa.nn.Layer(QKV + text, {"D": D, "C": C} | ({"W": W} if "W" in text else {}), state="cache").double()
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, N, c, generator=generator, dtype=torch.float64) for c in (D, D, C)]
    wanted = loop(*(x[0] for x in inputs))[None]
    state = layer.initial_state(1, dtype=torch.float64)
    y, state = layer(*(x[:, :5] for x in inputs), state=state)
    found = [y]
    for t in range(5, N):  # more than the places that a cache begins with
        y, state = layer.step(*(x[:, t] for x in inputs), state)
        found.append(y[:, None])
    torch.testing.assert_close(torch.cat(found, 1), wanted)
    assert int(state["position"]) == N
    places = {x.shape[1] for n, x in state.items() if n != "position"}
    assert places == ({reach} if reach is not None else {32})


def test_keys_and_values_are_kept_and_not_the_input():
    heads = """
        x[N,C]; where h : H; where d : D
        p[h,a,e] = softmax[e](x[a,c]*wq[c,h,d]*x[e,f]*wk[f,h,d] where e <= a)
        y[a,b] = p[h,a,e]*x[e,c]*wv[c,h,d]*wo[h,d,b]
    """
    plan = pa.plan(heads, {"N": 100, "C": 64, "H": 4, "D": 8}, "decoding", state="cache")
    assert [(shape[0], sorted(shape[1:])) for shape in plan.state.values()] == [(99, [4, 8])] * 2
    assert plan.bytes_per_token == 2 * 4 * 8 * 4
    # Projections, scores and values: no product of x with a past position.
    assert plan.macs <= 4 * 64 * 32 + 2 * 100 * 32 + 100
    # Features that are products of the keys are not kept.
    square = QKV + "p[a,e] = q[a,r]*q[a,s]*k[e,r]*k[e,s]*[e <= a]; y[a,b] = p[a,e]*v[e,b]"
    assert pa.plan(square, {"D": 16, "C": 8}, "decoding", state="cache").bytes_per_token == 4 * (16 + 8)


def test_a_window_needs_no_question_and_a_cache_is_offered():
    window = QKV + FORMS["window"][1]
    assert pa.plan(window, {"D": 3, "C": 2, "W": 8}, "decoding").state == {"cache1": (7, 3), "cache2": (7, 2)}
    with pytest.raises(RecurrenceError, match='state="cache" keeps 5 numbers of each position'):
        pa.plan(QKV + FORMS["softmax"][1], {"D": 3, "C": 2}, "decoding")
    with pytest.raises(RecurrenceError, match='state="cache" keeps 5 numbers'):
        pa.nn.Layer(QKV + FORMS["softmax"][1], {"D": 3, "C": 2}).initial_state(1)
    with pytest.raises(RecurrenceError, match="to keep them all"):
        pa.plan(window, {"D": 3, "C": 2, "W": 8}, "decoding", state="recurrence")
    with pytest.raises(SizeError, match="`state` is 'ring'"):
        pa.plan(window, {"D": 3, "C": 2, "W": 8}, "decoding", state="ring")
    for text, reason in {
        "y[a,b] = softmax[e](q[a,r]*k[e,r])*v[e,b]": "no condition",
        "y[a,b] = softmax[e](q[a,r]*k[e,r] where e >= a)*v[e,b]": "behind the output's",
        "y[a,b] = 1/N*softmax[e](q[a,r]*k[e,r] where e <= a)*v[e,b]": "divides by N",
    }.items():
        with pytest.raises(RecurrenceError, match=reason):
            pa.plan(QKV + text, {"D": 3, "C": 2}, "decoding", state="cache")


def test_a_cache_of_another_batch_or_layer_is_refused():
    layer = pa.nn.Layer(QKV + FORMS["softmax"][1], {"D": D, "C": C}, state="cache")
    here = [torch.zeros(2, c) for c in (D, D, C)]
    with pytest.raises(SizeError, match=r"`state\['cache1'\]` has shape \(3, 16, 3\)"):
        layer.step(*here, layer.initial_state(3))
    with pytest.raises(SizeError, match="cache1, cache2, position"):
        layer.step(*here, {"state1": torch.zeros(2, 3)})
    assert layer.initial_state(2, length=40)["cache2"].shape == (2, 40, C)


def test_blocks_come_one_by_one_with_a_cache():
    text = "x[N,C]; where N = G*M; p[(h m),(g n)] = softmax[g,n](x[(h m),c]*x[(g n),c] where g <= h); "
    text += "y[(h m),b] = p[(h m),(g n)]*x[(g n),b]"
    layer = pa.nn.Layer(text, {"M": 2, "C": 3}, dtype=torch.float64, state="cache")
    x = torch.randn(1, 8, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores = (x @ x.mT).masked_fill(torch.arange(8)[None] // 2 > torch.arange(8)[:, None] // 2, -torch.inf)
    state, found = layer.initial_state(1), []
    for block in x.split(2, 1):
        y, state = layer.step(block, state)
        found.append(y)
    torch.testing.assert_close(torch.cat(found, 1), scores.softmax(-1) @ x)


def test_a_long_sequence_with_a_window_runs_in_pieces():
    """Their intermediates are of windows, not of all pairs of positions; gradients included."""
    layer = pa.nn.Layer(QKV + FORMS["window"][1], {"D": D, "C": C, "W": W})
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, 300, c, generator=generator, dtype=torch.float64).requires_grad_() for c in (D, D, C)]
    y = layer(*inputs)
    (runner,) = [runner for _, runner in layer._chosen.values()]
    assert runner is not None
    q, k, v = inputs
    apart = torch.arange(300)[:, None] - torch.arange(300)
    scores = (q @ k.mT / D**0.5).masked_fill((apart < 0) | (apart >= W), -torch.inf)
    wanted = scores.softmax(-1) @ v
    torch.testing.assert_close(y, wanted)
    seed = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(torch.autograd.grad(y, inputs, seed), torch.autograd.grad(wanted, inputs, seed))


def test_costs_of_a_step_as_a_formula():
    """At the sizes of the plan the formula gives the plan's count, and it holds no size of the library's own."""
    text = QKV + "p[a,e] = softmax[e](q[a,d]*k[e,d] where e <= a); y[a,b] = p[a,e]*v[e,c]*w[c,b]"
    plan = pa.plan(text, {"N": 21, "D": D, "C": C}, "decoding", state="cache")
    values = {"N": 21, "D": D, "C": C, "B": 1}
    assert {str(s) for s in plan.complexity.free_symbols} <= set(values)
    assert plan.complexity.subs({s: values[str(s)] for s in plan.complexity.free_symbols}) == plan.macs
