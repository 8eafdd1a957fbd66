"""Compression changes layers and nothing else: sharing, ties, modes, hooks, frozen parameters, random state."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import polyattn as pa
from polyattn.fitting import compress

NL = "x[N,C]; y[a,b] = 1/N * x[a,d]*wf[d,f]*x[e,f] * x[e,h]*wg[h,b]"
C = 4
QUICK: dict[str, Any] = {"families": ("tt_nl",), "budgets": (0.7,), "steps": 2, "starts": 1, "iterations": 2}


def layer(**options: Any) -> pa.nn.Attention:
    return pa.nn.Attention(NL, C, alpha=0.7, beta=0.4, generator=torch.Generator().manual_seed(0), **options)


def maps(samples: int = 8) -> Tensor:
    return torch.randn(samples, C, 3, 3, generator=torch.Generator().manual_seed(1))


class Twice(nn.Module):
    """One layer under two names, in a plain list and in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.first = layer()
        self.again = self.first
        self.inner = nn.ModuleList([nn.Sequential(nn.BatchNorm2d(C)), self.first])
        self.plain, self.table = [self.first], {"layer": self.first}

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.inner[0](self.first(x)))


def test_a_shared_module_is_replaced_wherever_it_is():
    made = compress(Twice(), maps(), **QUICK).model
    places = [made.first, made.again, made.inner[1], made.plain[0], made.table["layer"]]
    assert len({id(p) for p in places}) == 1
    assert made.first.spec != pa.Spec(NL)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.own = layer(), layer(), layer()
        self.second.wf = self.first.wf
        self.out = nn.Linear(C, C, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.own(self.second(self.first(x)))


def test_a_layer_whose_weights_another_module_shares_is_kept_and_named():
    found = compress(Tied(), maps(), **QUICK)
    assert found.model.first.wf is found.model.second.wf
    assert found.skipped["first"] == "has a weight that is also 'second.wf': a replacement would untie them"
    assert {c.layer for c in found.candidates} == {"own"}
    assert "a replacement would untie them" in str(found.__rich__().caption)


def test_ties_of_what_stays_stay():
    """A norm and the residual's scalars that other modules have, too."""
    block = pa.nn.NonLocal(C, similarity="dot_product", zero_init=False)
    model = nn.Sequential(block, nn.Identity(), layer())
    model[1].norm, model[1].scalar = block.norm, model[2].alpha
    found = compress(model, maps(), **QUICK)
    assert found.model[1].norm is found.model[0].norm
    assert found.model[1].scalar is found.model[2].alpha
    assert found.model[0].norm is not block.norm


def test_modes_of_single_modules_stay_in_the_model_and_in_the_copy():
    model = nn.Sequential(nn.BatchNorm2d(C), pa.nn.NonLocal(C, similarity="dot_product"), layer(), nn.Dropout()).train()
    model[0].eval()
    model[1].norm.eval()
    before = {n: m.training for n, m in model.named_modules()}
    state = copy.deepcopy(model.state_dict())
    found = compress(model, maps(), evaluate=lambda m: float(m.eval()(maps(1)).sum().detach()), **QUICK)
    assert before == {n: m.training for n, m in model.named_modules()}
    after = {n: m.training for n, m in found.model.named_modules()}
    assert {n: after[n] for n in before if n in after} == {n: t for n, t in before.items() if n in after}
    assert [after[n] for n in ("1.norm", "1", "2", "3")] == [False, True, True, True]
    assert all(torch.equal(state[n], t) for n, t in model.state_dict().items())


def test_the_global_random_state_stays_with_loaders_and_random_evaluations():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    loader = DataLoader(TensorDataset(maps(), torch.arange(8)), batch_size=3, shuffle=True)
    compress(nn.Sequential(layer()), loader, evaluate=lambda _: float(torch.rand(())), **QUICK)
    assert torch.equal(torch.get_rng_state(), state)


def test_hooks_stay_on_the_replaced_layers():
    model, called = nn.Sequential(layer(), layer()), []
    model[0].register_forward_hook(lambda _m, _i, y: called.append("after") or 2 * y)
    model[1].register_forward_pre_hook(lambda _m, _i: called.append("before"))
    made = compress(model, maps(), **QUICK).model
    called.clear()
    y = made(maps())
    assert called == ["after", "before"]
    torch.testing.assert_close(y, made[1].forward(2 * made[0].forward(maps())))


def test_frozen_layers_stay_frozen_and_others_stay_trainable():
    model = nn.Sequential(layer(), layer())
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    model[1].alpha.requires_grad_(False)
    before = list(compress(model, maps(), **QUICK).model)
    assert not any(p.requires_grad for p in before[0].parameters())
    assert {n for n, p in before[1].named_parameters() if not p.requires_grad} == {"alpha"}


@pytest.mark.parametrize("dead", ["weights", "input", "exchange", "not finite"])
def test_one_dead_layer_is_kept_and_the_others_are_replaced(dead: str):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dead, self.live = layer(residual=False), layer()

        def forward(self, x: Tensor) -> Tensor:
            self.dead(0 * x if dead == "input" else x)
            return self.live(x)

    model = Two()
    if dead == "exchange":
        core = "x[N,C]; y[a,b] = 1/N * x[a,d]*x[e,f]*x[e,h] * (w[d,f,h,b] - w[d,h,f,b])"
        model.dead = pa.nn.Attention(core, C, residual=False)
    with torch.no_grad():
        if dead in ("weights", "not finite"):
            model.dead.wf.fill_(0.0 if dead == "weights" else torch.nan)
    found = compress(model, maps(), **QUICK)
    assert {c.layer for c in found.candidates} == {"live"}
    assert found.skipped["dead"] == (
        "has inputs, weights or outputs that are not finite" if dead == "not finite" else "is zero on the data"
    )
    assert found.model.dead.spec == model.dead.spec


class Named(nn.Module):
    """A layer called by keyword, in a model of two arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.own = layer()

    def forward(self, image: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
        return {"y": self.own(x=image * scale)}


LOADED = {
    "dicts": (Named, lambda x: [{"image": x[:5], "scale": 2.0}, {"image": x[5:], "scale": 2.0}], None),
    "one dict": (Named, lambda x: {"image": x, "scale": 2.0}, None),
    "forward": (Named, lambda x: [(x[:3], 2.0), (x[3:], 2.0)], lambda m, batch: m(*batch)["y"]),
    "pairs": (layer, lambda x: [(2 * x[:5], torch.zeros(5)), (2 * x[5:], torch.zeros(3))], None),
    "numpy": (layer, lambda x: 2.0 * x.numpy().astype(float), None),
    "numpy batches": (layer, lambda x: iter([2 * x[:5].numpy(), 2 * x[5:].numpy()]), None),
    "gradients": (layer, lambda x: (2 * x).requires_grad_(), None),
}


@pytest.mark.parametrize("name", LOADED)
def test_data_of_any_form_give_the_same_layer(name: str):
    make, form, forward = LOADED[name]
    plain = compress(layer(), 2 * maps(), **QUICK).candidates
    found = compress(make(), form(maps()), forward=forward, **QUICK).candidates
    assert [(c.before, c.after) for c in found] == [(c.before, c.after) for c in plain]
    if forward is not None:
        through = compress(make(), form(maps()), forward=forward, fit_to="network", **QUICK).candidates
        assert np.isfinite(through[0].after)
    elif name == "dicts":
        with pytest.raises(pa.FittingError, match="found dict: give `forward`"):
            compress(make(), form(maps()), fit_to="network", **QUICK)


@pytest.mark.parametrize(("data", "message"), [(3, "an iterable of batches; found int"), ([], "has no batch")])
def test_what_is_no_data_is_refused(data: Any, message: str):
    with pytest.raises(pa.FittingError, match=message):
        compress(layer(), data, **QUICK)


@pytest.mark.parametrize("power", [-40, -12, 12, 40])
def test_layers_and_data_of_any_magnitude_are_fitted_alike(power: int):
    """In float64, where the layer's own product of seven numbers still is one."""
    model, x = layer(residual=False).double(), maps().double()
    plain = compress(copy.deepcopy(model), x, **QUICK)
    with torch.no_grad():
        model.wf.mul_(10.0**power)
    found = compress(model, x * 10.0**power, **QUICK)
    for a, b in zip(plain.candidates, found.candidates, strict=True):
        assert b.before == pytest.approx(a.before, rel=1e-6)
        assert b.after == pytest.approx(a.after, rel=1e-2)
    with torch.no_grad():
        y, wanted = found.model(x * 10.0**power), model(x * 10.0**power)
    k = 10.0 ** (-4 * power)
    off = ((y - wanted) * k).norm() / (wanted * k).norm()
    assert float(off) < 2 * found.candidates[0].after + 1e-6


def test_a_network_in_mixed_precision_comes_back_in_it():
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.own = nn.Conv2d(C, C, 1).bfloat16(), layer()

        def forward(self, x: Tensor) -> Tensor:
            # Under float64, while fitting, all is float64.
            return self.own(self.stem(x.to(self.stem.weight.dtype)).to(self.own.alpha.dtype))

    def score(model: nn.Module) -> float:
        return float(next(model.parameters()).dtype == torch.bfloat16)

    model = Mixed()
    found = compress(model, maps(), fit_to="network", evaluate=score, **QUICK)
    assert found.model.stem.weight.dtype == torch.bfloat16
    assert [c.score_after for c in found.candidates] == [1.0, 1.0]
    assert np.isfinite([c.after for c in found.candidates]).all()


def test_candidates_have_no_more_parameters_than_the_layer_unless_asked():
    plain = 2 * C * C  # wf and wg
    options: dict[str, Any] = {**QUICK, "budgets": (0.95,), "truncation": False}
    for limit in (0.8, None):
        found = compress(layer(), maps(), max_params=limit, **options).candidates
        counts = [c.factorisation.parameter_count for c in found]
        assert limit is None or max(counts) <= limit * plain


def test_one_budget_for_several_layers_is_the_best_choice_of_all():
    """Against all choices by brute force; a layer may stay as it is."""
    model = nn.Sequential(layer(), layer())
    with torch.no_grad():
        model[1].wf.mul_(0.1)
    options: dict[str, Any] = {**QUICK, "budgets": (0.4, 0.7)}
    for total in (0.5, 0.75):
        found = compress(model, maps(), total=total, truncation=False, **options)
        whole = {c.layer: c.trained_macs for c in found.candidates}
        choices = [[(whole[n], 0.0), *((c.macs, c.after**2) for c in found.candidates if c.layer == n)] for n in whole]
        allowed = [(a, b) for a in choices[0] for b in choices[1] if a[0] + b[0] <= total * sum(whole.values())]
        taken = {c.layer: (c.macs, c.after**2) for c in found.candidates if c.chosen}
        picked = [taken.get(n, (whole[n], 0.0)) for n in whole]
        assert sum(m for m, _ in picked) <= total * sum(whole.values())
        assert sum(e for _, e in picked) == pytest.approx(min(a[1] + b[1] for a, b in allowed))
    with pytest.raises(pa.FittingError, match=r"no candidates keep to total=0\.01"):
        compress(model, maps(), total=0.01, **options)


def test_measured_times_are_in_the_table_and_can_decide():
    found = compress(layer(), maps(), choose=lambda c: -c.macs, **{**QUICK, "budgets": (0.5, 0.8)})
    own = [c for c in found.candidates if c.family != "truncation"]
    assert next(c for c in own if c.chosen).macs == max(c.macs for c in own)
    for c in found.candidates:
        assert c.speed == c.seconds / c.trained_seconds > 0
    assert "time" in [str(c.header) for c in found.__rich__().columns]
    none = compress(layer(), maps(), max_time=1e-9, **QUICK)
    assert not any(c.chosen for c in none.candidates)
    assert none.skipped == {"": "has no candidate within max_time=1e-09"}
    assert none.model.spec == pa.Spec(NL)
