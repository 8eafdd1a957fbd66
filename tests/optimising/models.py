"""Small models in the style in which such layers are written, each with what a plan computes for less."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WrittenOut(nn.Module):
    """A dot-product non-local block with its similarities, normalised by the number of positions."""

    def __init__(self, channels: int = 16):
        super().__init__()
        inner = channels // 2
        self.theta, self.phi, self.g = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        self.out = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        B, _, H, W = x.shape
        theta, phi, g = (m(x).flatten(2) for m in (self.theta, self.phi, self.g))
        similarity = theta.transpose(1, 2) @ phi / (H * W)
        y = (similarity @ g.transpose(1, 2)).transpose(1, 2).reshape(B, -1, H, W)
        return x + self.out(y)


class Quadratic(nn.Module):
    """Linear attention in the order that makes all similarities."""

    def __init__(self, channels: int = 32, heads: int = 2):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        similarity = q @ k.transpose(-2, -1)
        y = (similarity @ v) / similarity.sum(-1, keepdim=True)
        return self.out(y.transpose(1, 2).reshape(B, N, C))


class Chain(nn.Module):
    """A product of three matrices in the dearer order, between two functions."""

    def __init__(self, channels: int = 96, inner: int = 4):
        super().__init__()
        self.down, self.up = nn.Parameter(torch.randn(channels, inner)), nn.Parameter(torch.randn(inner, channels))
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(x) @ (self.down @ self.up))


class Plain(nn.Module):
    """Nothing to win: linear maps with functions between them."""

    def __init__(self, channels: int = 16):
        super().__init__()
        self.first, self.second = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.second(F.gelu(self.first(x))))
