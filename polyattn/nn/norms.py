"""Batch norm, group norm and dropout of shards: statistics of the whole map, and one mask for all shards."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from polyattn.nn.block import convolve
from polyattn.nn.plain import computes_as_torch
from polyattn.runtime.communicator import NARROW, Pieces
from polyattn.runtime.layouts import settled, with_settled_gradient


@computes_as_torch
class PieceBatchNorm(_BatchNorm):
    """Batch norm of a shard (B, C, *spatial) by mean and variance of the whole map, updated alike on every shard."""

    exchange: Pieces

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        return self.over(input, self.exchange.count(input), self.exchange.sum)

    def over(self, input: Tensor, positions: int, total: Callable[[Tensor], Tensor]) -> Tensor:
        """Normalise by the statistics of all `positions`; `total` sums a value over all shards."""
        own = self.running_mean is not None
        if not self.training and own:
            # Running statistics are the same on every shard: evaluation needs no communication.
            given = (self.running_mean, self.running_var, self.weight, self.bias)
            return with_settled_gradient(F.batch_norm(settled(input), *given, eps=self.eps))
        wide = input.float() if input.dtype in NARROW else input
        axes = (0, *range(2, input.dim()))
        # The number of summands comes from the sizes, not from the shard, so that empty shards divide alike.
        number = input.shape[0] * positions
        if number < 2:
            raise ValueError("batch norm in training needs more than one position")
        mean = total(wide.sum(axes)) / number
        # Two all-reduces instead of one with squares: E[x²] - mean² cancels when the mean is large.
        centred = wide - _along_channels(mean, input)
        variance = total(centred.square().sum(axes)) / number
        if self.training and own and self.exchange.counting:
            # Running variances are unbiased, like torch's, while the normalisation uses the biased one.
            self._keep(mean.detach(), variance.detach() * (number / (number - 1)))
        scale = (variance + self.eps).rsqrt()
        scale = scale if self.weight is None else scale * self.weight
        # Statistics of 16-bit inputs stay in float32 up to the last rounding.
        y = centred * _along_channels(scale, input)
        return (y if self.bias is None else y + _along_channels(self.bias, input)).to(input.dtype)

    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics in the way of torch's batch norm."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            # Without momentum, torch keeps a cumulative average over batches.
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
            self.running_var.lerp_(variance.to(self.running_var.dtype), share)


@computes_as_torch
class PieceGroupNorm(nn.GroupNorm):
    """Group norm of a shard (B, C, *spatial) with the mean and variance of the whole map."""

    exchange: Pieces

    def forward(self, input: Tensor) -> Tensor:
        wide = input.float() if input.dtype in NARROW else input
        x = wide.flatten(2).unflatten(1, (self.num_groups, -1))
        number = x.shape[2] * self.exchange.count(input)
        mean = self.exchange.sum(x.sum((2, 3), keepdim=True)) / number
        centred = x - mean
        variance = self.exchange.sum(centred.square().sum((2, 3), keepdim=True)) / number
        y = (centred * (variance + self.eps).rsqrt()).flatten(1, 2).unflatten(2, input.shape[2:])
        if self.affine:
            y = y * _along_channels(self.weight, input) + _along_channels(self.bias, input)
        return y.to(input.dtype)


class PieceDropout(nn.Module):
    """Dropout of whole channels; the first shard draws the mask for all."""

    p: float
    exchange: Pieces

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        # 0 / (1 - p) would be 0 / 0.
        if self.p == 1:
            return x * 0
        kept = torch.zeros(x.shape[:2], dtype=x.dtype, device=x.device)
        scale = self.exchange.first(kept, lambda zeros: zeros.bernoulli_(1 - self.p)) / (1 - self.p)
        return x * scale.view(*scale.shape, *(1,) * (x.dim() - 2))


def _along_channels(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *(1,) * (x.dim() - 2))


@computes_as_torch
class PieceConvolution(nn.Module):
    """A 1x1 convolution that also accepts maps without positions, unlike torch's."""

    in_channels: int
    out_channels: int
    groups: int
    weight: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        if x.numel():
            return convolve(x, self.weight, self.bias, self.groups)
        # A matrix product over zero positions is defined, and keeps the weight in the graph for the all-reduce of
        # gradients.
        rows = x.movedim(1, -1).unflatten(-1, (self.groups, 1, -1))
        weight = self.weight.flatten(1).unflatten(0, (self.groups, -1)).transpose(1, 2)
        y = torch.matmul(rows, weight).flatten(-3)
        return (y if self.bias is None else y + self.bias).movedim(-1, 1)
