"""A 1x1 convolution with batch norm and ReLU, computed as one matrix product if that is faster."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from polyattn.nn.block import BATCH_NORMS, Convolution, pointwise
from polyattn.nn.plain import is_plain
from polyattn.nn.pointwise_conv import outnumber_positions, product


class ConvNormReLU(nn.Module):
    """`relu(norm(conv(x)))` with a 1x1 convolution `conv` and batch norm `norm`.

    In evaluation the norm's scale and shift are folded into the product's matrix and bias, which saves a pass over the
    map.
    """

    ends = False
    """Whether the result leaves a block: ReLU would keep it for its gradient, and refuse a change in place."""

    def __init__(self, dim: int, inputs: int, outputs: int, bias: bool = True):
        super().__init__()
        self.conv = pointwise(dim, inputs, outputs, bias=bias)
        self.norm = BATCH_NORMS[dim](outputs)

    def reset_parameters(self) -> None:
        """Reset to Kaiming normal weights by fan-out, bias 0, batch norm scale 1 and shift 0."""
        kaiming(self.conv)
        self.norm.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        y = normed(x, self.conv, self.norm)
        if self.ends and y.requires_grad:
            return F.threshold(y, 0.0, 0.0)
        # In place: the norm's output has no other reader, and ReLU's gradient needs only its own output. A hook of the
        # norm may keep its output or return a view of it.
        return F.relu(y, inplace=is_plain(self.conv, self.norm))


def kaiming(conv: Convolution) -> None:
    """Set Kaiming normal weights by fan-out and bias 0."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def normed(x: Tensor, conv: Convolution, norm: nn.Module | None) -> Tensor:
    """Compute `norm(conv(x))` of a 1x1 convolution, with a batch norm in evaluation folded into it.

    A convolution that is not plain is called; so is the norm.
    """
    if not is_plain(conv):
        y = conv(x)
        return y if norm is None else norm(y)
    weight, bias, rest = affine(conv, norm, x)
    y = product(x, weight, bias)
    return y if rest is None else rest(y)


def affine(conv: Convolution, norm: nn.Module | None, x: Tensor) -> tuple[Tensor, Tensor | None, nn.Module | None]:
    """Return the matrix (outputs, inputs) and bias of a plain 1x1 convolution, and the norm still to be applied.

    A plain batch norm in evaluation is folded into the matrix and returned as None, unless the matrix is larger than
    the map x (B, channels, *positions) and folding costs more than it saves.
    """
    if (
        not outnumber_positions(conv.in_channels, x)
        and isinstance(norm, _BatchNorm)
        and is_plain(norm)
        and not norm.training
        and norm.running_var is not None
    ):
        return *folded(conv, norm), None
    return conv.weight.flatten(1), conv.bias, norm


def folded(conv: Convolution, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return the matrix (outputs, inputs) and bias of a 1x1 convolution followed by a batch norm in evaluation."""
    assert norm.running_var is not None
    assert norm.running_mean is not None
    # In float32 at least: in 16 bits, eps and small variances keep few digits.
    exact = torch.promote_types(norm.running_var.dtype, torch.float32)
    scale = (norm.running_var.to(exact) + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.to(exact)
    # A bias before the norm only shifts the mean that the norm subtracts.
    mean = norm.running_mean.to(exact) if conv.bias is None else norm.running_mean.to(exact) - conv.bias.to(exact)
    shift = -mean * scale if norm.bias is None else norm.bias.to(exact) - mean * scale
    dtype = conv.weight.dtype
    return (conv.weight.flatten(1) * scale[:, None]).to(dtype), shift.to(dtype)
