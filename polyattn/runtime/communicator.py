"""`Exchange`: how the pieces of a feature map meet, where a layer reduces over positions.

Blocks reduce over positions through an exchange and nowhere else, so one and the same forward pass runs on a whole map
(`Exchange`: there is one piece), on pieces that lie on different devices (`polyattn.parallel`), and on pieces that
come one after the other (`polyattn.nn.chunked`).
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
    """One piece, which is the whole map."""

    def count(self, x: Tensor) -> int:
        """The positions of the whole map that x (B, C, *spatial) is a piece of."""
        return prod(x.shape[2:])

    def softmax(self, x: Tensor, axis: int) -> Tensor:
        """The softmax along an axis of positions; torch sums 16-bit numbers in 32, and autocast keeps those."""
        return torch.softmax(x, axis)

    def unit(self, x: Tensor, axis: int) -> Tensor:
        """x divided by its Euclidean norm along an axis of positions, or 0 where x is; 16 bits are squared in 32."""
        return nn.functional.normalize(x.float() if x.dtype in NARROW else x, dim=axis).to(x.dtype)


class Pieces(Exchange, ABC):
    """Pieces that meet in two ways, which subclasses define: by sums and by maxima of values of one shape.

    Those that are there at the same time may define a third one, `to_channels` and back: the map is dealt out anew.

    Attributes:
        axis: the axis of the map (B, C, *spatial) that is cut.
        counts: how many rows along it each piece has.
        rank: which piece this is.
        rest: positions of one row.
        counting: whether this pass counts for running statistics.
        training: whether plans are made for a forward and a backward pass; None where that depends on the tensors.
        device: the type of the device that plans are made for; None for the tensors' own.
        deals: whether there are `to_channels` and `to_rows`.
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
        """The sum over all pieces, differentiable: every piece gets it, and its gradient is the sum of theirs."""

    @abstractmethod
    def maximum(self, value: Tensor) -> Tensor:
        """The elementwise maximum over all pieces, without a gradient."""

    def first(self, value: Tensor, fill: Callable[[Tensor], Tensor]) -> Tensor:
        """Zeros as the first piece fills them, in all pieces; without a gradient."""
        return self.sum(fill(value) if self.rank == 0 else value)

    def greatest(self, own: Tensor, carrier: Tensor, ties: Tensor) -> Tensor:
        """The elementwise maximum over all pieces, with a gradient that the largest entries of all pieces share.

        Args:
            own: the maximum of this piece.
            carrier: a differentiable value whose gradient this piece's largest entries share.
            ties: how many these are.
        """
        top = self.maximum(own)
        mine = torch.where(own == top, ties, 0)
        carried = self.sum(carrier * (mine / self.sum(mine)))
        return top + (carried - carried.detach()).to(top.dtype)

    def to_channels(self, x: Tensor, channels: tuple[int, ...]) -> Tensor:
        """From all channels of this piece's rows to this piece's channels, of which each has so many, of all rows.

        Raises:
            ShardingError: the pieces are not there at the same time.
        """
        raise ShardingError("a layer that mixes rows with rows needs them all at once, not one piece after the other")

    def to_rows(self, x: Tensor, channels: tuple[int, ...]) -> Tensor:
        """The way back."""
        raise ShardingError("a layer that mixes rows with rows needs them all at once, not one piece after the other")

    @property
    def start(self) -> int:
        """The first row of this piece."""
        return sum(self.counts[: self.rank])

    def count(self, x: Tensor) -> int:
        """The positions of the whole map that x (B, C, *spatial) is a piece of."""
        return sum(self.counts) * self.rest

    def gathered(self, x: Tensor, axis: int) -> Tensor:
        """All pieces of a small value, one behind the other along an axis: each adds its own to zeros."""
        before, after = list(x.shape), list(x.shape)
        before[axis], after[axis] = self.start, sum(self.counts) - self.start - x.shape[axis]
        return self.sum(torch.cat([x.new_zeros(before), x, x.new_zeros(after)], axis))

    def softmax(self, x: Tensor, axes: int | Sequence[int]) -> Tensor:
        """The softmax over axes that are cut: the maximum of all pieces first, then the sum. 16 bits are summed in 32.

        Two reductions forward, the sum again backward.
        """
        axes = _tuple(axes)
        wide = x.float() if x.dtype in NARROW else x
        top = self.maximum(_largest(wide.detach(), axes))
        powers = torch.exp(wide - top)
        return (powers / self.sum(powers.sum(axes, keepdim=True))).to(x.dtype)

    def normalize(self, x: Tensor, axes: int | Sequence[int]) -> Tensor:
        """x divided by the sum of its absolute values over axes that are cut."""
        return x / self.sum(x.abs().sum(_tuple(axes), keepdim=True)).clamp_min(L1_EPSILON)

    def unit(self, x: Tensor, axes: int | Sequence[int]) -> Tensor:
        """x divided by its Euclidean norm along axes that are cut, or 0 where x is; 16 bits are squared in 32."""
        wide = x.float() if x.dtype in NARROW else x
        squares = self.sum(wide.square().sum(_tuple(axes), keepdim=True))
        return (wide / squares.clamp_min(L1_EPSILON**2).sqrt()).to(x.dtype)

    def amax(self, x: Tensor, axes: int | Sequence[int]) -> Tensor:
        """The maximum over axes that are cut. Where a gradient is wanted, equal maxima share it."""
        axes = _tuple(axes)
        own = _largest(x.detach(), axes)
        wanted = torch.is_grad_enabled() and x.requires_grad if self.training is None else self.training
        if not wanted:
            return self.maximum(own).squeeze(axes)
        wide = x.float() if x.dtype in NARROW else x
        mine = x.detach() == own
        ties = mine.sum(axes, keepdim=True).to(wide.dtype)
        # Of an infinite maximum, no gradient: infinity less itself is not a number.
        mean = torch.where(mine & own.isfinite(), wide, 0).sum(axes, keepdim=True) / ties.clamp_min(1)
        return self.greatest(own, mean, ties).squeeze(axes)


def _tuple(axes: int | Sequence[int]) -> tuple[int, ...]:
    return (axes,) if isinstance(axes, int) else tuple(axes)


def _largest(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The maximum over axes, which stay with length 1; of nothing, minus infinity."""
    if all(x.shape[axis] for axis in axes):
        return x.amax(axes, keepdim=True)
    shape = [1 if axis in axes else length for axis, length in enumerate(x.shape)]
    return x.new_full(shape, -torch.inf)


WHOLE = Exchange()
"""There is one piece."""
