"""Convolutions are read as offsets, and causal masks as conditions; what offsets do not take is cut."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import polyattn as pa
from tests.drawing import mostly_nightly
from tests.reading.oracle import assert_reads, draw


class Tokens(nn.Module):
    """A depthwise convolution between linear maps, on tokens of a map with three rows."""

    def __init__(self):
        super().__init__()
        self.conv, self.proj = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Linear(4, 4)

    def forward(self, x):
        B, N, C = x.shape
        y = self.conv(x.transpose(1, 2).reshape(B, C, 3, N // 3)).flatten(2).transpose(1, 2)
        return self.proj(y) + x


class Gated(nn.Module):
    """Channels of two convolutions, split in halves."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8)

    def forward(self, x):
        a, b = self.two(self.one(x)).chunk(2, 1)
        return a * torch.sigmoid(b)


class Standardised(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias, padding=1)


class Windows(nn.Module):
    """A convolution, then sums over parts of its rows."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        B, C, H, W = x.shape
        return self.conv(x).reshape(B, C, H // 2, 2, W).sum(3)


class Peaks(nn.Module):
    """A softmax along the places of a convolution: the places at the border count as well."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3, padding=1, bias=False)

    def forward(self, x):
        return self.conv(x).softmax(-1)


MASKS = {
    "is_causal": lambda s: F.softmax(s + s.new_full((s.shape[-1],) * 2, float("-inf")).triu(1), -1),
    "tril": lambda s: s.masked_fill(torch.tril(torch.ones(s.shape[-2:])) == 0, float("-inf")).softmax(-1),
    "triu": lambda s: s.masked_fill(torch.ones(s.shape[-2:], dtype=torch.bool).triu(1), float("-inf")).softmax(-1),
    "where": lambda s: torch.where(torch.ones(s.shape[-2:], dtype=torch.bool).tril(), s, float("-inf")).softmax(-1),
    "window": lambda s: (
        s.masked_fill(torch.ones(s.shape[-2:]).tril() * torch.ones(s.shape[-2:]).triu(-2) == 0, float("-inf"))
    ).softmax(-1),
    "places": lambda s: s.masked_fill(
        ~(torch.arange(s.shape[-1])[:, None] >= torch.arange(s.shape[-1])), float("-inf")
    ).softmax(-1),
    "backward": lambda s: s.masked_fill(torch.ones(s.shape[-2:]).triu() == 0, float("-inf")).softmax(-1),
    "finite": lambda s: s.masked_fill(torch.ones(s.shape[-2:]).tril() == 0, -20.0).softmax(-1),
}


