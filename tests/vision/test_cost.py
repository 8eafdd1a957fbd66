"""Costs of networks, whole and by module, against products counted by hand."""

from __future__ import annotations

import torch
from torch import nn

import polyattn as pa


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU()))


def test_every_module_has_a_row_forward_and_backward():
    model, x = network(), torch.zeros(2, 3, 5, 7)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    found = pa.vision.cost(model, x, backward=True)
    first, second = 2 * 35 * 3 * 8 * 9, 2 * 35 * 8 * 4
    rows = {r["name"]: (r["kind"], r["parameters"], r["macs"], r["backward_macs"]) for r in found.rows()}
    assert rows[""] == ("Sequential", 3 * 8 * 9 + 8 + 16 + 36, first + second, 2 * (first + second))
    assert rows["0"][2:] == (first, 2 * first)
    assert rows["2"][2:] == rows["2.0"][2:] == (second, 2 * second)
    assert (found.macs, found.backward_macs) == rows[""][2:]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert not x.requires_grad
    assert pa.vision.cost(model, x).backward_macs == 0


def test_inserted_attention_has_a_row_of_its_own():
    model = pa.vision.insert(network(), {"0": pa.catalog.poly_nl()}, example_input=torch.zeros(1, 3, 4, 6))
    found = pa.vision.cost(model, torch.zeros(1, 3, 4, 6))
    (row,) = [r for r in found.rows() if r["name"] == "0.attention"]
    assert row["macs"] == found.macs_added > 0
    assert row["parameters"] == found.parameters_added
