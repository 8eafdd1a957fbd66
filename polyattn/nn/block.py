"""Parts shared by the papers' blocks: checks, 1x1 convolutions, and the base class with its specification."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import Tensor, nn

from polyattn.algebra import Spec
from polyattn.errors import SizeError
from polyattn.nn.plain import computes_as_torch
from polyattn.nn.tracing import TracedWhole, recorded
from polyattn.runtime.communicator import WHOLE, Exchange
from polyattn.runtime.layouts import settled, with_settled_gradient

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
AXES = {1: ("L",), 2: ("H", "W"), 3: ("T", "H", "W")}


class Block(TracedWhole):
    """A block on (B, channels, *spatial) with `dim` spatial axes, whose polynomial part is `spec`.

    A block with a residual returns its input's dtype, under autocast too.

    Raises:
        SizeError: channels, dim or another number is wrong; at call time, an input of another shape or dtype.
    """

    spec: Spec
    positions: Exchange = WHOLE
    """The exchange that reduces over positions; see `polyattn.runtime.communicator`."""

    def __init__(self, channels: int, dim: int, dims: tuple[int, ...] = (1, 2, 3)):
        super().__init__()
        self.channels, self.dim = whole("channels", channels), axes_of(type(self).__name__, dim, dims)

    def check(self, x: Tensor) -> None:
        check_input(x, type(self).__name__, self.channels, self.dim)


def axes_of(name: str, dim: int, dims: tuple[int, ...] = (1, 2, 3)) -> int:
    """Return `dim`, the number of spatial axes, if the block has such a form.

    Raises:
        SizeError: `dim` is not in `dims`; names the block.
    """
    # bool is a subclass of int: True would pass as dim 1.
    if isinstance(dim, bool) or dim not in dims:
        raise SizeError(f"{name}: dim must be {' or '.join(map(str, dims))}, not {dim!r}")
    return dim


def check_input(x: Tensor, name: str, channels: int, dim: int) -> None:
    """Check that `x` is a floating-point (B, channels, *spatial) tensor with `dim` non-empty spatial axes.

    Raises:
        SizeError: the number of axes, the channels, the dtype or a length is wrong; names the block.
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
    # A mean over zero positions would be nan and surface far from its cause.
    if not all(x.shape[2:]):
        raise SizeError(f"{name}: the input has no positions: its shape is {tuple(x.shape)}")


def whole(name: str, value: object) -> int:
    """Return the value if it is a positive whole number.

    Raises:
        SizeError: the value is zero, negative or not an `int`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SizeError(f"{name} must be a positive whole number, not {value!r}")
    return value


def part_of(what: str, number: int, name: str, parts: int) -> int:
    """Return number / parts, such as `channels / reduction`.

    Raises:
        SizeError: `parts` does not divide `number`.
    """
    if number % whole(name, parts):
        raise SizeError(f"{name} = {parts} does not divide the {number} {what}")
    return number // parts


def inner_width(channels: int, reduction: int, inner_channels: int | None = None) -> int:
    """Return the inner channels: channels / reduction, or `inner_channels` if given.

    Raises:
        SizeError: the reduction does not divide the channels, or `inner_channels` is not a positive whole number.
    """
    if inner_channels is not None:
        return whole("inner_channels", inner_channels)
    return part_of("channels", channels, "reduction", reduction)


def one_of(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Return the value if it is one of the choices.

    Raises:
        SizeError: the value is not a choice; lists the choices.
    """
    if value not in choices:
        raise SizeError(f"{name} must be {' or '.join(map(repr, choices))}, not {value!r}")
    return value


def settling(forward: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """Wrap a module's method so that it gets, and hands back as gradient, a map with settled strides.

    A `forward` is recorded as one call by `torch.fx`. Modules before it may be batch norms, which misread other strides
    of the gradient; see `polyattn.runtime.layouts`.
    """
    if forward.__name__ != "forward":

        @wraps(forward)
        def of_settled(self: Any, x: Tensor) -> Tensor:
            return forward(self, settled(x))

        return of_settled

    @wraps(forward)
    def traced_whole(self: Any, x: Tensor) -> Tensor:
        call = None if isinstance(x, Tensor) else recorded(self, x)
        return forward(self, settled(x)) if call is None else call  # pyright: ignore[reportReturnType]

    return traced_whole


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int = 1) -> Tensor:
    """Compute a 1x1 convolution with a weight (outer, inner / groups, 1, ...).

    In 3D without a bias it runs in 2D, on views: onnxscript (0.7.2, its issue 2931) gives `conv3d` without a bias
    one of two axes, which onnxruntime refuses.
    """
    if x.dim() == 5 and bias is None:
        return nn.functional.conv2d(x.flatten(3), weight.flatten(3), groups=groups).unflatten(3, x.shape[3:])
    function = (nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)[x.dim() - 3]
    return function(x, weight, bias, groups=groups)


@computes_as_torch
class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with correct gradients for all strides; see `polyattn.runtime.layouts`."""

    def forward(self, input: Tensor) -> Tensor:
        return with_settled_gradient(super().forward(settled(input)))


@computes_as_torch
class BatchNorm3d(nn.BatchNorm3d):
    """`nn.BatchNorm3d` with correct gradients for all strides; see `polyattn.runtime.layouts`."""

    def forward(self, input: Tensor) -> Tensor:
        return with_settled_gradient(super().forward(settled(input)))


# torch has channels-last layouts for 4D and 5D maps only, so the 1D norm needs no wrapper.
BATCH_NORMS = {1: nn.BatchNorm1d, 2: BatchNorm2d, 3: BatchNorm3d}


@computes_as_torch
class PointConv3d(nn.Conv3d):
    """`nn.Conv3d` with a 1x1x1 kernel; see `convolve`."""

    def forward(self, input: Tensor) -> Tensor:
        return convolve(input, self.weight, self.bias, self.groups)


POINTWISE = CONVOLUTIONS | {3: PointConv3d}


def pointwise(dim: int, inner: int, outer: int, *, bias: bool = False, groups: int = 1) -> Convolution:
    """Build a 1x1 convolution from `inner` to `outer` channels."""
    return POINTWISE[dim](inner, outer, 1, bias=bias, groups=groups)


def matrix(convolution: nn.Module) -> Tensor:
    """Return the (inner, outer) matrix of a 1x1 convolution, a view of its weight."""
    weight = convolution.weight
    assert isinstance(weight, Tensor)
    return weight.flatten(1).transpose(0, 1)
