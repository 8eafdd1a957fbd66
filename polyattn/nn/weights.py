"""`load_weights`: published weights of blocks, under the names of their source."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from polyattn.errors import WeightsError
from polyattn.nn.blocks.bat_block import BATBlock
from polyattn.nn.blocks.bat_transform import BATransform
from polyattn.nn.blocks.efficient_nl import EfficientNL
from polyattn.nn.blocks.latent_gnn import LatentGNN
from polyattn.nn.blocks.non_local import NonLocal


@dataclass(frozen=True)
class Published:
    """A published block's names of its weights, and the conditions for computing the same here.

    Attributes:
        names: pairs of a pattern of this library's names and its replacement there, tried in order.
        words: keyword arguments of the constructor that are fixed in the published block.
        scale: the width whose inverse root scales its similarities: "channels", "inner" or "head"; None without such a
            scale.
        zeros: names here that are optional there, and 0 if missing.
        larger_maps: rule of a published `BATransform` for maps larger than those of its training.
    """

    names: tuple[tuple[str, str], ...]
    words: Mapping[str, Any] = field(default_factory=dict)
    scale: str | None = None
    zeros: tuple[str, ...] = ()
    larger_maps: str | None = None

    def name(self, here: str) -> str:
        """Return the published name of a weight."""
        for pattern, there in self.names:
            name, found = re.subn(f"^{pattern}", there, here)
            if found:
                return name
        return here

    def adopt(self, block: nn.Module, scale: float | None = None) -> None:
        """Set the published rules beside the weights: the scale of the softmax, the rule for larger maps."""
        part = block.transform if isinstance(block, BATBlock) else block
        if isinstance(part, BATransform) and self.larger_maps is not None:
            part.larger_maps = self.larger_maps
        if isinstance(block, NonLocal) and self.scale is not None:
            inner = block.inner_channels
            widths = {"channels": block.channels, "inner": inner, "head": inner // block.heads}
            block.scale = widths[self.scale] ** -0.5 if scale is None else float(scale)


_TIMM_TRANSFORM = ((r"(conv[12])\.norm", r"\1.bn"),)
_BAT_TRANSFORM = ((r"(conv[12])\.conv", r"\1.0"), (r"(conv[12])\.norm", r"\1.1"))
_IMAGE = {"dim": 2, "downsample": False, "normalisation": "l1"}
_VIDEO = {"dim": 3, "downsample": False, "normalisation": "softmax"}
_SOFTMAX = {"similarity": "embedded_gaussian"}


def _inside(names: tuple[tuple[str, str], ...], transform: str) -> tuple[tuple[str, str], ...]:
    """Return the names of a block from those of its transform, whose 1x1 convolutions follow the same naming."""
    return (
        *((rf"transform\.{here}", f"{transform}.{there}") for here, there in names),
        (r"transform", transform),
        *names,
    )


def _published(source: str, block: nn.Module) -> Published | None:
    """Return a source's names of the weights of a block; None for unsupported blocks."""
    if isinstance(block, NonLocal):
        return _non_local(source, block)
    transform = {
        "timm": (_TIMM_TRANSFORM, "ba", _IMAGE),
        "bat": (_BAT_TRANSFORM, "batransform", _IMAGE),
        "bat_video": (_BAT_TRANSFORM, "batransform", _VIDEO),
    }.get(source)
    if transform is not None and isinstance(block, BATransform | BATBlock):
        names, inner, words = transform
        larger = "slide" if source == "bat_video" else "blocks"
        return Published(_inside(names, inner) if isinstance(block, BATBlock) else names, words, larger_maps=larger)
    if source == "efficient_attention" and isinstance(block, EfficientNL):
        return Published((), {"dim": 2, "normalisation": "softmax"})
    if source == "latent_gnn" and isinstance(block, LatentGNN):
        return Published(((r"kernels\.", "LatentGNN_Kernel_"),), {"dim": 2})
    return None


def _non_local(source: str, block: NonLocal) -> Published | None:
    plain = {"heads": 1, "sub_sample": 1, **_SOFTMAX}
    letters = ((r"theta\.", "t."), (r"phi\.", "p."), (r"out\.", "z."))
    if source == "timm":
        return Published(letters, {"dim": 2, **plain}, "channels")
    if source == "bat":
        return Published((*letters, (r"norm\.", "bn.")), {"dim": 2, **plain}, "inner")
    pooled = block.sub_sample > 1
    if source == "bat_video":
        # With pooling, phi and g are a pooling layer, then the convolution; without norm, W is a bare convolution.
        output = ((r"out\.", "W.0."), (r"norm\.", "W.1.")) if block.norm is not None else ((r"out\.", "W."),)
        pools = ((r"(g|phi)\.", r"\1.1."),) if pooled else ()
        words = {"sub_sample": (1, 2), **({"pool": "before"} if pooled else {}), **_SOFTMAX}
        return Published((*output, *pools), words, "head")
    if source == "mmcv":
        # With pooling, phi and g are the convolution, then a pooling layer.
        pools = ((r"(g|phi)\.", r"\1.0.conv."),) if pooled else ()
        names = (*pools, (r"(g|theta|phi)\.", r"\1.conv."), (r"out\.", "conv_out.conv."), (r"norm\.", "conv_out.bn."))
        names = (*names, (r"concat\.", "concat_project.conv."))
        words = {"heads": 1, "sub_sample": (1, 2), **({"pool": "after"} if pooled else {})}
        # A convolution there has no bias if a norm follows it.
        zeros = ("out.bias",) if block.norm is not None else ()
        scale = "inner" if block.similarity == "embedded_gaussian" else None
        return Published(names, words, scale, zeros)
    return None


