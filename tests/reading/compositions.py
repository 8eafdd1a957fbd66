"""Compositions of operations at odd shapes, drawn by a seed: programs on (batch, positions, channels)."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from torch import nn

CHANNELS = 12


class Composition(nn.Module):
    """A few steps, each of which takes and gives (B, N, channels)."""

    def __init__(self, seed: int, steps: int | None = None):
        super().__init__()
        draw = random.Random(seed)
        torch.manual_seed(seed)
        self.steps, self.layers = [], nn.ModuleList()
        width = CHANNELS
        for _ in range(steps or draw.randint(1, 4)):
            kind = draw.choice(STEPS)
            number = draw.randrange(1000)
            if kind in ("linear", "conv", "norm", "group", "batch", "gated"):
                out = draw.choice((6, 12, 24)) if kind in ("linear", "conv") else width
                self.layers.append(_layer(kind, width, out, number))
                self.steps.append((kind, len(self.layers) - 1, number))
                width = out
            else:
                self.steps.append((kind, -1, number))

    def forward(self, x):
        first = x
        for kind, place, number in self.steps:
            layer = self.layers[place] if place >= 0 else None
            x = _apply(kind, layer, number, x)
        return x + first if x.shape[-1] == first.shape[-1] and len(self.steps) % 2 else x


def _layer(kind, width, out, number):
    if kind == "linear":
        return nn.Linear(width, out, bias=bool(number % 2))
    if kind == "conv":
        return nn.Conv1d(width, out, 1, groups=(1, 2, 3)[number % 3], bias=bool(number % 2))
    if kind == "gated":
        return nn.Linear(width, 2 * width)
    if kind == "norm":
        return nn.LayerNorm(width)
    if kind == "group":
        return nn.GroupNorm((1, 2, 3)[number % 3], width)
    layer = nn.BatchNorm1d(width)
    layer.running_mean.normal_()
    layer.running_var.uniform_(0.5, 2)
    return layer


STEPS = (
    *("linear", "conv", "norm", "group", "batch", "gated", "function", "heads", "gram", "softmax", "reduce", "chunk"),
    *(
        "cat",
        "numbers",
        "square",
        "expand",
        "flatten",
        "select",
        "normalize",
        "sdpa",
        "cut",
        "swap",
        "inplace",
        "scores",
    ),
)
FUNCTIONS = (F.relu, torch.sigmoid, torch.tanh, F.gelu, F.silu, F.softplus, torch.sin, torch.abs, F.relu6, F.hardswish)


def _apply(kind, layer, number, x):
    B, N, C = x.shape
    heads = (1, 2, 3)[number % 3]
    if kind in ("linear", "norm"):
        return layer(x)
    if kind in ("conv", "group", "batch"):
        return layer(x.transpose(1, 2)).transpose(1, 2)
    if kind == "gated":
        a, g = layer(x).chunk(2, dim=-1)
        return a * g if number % 2 else a * torch.sigmoid(g)
    if kind == "function":
        return FUNCTIONS[number % len(FUNCTIONS)](x)
    if kind in ("heads", "sdpa"):
        t = x.reshape(B, N, heads, C // heads).permute(0, 2, 1, 3)
        if kind == "sdpa":
            return F.scaled_dot_product_attention(t, t, t).transpose(1, 2).reshape(B, N, C)
        return (t @ t.transpose(-2, -1) @ t / N).permute(0, 2, 1, 3).flatten(2)
    if kind == "gram":
        return torch.einsum("bnc,bmc,bmd->bnd", x, x, x) / (N * C) if number % 2 else x @ (x.mT @ x) / N
    if kind == "softmax":
        return x.softmax(dim=(1, 2)[number % 2]) if number % 3 else x.log_softmax(-1)
    if kind == "reduce":
        by = (x.mean, x.sum, x.amax, x.amin)[number % 4]
        return x * by(dim=(1, 2)[number // 4 % 2], keepdim=True)
    if kind == "chunk":
        a, b = x.chunk(2, dim=-1)
        return torch.cat([b, a], dim=-1) if number % 2 else torch.cat([a * b, a - b], -1)
    if kind == "cat":
        return (
            torch.cat([x, x.mean(1, keepdim=True).expand_as(x)], -1)[..., C // 2 : C // 2 + C]
            if number % 2
            else (torch.stack([x, 2 * x], dim=2).sum(2))
        )
    if kind == "numbers":
        return (x * 0.1 + 3) / C**0.5 - (1 - x) / N
    if kind == "square":
        return (x - x.mean(-1, keepdim=True)).pow(2) if number % 2 else x**3 - x.square()
    if kind == "expand":
        return (x[:, :, None, :] - x[:, None, :, :]).abs().mean(2)
    if kind == "flatten":
        return x.flatten(1).view(B, N, C) * 2
    if kind == "select":
        return x * x[:, :, number % C].unsqueeze(-1)
    if kind == "normalize":
        return F.normalize(x, dim=(1, 2)[number % 2])
    if kind == "cut":
        return x + torch.cumsum(x, dim=1)
    if kind == "swap":
        return x.view(B, N, heads, -1).transpose(2, 3).reshape(B, N, C)
    if kind == "inplace":
        y = x.clone()
        y *= 2
        return y.add_(1)
    scores = torch.matmul(x, x.transpose(1, 2)) * (C // heads) ** -0.5
    scores = scores - scores.max(dim=-1, keepdim=True)[0]
    return scores.softmax(-1) @ x
