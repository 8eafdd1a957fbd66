"""Modules as people write them, for tests of reading."""

import torch
import torch.nn.functional as F
from torch import nn


class FusedAttention(nn.Module):
    """timm's style: one linear map for q, k and v."""

    def __init__(self, dim=16, heads=4, bias=True):
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.attn_drop = nn.Dropout(0.1)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        attn = (q * self.scale) @ k.transpose(-2, -1)
        attn = self.attn_drop(attn.softmax(dim=-1))
        return self.proj((attn @ v).transpose(1, 2).reshape(B, N, C))


class SeparateAttention(nn.Module):
    """Three linear maps, and torch's own attention."""

    def __init__(self, dim=16, heads=4):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x):
        B, N, C = x.shape

        def split(t):
            return t.view(B, N, self.heads, C // self.heads).transpose(1, 2)

        y = F.scaled_dot_product_attention(split(self.q(x)), split(self.k(x)), split(self.v(x)))
        return self.proj(y.transpose(1, 2).reshape(B, N, C))


class NonLocal(nn.Module):
    """The authors' style of non-local blocks (Wang et al., 2018), with 1x1 convolutions and a residual."""

    def __init__(self, channels=8, softmax=True):
        super().__init__()
        inner = channels // 2
        self.inner, self.softmax = inner, softmax
        self.g, self.theta, self.phi = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        self.W = nn.Sequential(nn.Conv2d(inner, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x):
        b = x.size(0)
        g = self.g(x).view(b, self.inner, -1).permute(0, 2, 1)
        theta = self.theta(x).view(b, self.inner, -1).permute(0, 2, 1)
        phi = self.phi(x).view(b, self.inner, -1)
        f = torch.matmul(theta, phi)
        f = F.softmax(f, dim=-1) if self.softmax else f / f.size(-1)
        y = torch.matmul(f, g).permute(0, 2, 1).contiguous().view(b, self.inner, *x.size()[2:])
        return self.W(y) + x


class SqueezeExcite(nn.Module):
    def __init__(self, channels=8, reduction=2):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // reduction, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(channels // reduction, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x):
        b, c, _, _ = x.size()
        y = F.adaptive_avg_pool2d(x, 1).view(b, c)
        return x * self.fc(y).view(b, c, 1, 1).expand_as(x)
