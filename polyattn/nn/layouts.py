"""Feature maps as the specifications read them: channels last, positions in one axis or in their own."""

from __future__ import annotations

from operator import index

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
    spatial = tuple(index(length) for length in like.shape[2:])  # numbers, also where a compiler has symbols
    return y.transpose(1, 2).unflatten(2, spatial)
