"""Graphs for layers have fewer views than those that `lower` shows, and compute the same bits."""

import sys

import pytest
import torch

import polyattn as pa
from polyattn.lowering.graphs import Sizes, shared

SIZES = {"N": 6, "C": 4, "R": 3, "V": 2, "H": 3, "W": 5}
FORMS = ["poly_nl", "nl", "e_nl", "tesa", "latent_gnn", "criss_cross", "ba_transform"]
VIEWS = {"permute", "unsqueeze", "flatten", "view_as"}


def planned(name, objective="forward"):
    spec = getattr(pa.catalog, name)()
    known = {s: SIZES.get(s, 2) for s in spec.sizes.names}
    torch.manual_seed(0)
    inputs = [torch.randn([2, *(known[s] for s in shape)]) for shape in spec.inputs.values()]
    parameters = [torch.randn([known[s] for s in shape]) for shape in spec.parameters.values()]
    return pa.plan(spec, known | {"B": 2}, objective), inputs, parameters


def views(graph):
    return sum(node.target in VIEWS for node in graph.graph.nodes)


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_a_graph_with_fewer_views_computes_the_same_bits(name, channels_first):
    plan, (x,), parameters = planned(name)
    if channels_first:
        x = x.movedim(-1, 1).contiguous().movedim(1, -1)
    shown = shared(plan, "forward", channels_first=channels_first)
    run = shared(plan, "forward", channels_first=channels_first, sizes=Sizes())
    assert views(run) <= views(shown)
    torch.testing.assert_close(run(x, *parameters), shown(x, *parameters), rtol=0, atol=0)
    axes = x.dim() - 2
    of_maps = shared(plan, "forward", channels_first=channels_first, sizes=Sizes(positions=axes))
    y = of_maps(x.movedim(-1, 1), *parameters)
    torch.testing.assert_close(y.movedim(1, -1), shown(x, *parameters), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["poly_nl", "nl", "tesa"])
def test_planned_gradients_with_fewer_views_are_those_of_autograd(name):
    plan, (x,), parameters = planned(name, "training")
    leaves = [t.double().requires_grad_() for t in (x, *parameters)]
    seed = torch.randn_like(leaves[0])
    found = torch.autograd.grad(pa.training_function(plan, sizes=Sizes())(*leaves), leaves, seed)
    wanted = torch.autograd.grad(pa.lower(plan)(*leaves), leaves, seed)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("channels", [64, 256])
@pytest.mark.parametrize("training", [False, True])
def test_a_warm_call_of_poly_nl_passes_fourteen_frames(channels, batch, training):
    layer, x = pa.nn.PolyNL(channels), torch.randn(batch, channels, 14, 14, requires_grad=training)
    frames = []
    with torch.set_grad_enabled(training):
        layer(x)
        sys.setprofile(lambda frame, event, _: frames.append(frame.f_code.co_name) if event == "call" else None)
        try:
            layer(x)
        finally:
            sys.setprofile(None)
    assert len(frames) <= 14, frames
