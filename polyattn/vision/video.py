"""Video networks of the BAT paper: C2D and I3D ResNets, inflated from torchvision's, with attention.

The layout is that of the paper's own code (BA-Transform/BAT-Video-Classification): an unpadded spatial max pooling
after the first convolution, a temporal max pooling of two frames after Res2, convolutions along time at the entry of
the bottlenecks (I3D only), averages over windows of 7 x 7 positions and a dropout before the classifier, whose mean
over the windows is the result. At 224 x 224 pixels the map is one window; the code's fully convolutional test at 256 x
256 has four overlapping ones, so the middle of the map counts more often than its border.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import index
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from polyattn.errors import InsertError
from polyattn.vision.inflate import Inflation, inflate
from polyattn.vision.make import Value
from polyattn.vision.places import DEPTHS
from polyattn.vision.resnets import DROPOUT, attend_to, build

TEMPORAL_SIZE = 8
"""The paper's largest number of blocks along time, for long clips (BAT, Table 9)."""


WINDOW = 7
"""Side of the windows over which features are averaged: that of Res5 at 224 x 224 pixels."""


class WindowAverage(nn.Module):
    """Average (B, C, T, H, W) over all frames and each window of `side` x `side` positions.

    Shape:
        to (B, C, 1, H - side + 1, W - side + 1); an axis shorter than the window is averaged as a whole.
    """

    def __init__(self, side: int = WINDOW):
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        # A map smaller than the window is averaged as a whole.
        height, width = (min(self.side, index(length)) for length in x.shape[-2:])
        return F.avg_pool2d(x.mean(2), (height, width), 1).unsqueeze(2)

    def extra_repr(self) -> str:
        return f"side={self.side}"


def build_video(
    name: str,
    attention: Value | Mapping[str, Value] | None = None,
    *,
    temporal: Mapping[str, int],
    places: str | Iterable[str] | None = None,
    weights: Any = None,
    progress: bool = True,
    num_classes: int = 400,
    dropout: float = 0.5,
    pool_padding: int = 0,
    inflation: Inflation = "mean",
    frames: int = 8,
    image_size: int | tuple[int, int] = 224,
    sizes: Mapping[str, int] | None = None,
    network: Mapping[str, Any] | None = None,
    **options: Any,
) -> nn.Module:
    """Build the video network of that ResNet; see `c2d_resnet50`."""
    if frames < 2:
        raise InsertError(f"a clip has at least 2 frames, since the network pools pairs of them; got {frames}")
    if pool_padding not in (0, 1):
        raise InsertError(f"pool_padding is 0 (the paper's networks) or 1 (torchvision's), not {pool_padding!r}")
    # Built without attention: blocks are inserted after the inflation, with dim=3.
    model: Any = build(name, weights=weights, progress=progress, network=network)
    model.fc = _classifier(model.fc, num_classes)
    inflate(model, temporal, inflation)
    # Only now a MaxPool3d, whose padding starts with the frames'.
    model.maxpool.padding = (0, pool_padding, pool_padding)
    model.layer1.add_module("temporal_pool", nn.MaxPool3d((2, 1, 1)))
    # The classifier is affine, so the mean of its windows' logits is that of the mean of their features.
    model.avgpool = nn.Sequential(WindowAverage(), nn.Dropout(dropout), model.avgpool)
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    clip = model.conv1.weight.new_zeros(1, model.conv1.in_channels, frames, height, width)
    return attend_to(
        model, name, attention, places=places, example_input=clip, sizes=sizes, dim=3, options=options,
        presets=_presets(frames, options),
    )  # fmt: skip


