"""Steps as ordinary modules: compiled, exported, under autocast, from a state dict."""

import pytest
import torch
from torch import nn

import polyattn as pa

X = "x[N,C]; where d : D; "
LINEAR = X + "y[a,b] = x[a,c]*wq[c,d]*x[e,f]*wk[f,d]*x[e,g]*wv[g,b]*[e <= a]"
SOFTMAX = X + "p[a,e] = softmax[e](x[a,c]*wq[c,d]*x[e,f]*wk[f,d] where e <= a); y[a,b] = p[a,e]*x[e,g]*wv[g,b]"
DECAY = X + (
    "where h : H; g[a,h] = -softplus(x[a,c]*wg[c,h]); c[a,h] = g[e,h]*[e <= a]; "
    "y[a,h,b] = x[a,c]*wq[c,d]*x[e,f]*wk[f,d]*exp(c[a,h] - c[e,h])*x[e,b]*[e <= a]"
)
TEXTS = {"linear": (LINEAR, "auto"), "cache": (SOFTMAX, "cache"), "decay": (DECAY, "auto")}


class Step(nn.Module):
    """The step of a layer as a module's forward."""

    def __init__(self, layer: pa.nn.Layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, state):
        return self.layer.step(x, state)


def made(name: str, dtype=torch.float64) -> tuple[pa.nn.Layer, torch.Tensor]:
    text, state = TEXTS[name]
    sizes = {"C": 4, "D": 3} | ({"H": 2} if name == "decay" else {})
    generator = torch.Generator().manual_seed(0)
    layer = pa.nn.Layer(text, sizes, state=state, dtype=dtype, generator=generator)
    return layer, torch.randn(2, 6, 4, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("name", TEXTS)
def test_a_compiled_and_an_exported_step_are_the_step(name):
    layer, x = made(name)
    state = layer.initial_state(2)
    with torch.no_grad():
        compiled = torch.compile(Step(layer), backend="aot_eager", fullgraph=True, dynamic=False)
        exported = torch.export.export(Step(layer), (x[:, 0], state)).module()
        states = [state, dict(state), dict(state)]
        for t in range(3):
            found = [f(x[:, t], s) for f, s in zip((layer.step, compiled, exported), states, strict=True)]
            states = [s for _, s in found]
            for y, after in found[1:]:
                torch.testing.assert_close(y, found[0][0])
                torch.testing.assert_close(dict(after), dict(found[0][1]))


@pytest.mark.parametrize("name", TEXTS)
def test_steps_under_autocast_agree_with_the_whole_to_16_bits(name):
    layer, x = made(name, torch.float32)
    whole = layer(x)
    state, rows = layer.initial_state(2), []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for t in range(x.shape[1]):
            y, state = layer.step(x[:, t], state)
            rows.append(y.float())
    torch.testing.assert_close(torch.stack(rows, 1), whole, rtol=0.05, atol=0.05 * whole.abs().max().item())


def test_a_layer_from_a_state_dict_goes_on_from_the_same_state():
    for name in TEXTS:
        layer, x = made(name)
        _, state = layer(x[:, :5], state=layer.initial_state(2))
        text, kind = TEXTS[name]
        other = pa.nn.Layer(text, layer.sizes, state=kind, dtype=torch.float64)
        other.load_state_dict(layer.state_dict())
        torch.testing.assert_close(other.step(x[:, 5], state)[0], layer(x)[:, 5])


@pytest.mark.parametrize("name", TEXTS)
def test_bfloat16_steps_lose_no_more_than_the_whole(name):
    exact, x = made(name)
    wanted = exact(x)
    narrow = made(name, torch.bfloat16)[0]
    narrow.load_state_dict(exact.state_dict())
    x = x.bfloat16()
    off = (narrow(x).double() - wanted).abs().max()
    state, rows = narrow.initial_state(2), []
    for t in range(x.shape[1]):
        y, state = narrow.step(x[:, t], state)
        rows.append(y)
    assert (torch.stack(rows, 1).double() - wanted).abs().max() <= 4 * off
    piece, _ = narrow(x, state=narrow.initial_state(2))
    assert (piece.double() - wanted).abs().max() <= 4 * off
