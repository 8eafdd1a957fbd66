"""A 1x1 convolution with batch norm and ReLU, as one matrix product where that is the faster way."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from polyattn.nn.block import BATCH_NORMS, Convolution, pointwise
from polyattn.nn.pointwise_conv import outnumber_positions, product


class ConvNormReLU(nn.Module):
    """`relu(norm(conv(x)))` with a 1x1 convolution `conv` and batch norm `norm`.

    In evaluation the norm's scale and shift are folded into the product's matrix and bias, so that the map is passed
    over once.
    """

    def __init__(self, dim: int, inputs: int, outputs: int, bias: bool = True):
        super().__init__()
        self.conv = pointwise(dim, inputs, outputs, bias=bias)
        self.norm = BATCH_NORMS[dim](outputs)

    def reset_parameters(self) -> None:
        """Kaiming normal weights by fan-out, bias 0, batch norm 1 and 0."""
        kaiming(self.conv)
        self.norm.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(normed(x, self.conv, self.norm), inplace=True)


def kaiming(conv: Convolution) -> None:
    """Kaiming normal weights by fan-out, bias 0."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def normed(x: Tensor, conv: Convolution, norm: nn.Module | None) -> Tensor:
    """`norm(conv(x))` of a 1x1 convolution, with a batch norm in evaluation folded into it."""
    weight, bias, rest = affine(conv, norm, x)
    y = product(x, weight, bias)
    return y if rest is None else rest(y)


def affine(conv: Convolution, norm: nn.Module | None, x: Tensor) -> tuple[Tensor, Tensor | None, nn.Module | None]:
    """The matrix (outputs, inputs) and the bias of a 1x1 convolution of a map (B, channels, *positions), and the norm
    that is still to be applied: none where it is a batch norm in evaluation, which is folded in, unless the matrix is
    larger than maps of so few positions are."""
    if (
        not outnumber_positions(conv.in_channels, x)
        and isinstance(norm, _BatchNorm)
        and not norm.training
        and norm.running_var is not None
    ):
        return *folded(conv, norm), None
    return conv.weight.flatten(1), conv.bias, norm


def folded(conv: Convolution, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """The matrix (outputs, inputs) and the bias of a 1x1 convolution and a batch norm in evaluation together."""
    assert norm.running_var is not None
    assert norm.running_mean is not None
    exact = torch.promote_types(norm.running_var.dtype, torch.float32)
    scale = (norm.running_var.to(exact) + norm.eps).rsqrt() * norm.weight.to(exact)
    mean = norm.running_mean.to(exact) if conv.bias is None else norm.running_mean.to(exact) - conv.bias.to(exact)
    shift = norm.bias.to(exact) - mean * scale
    dtype = conv.weight.dtype
    return (conv.weight.flatten(1) * scale[:, None]).to(dtype), shift.to(dtype)
