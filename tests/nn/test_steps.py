"""Causal layers, step by step and in pieces, against loops in plain Python and against their masked form."""

from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import polyattn as pa
from polyattn.errors import RecurrenceError, SizeError
from polyattn.nn.causal import ChunkRunner
from tests.ordered import Condition, Product, drawn_tensors, text, values

QKV = "q[N,D]; k[N,D]; v[N,C]; "
FORMS = {
    "linear": "y[a,b] = q[a,r]*k[e,r]*v[e,b]*[e <= a]",
    "strictly before": "y[a,b] = q[a,r]*k[e,r]*v[e,b]*[e < a]",
    "normalised": "z[a] = sum[e](exp(k[e,r])*exp(q[a,r]) where e <= a); "
    "y[a,b] = exp(q[a,r])*exp(k[e,r])*v[e,b]*[e <= a]/z[a]",
    "second order": "y[a,b] = q[a,r]*k[i,r]*k[i,s]*q[j,s]*v[j,b]*[i <= j]*[j <= a]",
    "two sums": "y[a,b] = q[a,r]*k[e,r]*v[f,b]*v[a,b]*[e <= a]*[f < a]",
    "two bounds": "y[a,b] = q[a,r]*k[e,r]*k[f,s]*k[g,s]*v[e,b]*[e <= f]*[e < g]*[f <= a]*[g <= a]",
    "a bound that others do not imply": "y[a,b] = q[a,r]*k[e,r]*v[f,b]*[e <= f]*[f <= a]*[e < a]",
    "counted": "y[a,b] = v[a,b]*[e <= a] + v[f,b]*[e < f]*[f <= a]",
    "cancelled future": "y[a,b] = v[e,b]*[e <= f]*[f <= a] + v[a,b]*[e <= a] + v[a,b]*[e > a] - v[a,b]*[a < e]",
    "own functions of a position": "y[a,b] = silu(q[a,r])*softmax[r](k[e,r])*relu(v[e,b])*[e <= a]",
}


