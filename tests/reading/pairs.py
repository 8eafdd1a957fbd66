"""Pairs of implementations that people compare: equal ones, and ones with a slip."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.reading.blocks import FusedAttention, NonLocal, SeparateAttention


class ByEinsum(SeparateAttention):
    def forward(self, x):
        B, N, C = x.shape
        q, k, v = (m(x).view(B, N, self.heads, -1) for m in (self.q, self.k, self.v))
        p = (torch.einsum("bnhd,bmhd->bhnm", q, k) / (C // self.heads) ** 0.5).softmax(-1)
        return self.proj(torch.einsum("bhnm,bmhd->bnhd", p, v).reshape(B, N, C))


class ScaledProduct(FusedAttention):
    def forward(self, x):
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        attn = self.attn_drop((q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1))
        return self.proj((attn @ v).transpose(1, 2).reshape(B, N, C))


class WrongScale(FusedAttention):
    def __init__(self):
        super().__init__()
        self.scale = 16**-0.5


class WrongAxis(FusedAttention):
    def forward(self, x):
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        attn = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-2)
        return self.proj((attn @ v).transpose(1, 2).reshape(B, N, C))


class NoTranspose(FusedAttention):
    """Heads and positions mixed up: the reshape without the transpose before it."""

    def forward(self, x):
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        attn = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        return self.proj((attn @ v).transpose(1, 2).transpose(2, 3).reshape(B, N, C))


class PointwiseLinear(NonLocal):
    """The non-local block with F.linear in the place of convolutions, on channels last."""

    def forward(self, x):
        b, c, h, w = x.shape
        t = x.flatten(2).transpose(1, 2)
        g, theta, phi = (F.linear(t, m.weight[:, :, 0, 0], m.bias) for m in (self.g, self.theta, self.phi))
        y = (theta @ phi.mT).softmax(-1) @ g
        y = F.linear(y, self.W[0].weight.flatten(1), self.W[0].bias)
        return self.W[1](y.transpose(1, 2).reshape(b, c, h, w)) + x


class NoResidual(NonLocal):
    def forward(self, x):
        return super().forward(x) - 2 * x


class Gram(nn.Module):
    def __init__(self, order):
        super().__init__()
        self.order, self.a, self.b = order, nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)

    def forward(self, x):
        q, k = self.a(x), self.b(x)
        if self.order == "quadratic":
            return (q @ k.mT) @ x / x.shape[1]
        if self.order == "linear":
            return q @ (k.mT @ x / x.shape[1])
        return q @ (k.mT @ x)


class Bilinear(nn.Module):
    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, x):
        t = x.flatten(2)
        if self.by == "bmm":
            return torch.bmm(t, t.transpose(1, 2)) / t.shape[-1]
        if self.by == "einsum":
            return torch.einsum("bchw,bdhw->bcd", x, x) / (x.shape[2] * x.shape[3])
        if self.by == "outer":
            return (t.unsqueeze(1) * t.unsqueeze(2)).mean(-1)
        return torch.bmm(t, t.transpose(1, 2)) / t.shape[1]


class Folded(nn.Module):
    """A channel weight before a linear map, or folded into it."""

    def __init__(self, folded):
        super().__init__()
        self.folded, self.g, self.w = folded, nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(4, 6))

    def forward(self, x):
        return F.linear(x, self.w * self.g) if self.folded else F.linear(x * self.g, self.w)


class Grouped(nn.Module):
    def __init__(self, by):
        super().__init__()
        self.by, self.conv = by, nn.Conv1d(6, 6, 1, groups=2, bias=False)

    def forward(self, x):
        if self.by == "conv":
            return self.conv(x)
        w = self.conv.weight.view(2, 3, 3)
        t = x.view(x.shape[0], 2, 3, -1)
        t = torch.einsum("goi,bgin->bgon", w, t) if self.by == "einsum" else torch.matmul(w.mT, t)
        return t.reshape(x.shape)


TOKENS, MAPS, SMALL = (2, 5, 16), (2, 8, 3, 5), (2, 5, 6)

EQUAL = {
    "fused or three linears": (FusedAttention, SeparateAttention, TOKENS),
    "attention by hand or by einsum": (SeparateAttention, ByEinsum, TOKENS),
    "scale on q or on the product": (FusedAttention, ScaledProduct, TOKENS),
    "convolutions or linear maps": (NonLocal, PointwiseLinear, MAPS),
    "quadratic or linear order": (lambda: Gram("quadratic"), lambda: Gram("linear"), SMALL),
    "bmm or einsum": (lambda: Bilinear("bmm"), lambda: Bilinear("einsum"), MAPS),
    "bmm or a mean of outer products": (lambda: Bilinear("bmm"), lambda: Bilinear("outer"), MAPS),
    "a weight folded": (lambda: Folded(False), lambda: Folded(True), SMALL),
    "grouped convolution or einsum": (lambda: Grouped("conv"), lambda: Grouped("einsum"), (2, 6, 5)),
}
SLIPS = {
    "the scale of all channels": (FusedAttention, WrongScale, TOKENS),
    "softmax over the queries": (FusedAttention, WrongAxis, TOKENS),
    "heads inside channels": (FusedAttention, NoTranspose, TOKENS),
    "the residual's sign": (NonLocal, NoResidual, MAPS),
    "no division by the positions": (lambda: Gram("quadratic"), lambda: Gram("bare"), SMALL),
    "a division by the channels": (lambda: Bilinear("bmm"), lambda: Bilinear("slip"), MAPS),
    "a transposed group": (lambda: Grouped("conv"), lambda: Grouped("slip"), (2, 6, 5)),
}
