"""Feature maps as the specifications read them: channels last, positions in one axis or in their own."""

from __future__ import annotations

from operator import index

import torch
from torch import Tensor


def positions_first(x: Tensor, axes: int) -> Tensor:
    """(B, C, *spatial) as (B, N, C) if the specification has one axis of positions, else as (B, *spatial, C).

    A view, of contiguous and of channels-last maps.
    """
    return x.flatten(2).transpose(1, 2) if axes == 1 else x.movedim(1, -1)


def channels_first(y: Tensor, like: Tensor, axes: int) -> Tensor:
    """The way back, to (B, C, *spatial) with the spatial axes of `like`. A view."""
    if axes > 1:
        return y.movedim(-1, 1)
    if not torch.compiler.is_compiling():
        return y.transpose(1, 2).view(*y.shape[::2], *like.shape[2:])
    spatial = tuple(index(length) for length in like.shape[2:])  # numbers, also where a compiler has symbols
    return y.transpose(1, 2).unflatten(2, spatial)


def is_channels_last(x: Tensor) -> bool:
    """Whether a map lies in memory with its channels last, and not also with them first."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    return last is not None and x.is_contiguous(memory_format=last) and not x.is_contiguous()


def laid_out_as(y: Tensor, like: Tensor) -> Tensor:
    """A map in the memory layout of another, channels last or first; itself where it lies so already."""
    if not is_channels_last(like):
        return y.contiguous()
    return y.contiguous(memory_format=torch.channels_last if like.dim() == 4 else torch.channels_last_3d)
