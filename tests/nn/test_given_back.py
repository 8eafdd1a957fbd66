"""Definitions in which no term has an index of the left: one value for all positions, through every stage."""

import numpy as np
import pytest
import torch

import polyattn as pa

MEAN = pa.Spec("x[N,C]; where a : N; y[a,b] = 1/N*x[e,d]*w[d,b]")
IN_STEPS = pa.Spec("x[N,C]; where a : N; m[b] = 1/N*x[e,d]*w[d,b]; y[a,b] = m[b]")
WITH_IDENTITY = pa.Spec("x[N,C]; y[a,b] = 1/N*x[e,d]*w[d,b]*I[a,a]")
SIZES = {"B": 2, "N": 5, "C": 3}


def mean(x, w):
    return (x.mean(1, keepdim=True) @ w).expand_as(x)


def test_it_prints_back_and_is_one_polynomial_however_it_is_written():
    assert pa.Spec(str(MEAN)) == MEAN
    assert MEAN.polynomial() == IN_STEPS.polynomial() == WITH_IDENTITY.polynomial()
    assert MEAN.polynomial() != pa.Spec("x[N,C]; y[a,b] = x[a,d]*w[d,b]").polynomial()


def test_it_is_proved_equal_and_different():
    assert pa.prove(MEAN, IN_STEPS)
    assert pa.prove(MEAN, WITH_IDENTITY)
    other = pa.prove(MEAN, pa.Spec("x[N,C]; y[a,b] = 1/N*x[a,d]*w[d,b]"))
    assert not other
    assert other.counterexample is not None


@pytest.mark.parametrize("level", ["symbolic", "modular", "numeric"])
def test_its_lowered_form_is_its_interaction_tensor(level):
    assert pa.verify(MEAN, {"N": 2, "C": 2}, level=level)


def test_its_interaction_tensor_applies():
    w, x = np.random.default_rng(0).normal(size=(2, 2)), np.random.default_rng(1).normal(size=(3, 2))
    applied = pa.apply_interaction(MEAN.interaction_tensor({"N": 3, "C": 2}, {"w": w}), x)
    np.testing.assert_allclose(applied, np.tile(x.mean(0) @ w, (3, 1)))


@pytest.mark.parametrize("objective", ["forward", "training", "as_written"])
@pytest.mark.parametrize("spec", [MEAN, IN_STEPS])
def test_its_plans_give_the_mean_to_every_position(spec, objective):
    graph = pa.lower(pa.plan(spec, SIZES, objective=objective))
    x, w = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    assert graph(x, w=w).shape == x.shape
    torch.testing.assert_close(graph(x, w=w), mean(x, w))


@pytest.mark.usefixtures("planned_backward")
@pytest.mark.parametrize("objective", ["forward", "training", "as_written"])
@pytest.mark.parametrize("spec", [MEAN, IN_STEPS])
def test_its_layer_has_values_and_gradients(spec, objective):
    layer = pa.nn.Attention(spec, 3, beta=0.5, objective=objective, dtype=torch.float64)
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    wanted = x + 0.5 * mean(x.flatten(2).transpose(1, 2), layer.w).transpose(1, 2).unflatten(2, (2, 2))
    torch.testing.assert_close(layer(x), wanted)
    assert torch.autograd.gradcheck(layer, x)


def test_the_remedy_that_the_error_names_works():
    for text, remedy in (
        ("y[a,b] = x[e,b]", "where a : N"),
        ("z[k,b] = x[e,b]; y[a,b] = x[a,b]*z[k,b]", "where k : K"),
    ):
        with pytest.raises(pa.SpecError, match=f"declare it \\('{remedy}'\\)"):
            pa.Spec(f"x[N,C]; {text}")
        pa.Spec(f"x[N,C]; {remedy}; {text}")


def test_a_layers_own_parameters_make_its_interaction_tensor():
    layer = pa.nn.Attention(MEAN, 2, residual=False)
    found = MEAN.interaction_tensor({"N": 3, "C": 2}, dict(layer.named_parameters()))
    wanted = MEAN.interaction_tensor({"N": 3, "C": 2}, {"w": layer.w.detach().numpy()})
    np.testing.assert_array_equal(found, wanted)
