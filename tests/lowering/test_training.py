"""Facts of the choice between the planned backward pass and autograd's."""

import pytest
import torch

from polyattn import SizeError, catalog, plan, training_function
from polyattn.lowering import differentiable, lower
from polyattn.lowering.training import backward_pays
from polyattn.planning import CPU


def makes_its_own_gradients(function, made) -> bool:
    """Whether the output comes from one differentiable operation instead of one for each step."""
    tensors = [torch.randn(shape, requires_grad=True) for shape in shapes(made)]
    return "PlannedLayer" in type(function(*tensors).grad_fn).__name__


def shapes(made):
    spec = made.spec
    lead = dict.fromkeys(spec.inputs, (made.batch,))
    return [
        lead.get(t, ()) + tuple(made.sizes[spec.sizes.name(s)] for s in spec.shape(t))
        for t in (*spec.inputs, *spec.parameters)
    ]


def test_less_arithmetic_than_autograds_pays_at_any_size():
    gram = plan(catalog.poly_nl(), {"B": 2, "N": 64, "C": 4}, "training", cost="macs")
    assert gram.backward_macs < 0.98 * 2 * gram.macs
    assert backward_pays(gram, CPU)
    assert makes_its_own_gradients(differentiable(gram), gram)


@pytest.mark.parametrize(("positions", "pays"), [(32, False), (4096, True)])
def test_equal_arithmetic_pays_where_the_steps_calls_do_not_count(positions: int, pays: bool):
    made = plan("x[N,C]; y[a,b] = x[a,d]*w[d,b]", {"B": 8, "N": positions, "C": 64}, "training")
    assert made.backward_macs == 2 * made.macs
    assert backward_pays(made, CPU) == pays


def test_a_layer_too_small_for_it_is_left_to_autograd():
    made = plan("x[N,C]; y[a,b] = x[a,d]*w[d,b]", {"N": 8, "C": 4}, "training")
    function = differentiable(made)
    assert not makes_its_own_gradients(function, made)
    x, w = (torch.randn(shape) for shape in shapes(made))
    assert torch.equal(function(x, w), lower(made)(x, w))


def test_a_plan_for_the_forward_pass_has_none():
    assert not backward_pays(plan(catalog.poly_nl(), {"B": 2, "N": 64, "C": 4}), CPU)


def test_a_plan_without_a_backward_pass_is_no_training_function():
    with pytest.raises(SizeError, match="has no planned backward pass: plan with objective='training'"):
        training_function(plan(catalog.nl(), {"N": 5, "C": 2}))