SOURCES = ("timm", "bat", "bat_video", "efficient_attention", "latent_gnn", "mmcv")
"""Where weights may come from."""


def load_weights(
    block: nn.Module,
    state_dict: Mapping[str, Tensor],
    source: str,
    *,
    prefix: str = "",
    scale: float | None = None,
) -> nn.Module:
    """Load the weights of a published block into a block, so that both compute the same in training and evaluation.

    | source | published as | blocks |
    | --- | --- | --- |
    | `timm` | timm's `NonLocalAttn`, `BatNonLocalAttn`, `BilinearAttnTransform` | NonLocal, BATBlock, BATransform |
    | `bat` | the image code of Chi et al. | the same |
    | `bat_video` | their video code | the same, BAT with `dim=3` |
    | `efficient_attention` | the code of Shen et al. | EfficientNL |
    | `latent_gnn` | version 1 of the code of Zhang et al. | LatentGNN |
    | `mmcv` | mmcv's `NonLocal1d`, `2d`, `3d` | NonLocal |

    Args:
        block: block with the published channels, groups, heads and biases. It is changed only if all weights fit.
        state_dict: the published block's weights by their names there.
        source: one of the above.
        prefix: prefix of these names, as in a whole network's `state_dict`; names without it are ignored.
        scale: factor before the softmax of a `NonLocal`, if the published block did not use its default: channels **
            -0.5 in timm, (inner channels / heads) ** -0.5 elsewhere; 1 for `use_scale=False`.

    Returns:
        The block.

    Raises:
        WeightsError: the source does not publish such a block, or fixes other keyword arguments; names are missing or
            unknown, or shapes differ, all of them listed.

    >>> from timm.layers.non_local_attn import BatNonLocalAttn
    >>> published = BatNonLocalAttn(32, groups=2, rd_channels=16)
    >>> block = BATBlock(32, reduction=2, groups=2, bias=False)
    >>> block = load_weights(block, published.state_dict(), source="timm")
    """
    name = type(block).__name__
    published = published_form(block, source)
    if scale is not None and published.scale is None:
        raise WeightsError(f"this {name} has no scale before a softmax that the source {source!r} would set")
    found = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
    # All names and shapes are matched before the first copy, so a refused call leaves the block unchanged.
    chosen = _matched(block, found, published, source)
    with torch.no_grad():
        for here, tensor in block.state_dict().items():
            if here in chosen:
                tensor.copy_(chosen[here])
    published.adopt(block, scale)
    return block


def published_form(block: nn.Module, source: str) -> Published:
    """Return the names and rules by which a source publishes a block.

    Raises:
        WeightsError: the source is unknown, or its blocks compute a different function.
    """
    if source not in SOURCES:
        raise WeightsError(f"unknown source {source!r}; there are {', '.join(SOURCES)}")
    published = _published(source, block)
    if published is None:
        raise WeightsError(f"the source {source!r} has no {type(block).__name__}")
    _check_words(block, published, source)
    return published


def _check_words(block: nn.Module, published: Published, source: str) -> None:
    part = block.transform if isinstance(block, BATBlock) else block
    wrong = []
    for word, wanted in published.words.items():
        have, choices = getattr(part, word), wanted if isinstance(wanted, tuple) else (wanted,)
        if have not in choices:
            wrong.append(f"{word}={have!r} instead of {' or '.join(map(repr, choices))}")
    if wrong:
        raise WeightsError(
            f"the blocks of source {source!r} compute something else than this {type(block).__name__}, "
            f"which was made with {', '.join(wrong)}"
        )


def _matched(block: nn.Module, found: Mapping[str, Tensor], published: Published, source: str) -> dict[str, Tensor]:
    """Match the given tensors to the names here.

    Raises:
        WeightsError: tensors are missing or unknown, or have other shapes.
    """
    chosen: dict[str, Tensor] = {}
    missing, shapes, expected = [], [], set[str]()
    for here, tensor in block.state_dict().items():
        there = published.name(here)
        expected.add(there)
        if there in found:
            chosen[here] = found[there]
            if found[there].shape != tensor.shape:
                shapes.append(f"{there} {tuple(found[there].shape)} instead of {tuple(tensor.shape)}")
        # The published convolution has no bias, which equals a bias of 0.
        elif here in published.zeros:
            chosen[here] = torch.zeros_like(tensor)
        elif not here.endswith("num_batches_tracked"):  # missing in old files, and read by no output
            missing.append(there)
    unknown = [name for name in found if name not in expected]
    wrong = [("missing", missing), ("unknown", unknown), ("of another shape", shapes)]
    if missing or unknown or shapes:
        listed = "; ".join(f"{what}: {', '.join(names)}" for what, names in wrong if names)
        raise WeightsError(f"these are no weights of source {source!r} for this {type(block).__name__}: {listed}")
    return chosen
