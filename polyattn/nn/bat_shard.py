"""`BATransformPiece`: the bilinear attentional transform on a piece of the rows, columns or frames of a map.

What the matrices are made of is small: rows and columns that are pooled, so the whole of it is exchanged. The matrices
then mix rows with rows, wherever these lie. With `downsample` it is the average of the map that they mix, which is
small too: one position for each block. At full resolution it is the map, which is dealt out anew: each piece gives away
its rows and gets all rows of its own channels, on which the matrices act as on any other, and hands the results back.
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
    """BA-Transform on a piece, with an exchange that can deal out, or with `downsample`."""

    positions: Pieces

    @property
    def cut(self) -> int:
        """The axis that is cut, from behind: -1 for columns, -2 for rows, -3 for frames."""
        return self.positions.axis - (self.dim + 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, [T,] H, W), of which this is a piece, to the same."""
        if not self._on_average(x):
            y = self.conv2(self.transform(x))
            return y if y.shape[2:] == x.shape[2:] else self._upsampled(y, x)
        y, conv, pieces = self.transform(x), self.conv2.conv, self.positions
        weight, bias, norm = affine(conv, self.conv2.norm, y)
        y = product(y, weight, bias)
        if isinstance(norm, PieceBatchNorm):
            if self.cut == -3:
                y = norm.over(y, sum(pieces.counts) * prod(self._blocks(x)), pieces.sum)
            else:  # the average is there as a whole, in every piece
                y = norm.over(y, prod(y.shape[2:]), lambda value: value)
        return self._upsampled(F.relu(y), x)

    def transform(self, x: Tensor) -> Tensor:
        """P X Q, and in 3D the temporal matrix; with `downsample` of the averaged map, which is whole along rows and
        columns."""
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
        if self.cut == -3:  # each frame has matrices of its own
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
        """Of the whole map."""
        whole = sum(self.positions.counts)
        return tuple(whole if axis == self.positions.axis else n for axis, n in enumerate(x.shape) if axis > 1)

    def _largest(self, features: Tensor, axis: int) -> Tensor:
        if axis == self.cut:
            return self.positions.amax(features, self.positions.axis)
        return self.positions.gathered(features.amax(axis), self.cut + (self.cut < axis))

    def _frame_means(self, features: Tensor) -> Tensor:
        if self.cut == -3:
            return self.positions.gathered(features.mean((-2, -1)), -1)
        return self.positions.sum(features.sum((-2, -1))) / prod(self._sides(features)[-2:])

    def _dealt(self, x: Tensor, groups: int, mixed: Callable[..., Tensor], *scores: Tensor) -> Tensor:
        """What `mixed` makes of all positions of this piece's groups of channels, dealt out again."""
        pieces = len(self.positions.counts)
        each = x.shape[1] // groups
        # Too few groups for all pieces are divided: their parts have the same matrices.
        parts = next((n for n in range(1, each) if each % n == 0 and groups * n >= pieces), each)
        total = groups * parts
        bounds = [min(total, k * -(-total // pieces)) for k in range(pieces + 1)]
        numbers = [b - a for a, b in pairwise(bounds)]
        channels = tuple(n * (x.shape[1] // total) for n in numbers)
        rank = self.positions.rank
        own = [s.repeat_interleave(parts, -3).narrow(-3, bounds[rank], numbers[rank]) for s in scores]
        mine = self.positions.to_channels(x, channels)
        y = mixed(mine, *own) if mine.numel() else joined(mine, *own)
        return self.positions.to_rows(y, channels)

    def _averaged(self, x: Tensor, blocks: tuple[int, int]) -> Tensor:
        """The whole average, one position for each block."""
        if self.cut == -3:
            return super()._averaged(x, blocks)
        length, number = sum(self.positions.counts), blocks[self.cut + 2]
        weights = x.new_zeros(number, length)
        found = windows(length, number)
        each = length // number
        for s in range(number):
            own = sorted(set(found[s])) if found is not None else range(s * each, (s + 1) * each)
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
            one = torch.eye(y.shape[axis], dtype=y.dtype, device=y.device)[None]
            weights = F.interpolate(one, length, mode="linear", align_corners=False)[0]
            if axis == self.cut:
                weights = weights.narrow(1, self.positions.start, like.shape[axis])
            y = torch.matmul(y.transpose(axis, -1), weights).transpose(axis, -1)
        return laid_out_as(y, like)


def joined(x: Tensor, *others: Tensor) -> Tensor:
    """An empty piece that still depends on what all pieces depend on, so that their exchanges backward meet."""
    return x + sum(0 * other.sum() for other in others)
