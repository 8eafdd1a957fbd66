"""`Exchange`: the communicator by which shards of a feature map reduce over positions.

Blocks reduce over positions only through an exchange. One forward pass therefore runs on a whole map (`Exchange`, a
single piece), on shards on different devices (`polyattn.parallel`), and on pieces streamed one after the other
(`polyattn.nn.chunked`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor, nn

from polyattn.errors import ShardingError

L1_EPSILON = 1e-12
NARROW = (torch.float16, torch.bfloat16)


class Exchange:
    """The communicator of a single piece: the whole map."""

    def count(self, x: Tensor) -> int:
        """Return the number of positions of the whole map, of which x (B, C, *spatial) is a shard."""
        return prod(x.shape[2:])

    def softmax(self, x: Tensor, axis: int) -> Tensor:
        """Return the softmax along an axis of positions.

        16-bit values are summed in 32 bits by torch, and autocast keeps the result in 32 bits.
        """
        return torch.softmax(x, axis)

    def unit(self, x: Tensor, axis: int) -> Tensor:
        """Return x divided by its Euclidean norm along an axis of positions, and 0 where x is 0.

        16-bit values are squared in 32 bits.
        """
        return nn.functional.normalize(x.float() if x.dtype in NARROW else x, dim=axis).to(x.dtype)


class Pieces(Exchange, ABC):
    """Shards that communicate by all-reduces: sums and maxima of values of one shape, defined by subclasses.

    Shards in memory at the same time may also define an all-to-all, `to_channels`, and its inverse `to_rows`.

    Attributes:
        axis: the sharded axis of the map (B, C, *spatial).
        counts: number of rows of each shard along it.
        rank: number of this shard.
        rest: positions per row.
        counting: whether this pass updates running statistics.
        training: whether plans include a backward pass; None if that depends on the tensors.
        device: device type of the plans; None for the tensors' own.
        deals: whether `to_channels` and `to_rows` are defined.
    """

    deals = False

    def __init__(
        self,
        axis: int,
        counts: tuple[int, ...] = (),
        rest: int = 1,
        rank: int = 0,
        *,
        counting: bool = True,
        training: bool | None = None,
        device: str | None = None,
    ):
        self.axis, self.counts, self.rest, self.rank = axis, counts, rest, rank
        self.counting, self.training, self.device = counting, training, device

    @abstractmethod
    def sum(self, value: Tensor) -> Tensor:
        """Sum a value over all shards, differentiably: every shard gets the sum; its gradient is the sum of theirs."""

    @abstractmethod
    def maximum(self, value: Tensor) -> Tensor:
        """Return the elementwise maximum over all shards, without a gradient."""

    def first(self, value: Tensor, fill: Callable[[Tensor], Tensor]) -> Tensor:
        """Return zeros as filled by the first shard, on all shards; without a gradient."""
        return self.sum(fill(value) if self.rank == 0 else value)

    def greatest(self, own: Tensor, carrier: Tensor, ties: Tensor) -> Tensor:
        """Return the elementwise maximum over all shards; the largest entries of all shards share its gradient.

        Args:
            own: maximum of this shard.
            carrier: differentiable value; its gradient is shared by this shard's largest entries.
            ties: number of these entries.
        """
        top = self.maximum(own)
        mine = torch.where(own == top, ties, 0)
        carried = self.sum(carrier * (mine / self.sum(mine)))
        # The value is exactly the maximum; only the gradient comes from the carrier, as in a straight-through
        # estimator.
        return top + (carried - carried.detach()).to(top.dtype)

    def to_channels(self, x: Tensor, channels: tuple[int, ...]) -> Tensor:
        """Turn shards of rows with all channels into shards of `channels` with all rows, by an all-to-all.

        Raises:
            ShardingError: the pieces are not there at the same time.
        """
        raise ShardingError("a layer that mixes rows with rows needs them all at once, not one piece after the other")

    def to_rows(self, x: Tensor, channels: tuple[int, ...]) -> Tensor:
        """Restore the shards of rows: the inverse of `to_channels`."""
        raise ShardingError("a layer that mixes rows with rows needs them all at once, not one piece after the other")

    @property
    def start(self) -> int:
        """Return the first row of this shard."""
        return sum(self.counts[: self.rank])

    def count(self, x: Tensor) -> int:
        """Return the number of positions of the whole map, of which x (B, C, *spatial) is a shard."""
        return sum(self.counts) * self.rest

    def gathered(self, x: Tensor, axis: int) -> Tensor:
        """Gather all shards of a small value along an axis, by an all-reduce of zero-padded shards."""
        before, after = list(x.shape), list(x.shape)
        before[axis], after[axis] = self.start, sum(self.counts) - self.start - x.shape[axis]
        return self.sum(torch.cat([x.new_zeros(before), x, x.new_zeros(after)], axis))

    def softmax(self, x: Tensor, axes: int | Sequence[int]) -> Tensor:
        """Return the softmax over sharded axes, by an all-reduce of the maximum and one of the sum.

        16-bit values are summed in 32 bits. The backward pass repeats the second all-reduce.
        """
        axes = _tuple(axes)
        wide = x.float() if x.dtype in NARROW else x
        # The shift cancels in the quotient, so the maximum needs no gradient.
        top = self.maximum(_largest(wide.detach(), axes))
        powers = torch.exp(wide - top)
        return (powers / self.sum(powers.sum(axes, keepdim=True))).to(x.dtype)

    def normalize(self, x: Tensor, axes: int | Sequence[int]) -> Tensor:
        """Return x divided by the sum of its absolute values over sharded axes."""
        return x / self.sum(x.abs().sum(_tuple(axes), keepdim=True)).clamp_min(L1_EPSILON)

    def unit(self, x: Tensor, axes: int | Sequence[int]) -> Tensor:
        """Return x divided by its Euclidean norm along sharded axes, and 0 where x is 0.

        16-bit values are squared in 32 bits.
        """
        wide = x.float() if x.dtype in NARROW else x
        # The clamp comes before the root, whose gradient at 0 is infinite.
        squares = self.sum(wide.square().sum(_tuple(axes), keepdim=True))
        return (wide / squares.clamp_min(L1_EPSILON**2).sqrt()).to(x.dtype)

    def amax(self, x: Tensor, axes: int | Sequence[int]) -> Tensor:
        """Return the maximum over sharded axes. If a gradient is required, equal maxima share it."""
        axes = _tuple(axes)
        own = _largest(x.detach(), axes)
        wanted = torch.is_grad_enabled() and x.requires_grad if self.training is None else self.training
        if not wanted:
            return self.maximum(own).squeeze(axes)
        wide = x.float() if x.dtype in NARROW else x
        mine = x.detach() == own
        ties = mine.sum(axes, keepdim=True).to(wide.dtype)
        # An infinite maximum gets no gradient: inf - inf in `greatest` would be nan.
        mean = torch.where(mine & own.isfinite(), wide, 0).sum(axes, keepdim=True) / ties.clamp_min(1)
        return self.greatest(own, mean, ties).squeeze(axes)


def _tuple(axes: int | Sequence[int]) -> tuple[int, ...]:
    return (axes,) if isinstance(axes, int) else tuple(axes)


def _largest(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the maximum over axes, kept with length 1; minus infinity for an empty shard."""
    if all(x.shape[axis] for axis in axes):
        return x.amax(axes, keepdim=True)
    shape = [1 if axis in axes else length for axis, length in enumerate(x.shape)]
    return x.new_full(shape, -torch.inf)


WHOLE = Exchange()
"""The communicator of unsharded maps."""
