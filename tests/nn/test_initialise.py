"""What a layer starts with."""

from math import prod

import pytest
import torch

from polyattn import catalog
from polyattn.nn import Attention
from polyattn.nn.initialise import fan_in
from polyattn.nn.sizes import parameter_sizes

from .layers import CHANNELS, layer, named

FAN_IN = {
    "a2_net": {"wphi": "C", "wtheta": "C", "wrho": "C", "wo": "V"},
    "axial": {"wq": "C", "wk": "C", "wv": "C"},
    "ba_transform": {"wf": "C", "wp": "H*K", "wq": "W*K"},
    "ba_transform_block": {"wf": "C", "wp": "S*K", "wq": "S*K"},
    "cgnl": {"wt": "C", "wp": "C", "wg": "C", "wz": "G*M"},
    "criss_cross": {"wq": "C", "wk": "C", "wv": "C"},
    "e_nl": {"wq": "C", "wk": "C", "wv": "C", "wo": "V"},
    "glore": {"wtheta": "C", "wphi": "C", "adj": "R", "wg": "V", "wo": "V"},
    "latent_gnn": {"wpsi": "C", "adj": "R", "wphi": "C", "wg": "C"},
    "nl": {"wf": "C", "wg": "C"},
    "poly_nl": {"w1": "C", "w2": "C", "w3": "C"},
}
SIZES = {"C": 12, "G": 3, "H": 5, "K": 4, "M": 4, "R": 7, "S": 2, "V": 6, "W": 8}

OTHERS = {
    "x[N,C]; y[a,b] = w[c,b]*x[a,c]": 12,  # the first factor: its neighbour is behind
    "x[N,C]; y[a,b] = x[a,d]*(w[d,b] + u[d,b])": None,  # in a bracket it has no neighbour
    "x[N,C]; y[a,b] = (x[a,d] + x[a,d])*w[d,b]": 12,  # the bracket is the neighbour
    "x[N,C]; y[a,b] = relu(x[a,d]*w[d,b])": 12,
    "x[N,C]; y[a,b] = x[a,b] + w[b]": None,
    "x[N,C]; where C = G*M; y[a,b] = x[a,(g m)]*w[g,m,b]": 12,
    "x[N,C]; where C = G*M; y[a,b] = x[a,c]*w[c,b]": 12,
    "x[N,C]; where r : R; y[a,b] = x[a,b]*w[r]*w[r]": 7,
    "x[N,C]; where r : R; y[a,b] = x[a,b]*w[r]": 1,  # shares no index
}


@pytest.mark.parametrize("name", FAN_IN)
def test_the_fan_in_is_of_the_indices_shared_with_a_factor_before(name):
    spec = catalog.get(name)
    found = {p: fan_in(spec, p, SIZES) for p in spec.parameters}
    assert found == {p: prod(SIZES[s] for s in text.split("*")) for p, text in FAN_IN[name].items()}


@pytest.mark.parametrize("text", OTHERS)
def test_the_fan_in_is_found_wherever_a_parameter_stands(text):
    given = {"C": 12, "R": 7} if "R" in text else {"C": 12, "G": 3} if "G" in text else {"C": 12}
    made = Attention(text, 12, sizes=given)
    assert fan_in(made.spec, "w", parameter_sizes(made.spec, made.sizes)) == OTHERS[text]


@pytest.mark.parametrize("factor", ["", "2*", "1/N *"])
def test_the_variance_is_one_over_the_fan_in_whatever_the_coefficient(factor):
    made = Attention(
        f"x[N,C]; where r : R; y[a,b] = {factor} x[a,d]*u[d,r]*v[r,b]",
        200,
        sizes={"R": 50},
        generator=torch.Generator().manual_seed(1),
    )
    for parameter, fan in ((made.u, 200), (made.v, 50)):
        assert parameter.var().item() == pytest.approx(1 / fan, rel=0.05)
        assert abs(parameter.mean().item()) < 3 * (fan * parameter.numel()) ** -0.5


def test_scalars_start_at_one_and_biases_at_zero():
    made = Attention("x[N,C]; y[a,b] = gain*x[a,b] + bias[b] + offset", 3, residual=False)
    assert made.gain.item() == made.offset.item() == 1
    assert made.bias.tolist() == [0, 0, 0]


def test_alpha_and_beta_start_as_given_and_by_default_as_the_identity():
    text = "x[N,C]; y[a,b] = x[a,d]*w[d,b]"
    assert (Attention(text, 3).alpha.item(), Attention(text, 3).beta.item()) == (1, 0)
    made = Attention(text, 3, alpha=0.5, beta=0.25)
    assert (made.alpha.item(), made.beta.item()) == (0.5, 0.25)
    with torch.no_grad():
        made.alpha.fill_(7)
    made.reset_parameters()
    assert (made.alpha.item(), made.beta.item()) == (0.5, 0.25)


@pytest.mark.parametrize("name", catalog.names("third_order"))
def test_a_generator_alone_decides_the_values(name):
    def drawn(seed):
        torch.manual_seed(torch.seed() % 2**32)
        return named(layer(name, generator=torch.Generator().manual_seed(seed)))

    first, again, other = drawn(3), drawn(3), drawn(4)
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert all(not torch.equal(first[n], other[n]) for n in first if first[n].dim())


def test_a_generator_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    made = layer("poly_nl", generator=torch.Generator().manual_seed(0))
    made.reset_parameters(torch.Generator())
    assert torch.equal(torch.get_rng_state(), before)


def test_resetting_draws_every_parameter_anew():
    made = layer("e_nl")
    before = {n: p.clone() for n, p in named(made).items()}
    made.reset_parameters()
    assert all(not torch.equal(p, before[n]) for n, p in named(made).items())


def test_parameters_have_the_device_and_dtype_that_are_asked_for():
    made = Attention(catalog.poly_nl(), CHANNELS, device="meta", dtype=torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in made.parameters()} == {("meta", torch.bfloat16)}
