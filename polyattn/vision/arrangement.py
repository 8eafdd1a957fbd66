"""Where the channels, positions and prefix tokens of a submodule's output are, and the attention in that layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt, prod
from typing import Any

import torch
from torch import Tensor, nn

from polyattn.errors import InsertError, SizeError

PREFIX = 16
"""Most tokens in front of a map's own (classes, distillation, registers) that are believed without being given."""


@dataclass(frozen=True)
class Arrangement:
    """Layout of an output (B, ...).

    Attributes:
        channels: axis of the channels, 1 or the last one.
        prefix: tokens in front that belong to no position; they pass the attention by.
        grid: height and width of the tokens at the traced size; None for tokens in a row.
    """

    channels: int = 1
    prefix: int = 0
    grid: tuple[int, int] | None = None

    def forth(self, x: Tensor) -> Tensor:
        """Return the output as (B, C, *spatial), without prefix tokens."""
        x = x[:, self.prefix :] if self.prefix else x
        x = x if self.channels == 1 else x.movedim(-1, 1)
        return x if self.grid is None else x.unflatten(2, self._sides(x.shape[2]))

    def back(self, y: Tensor, x: Tensor) -> Tensor:
        """Return the attention's result in the layout of the output x."""
        y = y if self.grid is None else y.flatten(2)
        y = y if self.channels == 1 else y.movedim(1, -1)
        return torch.cat([x[:, : self.prefix], y], 1) if self.prefix else y

    def _sides(self, tokens: int) -> tuple[int, int]:
        """Return height and width of the tokens: those traced, or of the same aspect."""
        assert self.grid is not None
        height, width = self.grid
        if height * width == tokens:
            return self.grid
        rows = isqrt(tokens * height // width)
        if not rows or tokens % rows or rows * width != tokens // rows * height:
            raise SizeError(
                f"{tokens} tokens are not a grid of the aspect {height} : {width}, as the attention was made"
            )
        return rows, tokens // rows


class Rearranged(nn.Module):
    """A module for (B, C, *spatial) on outputs of another arrangement."""

    def __init__(self, layer: nn.Module, arrangement: Arrangement):
        super().__init__()
        self.layer, self.arrangement = layer, arrangement

    @property
    def channels(self) -> int | None:
        """Return the channels of the layer, if it tells them."""
        return getattr(self.layer, "channels", None)

    def forward(self, x: Tensor) -> Tensor:
        return self.arrangement.back(self.layer(self.arrangement.forth(x)), x)

    def extra_repr(self) -> str:
        return f"channels at axis {self.arrangement.channels}, prefix_tokens={self.arrangement.prefix}"


def axis_of(layout: str, name: str, shape: Sequence[int]) -> int:
    """Return the axis of the channels in a layout such as "BCHW", "BHWC" or "BNC".

    Raises:
        InsertError: the layout does not describe the shape.
    """
    axis = layout.find("C")
    if layout[:1] != "B" or len({*layout}) != len(layout) or axis not in (1, len(layout) - 1) or len(layout) < 3:
        raise InsertError(f"`layout` must be such as 'BCHW', 'BHWC' or 'BNC', not {layout!r}")
    if len(layout) != len(shape):
        raise InsertError(f"`layout` is {layout!r}, but the output of {name!r} has the shape {tuple(shape)}")
    return axis


def told_by_widths(target: nn.Module, model: nn.Module, shape: tuple[int, ...]) -> int | None:
    """Find the axis of the channels as the one with the width of a norm; None if the widths do not tell.

    A norm knows the channels that it normalises; a linear layer may mix tokens, as in MLP-Mixer.
    """
    for widths in (_norms(target), _norms(model), _convolutions(target)):
        matching = [axis for axis in range(1, len(shape)) if shape[axis] in widths]
        if len(matching) == 1 and matching[0] in (1, len(shape) - 1):
            return matching[0]
    return None


def told_by_sizes(name: str, model: nn.Module, shape: tuple[int, ...], others: Sequence[Any]) -> int:
    """Find the axis of the channels as the one that does not change with the size of the image.

    Args:
        others: outputs of the same submodule for an image of another size; empty if the model does not run on it.

    Raises:
        InsertError: nothing tells the channels from the positions.
    """
    if others and isinstance(others[0], Tensor) and others[0].dim() == len(shape):
        still = [axis for axis in range(1, len(shape)) if shape[axis] == others[0].shape[axis]]
        if len(still) == 1 and still[0] in (1, len(shape) - 1):
            return still[0]
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    # A network of convolutions, with at most a classifier, has no other layout.
    if len(linear) <= 1 and not any(isinstance(m, nn.LayerNorm) for m in model.modules()):
        return 1
    raise InsertError(
        f"the output of {name!r} has the shape {shape}, and nothing tells which axis is the channels: "
        'give layout="BCHW", "BHWC" or "BNC" (and prefix_tokens=)'
    )


def tokens_of(
    name: str, model: nn.Module, shape: tuple[int, ...], patches: tuple[int, int] | None, prefix_tokens: int | None
) -> Arrangement:
    """Find the prefix tokens and the grid of an output (B, N, C).

    Args:
        prefix_tokens: their number, if it is given.
        patches: height and width of the patch embedding's output, if the model has one.

    Raises:
        InsertError: the tokens are not a grid behind a known number of others.
    """
    tokens = shape[1]
    known = getattr(model, "num_prefix_tokens", None) if prefix_tokens is None else prefix_tokens
    if known is not None and (isinstance(known, bool) or not isinstance(known, int) or not 0 <= known < tokens):
        raise InsertError(f"`prefix_tokens` must be from 0 to {tokens - 1} for {name!r}, not {known!r}")
    extra = PREFIX + 1 if patches is None else tokens - prod(patches)
    if patches is not None and 0 <= extra <= PREFIX and known in (None, extra):
        return Arrangement(2, extra, patches)
    prefix = known or 0
    side = isqrt(tokens - prefix)
    if side * side == tokens - prefix:
        return Arrangement(2, prefix, (side, side))
    if prefix_tokens is not None:
        return Arrangement(2, prefix)
    raise InsertError(
        f"the output of {name!r} has {tokens} tokens, and nothing tells which of them are positions: "
        'give layout="BNC" and prefix_tokens='
    )


def _norms(module: nn.Module) -> set[int]:
    found: set[int] = set()
    for m in module.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm | nn.modules.instancenorm._InstanceNorm):
            found.add(m.num_features)
        elif isinstance(m, nn.GroupNorm):
            found.add(m.num_channels)
        elif isinstance(m, nn.LayerNorm | nn.RMSNorm) and m.normalized_shape:
            found.add(m.normalized_shape[-1])
    return found


def _convolutions(module: nn.Module) -> set[int]:
    return {m.out_channels for m in module.modules() if isinstance(m, nn.modules.conv._ConvNd)}
