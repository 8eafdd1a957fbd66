"""Feature maps as the specifications read them: channels last, positions in one axis or in their own.

Along an axis of length 1 a stride says nothing, but torch reads it: the backward pass of its batch norm on the CPU (up
to 2.15) takes a channels-last map or gradient for a contiguous one where such a stride is not the one that torch itself
would set, and then gives wrong gradients without a word. Views make such strides easily, at batch 1 above all. So maps
that go into a batch norm, gradients that come back to one, and the maps and gradients that a block hands to its
neighbours, are `settled`.
"""

from __future__ import annotations

from operator import index

import torch
from torch import Tensor

from polyattn.runtime.plan_cache import is_static


def positions_first(x: Tensor, axes: int) -> Tensor:
    """(B, C, *spatial) as (B, N, C) if the specification has one axis of positions, else as (B, *spatial, C).

    A view, of contiguous and of channels-last maps.
    """
    return x.flatten(2).transpose(1, 2) if axes == 1 else x.movedim(1, -1)


def channels_first(y: Tensor, like: Tensor, axes: int) -> Tensor:
    """The way back, to (B, C, *spatial) with the spatial axes of `like`. A view."""
    if axes > 1:
        return _restrided(y.movedim(-1, 1))
    if not torch.compiler.is_compiling():
        return _restrided(y.transpose(1, 2).view(*y.shape[::2], *like.shape[2:]))
    spatial = tuple(index(length) for length in like.shape[2:])  # numbers, also where a compiler has symbols
    return _restrided(y.transpose(1, 2).unflatten(2, spatial))


def is_channels_last(x: Tensor) -> bool:
    """Whether a map lies in memory with its channels last, and not also with them first."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    return last is not None and x.is_contiguous(memory_format=last) and not x.is_contiguous()


def laid_out_as(y: Tensor, like: Tensor) -> Tensor:
    """A map in the memory layout of another, channels last or first; itself where it lies so already."""
    if not is_channels_last(like):
        return y.contiguous()
    return y.contiguous(memory_format=torch.channels_last if like.dim() == 4 else torch.channels_last_3d)


def settled(x: Tensor) -> Tensor:
    """A map (B, C, *positions) with strides that torch does not misread, and so its gradient; see above. A view."""
    x = _restrided(x)  # whose backward pass does the same to the gradient where a compiler traces it
    if torch.compiler.is_compiling() or x.grad_fn is None or not _single_axes(x):
        return x  # what is no operation's result has nothing before it that would read its gradient
    return with_settled_gradient(torch.ops.aten.alias.default(x))


def with_settled_gradient(y: Tensor) -> Tensor:
    """A map that was just made, whose gradient has strides that torch does not misread. It may be changed in place."""
    if torch.compiler.is_compiling():
        return _restrided(y)
    if y.requires_grad and _single_axes(y):
        y.register_hook(_of_gradient)
    return y


def _of_gradient(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else _restrided(gradient)


def _restrided(x: Tensor) -> Tensor:
    """A map with the strides along axes of length 1 that torch itself sets, if it is channels last. A view."""
    if not torch.compiler.is_compiling() and not _is_misread(x):
        return x
    axes = _single_axes(x)
    if not axes:
        return x
    rows = x.movedim(1, -1).squeeze(axes)
    for axis in axes:
        rows = rows.unsqueeze(axis)
    return rows.movedim(-1, 1)


def _single_axes(x: Tensor) -> tuple[int, ...]:
    """The axes of length 1 of a map, other than the channels, where they are when these are last."""
    if x.dim() not in (4, 5):  # as torch has layouts
        return ()
    lengths = (x.shape[0], *x.shape[2:])
    return tuple(axis for axis, length in enumerate(lengths) if is_static(length) and length == 1)


def _is_misread(x: Tensor) -> bool:
    """Whether a map lies channels last, and not also first, but not with the strides that torch sets.

    Every call of a block asks this, so what rules it out soonest comes first.
    """
    lengths = x.shape
    if 1 not in lengths or x.is_contiguous() or len(lengths) not in (4, 5):
        return False
    strides, settled, expected = x.stride(), True, 1
    for axis in (1, *range(len(lengths) - 1, 1, -1), 0):
        if strides[axis] != expected:
            if lengths[axis] != 1:
                return False
            settled = False
        expected *= lengths[axis]
    return not settled
