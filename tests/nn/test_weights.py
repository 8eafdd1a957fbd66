"""Weights from elsewhere: a loaded block gives the published block's values, gradients and statistics."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers.non_local_attn import BatNonLocalAttn, BilinearAttnTransform, NonLocalAttn
from torch import nn

import polyattn as pa
from polyattn.nn.blocks.non_local import SIMILARITIES
from polyattn.nn.weights import SOURCES
from tests.drawing import share

from . import published
from .blocks import awake


def off_its_start(module):
    """Every weight and statistic of its own value, no branch switched off."""
    with torch.no_grad():
        for name, parameter in awake(module).named_parameters():
            if name.split(".")[-1] in ("bias", "gamma"):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def same(block, reference, source, x, lacking=(), **options):
    """Load, and compare everything in training and in evaluation, but for the gradients of what it lacks.

    The reference's gradients and statistics are brought to the block's names by `load_weights` itself, into a twin.
    A bias before a batch norm has the gradient 0 in training, and what is there is rounding: hence the tolerance.
    """
    assert pa.nn.load_weights(block, off_its_start(reference).state_dict(), source, **options) is block
    for training in (True, False):
        results = []
        for module in (block, reference):
            module.train(training).zero_grad()
            torch.manual_seed(1)  # of the dropout
            image = x.clone().requires_grad_()
            y = module(image)
            y.sin().sum().backward()
            results.append((y.detach(), image.grad))
        (mine, my_gradient), (theirs, gradient) = results
        assert (mine - theirs).norm() <= 1e-5 * theirs.norm()
        assert (my_gradient - gradient).norm() <= 1e-5 * gradient.norm()
        gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in reference.named_parameters()}
        twin = pa.nn.load_weights(copy.deepcopy(block), reference.state_dict() | gradients, source, **options)
        largest = max(g.abs().max() for g in gradients.values())
        for name, parameter in block.named_parameters():
            if name not in lacking:
                wanted = twin.get_parameter(name).detach()
                mine = torch.zeros_like(wanted) if parameter.grad is None else parameter.grad
                torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=float(1e-4 * largest))
        for name, buffer in block.named_buffers():
            torch.testing.assert_close(buffer, twin.get_buffer(name), rtol=1e-5, atol=1e-6)


BATCHES = st.integers(2, 3)


@share(0.5)
@given(groups=st.sampled_from([1, 2, 4]), s=st.integers(1, 4), u=st.integers(1, 3), v=st.integers(1, 3), data=st.data())
def test_of_timms_bilinear_transform(groups, s, u, v, data):
    channels = groups * data.draw(st.integers(1, 4))
    x = torch.randn(data.draw(BATCHES), channels, s * u, s * v)
    block = pa.nn.BATransform(channels, block_size=s, groups=groups, bias=False)
    same(block, BilinearAttnTransform(channels, s, groups), "timm", x)


@share(0.5)
@given(groups=st.sampled_from([1, 2, 4]), s=st.integers(1, 4), u=st.integers(1, 3), data=st.data())
def test_of_timms_bat_block(groups, s, u, data):
    inner, channels = groups * data.draw(st.integers(1, 4)), data.draw(st.integers(2, 20))
    drop = data.draw(st.sampled_from([0.0, 0.2, 0.7]))
    x = torch.randn(data.draw(BATCHES), channels, s * u, s * data.draw(st.integers(1, 3)))
    block = pa.nn.BATBlock(channels, inner_channels=inner, block_size=s, groups=groups, bias=False, dropout=drop)
    same(block, BatNonLocalAttn(channels, s, groups, rd_channels=inner, drop_rate=drop), "timm", x)


@share(0.5)
@given(channels=st.integers(2, 20), inner=st.integers(1, 9), sides=st.tuples(*[st.integers(1, 7)] * 2), data=st.data())
def test_of_timms_non_local_block(channels, inner, sides, data):
    use_scale = data.draw(st.booleans())
    x = torch.randn(data.draw(BATCHES), channels, *sides)
    block = pa.nn.NonLocal(channels, inner_channels=inner)
    options = {} if use_scale else {"scale": 1.0}
    same(block, NonLocalAttn(channels, use_scale, rd_channels=inner), "timm", x, **options)


@pytest.mark.parametrize("sides", [(6, 6), (3, 9)])
@pytest.mark.parametrize("groups", [1, 2])
def test_of_the_image_code(sides, groups):
    x = torch.randn(2, 8, *sides)
    reference = published.BAT(2, 8, 4, published.ImageTransform(4, 3, groups), 0.3)
    same(pa.nn.BATBlock(8, block_size=3, groups=groups, dropout=0.3), reference, "bat", x)
    same(pa.nn.BATransform(8, block_size=3, groups=groups), published.ImageTransform(8, 3, groups), "bat", x)
    same(pa.nn.NonLocal(8), published.ImageNonLocal(8, 4), "bat", x)


@pytest.mark.parametrize(("over_time", "frames"), [(0, 4), (1, 8), (2, 4)])
@pytest.mark.parametrize("sides", [(6, 9), (4, 8), (5, 5)])
def test_of_the_video_code(over_time, frames, sides):
    """Over 4 blocks its predictors slide in 2 places, over 5 in 3."""
    x = torch.randn(2, 8, frames, *sides)
    words = {"block_size": 3, "groups": 2, "normalisation": "softmax", "dim": 3, "dropout": 0.0}
    words |= {"temporal_groups": over_time, "temporal_size": 4 if over_time else None}
    reference = published.BAT(3, 8, 4, published.VideoTransform(4, 3, 2, 4, over_time))
    same(pa.nn.BATBlock(8, **words), reference, "bat_video", x)
    del words["dropout"]
    same(pa.nn.BATransform(8, **words), published.VideoTransform(8, 3, 2, 4, over_time), "bat_video", x)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize(("heads", "pooled", "norm"), [(1, False, True), (2, True, True), (2, False, False)])
def test_of_the_video_codes_non_local_block(dim, heads, pooled, norm):
    x = torch.randn(2, 8, *(2, 4, 6)[3 - dim :])
    reference = published.VideoNonLocal(dim, 8, 4, heads, pooled, norm)
    same(pa.nn.NonLocal(8, heads=heads, sub_sample=1 + pooled, norm=norm, dim=dim), reference, "bat_video", x)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("mode", SIMILARITIES)
@pytest.mark.parametrize(("pooled", "norm"), [(False, False), (True, True)])
def test_of_mmcv(dim, mode, pooled, norm):
    x = torch.randn(2, 8, *(2, 4, 6)[3 - dim :])
    reference = published.MmcvNonLocal(dim, 8, 4, mode, pooled, norm)
    words = {"similarity": mode, "sub_sample": 1 + pooled, "pool": "after", "norm": norm, "dim": dim}
    same(pa.nn.NonLocal(8, **words), reference, "mmcv", x, ("out.bias",) if norm else ())


@pytest.mark.parametrize(("keys", "heads", "values"), [(4, 1, 6), (6, 2, 4)])
def test_of_efficient_attention(keys, heads, values):
    x = torch.randn(2, 8, 3, 5)
    reference = published.EfficientAttention(8, keys, heads, values)
    same(pa.nn.EfficientNL(8, keys, values, heads), reference, "efficient_attention", x)


@pytest.mark.parametrize("mode", ["asymmetric", "symmetric"])
@pytest.mark.parametrize(("dims", "graph_conv"), [((5,), False), ((3, 4), True)])
def test_of_latent_gnn(mode, dims, graph_conv):
    x = torch.randn(2, 8, 3, 5)
    reference = published.Latent(8, 4, dims, mode, graph_conv)
    same(pa.nn.LatentGNN(8, dims, 2, mode=mode, graph_conv=graph_conv), reference, "latent_gnn", x)


def test_of_a_part_of_a_network_by_its_prefix():
    network = nn.Sequential(nn.Conv2d(3, 8, 1), NonLocalAttn(8, rd_channels=4))
    block, x = pa.nn.NonLocal(8).eval(), torch.randn(2, 8, 3, 5)
    pa.nn.load_weights(block, off_its_start(network).eval().state_dict(), "timm", prefix="1.")
    torch.testing.assert_close(block(x), network[1](x))


def test_a_file_that_counts_no_batches_is_taken():
    weights = NonLocalAttn(8, rd_channels=4).state_dict()
    del weights["norm.num_batches_tracked"]
    pa.nn.load_weights(pa.nn.NonLocal(8), weights, "timm")


def test_what_differs_is_listed_and_the_block_is_left_as_it_was():
    block = pa.nn.NonLocal(8)
    before = copy.deepcopy(block.state_dict())
    weights = NonLocalAttn(8, rd_channels=4).state_dict()
    weights["t.weight"] = torch.zeros(3, 8, 1, 1)
    weights["extra"] = weights.pop("z.bias")
    with pytest.raises(pa.WeightsError) as caught:
        pa.nn.load_weights(block, weights, "timm")
    message = str(caught.value)
    assert "missing: z.bias; unknown: extra; of another shape: t.weight (3, 8, 1, 1) instead of (4, 8, 1, 1)" in message
    for name, tensor in block.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(
    ("block", "source", "message"),
    [
        (pa.nn.NonLocal, "keras", "unknown source 'keras'; there are timm, bat"),
        (pa.nn.PolyNL, "timm", "the source 'timm' has no PolyNL"),
        (lambda c: pa.nn.BATBlock(c), "mmcv", "the source 'mmcv' has no BATBlock"),
        (
            lambda c: pa.nn.BATBlock(c),
            "bat_video",
            "made with dim=2 instead of 3, normalisation='l1' instead of 'softm",
        ),
        (lambda c: pa.nn.BATBlock(c, downsample=True), "bat", "made with downsample=True instead of False"),
        (lambda c: pa.nn.NonLocal(c, similarity="gaussian"), "timm", "similarity='gaussian' instead of 'embedded_gaus"),
        (lambda c: pa.nn.NonLocal(c, sub_sample=2), "mmcv", "pool='before' instead of 'after'"),
        (
            lambda c: pa.nn.EfficientNL(c, normalisation="scaling"),
            "efficient_attention",
            "normalisation='scaling' inst",
        ),
        (lambda c: pa.nn.BATBlock(c), "timm", "missing: conv1.conv.bias"),
    ],
)
def test_a_block_that_computes_something_else_is_refused(block, source, message):
    weights = BatNonLocalAttn(8, groups=4, rd_channels=4).state_dict()
    with pytest.raises(pa.WeightsError, match=message):
        pa.nn.load_weights(block(8), weights, source)


def test_a_scale_is_refused_where_there_is_none_to_set():
    reference = published.MmcvNonLocal(2, 8, 4, "dot_product", False, False)
    block = pa.nn.NonLocal(8, similarity="dot_product", norm=False)
    with pytest.raises(pa.WeightsError, match="no scale before a softmax"):
        pa.nn.load_weights(block, reference.state_dict(), "mmcv", scale=0.5)


def test_every_source_is_documented():
    for source in SOURCES:
        assert f"`{source}`" in (pa.nn.load_weights.__doc__ or "")
