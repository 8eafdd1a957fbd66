"""What is frozen costs nothing: a backward pass computes the gradients that are asked for, and no others."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import polyattn as pa

CHANNELS = 24
LEAVES = ("x", "w1", "w2", "w3")
SUBSETS = [("x",), ("w1",), ("w3",), ("x", "w2"), ("w2", "w3"), ("w1", "w2", "w3")]
VECTORS = 1.03
"""The centred Gram form takes a few products of vectors more than the Gram form."""


def as_written(x, w1, w2, w3):
    rows = x.flatten(2).mT
    return ((rows * ((rows @ w1) * (rows @ w2)).mean(1, keepdim=True)) @ w3).mT.reshape(x.shape)


def gram_form(x, w1, w2, w3):
    rows = x.flatten(2).mT
    scale = ((rows.mT @ rows / rows.shape[1] @ w1) * w2).sum(1)
    return (rows @ (scale[:, :, None] * w3)).mT.reshape(x.shape)


def made(side, wanted, dtype=torch.float32):
    torch.manual_seed(0)
    layer = pa.nn.Attention(pa.catalog.poly_nl(), CHANNELS, residual=False, dtype=dtype)
    for name in LEAVES[1:]:
        getattr(layer, name).requires_grad_(name in wanted)
    x = torch.randn(2, CHANNELS, side, side, dtype=dtype, requires_grad="x" in wanted)
    return layer, x, (layer.w1, layer.w2, layer.w3)


def products(function):
    with FlopCounterMode(display=False) as counter:
        y = function()
        y.backward(torch.ones_like(y))
    return counter.get_total_flops()


@pytest.mark.parametrize("wanted", SUBSETS, ids=",".join)
def test_gradients_of_what_is_trained_are_right_and_the_rest_has_none(wanted):
    layer, x, weights = made(12, wanted, torch.float64)
    leaves = [t for t in (x, *weights) if t.requires_grad]
    found, expected = layer(x), as_written(x, *weights)
    torch.testing.assert_close(found, expected)
    seed = torch.randn_like(x)
    first = torch.autograd.grad(found, leaves, seed, create_graph=True)
    second = torch.autograd.grad(expected, leaves, seed, create_graph=True)
    torch.testing.assert_close(first, second)
    if len(leaves) > 1 or "x" in wanted:  # y is linear in one weight alone
        twice = [torch.autograd.grad(sum(g.square().sum() for g in found), leaves) for found in (first, second)]
        torch.testing.assert_close(*twice)
    layer(x).backward(seed)
    assert [t.grad is not None for t in (x, *weights)] == [name in wanted for name in LEAVES]


def test_orders_of_maps_seen_before_do_not_cost_a_larger_map_products():
    torch.manual_seed(0)
    layer = pa.nn.Attention(pa.catalog.poly_nl(), 256, residual=False)
    weights = layer.w1, layer.w2, layer.w3
    for batch, side in ((1, 14), (2, 14)):
        layer(torch.randn(batch, 256, side, side)).sum().backward()
    x = torch.randn(2, 256, 28, 28)
    assert products(lambda: layer(x)) <= VECTORS * products(lambda: gram_form(x, *weights))


@pytest.mark.parametrize("side", [4, 12])
@pytest.mark.parametrize("wanted", [("w1", "w2", "w3"), ("w3",)], ids=",".join)
def test_no_more_arithmetic_than_autograd_of_the_cheaper_order(side, wanted):
    layer, x, weights = made(side, wanted)
    forms = (as_written, gram_form)
    with torch.no_grad():
        counted = {}
        for form in forms:
            with FlopCounterMode(display=False) as counter:
                form(x, *weights)
            counted[form] = counter.get_total_flops()
    cheaper = min(forms, key=counted.__getitem__)
    assert products(lambda: layer(x)) <= VECTORS * products(lambda: cheaper(x, *weights))


def test_a_frozen_layer_is_differentiated_by_transforms():
    layer, x, weights = made(6, ("w3",), torch.float64)

    def loss(w3, x):
        return torch.func.functional_call(layer, {"w3": w3}, (x,)).square().sum()

    by_sample = torch.func.vmap(torch.func.grad(loss, (0, 1)), (None, 0))(layer.w3.detach(), x[:, None])
    for k in range(2):
        one = x[k : k + 1].detach().requires_grad_()
        wanted = torch.autograd.grad(as_written(one, *weights).square().sum(), (layer.w3, one))
        torch.testing.assert_close([g[k] for g in by_sample], list(wanted))


def test_gradients_through_a_transform_that_hides_the_flags():
    layer, x, weights = made(12, ("w1",), torch.float64)
    x = x.detach()[:, None]
    found = torch.func.grad(lambda x: torch.func.vmap(layer)(x).square().sum())(x)
    leaf = x[:, 0].clone().requires_grad_()
    (wanted,) = torch.autograd.grad(as_written(leaf, *weights).square().sum(), leaf)
    torch.testing.assert_close(found[:, 0].detach(), wanted)
