"""What the papers' blocks share: their checks, their 1x1 convolutions, and the specification that they run."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import Tensor, nn

from polyattn.algebra import Spec
from polyattn.errors import SizeError
from polyattn.runtime.communicator import WHOLE, Exchange
from polyattn.runtime.layouts import settled, with_settled_gradient

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
AXES = {1: ("L",), 2: ("H", "W"), 3: ("T", "H", "W")}


class Block(nn.Module):
    """A block on (B, channels, *spatial) with `dim` spatial axes, whose polynomial part is `spec`.

    With a residual its output has the dtype of its input, under autocast too.

    Raises:
        SizeError: channels, dim or another number is wrong; at call time, an input of another shape or dtype.
    """

    spec: Spec
    positions: Exchange = WHOLE
    """How reductions over positions are made; see `polyattn.runtime.communicator`."""

    def __init__(self, channels: int, dim: int, dims: tuple[int, ...] = (1, 2, 3)):
        super().__init__()
        self.channels, self.dim = whole("channels", channels), axes_of(type(self).__name__, dim, dims)

    def check(self, x: Tensor) -> None:
        check_input(x, type(self).__name__, self.channels, self.dim)


def axes_of(name: str, dim: int, dims: tuple[int, ...] = (1, 2, 3)) -> int:
    """The number of spatial axes.

    Raises:
        SizeError: the block of this name has no such form.
    """
    if isinstance(dim, bool) or dim not in dims:
        raise SizeError(f"{name}: dim must be {' or '.join(map(str, dims))}, not {dim!r}")
    return dim


def check_input(x: Tensor, name: str, channels: int, dim: int) -> None:
    """Refuse what is no floating (B, channels, *spatial) with `dim` spatial axes of length one or more.

    Raises:
        SizeError: what is wrong, with the name of the block.
    """
    if x.dim() != dim + 2:
        wanted = ", ".join(("B", "C", *AXES[dim]))
        raise SizeError(f"{name}: the input must have the shape ({wanted}), not {tuple(x.shape)}")
    if x.shape[1] != channels:
        raise SizeError(
            f"{name}: the block has {channels} channels, but the input of shape {tuple(x.shape)} has {x.shape[1]}"
        )
    if not x.is_floating_point():
        raise SizeError(f"{name}: the input must be of a floating dtype, not {x.dtype}")
    if not all(x.shape[2:]):
        raise SizeError(f"{name}: the input has no positions: its shape is {tuple(x.shape)}")


def whole(name: str, value: object) -> int:
    """The value, if it is a positive whole number.

    Raises:
        SizeError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SizeError(f"{name} must be a positive whole number, not {value!r}")
    return value


def part_of(what: str, number: int, name: str, parts: int) -> int:
    """number / parts, as `channels / reduction`.

    Raises:
        SizeError: the parts do not divide it.
    """
    if number % whole(name, parts):
        raise SizeError(f"{name} = {parts} does not divide the {number} {what}")
    return number // parts


def inner_width(channels: int, reduction: int, inner_channels: int | None = None) -> int:
    """The inner channels: channels / reduction, or as they are given.

    Raises:
        SizeError: the reduction does not divide the channels, or the inner channels are no positive whole number.
    """
    if inner_channels is not None:
        return whole("inner_channels", inner_channels)
    return part_of("channels", channels, "reduction", reduction)


def one_of(name: str, value: str, choices: tuple[str, ...]) -> str:
    """The value, if it is one of the choices.

    Raises:
        SizeError: it is not.
    """
    if value not in choices:
        raise SizeError(f"{name} must be {' or '.join(map(repr, choices))}, not {value!r}")
    return value


def settling(forward: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """A module's method whose map is settled first, so that what is before the module gets such a gradient."""

    @wraps(forward)
    def of_settled(self: Any, x: Tensor) -> Tensor:
        return forward(self, settled(x))

    return of_settled


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int = 1) -> Tensor:
    """A convolution of one position, whose weight is (outer, inner / groups, 1, ...).

    In 3D without a bias it runs in 2D, on views: onnxscript (0.7.2, its issue 2931) gives `conv3d` without a bias
    one of two axes, which onnxruntime refuses.
    """
    if x.dim() == 5 and bias is None:
        return nn.functional.conv2d(x.flatten(3), weight.flatten(3), groups=groups).unflatten(3, x.shape[3:])
    function = (nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)[x.dim() - 3]
    return function(x, weight, bias, groups=groups)


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with right gradients whatever the strides; see `polyattn.runtime.layouts`."""

    def forward(self, input: Tensor) -> Tensor:
        return with_settled_gradient(super().forward(settled(input)))


class BatchNorm3d(nn.BatchNorm3d):
    """`nn.BatchNorm3d` with right gradients whatever the strides; see `polyattn.runtime.layouts`."""

    def forward(self, input: Tensor) -> Tensor:
        return with_settled_gradient(super().forward(settled(input)))


BATCH_NORMS = {1: nn.BatchNorm1d, 2: BatchNorm2d, 3: BatchNorm3d}


class PointConv3d(nn.Conv3d):
    """`nn.Conv3d` of one position; see `convolve`."""

    def forward(self, input: Tensor) -> Tensor:
        return convolve(input, self.weight, self.bias, self.groups)


POINTWISE = CONVOLUTIONS | {3: PointConv3d}


def pointwise(dim: int, inner: int, outer: int, *, bias: bool = False, groups: int = 1) -> Convolution:
    """A convolution of one position: `inner` to `outer` channels."""
    return POINTWISE[dim](inner, outer, 1, bias=bias, groups=groups)


def matrix(convolution: nn.Module) -> Tensor:
    """The (inner, outer) matrix of such a convolution, a view of its weight."""
    weight = convolution.weight
    assert isinstance(weight, Tensor)
    return weight.flatten(1).transpose(0, 1)
