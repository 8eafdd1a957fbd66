"""Blocks whose weights are 16-bit numbers themselves, without autocast."""

import copy

import pytest
import torch

from tests.drawing import mostly_nightly

from .blocks import CASES, EVERY_KIND, awake, started

GRADIENTS = {torch.bfloat16: 0.3, torch.float16: 0.05}
"""Of gradients: another place may be the largest one, or the other side of a ReLU's kink, of numbers with 8 bits."""


@pytest.mark.parametrize("dtype", GRADIENTS, ids=["bfloat16", "float16"])
@pytest.mark.parametrize("name", mostly_nightly(CASES, EVERY_KIND))
def test_a_block_of_16_bit_weights_is_the_block_to_their_accuracy(name, dtype):
    torch.manual_seed(0)
    case = CASES[name]
    block = awake(started(case.make()))
    for layer in block.modules():
        if isinstance(layer, torch.nn.modules.dropout._DropoutNd):
            layer.p = 0.0
    narrow = copy.deepcopy(block).to(dtype)
    x = case.image().to(dtype)
    wide, leaf = x.float().requires_grad_(), x.clone().requires_grad_()
    want, have = block(wide), narrow(leaf)
    assert have.dtype == dtype
    assert (have.float() - want).norm() <= 0.03 * want.norm()
    want.square().sum().backward()
    have.square().sum().backward()
    assert leaf.grad.dtype == dtype
    assert (leaf.grad.float() - wide.grad).norm() <= GRADIENTS[dtype] * wide.grad.norm()