def tensors(n: int, dtype=torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    return [torch.randn(2, n, c, dtype=torch.float64, generator=generator).to(dtype) for c in (3, 3, 2)]


def layer_of(form: str, dtype=torch.float64) -> pa.nn.Layer:
    return pa.nn.Layer(QKV + FORMS[form], {"D": 3, "C": 2}, dtype=dtype)


@pytest.mark.parametrize("form", FORMS)
def test_steps_and_pieces_agree_with_the_whole(form):
    layer, inputs = layer_of(form), tensors(6)
    whole = layer(*inputs)
    state = layer.initial_state(2, dtype=torch.float64)
    first, state = layer(*(x[:, :2] for x in inputs), state=state)
    outputs = [first]
    for t in range(2, 4):
        y, state = layer.step(*(x[:, t] for x in inputs), state)
        outputs.append(y[:, None])
    last, _ = layer(*(x[:, 4:] for x in inputs), state=state)
    assert torch.allclose(torch.cat([*outputs, last], 1), whole, atol=1e-10, rtol=1e-10)


@given(st.integers(0, 10**6))
def test_a_recurrence_has_the_values_of_the_loops(seed):
    random = Random(seed)
    indices = ["a"]
    conditions = []
    for index in ("e", "f", "g")[: random.randint(1, 3)]:
        bounds = random.sample(indices, min(len(indices), random.choice((1, 1, 2))))
        conditions += [Condition((index,), random.choice(("<", "<=")), (bound,)) for bound in bounds]
        indices.append(index)
    factors = tuple((random.choice("xu"), (i,)) for i in indices if random.random() < 0.7) or (("x", ("a",)),)
    total = (Product(random.choice((1, 2, -1)), 0, factors, tuple(conditions)),)
    n = random.randint(1, 5)
    drawn = drawn_tensors(random, n)
    spec = pa.Spec(text(total).replace("m[N,N]; ", ""))
    layer = pa.nn.Layer(spec, dtype=torch.float64)
    state, found = layer.initial_state(1, dtype=torch.float64), []
    for t in range(n):
        here = {name: torch.tensor([float(drawn[name][t])], dtype=torch.float64) for name in spec.inputs}
        y, state = layer.step(state=state, **here)
        found.append(y.item())
    assert found == [float(v) for v in values(total, drawn, n)]


def test_second_order_attention_has_two_states_and_four_products():
    plan = pa.plan(QKV + FORMS["second order"], {"D": 64, "C": 64}, "decoding")
    assert plan.state == {"state1": (64, 64), "state2": (64, 64)}
    assert plan.state_numbers == 8192
    assert plan.macs == 16_384
    assert "8,192 numbers" in str(plan)


def test_a_state_has_the_smallest_channels_that_cross():
    projected = "x[N,C]; q[a,r] = x[a,d]*wq[d,r]; k[e,r] = x[e,f]*wk[f,r]; v[e,b] = x[e,h]*wv[h,b]; "
    projected += "y[a,b] = q[a,r]*k[e,r]*v[e,b]*[e <= a]; where r : R"
    assert sorted(pa.plan(projected, {"C": 64, "R": 8}, "decoding").state["state1"]) == [8, 64]
    both = "y[a,b] = q[a,r]*k[e,r]*v[e,b]*[e <= a] + 2*q[a,s]*v[f,b]*k[f,s]*[a >= f]"
    assert len(pa.plan(QKV + both, {"D": 4, "C": 5}, "decoding").state) == 1


REFUSED = {
    "y[a,b] = 1/N*q[a,r]*k[e,r]*v[e,b]*[e <= a]": "divides by N",
    "y[a,b] = q[a,r]*k[e,r]*v[e,b]*[e > a]": "behind the output's",
    "p[a,e] = softmax[e](q[a,r]*k[e,r] where e <= a); y[a,b] = p[a,e]*v[e,b]": "'softmax' over positions",
    "y[a,b] = q[a,r]*k[e,r]*v[e,b]": "no condition",
    "y[a,b] = q[a,r]*k[e,r]*v[e,b]*m[a,e]*[e <= a]": "pair of positions",
    "y[a,b] = q[a,r]*k[e,r]*v[e,b]*p[e]*[e <= a]": "parameter 'p'",
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_has_no_recurrence_is_refused_by_name(form):
    with pytest.raises(RecurrenceError, match=REFUSED[form]):
        pa.plan(QKV + form, {"D": 3, "C": 2}, "decoding")


def test_a_state_of_another_batch_or_layer_is_refused():
    layer, inputs = layer_of("linear"), tensors(3)
    here = [x[:, 0] for x in inputs]
    with pytest.raises(SizeError, match=r"`state\['state1'\]` has shape \(3, "):
        layer.step(*here, layer.initial_state(3))
    with pytest.raises(SizeError, match="state"):
        layer.step(*here, {})
    with pytest.raises(SizeError, match="without its axis"):
        layer.step(*inputs, layer.initial_state(2))
    with pytest.raises(SizeError, match="initial_state"):
        layer.step(*here)
    with pytest.raises(SizeError, match="`batch`"):
        layer.initial_state(0)
    with pytest.raises(SizeError, match="positions"):
        layer(inputs[0], inputs[1][:, :2], inputs[2], state=layer.initial_state(2))


def test_states_of_16_bit_layers_are_float32():
    layer, inputs = layer_of("linear", torch.bfloat16), tensors(40, torch.bfloat16)
    whole = layer_of("linear")(*(x.double() for x in inputs))
    state, found = layer.initial_state(2, dtype=torch.bfloat16), []
    for t in range(40):
        y, state = layer.step(*(x[:, t] for x in inputs), state)
        found.append(y)
    assert {s.dtype for s in state.values()} == {torch.float32}
    assert found[0].dtype == torch.bfloat16
    assert ((torch.stack(found, 1).double() - whole).abs() <= 2**-8 * whole.abs() + 1e-3).all()


def test_blocks_come_one_by_one_where_only_blocks_are_ordered():
    text = "x[N,C]; where N = G*M; y[(h m),b] = x[(h m),c]*x[(g n),c]*x[(g n),b]*[g <= h]"
    layer, x = pa.nn.Layer(text, {"M": 2, "C": 3}), tensors(8)[0]
    state, found = layer.initial_state(2, dtype=torch.float64), []
    for block in x.split(2, 1):
        y, state = layer.step(block, state)
        found.append(y)
    assert torch.allclose(torch.cat(found, 1), layer(x))
    assert torch.allclose(layer(x, state=layer.initial_state(2, dtype=torch.float64))[0], layer(x))


def test_gradients_go_through_steps():
    layer = pa.nn.Layer("x[N,C]; y[a,b] = x[a,r]*x[e,r]*x[e,c]*w[c,b]*[e <= a]", {"C": 3}, dtype=torch.float64)
    x = tensors(4)[0].requires_grad_()
    layer(x).square().sum().backward()
    wanted, x.grad = (x.grad, layer.w.grad.clone()), None
    layer.zero_grad()
    layer(x, state=layer.initial_state(2))[0].square().sum().backward()
    assert torch.allclose(x.grad, wanted[0])
    assert torch.allclose(layer.w.grad, wanted[1])


@pytest.mark.parametrize("form", FORMS)
def test_chunks_agree_with_masks_forward_and_backward(form):
    """Both ways of a whole sequence, and pieces that are long enough for chunks."""
    layer, inputs = layer_of(form), [x.requires_grad_() for x in tensors(21)]
    masked = layer(*inputs)
    runner = ChunkRunner(layer.spec, "N", {"D": 3, "C": 2}, "training")
    chunked, _ = runner.run(inputs, {}, None, 4)
    assert torch.allclose(chunked, masked, atol=1e-10, rtol=1e-10)
    wanted, found = (torch.autograd.grad(y.square().sum(), inputs, materialize_grads=True) for y in (masked, chunked))
    assert all(torch.allclose(a, b, atol=1e-9, rtol=1e-9) for a, b in zip(wanted, found, strict=True))
    with torch.no_grad():
        first, state = layer(*(x[:, :11] for x in inputs), state=layer.initial_state(2, dtype=torch.float64))
        last, _ = layer(*(x[:, 11:] for x in inputs), state=state)
    assert torch.allclose(torch.cat([first, last], 1), masked, atol=1e-10, rtol=1e-10)


def test_plans_take_chunks_where_they_are_cheaper():
    text = QKV + FORMS["linear"]
    sizes = {"N": 4096, "D": 32, "C": 32}
    chunked = pa.plan(text, sizes, cost="macs")
    assert chunked.strategy == "chunked"
    assert chunked.masked.macs > 50 * chunked.macs
    assert pa.plan(text, sizes, "decoding").macs * 4096 * 128 <= chunked.masked.macs
    # Masks take positions times positions, chunks a few times the output.
    assert 4 * chunked.peak_bytes < 16 * 4 * 4096 * 32 < chunked.masked.peak_bytes
    assert pa.plan(text, {"N": 16, "D": 32, "C": 32}).strategy != "chunked"
    limited = pa.plan(text, sizes, "training", memory_limit=8_000_000)
    assert limited.strategy == "chunked"
    assert limited.kept_bytes <= 8_000_000 < limited.masked.peak_bytes


def test_a_lowered_plan_in_chunks_is_called_like_any_other():
    text = "x[N,C]; y[a,b] = x[a,r]*x[e,r]*x[e,c]*w[c,b]*[e <= a]"
    plan = pa.plan(text, {"N": 77, "C": 4}, cost="macs")
    assert plan.strategy == "chunked"
    x, w = torch.randn(2, 77, 4, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)
    wanted = ((x @ x.mT).tril() @ x) @ w
    assert torch.allclose(pa.lower(plan)(x, w=w), wanted)
    with pytest.raises(SizeError, match="takes x, w"):
        pa.lower(plan)(x)


def test_a_long_layer_takes_chunks_by_itself():
    layer = pa.nn.Layer(QKV + FORMS["linear"], {"D": 32, "C": 32})
    q, k, v = torch.randn(3, 1, 2048, 32, generator=torch.Generator().manual_seed(0)) / 6
    with torch.no_grad():
        y = layer(q, k, v)
    assert torch.allclose(y, (q @ k.mT).tril() @ v, atol=1e-4)
    assert [length > 0 for length, _ in layer._chosen.values()] == [True]


def test_sizes_of_a_step_follow_from_its_inputs():
    layer, inputs = pa.nn.Layer(QKV + FORMS["linear"]), tensors(12)
    state = {"state1": torch.zeros(2, *pa.plan(layer.spec, {"D": 3, "C": 2}, "decoding").state["state1"]).double()}
    first, state = layer(*(x[:, :10] for x in inputs), state=state)
    y, state = layer.step(*(x[:, 10] for x in inputs), state)
    assert torch.allclose(torch.cat([first, y[:, None]], 1), layer(*(x[:, :11] for x in inputs)))
    with pytest.raises(SizeError, match="D"):
        layer.initial_state(2)


def test_pieces_of_many_channels_take_no_order_that_a_multiplied_out_text_suggests():
    text = "x[N,C]; where d : D; y[a,b] = x[a,c]*wq[c,d]*x[e,f]*wk[f,d]*x[e,g]*wv[g,b]*[e <= a]"
    layer = pa.nn.Layer(text, {"C": 64, "D": 16}, dtype=torch.float64)
    x = torch.randn(2, 100, 64, dtype=torch.float64)
    scores = ((x @ layer.wq) @ (x @ layer.wk).mT).tril()
    y, state = layer(x[:, :90], state=layer.initial_state(2))
    rest, _ = layer(x[:, 90:], state=state)
    torch.testing.assert_close(torch.cat([y, rest], 1), scores @ (x @ layer.wv))
