"""Derivatives of every layer of the catalogue, against finite differences and against each other."""

import pytest
import torch
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap

import polyattn as pa
from polyattn import catalog
from tests.drawing import PROFILE

from .layers import EACH_MECHANISM, WITH_FUNCTIONS, image, layer

NAMES = (*catalog.names("third_order"), *WITH_FUNCTIONS)

TYPED = """
    x[H,W,C]; where C = G*M; where r : R
    gate[i,j,g] = sigmoid(x[i,j,c]*wgate[c,g])
    rows[i,k] = 1/W/C * x[i,j,c]*x[k,j,c]
    y[i,j,(g m)] = gate[i,j,g]*x[i,j,(g n)]*wa[n,m] - 1/2/H * rows[i,k]*x[k,j,c]*wb[c,r]*wc[r,g,m] + shift[g,m]
"""
"""A specification that is in no catalogue."""


@pytest.fixture(autouse=True)
def _planned_backward(planned_backward):
    """At these sizes autograd's backward pass would be the cheaper one."""


def function_of(module):
    """The layer as a function of its input and all its parameters, and the parameters."""
    names, parameters = zip(*module.named_parameters(), strict=True)
    return (lambda x, *p: functional_call(module, dict(zip(names, p, strict=True)), (x,))), parameters


def loss(y):
    return y.sin().sum()


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors])


@pytest.mark.parametrize("name", NAMES)
def test_first_and_second_derivatives_are_those_of_finite_differences(name):
    function, parameters = function_of(layer(name, dtype=torch.float64))
    arguments = (image(name, dtype=torch.float64, requires_grad=True), *parameters)
    assert torch.autograd.gradcheck(function, arguments, fast_mode=PROFILE == "ci" and name not in EACH_MECHANISM)
    assert torch.autograd.gradgradcheck(function, arguments, fast_mode=True)


@pytest.mark.parametrize("objective", ["training", "forward", "as_written"])
def test_a_specification_that_nobody_planned_for_has_the_derivatives_of_finite_differences(objective):
    module = pa.nn.Attention(TYPED, 4, sizes={"G": 2, "R": 3}, beta=0.5, objective=objective, dtype=torch.float64)
    function, parameters = function_of(module)
    x = torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (x, *parameters))
    assert torch.autograd.gradgradcheck(function, (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_planned_backward_pass_is_the_gradient_of_the_authors_own_form(name):
    planned, written = layer(name, dtype=torch.float64), layer(name, objective="as_written", dtype=torch.float64)
    written.load_state_dict(planned.state_dict())
    x = image(name, dtype=torch.float64, requires_grad=True)
    got = torch.autograd.grad(loss(planned(x)), (x, *planned.parameters()))
    wanted = torch.autograd.grad(loss(written(x)), (x, *written.parameters()))
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_only_what_asks_for_them(name):
    module, x = layer(name), image(name)
    first, *others = (parameter for _, parameter in module._parameters_of_spec())
    for parameter in others:
        parameter.requires_grad_(False)
    module(x).sum().backward()
    assert first.grad is not None
    assert first.grad.any()
    assert all(parameter.grad is None for parameter in others)
    assert not torch.no_grad()(module)(x).requires_grad


@pytest.mark.parametrize("name", ["ba_transform", "e_nl", "poly_nl", "nl_softmax"])
def test_forward_and_reverse_mode_agree_to_second_order_in_any_mixture(name):
    module = layer(name, dtype=torch.float64)
    x = image(name, 1, dtype=torch.float64)

    def scalar(z):
        return loss(module(z))

    torch.testing.assert_close(jvp(module, (x,), (x,))[1], torch.einsum("...bcij,bcij->...", jacrev(module)(x), x))
    torch.testing.assert_close(jacfwd(module)(x), jacrev(module)(x))
    second = jacrev(jacrev(scalar))(x)
    for other in (jacfwd(jacfwd(scalar)), jacfwd(jacrev(scalar)), jacrev(jacfwd(scalar)), hessian(scalar)):
        torch.testing.assert_close(other(x), second)


@pytest.mark.parametrize("name", NAMES)
def test_vmap_is_a_loop_over_inputs_and_over_parameters(name):
    module = layer(name, dtype=torch.float64)
    x = torch.stack([image(name, dtype=torch.float64) for _ in range(3)])
    torch.testing.assert_close(vmap(module)(x), torch.stack([module(z) for z in x]))
    one = dict(module.named_parameters())
    several = {n: torch.stack([p, p + 1, -p]) for n, p in one.items()}
    got = vmap(lambda p, z: functional_call(module, p, (z,)))(several, x)
    wanted = [functional_call(module, {n: p[k] for n, p in several.items()}, (x[k],)) for k in range(3)]
    torch.testing.assert_close(got, torch.stack(wanted))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_single_samples_add_up_to_that_of_the_batch(name):
    module = layer(name, dtype=torch.float64)
    x, parameters = image(name, dtype=torch.float64), dict(module.named_parameters())

    def of(p, z):
        return loss(functional_call(module, p, (z,)))

    each = vmap(grad(lambda p, z: of(p, z[None])), (None, 0))(parameters, x)
    whole = grad(of)(parameters, x)
    for n, g in whole.items():
        assert each[n].shape == (2, *parameters[n].shape)
        torch.testing.assert_close(each[n].sum(0), g)


@pytest.mark.parametrize("name", NAMES)
def test_autocast_to_bfloat16_is_the_layer_to_bfloat16_accuracy_in_both_directions(name):
    module, x = layer(name), image(name).requires_grad_()
    leaves = (x, *module.parameters())
    exact = module(x)
    seed = torch.randn_like(exact)
    wanted = torch.autograd.grad(exact, leaves, seed)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = module(x)
    got = torch.autograd.grad(rounded, leaves, seed)
    assert not torch.equal(rounded, exact)
    assert {g.dtype for g in got} == {torch.float32}
    for a, b in ((rounded, exact), (flat(got), flat(wanted))):
        assert (a - b).norm() < 0.03 * b.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_layer_runs_in_the_dtype_that_it_is_moved_to(dtype):
    module = layer("poly_nl").to(dtype)
    x = image("poly_nl").to(dtype).requires_grad_()
    y = module(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == module.w1.grad.dtype == dtype


def test_one_training_step_fits_better():
    torch.manual_seed(0)
    module = pa.nn.Attention(TYPED, 8, sizes={"G": 2, "R": 4})
    x = torch.randn(4, 8, 5, 6)
    target = x + 0.1 * torch.randn_like(x)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        error = (module(x) - target).square().mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        losses.append(error.item())
    assert losses[0] > losses[1] > losses[2]
    assert all(p.grad.any() for p in module.parameters())
