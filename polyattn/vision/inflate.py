"""Inflation: a video network from an image network, module by module, with the image network's weights.

Carreira and Zisserman's I3D (CVPR 2017), in the form of Wang et al.'s non-local networks (CVPR 2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

from torch import Tensor, nn

from polyattn.errors import InsertError
from polyattn.vision.insert import inserted

Model = TypeVar("Model", bound=nn.Module)
Inflation = Literal["mean", "centre"]


def inflate(model: Model, temporal: Mapping[str, int] | None = None, inflation: Inflation = "mean") -> Model:
    """Turn a network of images (B, C, H, W) into one of videos (B, C, T, H, W), in place.

    2D convolutions, batch norms and poolings become 3D ones of length 1 along time, so frames stay independent;
    convolutions named in `temporal` get a longer kernel, of stride 1, padded with half its length.

    Args:
        model: the network; each of its leaf modules must have a 3D form or work on any number of axes.
        temporal: odd kernel lengths along time, by name of the convolution.
        inflation: how a 2D kernel fills the length n of a 3D one. "mean" repeats it divided by n, "centre" places it in
            the middle between zeros. Both reproduce the 2D network's features on a video of identical frames, "mean"
            only out of reach of the padding along time.

    Returns:
        The network; its state-dict keys are unchanged, and weights of convolutions have one more axis.

    Raises:
        InsertError: a name is not a 2D convolution, a length is even, a module cannot be inflated, or the network has
            inserted attention.

    >>> inflate(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)), {"0": 3})[0]
    Conv3d(3, 8, kernel_size=(3, 3, 3), stride=(1, 1, 1), padding=(1, 1, 1))
    """
    if inserted(model):
        raise InsertError("the network has inserted attention: inflate it first, then insert blocks made with dim=3")
    lengths = dict(temporal or {})
    for name, length in lengths.items():
        module = dict(model.named_modules()).get(name)
        if not isinstance(module, nn.Conv2d):
            raise InsertError(f"cannot lengthen {name!r}: it is {_kind(module)}, not a Conv2d of the network")
        if length < 1 or length % 2 == 0:
            raise InsertError(f"the length along time of {name!r} has to be odd, not {length}")
    made: dict[nn.Module, nn.Module] = {}
    # Every name of a shared module is visited, and all get one 3D module, so that sharing survives.
    for path, parent in list(model.named_modules(remove_duplicate=False)):
        for child, module in list(parent.named_children()):
            name = f"{path}.{child}" if path else child
            if module not in made:
                made[module] = _inflated(module, lengths.get(name, 1), inflation)
            if made[module] is not module:
                setattr(parent, child, made[module])
    return model


def inflate_weight(weight: Tensor, length: int, inflation: Inflation = "mean") -> Tensor:
    """Expand a 2D kernel (out, in, H, W) to a 3D one (out, in, length, H, W); see `inflate`.

    >>> import torch
    >>> inflate_weight(torch.ones(1, 1, 1, 1), 3, "centre").flatten()
    tensor([0., 1., 0.])
    """
    if inflation == "mean":
        # Division keeps the sum over time, and thus the response to identical frames.
        return weight.unsqueeze(2).repeat(1, 1, length, 1, 1) / length
    if inflation == "centre":
        inflated = weight.new_zeros(*weight.shape[:2], length, *weight.shape[2:])
        inflated[:, :, length // 2] = weight
        return inflated
    raise InsertError(f'inflation is "mean" or "centre", not {inflation!r}')


def _inflated(module: nn.Module, length: int, inflation: Inflation) -> nn.Module:
    """Return the 3D module of a 2D one; other modules are returned unchanged."""
    match module:
        case nn.Conv2d():
            return _convolution(module, length, inflation)
        case nn.BatchNorm2d():
            return _norm(module)
        case nn.MaxPool2d():
            return nn.MaxPool3d(
                (1, *_pair(module.kernel_size)),
                (1, *_pair(module.stride)),
                (0, *_pair(module.padding)),
                (1, *_pair(module.dilation)),
                ceil_mode=module.ceil_mode,
            )
        case nn.AvgPool2d():
            return nn.AvgPool3d(
                (1, *_pair(module.kernel_size)), (1, *_pair(module.stride)), (0, *_pair(module.padding)),
                module.ceil_mode, module.count_include_pad, module.divisor_override,
            )  # fmt: skip
        case nn.AdaptiveAvgPool2d() if module.output_size in (1, (1, 1)):
            return nn.AdaptiveAvgPool3d(1)  # over time as well: the last frame features are averaged
        case nn.Dropout2d():
            return nn.Dropout3d(module.p, module.inplace)
    # An unknown 2D leaf would fail or mix axes on videos: refuse it by its name.
    if not list(module.children()) and type(module).__name__.endswith("2d"):
        raise InsertError(f"there is no inflation of a {type(module).__name__}")
    return module


def _convolution(module: nn.Conv2d, length: int, inflation: Inflation) -> nn.Conv3d:
    if isinstance(module.padding, str):
        raise InsertError(f"a convolution with padding={module.padding!r} cannot be inflated; give it as numbers")
    made = nn.Conv3d(
        module.in_channels,
        module.out_channels,
        (length, *_pair(module.kernel_size)),
        (1, *_pair(module.stride)),
        (length // 2, *_pair(module.padding)),
        (1, *_pair(module.dilation)),
        module.groups,
        module.bias is not None,
        module.padding_mode,
        device="meta",  # the weights are assigned below
    )
    made.weight = nn.Parameter(inflate_weight(module.weight.detach(), length, inflation), module.weight.requires_grad)
    # The same parameter objects where shapes allow it, so that optimisers and shared weights keep them.
    made.bias = module.bias
    return made.train(module.training)


def _norm(module: nn.BatchNorm2d) -> nn.BatchNorm3d:
    made = nn.BatchNorm3d(
        module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats, device="meta"
    )
    # A 3D batch norm has the 2D norm's parameters and buffers: they are shared, not copied.
    made._parameters.update(module._parameters)
    made._buffers.update(module._buffers)
    return made.train(module.training)


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _kind(module: nn.Module | None) -> str:
    return "no submodule" if module is None else f"a {type(module).__name__}"
