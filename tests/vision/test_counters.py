"""Handles for other counters give the products of the operations, from the same trace and modules that they see."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import polyattn as pa


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*:FutureWarning")
def test_a_batch_of_products_in_a_trace_counts_as_many_as_it_has():
    def form(a: torch.Tensor, b: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        sums = torch.baddbmm(torch.zeros(()), a, b, beta=0)
        return torch.nn.functional.scaled_dot_product_attention(sums, sums, b) @ torch.mv(b[0], v)

    handles, found = pa.vision.fvcore_handles(), {}
    graph = torch.jit.trace(form, (torch.ones(2, 5, 5), torch.ones(2, 5, 5), torch.ones(5)), check_trace=False).graph
    for node in graph.nodes():
        if node.kind() in handles:
            found[node.kind()] = handles[node.kind()](list(node.inputs()), list(node.outputs()))
    assert found == {"aten::baddbmm": 250, "aten::scaled_dot_product_attention": 2 * 250, "aten::mv": 25}


@pytest.mark.parametrize("block", [pa.nn.PolyNL(8), pa.nn.TESA(8)])
def test_a_counter_of_modules_gets_a_layer_as_a_whole(block: nn.Module):
    """As thop calls it: a hook after the forward pass, with a total on the module."""
    block = block.eval()
    block.total_ops = torch.zeros(1, dtype=torch.float64)
    x = torch.zeros(2, 8, 4, 6)
    hook = block.register_forward_hook(pa.vision.thop_ops()[type(block)])
    block(x)
    hook.remove()
    assert block.total_ops.item() == pa.vision.cost(block, x).macs > 0