class Causal(nn.Module):
    """Self-attention with a mask of its own, or torch's causal attention."""

    def __init__(self, way):
        super().__init__()
        self.way, self.qkv, self.proj = way, nn.Linear(8, 24), nn.Linear(8, 8)
        self.register_buffer("mask", torch.ones(16, 16).tril().view(1, 1, 16, 16))

    def forward(self, x):
        B, N, C = x.shape
        q, k, v = (t.view(B, N, 2, C // 2).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        if self.way == "sdpa":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        elif self.way == "boolean":
            keep = torch.ones(N, N, dtype=torch.bool).tril()
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=keep)
        elif self.way == "buffer":
            scores = (q @ k.mT / (C // 2) ** 0.5).masked_fill(self.mask[:, :, :N, :N] == 0, float("-inf"))
            y = scores.softmax(-1) @ v
        else:
            y = MASKS[self.way](q @ k.mT / (C // 2) ** 0.5) @ v
        return self.proj(y.transpose(1, 2).reshape(B, N, C))


MAPS = (draw(2, 4, 6, 5),), (draw(2, 4, 3, 8),)


LAYERS = {
    "plain": (nn.Conv2d(4, 3, 3, padding=1), MAPS),
    "depthwise": (nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4), MAPS),
    "grouped": (nn.Conv2d(4, 6, (1, 5), padding=(0, 2), groups=2), MAPS),
    "1d": (nn.Conv1d(4, 3, 7, padding="same"), ((draw(2, 4, 5),), (draw(2, 4, 9),))),
    "3d": (nn.Conv3d(2, 3, 3, padding=1), ((draw(2, 2, 3, 4, 5),), (draw(2, 2, 5, 2, 3),))),
    "norm": (nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()), MAPS),
    "two": (nn.Sequential(nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(5, 4, 5, padding=2)), MAPS),
    "gated": (Gated(), MAPS),
    "standardised": (Standardised(4, 3, 3), MAPS),
    "peaks": (Peaks(), ((draw(2, 4, 5),), (draw(2, 4, 9),))),
    "tokens": (Tokens(), ((draw(2, 12, 4),),)),
}


@pytest.mark.parametrize("name", mostly_nightly(LAYERS, ("plain", "depthwise", "norm", "gated", "peaks", "tokens")))
def test_a_convolution_has_its_own_values_at_every_size(name):
    module, examples = LAYERS[name]
    reading = assert_reads(module, *examples)
    assert ".." in str(reading.spec)


@pytest.mark.parametrize("case", mostly_nightly(list(product((1, 2, 3, 4), (1, 2, 3), (0, 1))), ((3, 2, 1), (4, 3, 0))))
def test_strides_and_kernels_that_change_the_size(case):
    kernel, stride, padding = case
    for shape in ((2, 4, 7), (2, 4, 10)):
        assert_reads(nn.Conv1d(4, 2, kernel, stride=stride, padding=padding), (draw(*shape),))


def test_zeros_before_and_behind_a_sequence():
    weight = draw(4, 4, 3)

    class Past(nn.Module):
        def forward(self, x):
            return F.conv1d(F.pad(x, (2, 0)), weight)

    for length in (5, 9):
        assert_reads(Past(), (draw(2, 4, length),))


def test_what_offsets_do_not_take_is_cut():
    reflected = pa.read(nn.Conv2d(4, 3, 3, padding=1, padding_mode="reflect").double().eval(), MAPS[0])
    assert [cut.operation for cut in reflected.cuts] == ["pad"]
    assert [cut.operation for cut in pa.read(Windows().double().eval(), MAPS[0]).cuts] == ["reshape"]
    given = pa.read(lambda x, w: F.conv1d(x, w), (draw(2, 4, 5), draw(4, 4, 3)))
    assert [cut.reason for cut in given.cuts] == ["a kernel of any length"]

    def empty_row(x):
        s = x @ x.mT
        return s.masked_fill(torch.ones(s.shape[-2:]).tril(-1) == 0, -torch.inf).softmax(-1) @ x

    rows = pa.read(empty_row, (draw(2, 5, 3),))
    assert [cut.operation for cut in rows.cuts] == ["softmax"]


@pytest.mark.parametrize(
    "way", mostly_nightly(["sdpa", "boolean", "buffer", *MASKS], ("sdpa", "buffer", "window", "places"))
)
def test_masked_attention_has_its_own_values_at_every_size(way):
    reading = assert_reads(Causal(way), (draw(2, 5, 8),), (draw(2, 9, 8),))
    assert "where" in str(reading.spec).splitlines()[-3] or way == "finite"


def test_heads_of_keys_are_shared_by_groups_of_queries():
    class Grouped(nn.Module):
        def forward(self, x, k):
            q = x.view(*x.shape[:2], 6, 2).transpose(1, 2)
            k = k.view(*k.shape[:2], 2, 2).transpose(1, 2)
            return F.scaled_dot_product_attention(q, k, k, enable_gqa=True)

    assert_reads(Grouped(), (draw(2, 5, 12), draw(2, 7, 4)), (draw(3, 4, 12), draw(3, 9, 4)))


def test_a_triangle_of_ones_is_a_condition():
    assert_reads(_Linear(), (draw(2, 5, 3),), (draw(2, 8, 3),))
    verdict = pa.prove(_Linear(), "x[N,C]; y[a,b] = x[a,c]*x[e,c]*x[e,b]*[e <= a]", args=(draw(2, 5, 3),))
    assert verdict


class _Linear(nn.Module):
    def forward(self, x):
        return (x @ x.mT).tril() @ x


def test_causal_attention_by_a_mask_and_by_torch_are_proved_equal():
    x = draw(2, 5, 8)
    assert pa.prove(Causal("sdpa").eval(), Causal("triu").eval(), args=(x,))
    assert pa.prove(Causal("sdpa").eval(), Causal("window").eval(), args=(x,)).status == "different"


class Separable(nn.Module):
    """A depthwise convolution and a product over channels, by a 1x1 convolution or a linear map."""

    def __init__(self, way, dilation=1):
        super().__init__()
        self.way = way
        self.space = nn.Conv2d(4, 4, 3, padding=dilation, dilation=dilation, groups=4, bias=False)
        self.mix = nn.Linear(4, 3, bias=False)

    def forward(self, x):
        y = self.space(x)
        if self.way == "linear":
            return self.mix(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return F.conv2d(y, self.mix.weight[:, :, None, None])


def test_separable_convolutions_written_in_two_ways_are_proved_equal():
    assert pa.prove(Separable("linear").eval(), Separable("conv").eval(), args=MAPS[0])
    assert pa.prove(Separable("linear").eval(), Separable("conv", 2).eval(), args=MAPS[0]).status == "different"
