"""Axes cut into blocks of almost equal length: each position's block and its offset in the block.

An axis of length L in S blocks has block s at the positions from floor(sL/S) to floor((s+1)L/S), so a block has
`ceil(L/S)` positions or one fewer. A block-based matrix `P ⊗ I` connects positions of the same offset in their blocks.
If S divides L, all blocks have all offsets. Otherwise only the long blocks have the last offset: for it, the matrix is
reduced to the rows and columns of the long blocks and normalised again. The positions then fall into two parts, each a
regular map of blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from polyattn.runtime.communicator import NARROW


@dataclass(frozen=True)
class Part:
    """Positions, in the order of `Cut.order`, grouped in blocks of one length."""

    start: int
    length: int
    blocks: tuple[int, ...] | None
    """The blocks with these offsets; None for all blocks."""


@dataclass(frozen=True)
class Cut:
    """An axis cut into blocks."""

    parts: tuple[Part, ...]
    order: tuple[int, ...] | None
    """The positions, part by part; None for the identity."""
    inverse: tuple[int, ...] | None


def cut(length: int, blocks: int) -> Cut:
    """Split an axis of a length into blocks.

    >>> cut(6, 3).parts
    (Part(start=0, length=6, blocks=None),)
    >>> cut(5, 3).parts  # blocks of 1, 2 and 2
    (Part(start=0, length=3, blocks=None), Part(start=3, length=2, blocks=(1, 2)))
    >>> cut(5, 3).order
    (0, 1, 3, 2, 4)
    """
    if length % blocks == 0:
        return Cut((Part(0, length, None),), None, None)
    starts = [s * length // blocks for s in range(blocks + 1)]
    # All blocks have the offsets below `common`; the long blocks have one more, which comes last in the order.
    common = length // blocks
    long = tuple(s for s in range(blocks) if starts[s + 1] - starts[s] > common)
    order = [starts[s] + u for s in range(blocks) for u in range(common)] + [starts[s] + common for s in long]
    parts = [Part(common * blocks, len(long), long)]
    if common:
        parts.insert(0, Part(0, common * blocks, None))
    inverse = [0] * length
    for place, position in enumerate(order):
        inverse[position] = place
    return Cut(tuple(parts), tuple(order), tuple(inverse))


def windows(length: int, blocks: int) -> tuple[tuple[int, ...], ...] | None:
    """Return each block's window of pooled positions, or None if `blocks` divides the axis.

    Windows are those of adaptive pooling, from floor(sL/S) to ceil((s+1)L/S); a shorter window repeats its last
    position.
    """
    if length % blocks == 0:
        return None
    found = [range(s * length // blocks, -(-(s + 1) * length // blocks)) for s in range(blocks)]
    width = max([len(window) for window in found])  # of a list: compilers before torch 2.7 reject an iterator
    # Windows of one width form a regular index, so one gather pools all of them.
    return tuple((*w, *(w[-1],) * (width - len(w))) for w in found)


def taken(x: Tensor, axis: int, positions: tuple[int, ...] | None) -> Tensor:
    """Gather the positions of an axis in this order; return x itself for None."""
    return x if positions is None else x.index_select(axis, torch.tensor(positions, device=x.device))


def block_max(x: Tensor, blocks: int) -> Tensor:
    """Return the maximum of each block of the last axis, as adaptive max pooling."""
    return _windowed(x, blocks).amax(-1)


def block_mean(x: Tensor, blocks: int) -> Tensor:
    """Return the mean of each block of the last axis, as adaptive average pooling."""
    found = windows(x.shape[-1], blocks)
    if found is None:
        return _windowed(x, blocks).mean(-1)
    counts = torch.tensor([len(set(w)) for w in found], device=x.device)
    # A repeated last position must count once in a mean, though a maximum may see it twice.
    fresh = torch.tensor([[w.index(p) == k for k, p in enumerate(w)] for w in found], device=x.device)
    return (_windowed(x, blocks) * fresh).sum(-1) / counts


def _windowed(x: Tensor, blocks: int) -> Tensor:
    found = windows(x.shape[-1], blocks)
    if found is None:
        return x.unflatten(-1, (blocks, -1))
    return taken(x, x.dim() - 1, tuple(p for w in found for p in w)).unflatten(-1, (blocks, -1))


def of_blocks(matrices: Tensor, part: Part) -> Tensor:
    """Gather the rows and columns (..., S, S) of the part's blocks."""
    return taken(taken(matrices, matrices.dim() - 2, part.blocks), matrices.dim() - 1, part.blocks)


def slid_blocks(length: int, blocks: int) -> int:
    """Return the number of blocks of an axis over which a kernel of `blocks` of them slides.

    Each block has floor(length / blocks) positions, so the axis has at least `blocks` blocks; an axis shorter than
    `blocks` has exactly `blocks`.

    >>> [slid_blocks(length, 7) for length in (4, 7, 14, 16, 28, 32)]
    [7, 7, 7, 8, 7, 8]
    """
    return length // (length // blocks) if length >= blocks else blocks


def overlapped(windows: Tensor) -> Tensor:
    """Return the mean (..., G, M, M) of n matrices (..., n, G, S, S), M = S + n - 1.

    The k-th matrix lies at the rows and columns from k to k + S - 1; entries outside all of them are 0.
    """
    number, side = windows.shape[-4], windows.shape[-1]
    if number == 1:
        return windows.squeeze(-4)
    # Sums of overlapping 16-bit scores lose digits before the division.
    wide = windows.float() if windows.dtype in NARROW else windows
    # F.pad takes the padding of the last axis first; rows and columns shift alike along the diagonal.
    places = [(k, number - 1 - k) * 2 for k in range(number)]
    total = torch.stack([F.pad(wide.select(-4, k), place) for k, place in enumerate(places)]).sum(0)
    covering = torch.stack([F.pad(wide.new_ones(side, side), place) for place in places]).sum(0)
    # Entries outside all windows have 0 / 0 without the clamp.
    return (total / covering.clamp(min=1)).to(windows.dtype)
