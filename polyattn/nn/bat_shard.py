"""`BATransformPiece`: the bilinear attentional transform on a shard of the rows, columns or frames of a map.

P and Q are predicted from pooled rows and columns; these are small, so every shard gets all of them. The matrices then
mix all rows (columns, frames) with each other, across shards. With `downsample` they mix the averaged map of one
position per block, which is small too and is all-reduced. At full resolution an all-to-all turns shards of rows with
all channels into shards of channels with all rows; the matrices act on these, and a second all-to-all restores the
shards of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from polyattn.nn.blocks.bat_transform import BATransform
from polyattn.nn.conv_norm import affine
from polyattn.nn.norms import PieceBatchNorm
from polyattn.nn.partition import windows
from polyattn.nn.pointwise_conv import product
from polyattn.runtime.communicator import Pieces
from polyattn.runtime.layouts import laid_out_as


class BATransformPiece(BATransform):
    """BA-Transform on a shard, for an exchange with all-to-alls, or for `downsample`."""

    positions: Pieces

    @property
    def cut(self) -> int:
        """Return the sharded axis, counted from behind: -1 for columns, -2 for rows, -3 for frames."""
        return self.positions.axis - (self.dim + 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map a shard of (B, channels, [T,] H, W) to the same shard of the result."""
        if not self._on_average(x):
            y = self.conv2(self.transform(x))
            return y if y.shape[2:] == x.shape[2:] else self._upsampled(y, x)
        y, conv, pieces = self.transform(x), self.conv2.conv, self.positions
        weight, bias, norm = affine(conv, self.conv2.norm, y)
        # 1x1 convolution and norm act position by position, so they run on the small average before upsampling.
        y = product(y, weight, bias)
        if isinstance(norm, PieceBatchNorm):
            if self.cut == -3:
                y = norm.over(y, sum(pieces.counts) * prod(self._blocks(x)), pieces.sum)
            else:  # every shard holds the whole average: no all-reduce
                y = norm.over(y, prod(y.shape[2:]), lambda value: value)
        return self._upsampled(F.relu(y), x)

    def transform(self, x: Tensor) -> Tensor:
        """Return P X Q, in 3D followed by the temporal matrix.

        With `downsample` the result is P X Q of the averaged map, whole along rows and columns.
        """
        if self.conv1 is None:
            return x
        features, y = self.conv1(x), x
        if self.conv_p is not None:
            y = self._over_space(x, *self._spatial_scores(features))
        if self.conv_t is not None:
            scores = self._temporal_scores(features)
            if self.cut == -3:
                y = self._dealt(y, self.temporal_groups, self._over_time, scores)
            else:
                y = self._over_time(y, scores) if y.numel() else joined(y, scores)
        return laid_out_as(y, x) if y.shape == x.shape else y

    def _over_space(self, x: Tensor, p: Tensor, q: Tensor) -> Tensor:
        if self.cut == -3:  # each frame has its own P and Q
            p, q = (m.narrow(1, self.positions.start, x.shape[2]) for m in (p, q))
            if x.numel():
                return self._bilinear(x, p, q)
            return joined(x.new_zeros(*x.shape[:-2], *self._blocks(x)) if self._on_average(x) else x, p, q)
        if self._on_average(x):
            averaged = self._averaged(x, self._blocks(x))
            return self._product(averaged, self._normalized(p, -1), self._normalized(q, -2))
        return self._dealt(x, self.groups, self._bilinear, p, q)

    def _on_average(self, x: Tensor) -> bool:
        return self.downsample and self.conv_p is not None and self._sides(x)[-2:] != self._blocks(x)

    def _sides(self, x: Tensor) -> tuple[int, ...]:
        """Return the sides of the whole map."""
        whole = sum(self.positions.counts)
        return tuple(whole if axis == self.positions.axis else n for axis, n in enumerate(x.shape) if axis > 1)

    def _largest(self, features: Tensor, axis: int) -> Tensor:
        if axis == self.cut:
            return self.positions.amax(features, self.positions.axis)
        # The maximum is complete within the shard; only the remaining sharded axis has to be gathered.
        return self.positions.gathered(features.amax(axis), self.cut + (self.cut < axis))

    def _frame_means(self, features: Tensor) -> Tensor:
        if self.cut == -3:
            return self.positions.gathered(features.mean((-2, -1)), -1)
        return self.positions.sum(features.sum((-2, -1))) / prod(self._sides(features)[-2:])

    def _dealt(self, x: Tensor, groups: int, mixed: Callable[..., Tensor], *scores: Tensor) -> Tensor:
        """Apply `mixed` to all positions of this shard's channel groups, by two all-to-alls."""
        pieces = len(self.positions.counts)
        each = x.shape[1] // groups
        # With fewer groups than shards, groups are split: all parts of a group have the same matrices.
        parts = next((n for n in range(1, each) if each % n == 0 and groups * n >= pieces), each)
        total = groups * parts
        bounds = [min(total, k * -(-total // pieces)) for k in range(pieces + 1)]
        numbers = [b - a for a, b in pairwise(bounds)]
        channels = tuple(n * (x.shape[1] // total) for n in numbers)
        rank = self.positions.rank
        # All shards predict the same scores, so each takes those of its own channel groups without communication.
        own = [s.repeat_interleave(parts, -3).narrow(-3, bounds[rank], numbers[rank]) for s in scores]
        mine = self.positions.to_channels(x, channels)
        y = mixed(mine, *own) if mine.numel() else joined(mine, *own)
        return self.positions.to_rows(y, channels)

    def _averaged(self, x: Tensor, blocks: tuple[int, int]) -> Tensor:
        """Return the whole averaged map, one position per block."""
        if self.cut == -3:
            return super()._averaged(x, blocks)
        length, number = sum(self.positions.counts), blocks[self.cut + 2]
        weights = x.new_zeros(number, length)
        found = windows(length, number)
        each = length // number
        for s in range(number):
            own = sorted(set(found[s])) if found is not None else range(s * each, (s + 1) * each)
            # Average pooling as a matrix: blocks may straddle shards, and a matrix sums each shard's part of them.
            weights[s, own[0] : own[-1] + 1] = 1 / len(own)
        mine = weights.narrow(1, self.positions.start, x.shape[self.cut])
        other = -3 - self.cut
        along = torch.matmul(x.transpose(self.cut, -1), mine.t()).transpose(self.cut, -1)
        whole = self.positions.sum(along)
        small = F.adaptive_avg_pool1d(whole.transpose(other, -1).flatten(0, -3), blocks[other + 2])
        return small.unflatten(0, whole.transpose(other, -1).shape[:-2]).transpose(other, -1)

    def _upsampled(self, y: Tensor, like: Tensor) -> Tensor:
        if self.cut == -3:
            return super()._upsampled(y, like) if like.numel() else joined(like, y)
        other = -3 - self.cut
        for axis in (self.cut, other):
            length = self._sides(like)[axis]
            # Interpolating the identity gives the interpolation matrix, of which a shard applies its own columns.
            one = torch.eye(y.shape[axis], dtype=y.dtype, device=y.device)[None]
            weights = F.interpolate(one, length, mode="linear", align_corners=False)[0]
            if axis == self.cut:
                weights = weights.narrow(1, self.positions.start, like.shape[axis])
            y = torch.matmul(y.transpose(axis, -1), weights).transpose(axis, -1)
        return laid_out_as(y, like)


def joined(x: Tensor, *others: Tensor) -> Tensor:
    """Return x with an autograd dependency on the others, without changing its value.

    An empty shard must still take part in the backward all-reduces of the other shards.
    """
    # The factor 0 keeps the graph edge: a shard without it would skip a collective and block the others.
    return x + sum(0 * other.sum() for other in others)
