"""Implementations that are one are proved so; a slip is refuted, and both modules differ when they are run."""

import pytest
import torch

import polyattn as pa
from tests.drawing import mostly_nightly
from tests.reading.oracle import draw
from tests.reading.pairs import EQUAL, SLIPS


@pytest.mark.parametrize("pair", mostly_nightly(EQUAL, ("fused or three linears", "quadratic or linear order")))
def test_two_implementations_of_one_layer_are_proved_equal(pair):
    left, right, shape = EQUAL[pair]
    verdict = pa.prove(left().eval(), right().eval(), args=(draw(*shape),))
    assert verdict, verdict
    assert (pair == "fused or three linears") == bool(verdict.renaming)


@pytest.mark.parametrize("pair", mostly_nightly(SLIPS, ("heads inside channels", "a transposed group")))
def test_a_slip_is_refuted_and_shows_when_both_are_run(pair):
    make, slip, shape = SLIPS[pair]
    torch.manual_seed(0)
    left, right = make().double().eval(), slip().double().eval()
    with pytest.raises(AssertionError) as raised:
        pa.testing.assert_equivalent(left, right, args=(draw(*shape),))
    assert "differ" in str(raised.value)
    # The two have the same names of parameters, so that one runs with the other's.
    right.load_state_dict(left.state_dict())
    x = draw(*shape, seed=1)
    assert not torch.allclose(left(x), right(x))


def test_code_is_proved_equal_to_an_equation():
    layer = torch.nn.Linear(6, 4)
    verdict = pa.prove(
        lambda x: x @ (x.mT @ x) / x.shape[1], "z[M,K]; y[a,b] = 1/M*z[a,c]*z[e,c]*z[e,b]", args=draw(2, 5, 3)
    )
    assert verdict
    assert pa.prove(layer, "x[N,C]; where b : 4; y[a,b] = x[a,c]*weight[b,c] + bias[b]", args=draw(2, 5, 6))
    assert not pa.prove(layer, "x[N,C]; where b : 4; y[a,b] = x[a,c]*weight[b,c] - bias[b]", args=draw(2, 5, 6))


def test_a_difference_at_sizes_that_the_code_does_not_have_is_no_difference():
    verdict = pa.prove(lambda x: x + 0.25, lambda x: x + 1 / x.shape[-1], args=torch.randn(2, 5, 4))
    assert verdict.status in ("equal", "undecided")
    assert (
        pa.prove(lambda x: x * 3, lambda x: x * x.sum(-1, keepdim=True), args=torch.randn(2, 5, 4)).status
        == "different"
    )


def test_plans_and_studies_take_code():
    x = draw(2, 5, 16)
    reading = pa.read(EQUAL["fused or three linears"][1]().eval(), (x,))
    plan = pa.plan(reading)
    assert plan.macs == pa.plan(reading.spec, {**reading.sizes, "B": 2}).macs
    assert pa.study.complexity(reading, N=[5], C=16).cases[0].macs > 0
    assert pa.verify(lambda x: x @ x.mT, pa.read(lambda x: x @ x.mT, (draw(2, 5, 3),)).spec, {"N": 5, "C": 3})
    with pytest.raises(pa.ReadingError, match="`args` is missing"):
        pa.plan(torch.nn.Linear(3, 3))
