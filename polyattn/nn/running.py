"""What the blocks share: plans run on tensors, inputs checked by name, layers by their number of axes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from polyattn.algebra import Spec
from polyattn.errors import SizeError
from polyattn.lowering import FUNCTIONS
from polyattn.nn.planned import NOMINAL_BATCH, is_static, planned


def run(spec: Spec, sizes: Mapping[str, int], *tensors: Tensor) -> Tensor:
    """A specification's output on its plan for these sizes; the planned backward pass follows where one can.

    Args:
        spec: a specification with any number of inputs.
        sizes: numbers that fix all its sizes.
        tensors: the inputs, of shape (B, *axes), then the parameters, in the specification's order.
    """
    batch = tensors[0].shape[0]
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    name = planned(
        spec,
        tuple(sizes.items()),
        (),
        (),
        batch if is_static(batch) else NOMINAL_BATCH,
        "training" if wanted else "forward",
        tensors[0].device.type,
    )
    return getattr(FUNCTIONS, name)(*tensors)


AXES = {1: ("L",), 2: ("H", "W"), 3: ("T", "H", "W")}
"""The names of the axes of positions, by their number."""


def check_map(x: Tensor, channels: int, dim: int, block: str) -> None:
    """Refuse an input that is no map of `channels` channels and `dim` axes of positions.

    Raises:
        SizeError: named by what is wrong with it.
    """
    wanted = f"(B, {channels}, {', '.join(AXES[dim])})"
    if x.dim() != dim + 2:
        raise SizeError(f"{block} takes an input of shape {wanted}, not {tuple(x.shape)}")
    if x.shape[1] != channels:
        raise SizeError(f"{block} has {channels} channels, but the input of shape {tuple(x.shape)} has {x.shape[1]}")
    if not x.is_floating_point():
        raise SizeError(f"{block} takes an input of a floating dtype, not {x.dtype}")
    for axis, length in zip(AXES[dim], x.shape[2:], strict=True):
        if length == 0:
            raise SizeError(f"{block} takes an input with positions, but {axis} = 0 in {tuple(x.shape)}")


def positive(value: int, word: str, block: str, least: int = 1) -> int:
    """A constructor's whole number, refused by its word where it is too small."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SizeError(f"{block}: {word} must be a whole number of at least {least}, not {value!r}")
    return value


def choose(value: str, word: str, known: tuple[str, ...], block: str) -> str:
    """A constructor's choice, refused with the list of those that there are."""
    if value not in known:
        raise SizeError(f"{block}: unknown {word} {value!r}; there are {', '.join(map(repr, known))}")
    return value


def divided(value: int, by: int, words: tuple[str, str], block: str) -> int:
    """`value / by`, refused where it is no whole number."""
    if value % by:
        raise SizeError(f"{block}: {words[1]} = {by} does not divide {words[0]} = {value}")
    return value // by


def inner_width(channels: int, reduction: int, inner_channels: int | None, block: str) -> int:
    """The inner channels: as given, or channels / reduction."""
    positive(channels, "channels", block)
    if inner_channels is not None:
        return positive(inner_channels, "inner_channels", block)
    return divided(channels, positive(reduction, "reduction", block), ("channels", "reduction"), block)


def axes_of(dim: int, block: str, known: tuple[int, ...] = (1, 2, 3)) -> int:
    """The number of axes of positions, refused where the block has no such form."""
    if dim not in known:
        raise SizeError(f"{block}: dim must be one of {', '.join(map(str, known))}, not {dim!r}")
    return dim


def convolution(dim: int) -> type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]:
    """The convolution for so many axes."""
    return {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dim]


def batch_norm(dim: int) -> type[nn.BatchNorm1d] | type[nn.BatchNorm2d] | type[nn.BatchNorm3d]:
    """The batch norm for so many axes."""
    return {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dim]


def is_channels_last(x: Tensor) -> bool:
    """Whether a map lies in memory with its channels last, and not also with them first."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    return last is not None and x.is_contiguous(memory_format=last) and not x.is_contiguous()


def laid_out_as(y: Tensor, x: Tensor) -> Tensor:
    """A map in the memory layout of another: channels last or first."""
    if not is_channels_last(x):
        return y.contiguous()
    return y.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)


def matrix(layer: nn.Module) -> Tensor:
    """The weight of a 1x1 convolution as a matrix, inputs x outputs."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.flatten(1).t()
