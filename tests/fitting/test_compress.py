"""Compression: what is replaced computes what the trained layer did, cheaper and near where the data is."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import polyattn as pa
from polyattn.fitting import compress, factorise, trained_layer

NL = "x[N,C]; y[a,b] = 1/N * x[a,d]*wf[d,f]*x[e,f] * x[e,h]*wg[h,b]"
C = 6


def images(samples=12, channels=C):
    """Features of which a few channels carry most."""
    scale = torch.linspace(0.05, 2, channels)[:, None, None]
    return torch.randn(samples, channels, 4, 5) * scale + 0.3


LAYERS = {
    "attention": lambda: pa.nn.Attention(NL, C, alpha=0.7, beta=0.4),
    "sum": lambda: pa.nn.Attention(pa.catalog.nl(), C, residual=False),
    "e_nl": lambda: pa.nn.Attention(pa.catalog.e_nl(), C, sizes={"R": 3, "V": 4}, beta=1.0),
    "non-local": lambda: pa.nn.NonLocal(C, similarity="dot_product", heads=3, zero_init=False),
    "non-local without biases": lambda: pa.nn.NonLocal(
        C, similarity="dot_product", bias=False, norm=False, zero_init=False
    ),
}


def drawn(name):
    layer = LAYERS[name]().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layer


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_replaced_by_an_exact_factorisation_computes_the_same(name):
    layer, x = drawn(name), images()
    taken = trained_layer(layer)
    exact = factorise(taken.core, "tt_nl", max_error=1e-12, mean=taken.mean, symmetry="none")
    torch.testing.assert_close(taken.replaced_by(exact)(x), layer(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(taken.replaced_by(exact).attend(x), taken.attend(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["attention", "non-local"])
def test_every_candidate_keeps_to_its_budget_and_fine_tuning_brings_it_nearer(name):
    model = nn.Sequential(nn.Conv2d(3, C, 1), drawn(name), nn.ReLU()).eval()
    x = images(40, 3)
    before = copy.deepcopy(model.state_dict())
    found = compress(model, x, families=("cp_nl", "tt_nl"), budgets=(0.6,), steps=30, starts=1, iterations=15)
    assert {c.family for c in found.candidates} == {"cp_nl", "tt_nl", "truncation"}
    for candidate in found.candidates:
        assert candidate.macs <= 0.6 * candidate.trained_macs
        assert candidate.layer == "1"
        if candidate.family != "truncation":
            assert candidate.after < 1.05 * candidate.before  # on samples that it was not fitted to
    plain = next(c for c in found.candidates if c.family == "truncation")
    assert min(c.after / c.before for c in found.candidates) < 0.95
    (chosen,) = (c for c in found.candidates if c.chosen)
    assert chosen.after == min(c.after for c in found.candidates)
    assert chosen.after < plain.after
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    y = model(x)
    off = ((found.model(x) - y).norm() / y.norm()).item()
    assert off < 1
    assert found.model[1] is not model[1]


def test_the_error_is_measured_where_the_data_is():
    layer, x = drawn("attention"), images(16)
    taken = trained_layer(layer)
    rows = x.flatten(2).transpose(1, 2).flatten(0, 1).double().numpy()
    moments = rows.T @ rows / len(rows)
    y = taken.attend(x)
    errors = []
    for given in (None, moments):
        found = factorise(taken.core, "tt_nl", rank=(2, 1, 2), mean=True, moments=given)
        errors.append((taken.replaced_by(found).attend(x) - y).norm().item())
    assert errors[1] < 0.8 * errors[0]
    with pytest.raises(pa.FittingError, match=r"a finite \(6, 6\) matrix; found shape \(5, 5\)"):
        factorise(taken.core, rank=1, moments=np.eye(5))
    with pytest.raises(pa.FittingError, match="symmetric and positive semidefinite"):
        factorise(taken.core, rank=1, moments=-np.eye(6))


def test_moments_change_the_norm_and_not_what_is_exact():
    w = np.random.default_rng(0).normal(size=(4, C, 3))
    core = np.einsum("br,dr,fr,hr->bdfh", *w)
    root = np.random.default_rng(1).normal(size=(C, C))
    found = factorise(core, rank=3, moments=root @ root.T)
    assert found.error < 1e-6
    np.testing.assert_allclose(
        found.approximation + found.approximation.swapaxes(2, 3), core + core.swapaxes(2, 3), atol=1e-4
    )


def test_results_are_a_table_a_front_and_a_plot(tmp_path):
    found = compress(
        drawn("attention"), images(), families=("tt_nl",), budgets=(0.4, 0.7), ranks={"cp_nl": [1]}, steps=5,
        evaluate=lambda m: m(images(2)).mean().item(), truncation=False,
    )  # fmt: skip
    table = found.table()
    assert list(table["family"]) == ["tt_nl", "tt_nl", "cp_nl"]
    assert (table["MACs"] == [c.macs for c in found.candidates]).all()
    front = found.pareto()
    assert [c.macs for c in front] == sorted(c.macs for c in front)
    assert [c.after for c in front] == sorted((c.after for c in front), reverse=True)
    for c in found.candidates:
        assert any(k.macs <= c.macs and k.after <= c.after for k in front)
    found.plot(tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 1000
    assert found.__rich__().row_count == 3


REFUSED = {
    "it has no Attention and no NonLocal": lambda: compress(nn.Conv2d(3, 3, 1), torch.zeros(8, 3, 2, 2)),
    'found similarity="embedded_gaussian"': lambda: compress(pa.nn.NonLocal(4), torch.zeros(8, 4, 2, 2)),
    "applies functions|this specification is none": lambda: trained_layer(
        pa.nn.Attention(pa.catalog.nl(softmax=True), 4)
    ),
    r"not of NL's kind, δ\[y,x1\] δ\[x2,x3\]; found axis 0": lambda: trained_layer(
        pa.nn.Attention(pa.catalog.axial(), 4, sizes={"R": 2})
    ),
    "only Attention and NonLocal": lambda: trained_layer(nn.ReLU()),
    "saw 2 samples of the data": lambda: compress(drawn("sum"), images(2)),
    "no family has a member within": lambda: compress(drawn("sum"), images(4), budgets=(1e-6,)),
    "unknown family 'svd'": lambda: compress(drawn("sum"), images(4), families=("svd",)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_compressed_is_refused_with_what_was_found(message):
    with pytest.raises(pa.FittingError, match=message):
        REFUSED[message]()
