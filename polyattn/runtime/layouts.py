"""Feature maps in the specifications' layout: channels last, positions in one axis or in their own.

A stride along an axis of length 1 carries no information, but torch reads it: on the CPU (up to 2.15), the backward
pass of its batch norm mistakes a channels-last map or gradient for a contiguous one if such a stride differs from
torch's own, and silently computes wrong gradients. Views often have such strides, above all at batch 1. `settled`
therefore restores torch's strides on maps that enter a batch norm, on gradients that return to one, and on the maps and
gradients passed between blocks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from polyattn.lowering.functions import is_static, is_traced


def positions_first(x: Tensor, axes: int) -> Tensor:
    """Return (B, C, *spatial) as (B, N, C) for a specification with one axis of positions, else as (B, *spatial, C).

    A view for contiguous and for channels-last maps.
    """
    return x.flatten(2).transpose(1, 2) if axes == 1 else x.movedim(1, -1)


def channels_first(y: Tensor, like: Tensor, axes: int) -> Tensor:
    """Return the result of `positions_first` as (B, C, *spatial), with the spatial axes of `like`. A view."""
    if axes > 1:
        return restrided(y.movedim(-1, 1))
    y = y.transpose(1, 2)
    if torch.compiler.is_compiling() or is_traced():
        return restrided(as_map(y, like))
    return restrided(y.view(*y.shape[:2], *like.shape[2:]))


def of_maps(function: Callable[..., Tensor], axes: int) -> Callable[..., Tensor]:
    """Return a function of a map and parameters to a map, from one of (B, *positions, C)."""

    def on_map(x: Tensor, *parameters: Tensor) -> Tensor:
        return channels_first(function(positions_first(x, axes), *parameters), x, axes)

    return on_map


def as_map(columns: Tensor, like: Tensor) -> Tensor:
    """Return columns (B, C, N) with the spatial axes of a map."""
    if is_traced():
        # The ONNX exporter on `torch.jit.trace` makes constants of the lengths around an `unflatten`.
        return columns.reshape(like.shape[0], columns.shape[1], *like.shape[2:])
    return columns.unflatten(2, like.shape[2:])


def is_channels_last(x: Tensor) -> bool:
    """Return whether a map is channels-last in memory and not also contiguous."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    # Under `torch.vmap`, torch cannot say; the answer only chooses between two forms of one function.
    if last is None or torch._C._functorch.is_batchedtensor(x):  # pyright: ignore[reportAttributeAccessIssue]
        return False
    return x.is_contiguous(memory_format=last) and not x.is_contiguous()


def laid_out_as(y: Tensor, like: Tensor) -> Tensor:
    """Return a map in the memory layout of `like`, channels-last or contiguous; itself if it has that layout."""
    if not is_channels_last(like):
        return y.contiguous()
    return y.contiguous(memory_format=torch.channels_last if like.dim() == 4 else torch.channels_last_3d)


def settled(x: Tensor) -> Tensor:
    """Return a view of a map (B, C, *positions) with strides that torch reads correctly, for its gradient too."""
    if torch.compiler.is_compiling():
        return restrided(x)  # its traced backward pass restrides the gradient
    if 1 not in x.shape or (x.grad_fn is None and x.is_contiguous()):
        return x
    x = restrided(x)
    if x.grad_fn is None or not _single_axes(x):
        return x  # a leaf's gradient is read by no earlier operation
    # A hook on x itself would stay on the caller's tensor after the call.
    return with_settled_gradient(torch.ops.aten.alias.default(x))


def with_settled_gradient(y: Tensor) -> Tensor:
    """Set torch's own strides on the gradient of a new map; the map may still be changed in place."""
    if torch.compiler.is_compiling():
        return restrided(y)
    if y.requires_grad and _single_axes(y):
        y.register_hook(_of_gradient)
    return y


def _of_gradient(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else restrided(gradient)


def restrided(x: Tensor) -> Tensor:
    """Return a view of a channels-last map with torch's own strides along axes of length 1."""
    if not torch.compiler.is_compiling() and not _is_misread(x):
        return x
    axes = _single_axes(x)
    if not axes:
        return x
    # Removing and re-inserting an axis lets torch set its stride anew, without a copy.
    rows = x.movedim(1, -1).squeeze(axes)
    for axis in axes:
        rows = rows.unsqueeze(axis)
    return rows.movedim(-1, 1)


def _single_axes(x: Tensor) -> tuple[int, ...]:
    """Return the axes of length 1 besides the channels, as numbered with the channels last."""
    if x.dim() not in (4, 5):  # torch has channels-last layouts for these only
        return ()
    lengths = (x.shape[0], *x.shape[2:])
    return tuple(axis for axis, length in enumerate(lengths) if is_static(length) and length == 1)


def _is_misread(x: Tensor) -> bool:
    """Return whether a map is channels-last, not contiguous, and has other strides than torch sets.

    Every call of a block runs this check, so the cheapest tests come first.
    """
    lengths = x.shape
    if 1 not in lengths or x.is_contiguous() or len(lengths) not in (4, 5):
        return False
    strides, settled, expected = x.stride(), True, 1
    for axis in (1, *range(len(lengths) - 1, 1, -1), 0):
        # Another stride at a length above 1 means a map that is not channels-last; at length 1, one that torch
        # misreads.
        if strides[axis] != expected:
            if lengths[axis] != 1:
                return False
            settled = False
        expected *= lengths[axis]
    return not settled
