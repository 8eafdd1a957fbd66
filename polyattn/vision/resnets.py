"""Image networks with attention in the papers' places: torchvision's ResNets and ResNeXt, timm's SE-ResNet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from polyattn.errors import InsertError
from polyattn.optional import need
from polyattn.vision.insert import insert
from polyattn.vision.make import Value
from polyattn.vision.named import attention_value
from polyattn.vision.places import places_of

BOTTLENECKS = frozenset({"resnet50", "resnet101", "resnet152", "resnext50_32x4d", "seresnet50"})

DROPOUT = 0.2
"""Dropout of BAT blocks in networks deeper than ResNet-34, from their authors' code
(BA-Transform/BAT-Image-Classification)."""


def attend_to(
    model: nn.Module,
    name: str,
    attention: Value | Mapping[str, Value] | None,
    *,
    places: str | Iterable[str] | None = None,
    example_input: torch.Tensor | None = None,
    sizes: Mapping[str, int] | None = None,
    dim: int = 2,
    prefix: str = "",
    options: Mapping[str, Any] | None = None,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
) -> nn.Module:
    """Insert attention into a network of the ResNet family, in place.

    Args:
        model: the network.
        name: its name in `polyattn.vision.places.DEPTHS`.
        attention: see `resnet50`.
        places: see `resnet50`.
        example_input, sizes: as in `insert`.
        dim: the number of spatial axes.
        prefix: prefix of `layer1` in the names of the network's submodules.
        options: keyword arguments of the blocks' constructor.
        presets: defaults of these arguments, for blocks given by name.

    Raises:
        InsertError: as in `insert`; or options or places are given without attention.
    """
    options = dict(options or {})
    if attention is None or (isinstance(attention, Mapping) and not attention):
        # An option without attention is most likely a misspelt call, so it is refused instead of ignored.
        idle = [*options, *(["places"] if places is not None else []), *(["sizes"] if sizes else [])]
        if idle:
            raise InsertError(f"without attention there is no use for: {', '.join(idle)}")
        return model
    if isinstance(attention, Mapping):
        if places is not None:
            raise InsertError("attention by place says the places already: leave places= out")
        chosen = dict(attention)
    else:
        wanted = default_layout(attention) if places is None else places
        chosen = dict.fromkeys(places_of(name, wanted), attention)
    presets = {"bat": {"dropout": DROPOUT if name in BOTTLENECKS else 0.0}} if presets is None else presets
    values = {}
    for place, value in chosen.items():
        # Defaults of the papers apply to blocks by name; a callable or module has its own.
        preset = presets.get(value, {}) if isinstance(value, str) else {}
        values[prefix + place] = attention_value(value, dim, **(dict(preset) | options))
    return insert(model, values, example_input=example_input, sizes=sizes)


def default_layout(attention: Value) -> str:
    """Return the default layout of an attention, that of its paper: BAT's for "bat" and "nl", else Poly-NL's."""
    return "bat" if isinstance(attention, str) and attention in ("bat", "nl") else "poly_nl"


def _torchvision(name: str, weights: Any, progress: bool, options: Mapping[str, Any]) -> nn.Module:
    models = need("torchvision.models", "vision")
    return getattr(models, name)(weights=weights, progress=progress, **options)


def _timm(name: str, weights: Any, options: Mapping[str, Any]) -> nn.Module:
    timm = need("timm", "vision")
    # timm selects pretrained weights by a tag in the network's name.
    if isinstance(weights, str) and weights != "DEFAULT":
        return timm.create_model(f"{name}.{weights}", pretrained=True, **options)
    return timm.create_model(name, pretrained=weights is not None, **options)


def build(
    name: str,
    attention: Value | Mapping[str, Value] | None = None,
    *,
    places: str | Iterable[str] | None = None,
    weights: Any = None,
    progress: bool = True,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] = 224,
    sizes: Mapping[str, int] | None = None,
    network: Mapping[str, Any] | None = None,
    **options: Any,
) -> nn.Module:
    """Build the image network of that name; see `resnet50`."""
    given = dict(network or {}) | ({} if num_classes is None else {"num_classes": num_classes})
    model = _timm(name, weights, given) if name == "seresnet50" else _torchvision(name, weights, progress, given)
    example = blank_image(model, image_size)
    return attend_to(model, name, attention, places=places, example_input=example, sizes=sizes, options=options)


def blank_image(model: nn.Module, size: int | tuple[int, int]) -> torch.Tensor:
    """Create one image of zeros with the channels, device and dtype of the model's first convolution."""
    height, width = (size, size) if isinstance(size, int) else size
    # Not always 3 channels: timm's in_chans changes them.
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    return first.weight.new_zeros(1, first.in_channels, height, width)


