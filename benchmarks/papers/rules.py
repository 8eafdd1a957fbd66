"""The BAT paper's rules for counting the multiply-accumulates of a network.

Its figures are those of the first versions of thop (Lyken17/pytorch-OpCounter), whose list of networks has the same
4.14 for ResNet-50, and 7.87 and 11.61 for ResNet-101 and -152:

- a convolution counts its multiply-accumulates, and one operation per output with a bias;
- a batch norm counts four operations per element;
- a linear layer counts multiplications and additions one by one, 2n - 1 for n inputs;
- activations, poolings and operations outside torch's modules count 0.

Products of P and Q with the feature map are outside modules, and count 0 if block-based. At full resolution, and in the
non-local block, the printed figures are those of two operations per multiply-accumulate. The paper does not state these
rules: they were found by trial, and give all of its figures to 0.3 %.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from polyattn.nn import BATBlock, NonLocal

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


def operations(module: nn.Module, output: Tensor) -> int:
    """Count one call of a leaf module by the rules; 0 for modules that they leave out."""
    if isinstance(module, Conv):
        return _convolution(module, output.numel() // module.out_channels)
    if isinstance(module, Norm):
        return 4 * output.numel()
    if isinstance(module, nn.Linear):
        return output.numel() * (2 * module.in_features - 1)
    return 0


def block_operations(block: nn.Module, shape: torch.Size) -> int | None:
    """Count a block on a feature map (B, C, *positions) by the rules; None for blocks of other papers."""
    if isinstance(block, NonLocal):
        return _non_local(block, shape)
    if isinstance(block, BATBlock):
        return _bat(block, shape)
    return None


def _non_local(block: NonLocal, shape: torch.Size) -> int:
    # Only phi and g run on pooled positions; the paper pools height and width, not frames.
    positions, window = shape[0] * prod(shape[2:]), block.sub_sample
    fewer = shape[0] * prod(shape[2:-2]) * prod(length // window for length in shape[-2:])
    total = 0
    for name, module in block.named_modules():
        if isinstance(module, Conv):
            total += _convolution(module, fewer if name in ("phi", "g") else positions)
        elif isinstance(module, Norm):
            total += 4 * module.num_features * positions
    # Two products, of similarities and of values, with two operations per multiply-accumulate.
    return total + 2 * 2 * block.inner_channels * positions * fewer // shape[0]


def _bat(block: BATBlock, shape: torch.Size) -> int:
    positions, transform = shape[0] * prod(shape[2:]), block.transform
    frames, sides = shape[0] * prod(shape[2:-2]), tuple(shape[-2:])
    # The convolution after a transform that downsamples comes before the upsampling.
    after = frames * prod(transform.blocks) if transform.downsample else positions
    total = 0
    for name, module in block.named_modules():
        if isinstance(module, Conv):
            # Predictors that slide over larger maps give a matrix for each window.
            rows, columns = transform._blocks(torch.empty(shape, device="meta"))
            where = {
                "transform.conv_p": frames * (rows - transform.blocks[0] + 1),
                "transform.conv_q": frames * (columns - transform.blocks[1] + 1),
                "transform.conv_t": shape[0],
            }
            total += _convolution(module, after if name == "transform.conv2.conv" else where.get(name, positions))
        elif isinstance(module, Norm):
            total += 4 * module.num_features * (after if name == "transform.conv2.norm" else positions)
    # The printed figures include P X Q at full resolution only.
    full = transform.blocks == sides and transform.groups
    return total + (2 * block.inner_channels * positions * sum(sides) if full else 0)


def _convolution(module: Conv, positions: int) -> int:
    """Count a convolution with outputs at `positions` positions."""
    terms = module.in_channels // module.groups * prod(module.kernel_size)
    return module.out_channels * positions * (terms + (module.bias is not None))
