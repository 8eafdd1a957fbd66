"""Layers that can be spread over positions, with weights for which every parameter matters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import nn

import polyattn as pa
from tests.drawing import PROFILE

SHAPE = (2, 8, 7, 5)
INNER = {"R": 3, "V": 4, "D": 4, "G": 2, "J": 2, "S": 2, "K": 3, "M": 2}


def of(name: str, **options: object) -> Callable[[], nn.Module]:
    """`Attention` of a catalogue entry."""

    def make() -> nn.Module:
        spec = pa.catalog.get(name, **options)
        own = {s: n for s, n in INNER.items() if s in spec.sizes.names}
        if name == "ba_transform":
            own = {"H": 7, "W": 5, "G": 2, "K": 3}
        if name == "ba_transform_block":
            own = {"S": 1, "G": 2, "K": 3}
        return pa.nn.Attention(spec, 8, sizes=own, beta=0.7)

    return make


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "nl": of("nl"),
    "poly_nl": of("poly_nl"),
    "poly_nl reduced": of("poly_nl", reduced=True),
    "e_nl": of("e_nl"),
    "e_nl softmax": of("e_nl", softmax=True),
    "a2_net": of("a2_net"),
    "a2_net softmax": of("a2_net", softmax=True),
    "latent_gnn": of("latent_gnn"),
    "glore": of("glore"),
    "glore relu": of("glore", relu=True),
    "cgnl": of("cgnl", mean=True),
    "criss_cross": of("criss_cross", mean=True),
    "axial height": of("axial", axis="height", mean=True),
    "axial width": of("axial", axis="width", softmax=True),
    "tesa": of("tesa", mean=True),
    "ba_transform": of("ba_transform"),
    "PolyNL": lambda: pa.nn.PolyNL(8, 2, beta=0.5),
    "EfficientNL": lambda: pa.nn.EfficientNL(8, heads=2),
    "TESA": lambda: pa.nn.TESA(8, alpha=0.5),
    "A2": lambda: pa.nn.A2(8, zero_init=False),
    "CGNL": lambda: pa.nn.CGNL(8, groups=2, zero_init=False),
    "GloRe": lambda: pa.nn.GloRe(8, zero_init=False),
    "LatentGNN": lambda: pa.nn.LatentGNN(8, [5, 3]),
    "LatentGNN symmetric": lambda: pa.nn.LatentGNN(8, [5], mode="symmetric", graph_conv=True),
    "NonLocal": lambda: pa.nn.NonLocal(8, similarity="dot_product", zero_init=False),
    "CrissCross": lambda: pa.nn.CrissCross(8, 4, normalisation="scaling"),
    "Axial": lambda: pa.nn.Axial(8, 4, normalisation="scaling"),
    "BATransform": lambda: pa.nn.BATransform(8, block_size=(3, 2), groups=2),
    "BATransform downsample": lambda: pa.nn.BATransform(8, block_size=(6, 4), groups=4, downsample=True),
    "BATransform slid": lambda: pa.nn.BATransform(8, block_size=(4, 3), groups=2, larger_maps="slide"),
    "BATBlock": lambda: pa.nn.BATBlock(8, block_size=(2, 5), groups=1, normalisation="softmax"),
    "a small network": lambda: nn.Sequential(
        nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), pa.nn.PolyNL(6, beta=0.5), pa.nn.EfficientNL(6)
    ),
}

FEW = ("poly_nl", "e_nl softmax", "TESA", "NonLocal", "Axial", "BATransform downsample", "BATBlock", "a small network")
"""Layers that meet in different ways: by sums, by maxima, all to all, in pooled maps, and in a network's statistics."""


def layers_of(size: int) -> Collection[str]:
    """All layers on three pieces, and nightly on two; elsewhere one for each way in which pieces meet."""
    return LAYERS if size == 3 or (size == 2 and PROFILE != "ci") else FEW


VIDEO: dict[str, Callable[[], nn.Module]] = {
    "over space": lambda: pa.nn.BATransform(8, block_size=(3, 2), groups=2, dim=3),
    "over space and time": lambda: pa.nn.BATBlock(
        16, block_size=2, groups=4, dim=3, temporal_groups=2, temporal_size=2, dropout=0.0
    ),
    "slid, downsample": lambda: pa.nn.BATransform(
        8, block_size=(2, 4), groups=2, dim=3, downsample=True, larger_maps="slide"
    ),
    "downsample": lambda: pa.nn.BATransform(
        8, block_size=2, groups=1, dim=3, downsample=True, temporal_groups=8, temporal_size=3
    ),
}
"""Bilinear transforms of (B, C, T, H, W)."""

CHANNELS = {"ba_transform": 4, "ba_transform_block": 4, "poly_nl": 1, "e_nl": 1}
"""Catalogue entries that are cut by channels, and how many channels stay together."""


def made(name: str, dtype: torch.dtype, layers: Mapping[str, Callable[[], nn.Module]] = LAYERS) -> nn.Module:
    """The layer with seeded weights; scalars that start at 0 do not."""
    torch.manual_seed(1)
    layer = layers[name]()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in layer.parameters():
            if not parameter.any():
                parameter.copy_(0.5 + 0.5 * torch.rand(parameter.shape, generator=generator))
    return layer.to(dtype)
