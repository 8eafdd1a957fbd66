"""The blocks of `polyattn.nn.partition` on an axis whose length a compiler, exporter or tracer keeps open.

The numbers of `partition` depend on whether the blocks divide the axis; here all of them are computed from the length,
as tensors, so that one graph serves every length. Each block is padded to the length U = ceil(L/S) of the longest: the
entry of a block shorter than that at the last offset is read, meets a weight of 0, and is never written back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyattn.lowering.functions import is_static, is_traced


def is_open(*lengths: Any) -> bool:
    """Return whether one of the lengths is kept open, so that no path may be chosen by it."""
    return is_traced() or not all([is_static(n) for n in lengths])  # noqa: C419, a list: compilers before torch 2.7 reject an iterator


def open_windows(x: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """Return each block's window (..., S, W) of adaptive pooling over the last axis, and its places (S, W) inside.

    The other places repeat the window's last position.
    """
    length, device = x.shape[-1], x.device
    number = torch.arange(blocks, device=device)
    start = torch.div(number * length, blocks, rounding_mode="floor")
    stop = torch.div((number + 1) * length + (blocks - 1), blocks, rounding_mode="floor")
    # No window is longer: it has at most one position on either side of its length / blocks.
    place = start[:, None] + torch.arange(length // blocks + 2, device=device)
    return x[..., torch.minimum(place, stop[:, None] - 1)], place < stop[:, None]


def open_max(x: Tensor, blocks: int) -> Tensor:
    """Return the maximum of each block of the last axis, as `partition.block_max`."""
    return open_windows(x, blocks)[0].amax(-1)


def open_mean(x: Tensor, blocks: int) -> Tensor:
    """Return the mean of each block of the last axis, as adaptive average pooling."""
    found, inside = open_windows(x, blocks)
    return ((found * inside).sum(-1) / inside.sum(-1)).to(x.dtype)


@dataclass(frozen=True)
class OpenCut:
    """An axis of open length cut into blocks.

    Attributes:
        longest: the length U of the longest block.
        places: the position at each block and offset, (S, U).
        back: the block and the offset of each position, (L,) each.
        long: the blocks that have the last offset, (S,).
    """

    longest: Any
    places: Tensor
    back: tuple[Tensor, Tensor]
    long: Tensor

    @classmethod
    def of(cls, length: Any, blocks: int, device: torch.device) -> OpenCut:
        longest = (length + blocks - 1) // blocks
        ends = torch.div(torch.arange(blocks + 1, device=device) * length, blocks, rounding_mode="floor")
        start = ends[:-1]
        # At the last offset, the place of a shorter block is one of the next block, or behind the axis.
        places = torch.minimum(start[:, None] + torch.arange(longest, device=device), ends[-1] - 1)
        position = torch.arange(length, device=device)
        block = torch.div((position + 1) * blocks + (length - 1), length, rounding_mode="floor") - 1
        return cls(longest, places, (block, position - start[block]), ends[1:] - start == longest)

    def mixed(self, x: Tensor, scores: Tensor, normalized: Callable[[Tensor], Tensor]) -> Tensor:
        """Multiply maps (B, G, L, M, W) along L with `P ⊗ I`.

        Args:
            x: the maps.
            scores: of the matrices P (B, G, S, S), before they are normalised.
            normalized: makes rows of scores sum to 1.
        """
        batch, groups, _, width, rest = x.shape
        blocks, number = scores.shape[-1], batch * groups
        split = x[:, :, self.places].reshape(number, blocks, self.longest, width * rest)
        whole = normalized(scores).reshape(number, blocks, blocks)
        # The last offset: between the blocks that have it.
        last = normalized(scores.masked_fill(~self.long, -torch.inf)).reshape(number, blocks, blocks)
        y = torch.bmm(whole, split.reshape(number, blocks, -1)).reshape(number, blocks, self.longest, width * rest)
        z = torch.bmm(last, split.select(2, -1)).unsqueeze(2)
        is_last = torch.arange(1, self.longest + 1, device=x.device)[:, None] == self.longest
        block, offset = self.back
        return torch.where(is_last, z, y)[:, block, offset].reshape(batch, groups, -1, width, rest)
