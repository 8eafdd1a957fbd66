"""Image networks with attention where the papers put it: torchvision's ResNets and ResNeXt, timm's SE-ResNet."""

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
"""Of BAT blocks in networks deeper than ResNet-34: their authors' training (BA-Transform/BAT-Image-Classification)."""


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
    """Put attention into a network of the ResNet family, in place.

    Args:
        model: the network.
        name: its name in `polyattn.vision.places.DEPTHS`.
        attention: see `resnet50`.
        places: see `resnet50`.
        example_input, sizes: as in `insert`.
        dim: the number of spatial axes.
        prefix: what comes before `layer1` in the names of the network's submodules.
        options: words for the blocks' constructor.
        presets: words for the constructors of blocks given by name, where the options do not have them.

    Raises:
        InsertError: as in `insert`; or options or places that nothing is done with.
    """
    options = dict(options or {})
    if attention is None or (isinstance(attention, Mapping) and not attention):
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
        preset = presets.get(value, {}) if isinstance(value, str) else {}
        values[prefix + place] = attention_value(value, dim, **(dict(preset) | options))
    return insert(model, values, example_input=example_input, sizes=sizes)


def default_layout(attention: Value) -> str:
    """The layout of the paper that an attention has its networks in: BAT's for "bat" and "nl", else Poly-NL's."""
    return "bat" if isinstance(attention, str) and attention in ("bat", "nl") else "poly_nl"


def _torchvision(name: str, weights: Any, progress: bool, options: Mapping[str, Any]) -> nn.Module:
    models = need("torchvision.models", "vision")
    return getattr(models, name)(weights=weights, progress=progress, **options)


def _timm(name: str, weights: Any, options: Mapping[str, Any]) -> nn.Module:
    timm = need("timm", "vision")
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
    """The image network of that name; see `resnet50`."""
    given = dict(network or {}) | ({} if num_classes is None else {"num_classes": num_classes})
    model = _timm(name, weights, given) if name == "seresnet50" else _torchvision(name, weights, progress, given)
    example = blank_image(model, image_size)
    return attend_to(model, name, attention, places=places, example_input=example, sizes=sizes, options=options)


def blank_image(model: nn.Module, size: int | tuple[int, int]) -> torch.Tensor:
    """One image of zeros, of the channels, the device and the dtype that the model's first convolution takes."""
    height, width = (size, size) if isinstance(size, int) else size
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    return first.weight.new_zeros(1, first.in_channels, height, width)


def resnet50(attention: Value | Mapping[str, Value] | None = None, **words: Any) -> nn.Module:
    """ResNet-50 with attention, built by torchvision.

    Args:
        attention: a block's name ("bat", "nl", "poly_nl", ...: `polyattn.vision.NAMES`), a catalogue name, equation
            text, a specification, a callable that makes a module from the number of channels, or a mapping from
            places to any of these; default none.
        places: a layout ("bat", "poly_nl", "res3", "res4", "res5", "res345") or names of submodules; default the layout
            of the attention's paper. See `polyattn.vision.places_of`.
        weights, progress: of the backbone, passed on to torchvision. For weights in a file, see `load_backbone`.
        num_classes: passed on where given.
        image_size: the side, or (height, width), of the images that the blocks are made for. It matters only to
            specifications whose parameters have spatial sizes, such as `ba_transform`.
        sizes: numbers for the specifications' sizes that nothing else fixes.
        network: further words for torchvision's builder, such as `{"norm_layer": ...}`.
        words: all others go to the block's constructor, such as `groups=4`. Where attention is "bat", `dropout` is 0.2
            unless given, as in its paper's networks deeper than ResNet-34; in ResNet-18 and -34 it is 0.

    Returns:
        The network. Its own state-dict keys are torchvision's, the blocks' are `<place>.attention.*`.

    Raises:
        InsertError: a place, a name or an option that does not exist; see `polyattn.vision.insert`.
        MissingPackageError: torchvision is not installed.
    """
    return build("resnet50", attention, **words)


def resnet18(attention: Value | Mapping[str, Value] | None = None, **words: Any) -> nn.Module:
    """ResNet-18 with attention, built by torchvision; everything else as in `resnet50`."""
    return build("resnet18", attention, **words)


def resnet34(attention: Value | Mapping[str, Value] | None = None, **words: Any) -> nn.Module:
    """ResNet-34 with attention, built by torchvision; everything else as in `resnet50`."""
    return build("resnet34", attention, **words)


def resnet101(attention: Value | Mapping[str, Value] | None = None, **words: Any) -> nn.Module:
    """ResNet-101 with attention, built by torchvision; everything else as in `resnet50`."""
    return build("resnet101", attention, **words)


def resnet152(attention: Value | Mapping[str, Value] | None = None, **words: Any) -> nn.Module:
    """ResNet-152 with attention, built by torchvision; everything else as in `resnet50`."""
    return build("resnet152", attention, **words)


def resnext50_32x4d(attention: Value | Mapping[str, Value] | None = None, **words: Any) -> nn.Module:
    """ResNeXt-50 of 32 groups of 4 channels with attention, built by torchvision; else as in `resnet50`."""
    return build("resnext50_32x4d", attention, **words)


def seresnet50(attention: Value | Mapping[str, Value] | None = None, **words: Any) -> nn.Module:
    """SE-ResNet-50 with attention, built by timm; everything else as in `resnet50`.

    `weights` is "DEFAULT" or one of timm's tags of pretrained weights, such as "ra2_in1k".
    """
    return build("seresnet50", attention, **words)
