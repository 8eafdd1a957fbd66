"""Registration of the networks in timm and torchvision on import, by names such as `polyattn_resnet50_bat`.

`timm.create_model("polyattn_resnet50_bat", num_classes=10, groups=8)` builds timm's own network, with timm's keyword
arguments (`in_chans`, `features_only`, `drop_rate`, ...), and the blocks of that name in the places of their paper;
`places=`, `image_size=`, `sizes=` and keyword arguments of the block's constructor are accepted too.
`torchvision.models.get_model` builds the networks of `polyattn.vision`'s builders. Names are
`polyattn_<network>_<attention>`, with the networks of `polyattn.vision.places.DEPTHS` and the attentions of
`polyattn.vision.NAMES`; torchvision's list has the video networks and the detectors too. `pretrained=True` (timm) and
`weights=` (torchvision) load the backbone's weights.

timm and torchvision keep one table per process: this is the only module of polyattn whose import has side effects.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from polyattn.optional import need
from polyattn.vision import detection, resnets, video
from polyattn.vision.named import NAMES, block_words
from polyattn.vision.places import DEPTHS
from polyattn.vision.resnets import attend_to, blank_image

__all__: list[str] = []  # timm's decorator appends every registered name

TORCHVISION = (
    *(getattr(resnets, name) for name in DEPTHS),
    video.c2d_resnet50,
    video.c2d_resnet101,
    video.i3d_resnet50,
    video.i3d_resnet101,
    detection.mask_rcnn_resnet50_fpn,
    detection.face_retinanet_resnet50_fpn,
)
"""The builders registered in torchvision, each with every attention."""

OWN = frozenset({"places", "image_size", "sizes"})
"""Keyword arguments of this library, beside the block's own, among those passed on by timm."""


def _timm_model(name: str, attention: str, pretrained: bool = False, **words: Any) -> nn.Module:
    """Build timm's network of that name with the blocks of that name."""
    timm = need("timm", "vision")
    ours = {word: words.pop(word) for word in OWN if word in words}
    # Popped before timm sees them: timm's networks reject unknown arguments.
    options = {word: words.pop(word) for word in list(words) if word in block_words(attention)}
    size = ours.pop("image_size", 224)
    model = timm.create_model(name, pretrained=pretrained, **words)
    return attend_to(model, name, attention, example_input=blank_image(model, size), options=options, **ours)


def _named(make: Callable[..., nn.Module], name: str, documentation: str) -> Callable[..., nn.Module]:
    def entry(*arguments: Any, **words: Any) -> nn.Module:
        return make(*arguments, **words)

    # timm registers a network under its function's name.
    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = documentation
    return entry


def _register() -> None:
    timm_models = need("timm.models", "vision")
    torchvision_models = need("torchvision.models._api", "vision")  # register_model is public nowhere else
    for attention in NAMES:
        for name in DEPTHS:
            full = f"polyattn_{name}_{attention}"
            entry = _named(partial(_timm_model, name, attention), full, f"timm's {name} with {attention}.")
            # Reloading the module must not register a name twice.
            if not timm_models.is_model(full):
                globals()[full] = timm_models.register_model(entry)
        for builder in TORCHVISION:
            full = f"polyattn_{builder.__name__}_{attention}"
            entry = _named(partial(builder, attention), full, f"{builder.__name__} with {attention}.")
            if full not in torchvision_models.BUILTIN_MODELS:
                torchvision_models.register_model(full)(entry)


_register()
