"""Entries of the catalogue against timm's modules with timm's weights: values and all gradients, in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm.layers as layers
import torch
from timm.layers.bottleneck_attn import BottleneckAttn
from timm.layers.cbam import ChannelAttn, SpatialAttn
from timm.models.cait import TalkingHeadAttn
from timm.models.convnext import ConvNeXtBlock
from timm.models.focalnet import FocalModulation
from timm.models.mlp_mixer import SpatialGatingUnit
from timm.models.swin_transformer import WindowAttention, window_partition, window_reverse
from timm.models.twins import GlobalSubSampleAttn
from timm.models.xcit import XCA
from torch import Tensor, nn

import polyattn as pa
from polyattn import catalog

Case = tuple[nn.Module, tuple[int, ...], Callable[[Tensor], Tensor], dict[str, int], dict[str, Tensor]]
"""The module, the shape of the equation's input, the module as a function of that, numbers for sizes, the weights."""


def channels_first(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a module of maps (B, C, H, W) as a function of (B, H, W, C)."""
    return lambda x: module(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def flat(module: nn.Module, sides: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """Return a module of maps as a function of (B, N, C)."""
    return lambda x: module(x.mT.unflatten(2, sides)).flatten(2).mT


def without_bias(*linear: nn.Module) -> None:
    for part in linear:
        nn.init.zeros_(part.bias)
        part.bias.requires_grad_(False)


def thirds(weight: Tensor) -> dict[str, Tensor]:
    return dict(zip(("wq", "wk", "wv"), weight.mT.chunk(3, 1), strict=True))


def multi_head() -> Case:
    m = layers.Attention(6, 2, proj_bias=False).double()
    return m, (5, 6), m, {"H": 2}, {**thirds(m.qkv.weight), "wo": m.proj.weight.mT}


def talking_heads() -> Case:
    m = TalkingHeadAttn(6, 2).double()
    without_bias(m.proj, m.proj_l, m.proj_w)
    mixed = {"before": m.proj_l.weight.mT, "after": m.proj_w.weight.mT, "wo": m.proj.weight.mT}
    return m, (5, 6), m, {"H": 2}, {**thirds(m.qkv.weight), **mixed}


def multi_query() -> Case:
    m = layers.MultiQueryAttentionV2(6, num_heads=3, key_dim=2, value_dim=2).double()
    weights = {"wq": m.query_proj.flatten(0, 1).mT, "wk": m.key_proj, "wv": m.value_proj}
    return m, (6, 6), flat(m, (2, 3)), {"H": 3}, {**weights, "wo": m.out_proj.flatten(1).mT}


def xca() -> Case:
    m = XCA(6, 2).double()
    without_bias(m.proj)
    return m, (5, 6), m, {"H": 2}, {**thirds(m.qkv.weight), "t": m.temperature.flatten(), "wo": m.proj.weight.mT}


def swin_window() -> Case:
    m = WindowAttention(4, 2, window_size=2, qkv_bias=False).double()
    without_bias(m.proj)
    nn.init.normal_(m.relative_position_bias_table)

    def windows(x: Tensor) -> Tensor:
        parts = m(window_partition(x, (2, 2)).flatten(1, 2))
        return window_reverse(parts.unflatten(1, (2, 2)), (2, 2), *x.shape[1:3])

    bias = m.relative_position_bias_table.mT.unflatten(1, (3, 3))
    return m, (4, 6, 4), windows, {"U": 2, "E": 2}, {**thirds(m.qkv.weight), "bias": bias, "wo": m.proj.weight.mT}


def bottleneck() -> Case:
    m = BottleneckAttn(4, feat_size=(2, 3), num_heads=1, dim_head=3).double()
    weights = dict(zip(("wq", "wk", "wv"), m.qkv.weight[:, :, 0, 0].mT.split((3, 3, 4), 1), strict=True))
    weights["wk"] = weights["wk"] * m.scale  # timm scales the keys' part alone; its tables run the other way
    places = {"rh": m.pos_embed.height_rel.flip(0), "rw": m.pos_embed.width_rel.flip(0)}
    return m, (2, 3, 4), channels_first(m), {}, {**weights, **places}


def spatial_reduction() -> Case:
    m = GlobalSubSampleAttn(4, 2, sr_ratio=2).double()
    m.norm = nn.Identity()
    without_bias(m.q, m.kv, m.proj, m.sr)
    k, v = m.kv.weight.mT.chunk(2, 1)
    weights = {"ws": m.sr.weight.permute(2, 3, 1, 0), "wq": m.q.weight.mT, "wk": k, "wv": v, "wo": m.proj.weight.mT}

    def call(x):
        return m(x.flatten(1, 2), x.shape[1:3]).view_as(x)

    return m, (4, 6, 4), call, {"U": 2, "E": 2}, weights


def squeeze_excitation() -> Case:
    m = layers.SEModule(4, rd_channels=3).double()
    weights = {"w1": m.fc1.weight[:, :, 0, 0].mT, "b1": m.fc1.bias, "w2": m.fc2.weight[:, :, 0, 0].mT, "b2": m.fc2.bias}
    return m, (6, 4), flat(m, (2, 3)), {}, weights


def eca() -> Case:
    m = layers.EcaModule(kernel_size=3).double()
    return m, (6, 5), flat(m, (2, 3)), {}, {"w": m.conv.weight.flatten()}


def cbam_channel() -> Case:
    m = ChannelAttn(4, rd_channels=3).double()
    return m, (6, 4), flat(m, (2, 3)), {}, {"w1": m.fc1.weight[:, :, 0, 0].mT, "w2": m.fc2.weight[:, :, 0, 0].mT}


def cbam_spatial() -> Case:
    m = SpatialAttn().double().eval()
    m.conv.bn.weight.requires_grad_(False)
    m.conv.bn.bias.requires_grad_(False)
    mean, most = (m.conv.conv.weight / (1 + m.conv.bn.eps) ** 0.5)[0]  # the norm at its initial statistics
    return m, (5, 4, 3), channels_first(m), {}, {"wm": mean, "wt": most}


def global_context() -> Case:
    m = layers.GlobalContext(4, rd_channels=3, fuse_add=True, fuse_scale=False).double()
    nn.init.normal_(m.mlp_add.fc2.weight)
    without_bias(m.conv_attn, m.mlp_add.fc1, m.mlp_add.fc2)
    m.mlp_add.norm.eps = 1e-5  # the paper's; timm has 1e-6
    nn.init.normal_(m.mlp_add.norm.bias)
    weights = {"wk": m.conv_attn.weight.flatten(), "w1": m.mlp_add.fc1.weight[:, :, 0, 0].mT}
    weights |= {"g": m.mlp_add.norm.weight, "h": m.mlp_add.norm.bias, "w2": m.mlp_add.fc2.weight[:, :, 0, 0].mT}
    return m, (6, 4), flat(m, (2, 3)), {}, weights


def convnext_block() -> Case:
    m = ConvNeXtBlock(3, mlp_ratio=2, ls_init_value=0.5).double()
    weights = {
        "wd": m.conv_dw.weight[:, 0].permute(1, 2, 0),
        "bd": m.conv_dw.bias,
        "g": m.norm.weight,
        "s": m.norm.bias,
    }
    weights |= {"w1": m.mlp.fc1.weight.mT, "b1": m.mlp.fc1.bias, "w2": m.mlp.fc2.weight.mT, "b2": m.mlp.fc2.bias}
    return m, (4, 5, 3), channels_first(m), {}, {**weights, "scale": m.gamma}


def focal_modulation() -> Case:
    m = FocalModulation(3, focal_window=3, focal_level=2, focal_factor=0).double()
    without_bias(m.f, m.h, m.proj)
    weight = m.f.weight[:, :, 0, 0].mT
    weights = {"wq": weight[:, :3], "wz": weight[:, 3:6], **{f"wg{n + 1}": weight[:, 6 + n] for n in range(3)}}
    weights |= {f"w{n + 1}": m.focal_layers[n][0].weight[:, 0].permute(1, 2, 0) for n in range(2)}
    weights |= {"wh": m.h.weight[:, :, 0, 0].mT, "wo": m.proj.weight[:, :, 0, 0].mT}
    return m, (4, 3, 3), channels_first(m), {}, weights


def gmlp() -> Case:
    gate = partial(SpatialGatingUnit, seq_len=4, norm_layer=lambda *_, **__: nn.Identity())
    m = layers.GatedMlp(3, 4, gate_layer=gate, bias=False).double()
    weights = {"wu": m.fc1.weight.mT, "mix": m.gate.proj.weight, "bias": m.gate.proj.bias, "wv": m.fc2.weight.mT}
    return m, (4, 3), m, {}, weights


def mixer_token() -> Case:
    m = layers.Mlp(4, 5, bias=False).double()
    return m, (4, 3), lambda x: x + m(x.mT).mT, {}, {"w1": m.fc1.weight.mT, "w2": m.fc2.weight.mT}


def swiglu() -> Case:
    m = layers.SwiGLU(4, 5, bias=False).double()
    return m, (3, 4), m, {}, {"w1": m.fc1_g.weight.mT, "w2": m.fc1_x.weight.mT, "w3": m.fc2.weight.mT}


def glu() -> Case:
    m = layers.GluMlp(4, 6).double()
    m.fc2 = nn.Identity()
    (w, v), (b, g) = m.fc1.weight.mT.chunk(2, 1), m.fc1.bias.chunk(2)
    return m, (3, 4), m, {}, {"w": w, "b": b, "v": v, "g": g}


def layer_norm() -> Case:
    m = layers.LayerNorm(5, eps=1e-5).double()
    return m, (3, 5), m, {}, {"g": m.weight, "s": m.bias}


def rms_norm() -> Case:
    m = layers.RmsNorm(5, eps=1e-6).double()
    return m, (3, 5), m, {}, {"g": m.weight}


CASES = [multi_head, talking_heads, multi_query, xca, swin_window, bottleneck, spatial_reduction]
CASES += [squeeze_excitation, eca, cbam_channel, cbam_spatial, global_context, convnext_block, focal_modulation]
CASES += [gmlp, mixer_token, swiglu, glu, layer_norm, rms_norm]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_an_entry_is_the_module_of_timm_with_its_weights(case: Callable[[], Case]):
    torch.manual_seed(0)
    module, shape, call, sizes, weights = case()
    spec: Any = catalog.get(case.__name__)
    (slots,) = spec.inputs.values()
    known = {**sizes, **dict(zip(slots, shape, strict=True))}
    for name, slots in spec.parameters.items():
        assert len(slots) == weights[name].dim()
        known |= {s: n for s, n in zip(slots, weights[name].shape, strict=True) if s.isalpha()}
    known = {s: n for s, n in known.items() if s in spec.sizes.names}
    graph = pa.lower(pa.plan(spec, known, "as_written"))
    x = torch.randn(2, *shape, dtype=torch.float64, requires_grad=True)
    leaves = [x, *(p for p in module.parameters() if p.requires_grad)]
    ours, theirs = graph(x, **{name: weights[name] for name in spec.parameters}), call(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    seed = torch.randn_like(theirs)
    gradients = [torch.autograd.grad(y, leaves, seed) for y in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)