def resnet50(attention: Value | Mapping[str, Value] | None = None, **words: Any) -> nn.Module:
    """Build torchvision's ResNet-50 with attention.

    Args:
        attention: a block's name ("bat", "nl", "poly_nl", ...: `polyattn.vision.NAMES`), a catalogue name, equation
            text, a specification, a callable from the number of channels to a module, or a mapping from places to any
            of these; default none.
        places: a layout ("bat", "poly_nl", "res3", "res4", "res5", "res345") or names of submodules; default the layout
            of the attention's paper. See `polyattn.vision.places_of`.
        weights, progress: of the backbone, passed on to torchvision. For weights in a file, see `load_backbone`.
        num_classes: number of classes, passed on if given.
        image_size: side, or (height, width), of the images for which the blocks are built, in pixels. It matters only
            for specifications whose parameters have spatial sizes, such as `ba_transform`.
        sizes: values of the specifications' remaining sizes.
        network: further keyword arguments of torchvision's builder, such as `{"norm_layer": ...}`.
        words: all others go to the block's constructor, such as `groups=4`. For "bat", `dropout` defaults to 0.2, as in
            its paper's networks deeper than ResNet-34; in ResNet-18 and -34 to 0.

    Returns:
        The network. Its own state-dict keys are torchvision's, the blocks' are `<place>.attention.*`.

    Raises:
        InsertError: a place, a name or an option is unknown; see `polyattn.vision.insert`.
        MissingPackageError: torchvision is not installed.
    """
    return build("resnet50", attention, **words)


def resnet18(attention: Value | Mapping[str, Value] | None = None, **words: Any) -> nn.Module:
    """Build torchvision's ResNet-18 with attention; all else as in `resnet50`."""
    return build("resnet18", attention, **words)


def resnet34(attention: Value | Mapping[str, Value] | None = None, **words: Any) -> nn.Module:
    """Build torchvision's ResNet-34 with attention; all else as in `resnet50`."""
    return build("resnet34", attention, **words)


def resnet101(attention: Value | Mapping[str, Value] | None = None, **words: Any) -> nn.Module:
    """Build torchvision's ResNet-101 with attention; all else as in `resnet50`."""
    return build("resnet101", attention, **words)


def resnet152(attention: Value | Mapping[str, Value] | None = None, **words: Any) -> nn.Module:
    """Build torchvision's ResNet-152 with attention; all else as in `resnet50`."""
    return build("resnet152", attention, **words)


def resnext50_32x4d(attention: Value | Mapping[str, Value] | None = None, **words: Any) -> nn.Module:
    """Build torchvision's ResNeXt-50 of 32 groups of 4 channels with attention; all else as in `resnet50`."""
    return build("resnext50_32x4d", attention, **words)


def seresnet50(attention: Value | Mapping[str, Value] | None = None, **words: Any) -> nn.Module:
    """Build timm's SE-ResNet-50 with attention; all else as in `resnet50`.

    `weights` is "DEFAULT" or one of timm's tags of pretrained weights, such as "ra2_in1k".
    """
    return build("seresnet50", attention, **words)
