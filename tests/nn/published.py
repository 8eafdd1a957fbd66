"""Published blocks as small reference modules, from their papers and with the names of their authors' code: what
`load_weights` is held against where the original is no installable package."""

import torch
from torch import nn
from torch.nn import functional as F

CONV, NORM = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}, {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def conv_norm_relu(dim, inputs, outputs):
    return nn.Sequential(CONV[dim](inputs, outputs, 1), NORM[dim](outputs), nn.ReLU())


def resized(matrix, times):
    """(..., s, s) to (..., s * times, s * times): each entry along the diagonal of its block."""
    full = torch.einsum("...ik,uv->...iukv", matrix, torch.eye(times))
    return full.flatten(-4, -3).flatten(-2, -1)


class ImageTransform(nn.Module):
    """BA-Transform of the image code: sigmoid and L1."""

    def __init__(self, channels, s, k):
        super().__init__()
        self.s, self.k = s, k
        self.conv1, self.conv2 = conv_norm_relu(2, channels, k), conv_norm_relu(2, channels, channels)
        self.conv_p, self.conv_q = nn.Conv2d(k, s * s * k, (s, 1)), nn.Conv2d(k, s * s * k, (1, s))

    def forward(self, x):
        z, s = self.conv1(x), self.s
        p = self.conv_p(F.adaptive_max_pool2d(z, (s, 1))).view(-1, self.k, s, s).sigmoid()
        q = self.conv_q(F.adaptive_max_pool2d(z, (1, s))).view(-1, self.k, s, s).sigmoid()
        p, q = p / p.sum(3, keepdim=True), q / q.sum(2, keepdim=True)
        each = x.shape[1] // self.k
        p = resized(p, x.shape[2] // s).repeat_interleave(each, 1)
        q = resized(q, x.shape[3] // s).repeat_interleave(each, 1)
        return self.conv2(p @ x @ q)


def overlaid(windows, side):
    """(..., n, s, s) to (..., side, side): of each entry, the mean of all windows, the i-th one i rows and columns
    further on, that have it; 0 where none has."""
    n, s = windows.shape[-3:-1]
    nothing = torch.zeros_like(windows[..., 0, 0, 0])
    rows = []
    for a in range(side):
        row = []
        for b in range(side):
            own = [windows[..., i, a - i, b - i] for i in range(n) if 0 <= a - i < s and 0 <= b - i < s]
            row.append(sum(own) / len(own) if own else nothing)
        rows.append(torch.stack(row, -1))
    return torch.stack(rows, -2)


class VideoTransform(nn.Module):
    """BA-Transform of the video code: softmax, for each frame, and over time; fully convolutional on larger maps."""

    def __init__(self, channels, s, k, frames, over_time):
        super().__init__()
        self.s, self.k, self.frames, self.over_time = s, k, frames, over_time
        self.conv1, self.conv2 = conv_norm_relu(3, channels, k), conv_norm_relu(3, channels, channels)
        self.conv_p = nn.Conv3d(k, s * s * k, (1, s, 1))
        self.conv_q = nn.Conv3d(k, s * s * k, (1, 1, s))
        if over_time:
            self.conv_t = nn.Conv3d(k, frames * frames * over_time, (frames, 1, 1))

    def forward(self, x):
        z, s, k = self.conv1(x), self.s, self.k
        b, c, t, h, w = x.shape
        side = h // (h // s)
        p = self.conv_p(F.adaptive_max_pool3d(z, (t, side, 1))).view(b, k, s, s, t, -1)
        q = self.conv_q(F.adaptive_max_pool3d(z, (t, 1, side))).view(b, k, s, s, t, -1)
        p, q = (overlaid(scores.permute(0, 1, 4, 5, 2, 3), side) for scores in (p, q))
        p, q = p.softmax(4), q.softmax(3)
        p, q = resized(p, h // side).repeat_interleave(c // k, 1), resized(q, w // side).repeat_interleave(c // k, 1)
        y = p @ x @ q
        if self.over_time:
            r = self.conv_t(F.adaptive_avg_pool3d(z, (self.frames, 1, 1)))
            r = resized(r.view(b, self.over_time, self.frames, self.frames).softmax(3), t // self.frames)
            y = torch.einsum("bcst,bcthw->bcshw", r.repeat_interleave(c // self.over_time, 1), y)
        return self.conv2(y)


class BAT(nn.Module):
    def __init__(self, dim, channels, inner, transform, dropout=0.0):
        super().__init__()
        self.conv1, self.conv2 = conv_norm_relu(dim, channels, inner), conv_norm_relu(dim, inner, channels)
        self.batransform = transform
        self.dropout = {2: nn.Dropout2d, 3: nn.Dropout3d}[dim](dropout)

    def forward(self, x):
        return x + self.dropout(self.conv2(self.batransform(self.conv1(x))))


class ImageNonLocal(nn.Module):
    def __init__(self, channels, inner):
        super().__init__()
        self.t, self.p, self.g = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        self.z, self.bn = nn.Conv2d(inner, channels, 1), nn.BatchNorm2d(channels)

    def forward(self, x):
        t, p, g = (layer(x).flatten(2) for layer in (self.t, self.p, self.g))
        f = torch.einsum("bca,bce->bae", t, p).div(t.shape[1] ** 0.5).softmax(2)
        return x + self.bn(self.z(torch.einsum("bae,bce->bca", f, g).view(-1, t.shape[1], *x.shape[2:])))


class VideoNonLocal(nn.Module):
    def __init__(self, dim, channels, inner, heads, pooled, norm):
        super().__init__()
        self.heads = heads
        conv = CONV[dim]
        self.g, self.theta, self.phi = (conv(channels, inner, 1) for _ in range(3))
        self.W = nn.Sequential(conv(inner, channels, 1), NORM[dim](channels)) if norm else conv(inner, channels, 1)
        if pooled:
            pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[dim - 1]
            window = (1, 2, 2) if dim == 3 else 2
            self.g, self.phi = nn.Sequential(pool(window), self.g), nn.Sequential(pool(window), self.phi)

    def forward(self, x):
        t, p, g = (layer(x).flatten(2).unflatten(1, (self.heads, -1)) for layer in (self.theta, self.phi, self.g))
        f = (torch.einsum("bhca,bhce->bhae", t, p) * t.shape[2] ** -0.5).softmax(3)
        y = torch.einsum("bhae,bhce->bhca", f, g).flatten(1, 2)
        return x + self.W(y.view(x.shape[0], -1, *x.shape[2:]))


class Wrapped(nn.Module):
    """A convolution called `conv`, with a norm called `bn`, as mmcv wraps them."""

    def __init__(self, dim, inputs, outputs, norm=False, bias=True):
        super().__init__()
        self.conv = CONV[dim](inputs, outputs, 1, bias=bias and not norm)
        if norm:
            self.bn = NORM[dim](outputs)

    def forward(self, x):
        return self.bn(self.conv(x)) if hasattr(self, "bn") else self.conv(x)


class MmcvNonLocal(nn.Module):
    def __init__(self, dim, channels, inner, mode, pooled, norm):
        super().__init__()
        self.mode = mode
        self.g, self.conv_out = Wrapped(dim, channels, inner), Wrapped(dim, inner, channels, norm)
        if mode != "gaussian":
            self.theta, self.phi = Wrapped(dim, channels, inner), Wrapped(dim, channels, inner)
        if mode == "concatenation":
            self.concat_project = Wrapped(2, 2 * inner, 1, bias=False)
        if pooled:
            pool = (nn.MaxPool1d(2), nn.MaxPool2d(2), nn.MaxPool3d((1, 2, 2)))[dim - 1]
            self.g = nn.Sequential(self.g, pool)
            self.phi = pool if mode == "gaussian" else nn.Sequential(self.phi, pool)

    def forward(self, x):
        t = self.theta(x) if hasattr(self, "theta") else x
        p = self.phi(x) if hasattr(self, "phi") else x
        t, p, g = t.flatten(2), p.flatten(2), self.g(x).flatten(2)
        if self.mode == "concatenation":
            pairs = torch.cat(
                [t[..., None].expand(-1, -1, -1, p.shape[2]), p[:, :, None].expand(-1, -1, t.shape[2], -1)], 1
            )
            f = self.concat_project(pairs)[:, 0].relu() / p.shape[2]
        else:
            f = torch.einsum("bca,bce->bae", t, p)
            if self.mode == "dot_product":
                f = f / p.shape[2]
            else:
                f = (f / t.shape[1] ** 0.5 if self.mode == "embedded_gaussian" else f).softmax(2)
        y = torch.einsum("bae,bce->bca", f, g)
        return x + self.conv_out(y.view(x.shape[0], -1, *x.shape[2:]))


class EfficientAttention(nn.Module):
    def __init__(self, channels, keys, heads, values):
        super().__init__()
        self.heads = heads
        self.keys, self.queries = nn.Conv2d(channels, keys, 1), nn.Conv2d(channels, keys, 1)
        self.values, self.reprojection = nn.Conv2d(channels, values, 1), nn.Conv2d(values, channels, 1)

    def forward(self, x):
        k, q, v = (
            layer(x).flatten(2).unflatten(1, (self.heads, -1)) for layer in (self.keys, self.queries, self.values)
        )
        context = torch.einsum("bhrn,bhsn->bhrs", k.softmax(3), v)
        y = torch.einsum("bhrs,bhrn->bhsn", context, q.softmax(2)).flatten(1, 2)
        return x + self.reprojection(y.view(x.shape[0], -1, *x.shape[2:]))


class LatentKernel(nn.Module):
    def __init__(self, inner, nodes, mode, graph_conv):
        super().__init__()
        for name in ("psi_v2l", "psi_l2v") if mode == "asymmetric" else ("psi",):
            layers = (nn.Conv2d(inner, nodes, 1, bias=False), nn.BatchNorm2d(nodes), nn.ReLU())
            self.add_module(name, nn.Sequential(*layers))
        if graph_conv:
            layers = (nn.Conv2d(inner, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU())
            self.GraphConvWeight = nn.Sequential(*layers)

    def forward(self, to, back):
        if hasattr(self, "psi"):
            phi = psi = F.normalize(self.psi(to).flatten(2), dim=1)
        else:
            phi = F.normalize(self.psi_v2l(to).flatten(2), dim=2)
            psi = F.normalize(self.psi_l2v(back).flatten(2), dim=1)
        nodes = torch.einsum("bkn,bcn->bkc", phi, to.flatten(2))
        unit = F.normalize(nodes, dim=2)
        affinity = torch.einsum("bkc,blc->bkl", unit, unit).softmax(2)
        y = torch.einsum("bkl,blc,bkn->bcn", affinity, nodes, psi).view_as(to)
        return self.GraphConvWeight(y) if hasattr(self, "GraphConvWeight") else y


class Latent(nn.Module):
    def __init__(self, channels, inner, dims, mode, graph_conv):
        super().__init__()
        for name in ("down_channel_v2l", "down_channel_l2v") if mode == "asymmetric" else ("down_channel",):
            layers = (nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner))
            self.add_module(name, nn.Sequential(*layers))
        for k, nodes in enumerate(dims):
            self.add_module(f"LatentGNN_Kernel_{k}", LatentKernel(inner, nodes, mode, graph_conv))
        conv = nn.Conv2d(inner * len(dims), channels, 1, bias=False)
        self.up_channel = nn.Sequential(conv, nn.BatchNorm2d(channels))
        self.gamma, self.count = nn.Parameter(torch.zeros(1)), len(dims)

    def forward(self, x):
        if hasattr(self, "down_channel"):
            to = back = F.normalize(self.down_channel(x), dim=1)
        else:
            to, back = F.normalize(self.down_channel_v2l(x), dim=1), F.normalize(self.down_channel_l2v(x), dim=1)
        outputs = [getattr(self, f"LatentGNN_Kernel_{k}")(to, back) for k in range(self.count)]
        return x + self.gamma * self.up_channel(torch.cat(outputs, 1))
