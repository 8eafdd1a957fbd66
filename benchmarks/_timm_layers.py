"""timm's attention-like layers at small sizes: how each is made, and example inputs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

from reading import classes, made, running

MAP, TOKENS = (2, 32, 16, 16), (2, 64, 32)


def _partition(kind: type[nn.Module], **options: Any) -> nn.Module:
    from timm.models.maxxvit import MaxxVitTransformerCfg

    cfg = MaxxVitTransformerCfg(dim_head=8, window_size=(4, 4), grid_size=(4, 4), expand_ratio=2.0)
    return kind(32, cfg=cfg, **options)


def _coat(kind: type[nn.Module]) -> nn.Module:
    from timm.models.coat import ConvRelPosEnc

    return kind(32, 4, shared_crpe=ConvRelPosEnc(8, 4, 3))


def _rope() -> Tensor:
    return torch.randn(2, 64, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


CASCADED = {"key_dim": 8, "num_heads": 4, "attn_ratio": 1, "kernels": (3, 3, 3, 3)}
MADE: dict[str, tuple[Callable[[type[nn.Module]], nn.Module], tuple[int, ...], dict[str, Any]]] = {
    "BottleneckAttn": (lambda k: k(32, feat_size=(8, 8), num_heads=4), (2, 32, 8, 8), {}),
    "GatherExcite": (lambda k: k(32, use_mlp=False), MAP, {}),
    "ConvAttention": (lambda k: k(60, att_stride=1, att_kernel=3), (2, 60, 8, 8), {}),
    "Attention2dDownsample": (lambda k: k(32, 8, 4, 2, resolution=8), (2, 32, 8, 8), {}),
    "CascadedGroupAttention": (lambda k: k(32, resolution=8, **CASCADED), (2, 32, 8, 8), {}),
    "LocalWindowAttention": (lambda k: k(32, resolution=8, window_resolution=4, **CASCADED), (2, 32, 8, 8), {}),
    "AttentionDownsample": (lambda k: k(32, 48, 8, 4, resolution=8), (2, 64, 32), {}),
    "EvaAttention": (lambda k: k(32, 4, scale_norm=False), TOKENS, {}),
    "PartitionAttentionCl": (_partition, (2, 16, 16, 32), {}),
    "ParallelPartitionAttention": (_partition, (2, 16, 16, 32), {}),
    "PartitionAttention2d": (_partition, MAP, {}),
    "LocallyGroupedAttn": (lambda k: k(32, 4, ws=4), TOKENS, {"size": (8, 8)}),
    "GlobalSubSampleAttn": (lambda k: k(32, 4, sr_ratio=2), TOKENS, {"size": (8, 8)}),
    "BatNonLocalAttn": (lambda k: k(32, block_size=4), (2, 32, 8, 8), {}),
    "BilinearAttnTransform": (lambda k: k(32, block_size=4, groups=2), (2, 32, 8, 8), {}),
    "Gemma4Attention": (lambda k: k(32, 4, 8), TOKENS, {"rope_cos": _rope(), "rope_sin": _rope()}),
    "SelectiveKernelAttn": (lambda k: k(32), (2, 2, 32, 8, 8), {}),
    "FactorAttnConvRelPosEnc": (_coat, (2, 65, 32), {"size": (8, 8)}),
    "WindowAttentionGlobal": (lambda k: k(32, 4, window_size=(4, 4), use_global=False), (2, 16, 32), {}),
    "EfficientAdditiveAttention": (lambda k: k(32, 32), MAP, {}),
    "SpatialAttention": (lambda k: k(), (2, 32, 14, 14), {}),
    "HaloAttn": (lambda k: k(32, num_heads=4, block_size=4, halo_size=1), (2, 32, 8, 8), {}),
}
"""Layers that need arguments of their own: how they are made, the shape of the input, further arguments."""


def layer(kind: type[nn.Module]) -> tuple[nn.Module, torch.Tensor, dict[str, Any]]:
    """Return a layer in double precision and evaluation mode, an example input, and further arguments."""
    torch.manual_seed(0)
    make, shape, options = MADE.get(kind.__name__, (made, (), {}))
    module = make(kind).double()
    module.train(False)  # some of timm's `train` return nothing
    for p in module.parameters():
        if p.dim() <= 1:
            nn.init.normal_(p, std=0.5)
    for name, buffer in module.named_buffers():  # statistics of a trained network
        if name.endswith("running_mean"):
            buffer.normal_(std=0.3)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    _gather(module)
    if shape:
        return module, torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64), options
    found = running(module)
    if found is None:
        raise ValueError(f"no example input for {kind.__name__}")
    return module, found[0][0], options


def _gather(module: nn.Module) -> None:
    """Let tables of biases be looked up once: a look-up by a constant index is not a part of the equation."""
    for part in list(module.modules()):
        for name in ("get_bias", "get_attention_biases", "_get_rel_pos_bias"):
            if hasattr(part, name):
                call = getattr(part, name)
                with torch.no_grad():
                    found = call(torch.device("cpu")) if name == "get_attention_biases" else call()
                part.gathered_bias = nn.Parameter(found.clone())
                setattr(part, name, lambda *_, part=part: part.gathered_bias)


def all_layers() -> dict[str, type[nn.Module]]:
    """Return the classes by name."""
    return {kind.__name__: kind for kind in classes()}