def _presets(frames: int, options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the blocks' arguments in the paper's video networks, different from those in its image networks."""
    bat: dict[str, Any] = {"dropout": DROPOUT, "normalisation": "softmax", "larger_maps": "slide"}
    if options.get("temporal_groups"):
        # The pooling after Res2 halves the frames before they reach a block.
        bat["temporal_size"] = min(frames // 2, TEMPORAL_SIZE)
    return {"bat": bat, "nl": {"sub_sample": 2}}


def _classifier(fc: nn.Linear, num_classes: int) -> nn.Linear:
    """Return the classifier itself if it has that many classes, such as a pretrained one, else a new one."""
    if fc.out_features == num_classes:
        return fc
    return nn.Linear(fc.in_features, num_classes, device=fc.weight.device, dtype=fc.weight.dtype)


def i3d_lengths(name: str) -> dict[str, int]:
    """List the kernels' lengths along time in an I3D ResNet, by name of the convolution.

    5 at the entry; 3 in the first 1 x 1 convolution of each block of Res2, of every second block of Res3 and Res4 from
    the first on, and of every second block of Res5 from the second on.
    """
    lengths = {"conv1": 5}
    for stage, depth in enumerate(DEPTHS[name], 1):
        # Stage 1 is Res2 and stage 4 Res5.
        first, step = {1: (0, 1), 4: (1, 2)}.get(stage, (0, 2))
        lengths |= {f"layer{stage}.{block}.conv1": 3 for block in range(first, depth, step)}
    return lengths


def c2d_resnet50(attention: Value | Mapping[str, Value] | None = None, **words: Any) -> nn.Module:
    """Build a C2D ResNet-50 with attention: a ResNet on each frame, with one temporal pooling (BAT, section 4.3).

    Args:
        attention: attention as in `polyattn.vision.resnet50`, with blocks of dim=3. For "bat", `groups` and
            `temporal_groups` are the paper's (k_s, k_t), P and Q are normalised by softmax, the predictor slides over
            maps larger than those of 224 pixels (`larger_maps="slide"`), and `temporal_size` defaults to the number of
            frames after the pooling, at most 8; "nl" pools keys and values over 2 x 2 positions. Both as in the
            authors' code.
        places: as in `polyattn.vision.resnet50`.
        weights, progress: of the 2D ResNet, passed on to torchvision. For weights in a file, see `load_backbone`.
        num_classes: number of classes; the classifier is new if the 2D network has another number.
        dropout: of the features before the classifier. The blocks' own dropout is 0.2 where attention is "bat"; to
            choose it, pass `functools.partial(polyattn.nn.BATBlock, dim=3, dropout=...)`.
        pool_padding: of the first max pooling, 0 as in the paper's networks. With 1, as in torchvision's, the features
            of a video of identical frames are the 2D network's.
        inflation: rule from 2D to 3D kernels: "mean" or "centre"; see `inflate`.
        frames, image_size: number of frames and side of the clips for which the blocks are built.
        sizes, network, words: as in `polyattn.vision.resnet50`.

    Shape:
        (B, 3, T, H, W) to (B, num_classes), T at least 2.

    Raises:
        InsertError, MissingPackageError: as in `polyattn.vision.resnet50`.
    """
    return build_video("resnet50", attention, temporal={}, **words)


def c2d_resnet101(attention: Value | Mapping[str, Value] | None = None, **words: Any) -> nn.Module:
    """Build a C2D ResNet-101 with attention; all else as in `c2d_resnet50`."""
    return build_video("resnet101", attention, temporal={}, **words)


def i3d_resnet50(attention: Value | Mapping[str, Value] | None = None, **words: Any) -> nn.Module:
    """Build an I3D ResNet-50: C2D with inflated convolutions along time; all else as in `c2d_resnet50`."""
    return build_video("resnet50", attention, temporal=i3d_lengths("resnet50"), **words)


def i3d_resnet101(attention: Value | Mapping[str, Value] | None = None, **words: Any) -> nn.Module:
    """Build an I3D ResNet-101 with attention; all else as in `i3d_resnet50`."""
    return build_video("resnet101", attention, temporal=i3d_lengths("resnet101"), **words)
