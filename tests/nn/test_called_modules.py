"""A module in the place of a block's convolution is called where the paper's form has it."""

import pytest
import torch
from torch import nn

import polyattn as pa


class Shifted(nn.Module):
    """A convolution and a constant for each of its 8 channels: an affine map, which no factor passes."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + torch.arange(8, dtype=x.dtype)[:, None, None]


@pytest.mark.parametrize("scale", [False, True])
def test_an_affine_last_module_of_cgnl_gets_the_sums_of_the_paper(scale):
    torch.manual_seed(0)
    block = pa.nn.CGNL(8, 2, 2, scale=scale, zero_init=False).double().eval()
    block.z = Shifted(block.z)
    nn.init.normal_(block.gn.weight), nn.init.normal_(block.gn.bias)
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    theta, phi, value = (layer(x).unflatten(1, (2, 2)) for layer in (block.t, block.p, block.g))
    context = (phi * value).sum((2, 3, 4), keepdim=True)
    summed = theta * context / ((2 * 15) ** 0.5 if scale else 1)
    wanted = x + block.gn(block.z.inner(summed.flatten(1, 2)) + torch.arange(8, dtype=x.dtype)[:, None, None])
    torch.testing.assert_close(block(x), wanted)
