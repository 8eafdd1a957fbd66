"""The networks of the BAT paper's authors from their published description, in plain torch and with their names:
what `load_backbone(source="bat")` is held against."""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F

from tests.nn import published

CONV, NORM = {2: nn.Conv2d, 3: nn.Conv3d}, {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def flat(dim, size):
    """A size in space, 1 along time."""
    return (1,) * (dim - 2) + (size, size)


class Residual(nn.Module):
    """A residual block: 1x1, 3x3, 1x1 convolutions, or two 3x3; the first one over `length` frames."""

    def __init__(self, dim, inputs, planes, stride, *, bottleneck, length=1, groups=1, width=None, squeezes=False):
        super().__init__()
        conv, norm, width = CONV[dim], NORM[dim], width or planes
        outputs = planes * (4 if bottleneck else 1)
        space, one = flat(dim, 3), (1,) * dim
        pad, steps = tuple(n // 2 for n in space), flat(dim, stride)
        if bottleneck:
            entry = (length, 1, 1) if dim == 3 else 1
            self.conv1 = conv(inputs, width, entry, padding=((length // 2, 0, 0) if dim == 3 else 0), bias=False)
            self.conv2 = conv(width, width, space, steps, pad, groups=groups, bias=False)
            self.conv3, self.bn3 = conv(width, outputs, one, bias=False), norm(outputs)
        else:
            self.conv1 = conv(inputs, width, space, steps, pad, bias=False)
            self.conv2 = conv(width, outputs, space, 1, pad, bias=False)
        self.bn1, self.bn2 = norm(width), norm(width)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(conv(inputs, outputs, one, steps, bias=False), norm(outputs))
        if squeezes:
            self.se_block = nn.Module()
            layers = (nn.Linear(outputs, outputs // 16), nn.ReLU(), nn.Linear(outputs // 16, outputs), nn.Sigmoid())
            self.se_block.excitation = nn.Sequential(*layers)

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if hasattr(self, "conv3"):
            y = self.bn3(self.conv3(y.relu()))
        if hasattr(self, "se_block"):
            y = y * self.se_block.excitation(y.mean((2, 3)))[..., None, None]
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class Network(nn.Module):
    """A ResNet with a block `nl<i>` behind residual block i of Res3 and Res4, for every `step`-th i.

    Args:
        attention: what makes a block from its channels, or None.
        lengths: of the first convolution of each residual block along time, stage by stage.
    """

    def __init__(self, dim, depths, classes, attention, *, bottleneck=True, steps=(2, 2), lengths=None, **kind):
        super().__init__()
        entry = 5 if lengths else 1
        opening = (entry, 7, 7) if dim == 3 else 7
        around = (entry // 2, 3, 3) if dim == 3 else 3
        self.conv1 = CONV[dim](3, 64, opening, flat(dim, 2), around, bias=False)
        self.bn1, inputs = NORM[dim](64), 64
        for stage, depth in enumerate(depths):
            layers, planes = {}, 64 * 2**stage
            for i in range(depth):
                length = lengths[stage][i] if lengths else 1
                stride = 2 if stage and not i else 1
                width = kind["width"] * 2**stage if "width" in kind else None
                own = {**kind, "width": width}
                layers[str(i)] = Residual(dim, inputs, planes, stride, bottleneck=bottleneck, length=length, **own)
                inputs = planes * (4 if bottleneck else 1)
                if attention and stage in (1, 2) and (i + 1) % steps[stage - 1] == 0:
                    layers[f"nl{i}"] = attention(inputs)
            setattr(self, f"layer{stage + 1}", nn.Sequential(OrderedDict(layers)))
        self.fc = nn.Linear(inputs, classes) if dim == 2 else nn.Conv3d(inputs, classes, 1)
        self.dim = dim

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        if self.dim == 2:
            x = F.max_pool2d(x, 3, 2, 1)
            x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
            return self.fc(x.mean((2, 3)))
        x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2))
        x = F.max_pool3d(self.layer1(x), (2, 1, 1))
        x = self.layer4(self.layer3(self.layer2(x)))
        return self.fc(F.avg_pool3d(x, (x.shape[2], 7, 7), 1)).mean((2, 3, 4))


def image_bat(groups=4):
    return lambda c: published.BAT(2, c, c // 2, published.ImageTransform(c // 2, 7, groups))


def image_non_local(c):
    return published.ImageNonLocal(c, c // 2)


def video_bat(groups, frames, over_time):
    return lambda c: published.BAT(3, c, c // 2, published.VideoTransform(c // 2, 7, groups, frames, over_time))


def video_non_local(c):
    return published.VideoNonLocal(3, c, c // 2, 1, True, True)


I3D = ((3, 3, 3), (3, 1, 3, 1), (3, 1, 3, 1, 3, 1), (1, 3, 1))
"""Lengths along time of an I3D ResNet-50."""


def off_its_start(network, seed=0):
    """The network with random statistics and norms, and a classifier whose biases matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                for tensor, low, high in (
                    (module.weight, 0.5, 1.0),
                    (module.bias, -0.2, 0.5),
                    (module.running_mean, -0.2, 0.2),
                    (module.running_var, 0.5, 1.5),
                ):
                    tensor.uniform_(low, high, generator=generator)
    return network


def blocks_of(dim, channels, s, groups):
    """One BAT block of the image (2) or video (3) code."""
    if dim == 2:
        return published.BAT(2, channels, channels // 2, published.ImageTransform(channels // 2, s, groups))
    return published.BAT(3, channels, channels // 2, published.VideoTransform(channels // 2, s, groups, 1, 0))
