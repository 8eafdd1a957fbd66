"""`optimise`: what it replaces, what it leaves, and that outputs, gradients, keys and parameters stay."""

from __future__ import annotations

import copy
import io
import json

import pytest
import torch
from torch import nn

import polyattn as pa
from proofs import check
from tests.optimising.models import Chain, Plain, Quadratic, WrittenOut

SHAPES = {Chain: (2, 64, 96), Quadratic: (2, 300, 32), WrittenOut: (2, 16, 24, 24)}


@pytest.fixture(scope="module", params=list(SHAPES), ids=lambda kind: kind.__name__)
def planned(request):
    """Return a model as it was, its copy with regions on plans, the report and an example."""
    torch.manual_seed(0)
    kind = request.param
    model, x = kind().eval(), torch.randn(SHAPES[kind])
    before = copy.deepcopy(model)
    return before, model, pa.optimise(model, (x,)), x


def test_a_region_costs_less_and_has_a_certificate_that_the_checker_accepts(planned):
    _, _, report, _ = planned
    (region,) = report
    assert region.after.macs < region.before.macs
    assert region.after.seconds < region.before.seconds
    assert check.check(json.dumps(region.certificate))
    assert "equal at every size" in str(report) or "equal, " in str(report)


def test_outputs_and_gradients_are_those_of_the_model_as_it_was(planned):
    before, model, _, x = planned
    results = []
    for one in (before, model):
        given = x.clone().requires_grad_()
        y = one(given)
        y.square().sum().backward()
        results.append((y.detach(), given.grad, [p.grad for p in one.parameters()]))
        one.zero_grad()
    (y, dx, dw), (y2, dx2, dw2) = results
    torch.testing.assert_close(y2, y, rtol=1e-4, atol=1e-4 * float(y.abs().max()))
    torch.testing.assert_close(dx2, dx, rtol=1e-3, atol=1e-4 * float(dx.abs().max()))
    for a, b in zip(dw2, dw, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


def test_other_sizes_and_a_copy_have_the_outputs_of_the_model_as_it_was(planned):
    before, model, _, x = planned
    places = range(2, 4) if x.dim() == 4 else range(1, 2)
    other = torch.randn(3, *(n + 5 * (k in places) for k, n in enumerate(x.shape) if k))
    for one in (model, copy.deepcopy(model)):
        wanted = before(other)
        torch.testing.assert_close(one(other), wanted, rtol=1e-4, atol=1e-4 * float(wanted.detach().abs().max()))
    assert copy.deepcopy(model).forward.module is not model


def test_keys_and_parameter_objects_stay_and_undo_restores_the_model():
    model, x = Chain().eval(), torch.randn(2, 64, 96)
    held, keys, y = list(model.parameters()), list(model.state_dict()), model(x)
    report = pa.optimise(model, x)
    assert len(report) == 1
    assert [a is b for a, b in zip(model.parameters(), held, strict=True)] == [True] * len(held)
    assert list(model.state_dict()) == keys
    again = pa.optimise(model, x)
    assert len(again) == 0
    again.undo()
    assert "forward" in vars(model)
    report.undo()
    assert "forward" not in vars(model)
    assert torch.equal(model(x), y)
    report.undo()


def test_a_saved_model_loads_with_its_plan():
    model, x = Chain().eval(), torch.randn(2, 64, 96)
    pa.optimise(model, x)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    torch.testing.assert_close(loaded(x), model(x))
    assert loaded.forward.regions[0].holds(loaded, (loaded.norm(x),))


def test_nothing_is_replaced_where_no_product_can_be_brought_into_another_order():
    model = nn.Sequential(Plain(), nn.BatchNorm1d(16), nn.ReLU(inplace=True)).eval()
    report = pa.optimise(model, torch.randn(4, 16, 16))
    assert len(report) == 0
    assert str(report).startswith("no region was replaced")
    assert not [m for m in model.modules() if "forward" in vars(m)]


def test_a_chain_in_the_cheaper_order_is_left():
    model = nn.Sequential(nn.Linear(48, 2, bias=False), nn.Linear(2, 48, bias=False)).eval()
    report = pa.optimise(model, torch.randn(8, 64, 48))
    assert len(report) == 0
    assert [reason for _, reason in report.left] == ["no plan costs less"]


class Inside(nn.Module):
    """A chain of two linear maps of low rank, with dropout between other things."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(48, 48, bias=False), nn.Linear(48, 2, bias=False)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(torch.relu(self.second(self.first(x))))


def test_hooks_training_and_other_submodules_run_the_code_as_it_was():
    model, x = Inside().eval(), torch.randn(8, 64, 48)
    before = copy.deepcopy(model)
    report = pa.optimise(model, x)
    assert len(report) == 1
    torch.testing.assert_close(model(x), before(x), rtol=1e-4, atol=1e-5)
    seen = []
    handle = model.first.register_forward_hook(lambda m, a, y: seen.append(y))
    torch.testing.assert_close(model(x), before(x))
    assert len(seen) == 1
    handle.remove()
    model.first = nn.Sequential(before.first, nn.Identity())
    torch.testing.assert_close(model(x), before(x))
    model.train(), before.train()
    torch.manual_seed(1)
    dropped = model(x)
    torch.manual_seed(1)
    torch.testing.assert_close(dropped, before(x))


def test_a_region_with_a_hook_is_left():
    model = Inside().eval()
    model.second.register_forward_pre_hook(lambda m, a: None)
    assert len(pa.optimise(model, torch.randn(8, 64, 48))) == 0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m: pa.optimise(m, torch.randn(2, 3)), "`example` does not fit: Chain raises RuntimeError"),
        (lambda m: pa.optimise(m, torch.randn(2, 5, 96), objective="speed"), "`objective` is 'speed'"),
        (lambda m: pa.optimise(lambda x: x, torch.randn(2)), "`model` is a function"),
        (lambda m: pa.optimise(m, 3), "`example` is a int"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(call, says):
    model = Chain()
    state = {n: p.clone() for n, p in model.state_dict().items()}
    with pytest.raises(pa.OptimisingError, match=says):
        call(model)
    assert "forward" not in vars(model)
    assert model.training
    assert all(torch.equal(p, state[n]) for n, p in model.state_dict().items())


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.chain = Chain()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.chain(x) if x.sum() > 0 else self.chain(-x)


def test_a_module_whose_control_flow_depends_on_values_is_left_and_its_submodules_are_not():
    model, x = Branching().eval(), torch.randn(2, 64, 96)
    y = model(x)
    report = pa.optimise(model, x)
    assert [r.name for r in report] == ["chain: matmul_1"]
    assert any(name == "Branching" and "cannot be followed" in reason for name, reason in report.left)
    torch.testing.assert_close(model(x), y, rtol=1e-4, atol=1e-4)
