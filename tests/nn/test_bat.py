"""`BATransform` and `BATBlock` against their definition with expanded matrices, at every size, and their options."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import polyattn as pa
from polyattn.nn.parts import part
from tests.drawing import share

from .blocks import awake


def expanded(weights, length):
    """The length x length matrix of positive weights (S, S), each copied to the positions of equal offset in their
    blocks, before it is normalised."""
    blocks = len(weights)
    starts = [s * length // blocks for s in range(blocks + 1)]
    place = [(s, i - starts[s]) for s in range(blocks) for i in range(starts[s], starts[s + 1])]
    full = np.zeros((length, length))
    for i, (s, u) in enumerate(place):
        for k, (r, v) in enumerate(place):
            if u == v:
                full[i, k] = weights[s, r]
    return full


def frames_written_out(block, x):
    """P X Q of one frame (B, C, H, W) in double precision, with the predictor in torch's own layers."""
    conv, norm = block.conv1.conv, block.conv1.norm
    weight = conv.weight.double().flatten(2)[..., None]
    z = F.conv2d(x, weight, None if conv.bias is None else conv.bias.double())
    z = F.batch_norm(z, norm.running_mean.double(), norm.running_var.double(), norm.weight.double(), norm.bias.double())
    z = z.relu()
    (s, r), k = block.blocks, block.groups
    p = F.adaptive_max_pool2d(z, (s, 1)).flatten(1) @ block.conv_p.weight.double().flatten(1).T
    q = F.adaptive_max_pool2d(z, (1, r)).flatten(1) @ block.conv_q.weight.double().flatten(1).T
    positive = torch.sigmoid if block.normalisation == "l1" else torch.exp
    p = positive(p + block.conv_p.bias.double()).view(-1, k, s, s).numpy()
    q = positive(q + block.conv_q.bias.double()).view(-1, k, r, r).numpy()
    y, each = np.zeros(x.shape), x.shape[1] // k
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            left, right = expanded(p[b, c // each], x.shape[2]), expanded(q[b, c // each], x.shape[3])
            left, right = left / left.sum(1, keepdims=True), right / right.sum(0, keepdims=True)
            y[b, c] = left @ x[b, c].numpy() @ right
    return z, torch.from_numpy(y)


def written_out(block, x):
    with torch.no_grad():
        x = x.double()
        if block.dim == 2:
            return frames_written_out(block, x)[1]
        frames = [frames_written_out(block, frame) for frame in x.unbind(2)]
        z, y = torch.stack([f[0] for f in frames], 2), torch.stack([f[1] for f in frames], 2)
        if block.conv_t is None:
            return y
        s, k = block.temporal_size, block.temporal_groups
        pooled = F.adaptive_avg_pool3d(z, (s, 1, 1)).flatten(1)
        scores = pooled @ block.conv_t.weight.double().flatten(1).T + block.conv_t.bias.double()
        weights = (scores.sigmoid() if block.normalisation == "l1" else scores.exp()).view(-1, k, s, s).numpy()
        result, each = np.zeros(y.shape), y.shape[1] // k
        for b in range(y.shape[0]):
            for c in range(y.shape[1]):
                full = expanded(weights[b, c // each], y.shape[2])
                full /= full.sum(1, keepdims=True)
                result[b, c] = np.einsum("st,thw->shw", full, y[b, c].numpy())
        return torch.from_numpy(result)


@share(0.4)
@given(data=st.data())
def test_it_computes_its_definition_at_every_size(data):
    dim = data.draw(st.sampled_from([2, 2, 3]))
    over_time = data.draw(st.integers(0, 2)) if dim == 3 else 0
    block = pa.nn.BATransform(
        4,
        block_size=data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4))),
        groups=data.draw(st.sampled_from([1, 2, 4])),
        predictor_channels=data.draw(st.sampled_from([None, 3])),
        normalisation=data.draw(st.sampled_from(["l1", "softmax"])),
        bias=data.draw(st.booleans()),
        dim=dim,
        temporal_groups=over_time,
        temporal_size=data.draw(st.integers(1, 3)) if over_time else None,
    )
    block = awake(block).eval()
    for _ in range(2):
        sides = data.draw(st.tuples(*[st.integers(1, 9)] * 2))
        x = torch.randn(2, 4, *([data.draw(st.integers(1, 7))] * (dim == 3)), *sides)
        if data.draw(st.booleans()):
            x = x.to(memory_format=torch.channels_last if dim == 2 else torch.channels_last_3d)
        with torch.no_grad():
            y = block.transform(x)
        torch.testing.assert_close(y.double(), written_out(block, x), rtol=1e-4, atol=1e-5)


def test_a_detectors_map_that_the_blocks_do_not_divide_is_computed_as_defined():
    block, x = awake(pa.nn.BATransform(8, block_size=7, groups=2)).eval(), torch.randn(1, 8, 25, 42)
    with torch.no_grad():
        torch.testing.assert_close(block.transform(x).double(), written_out(block, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sides", [(6, 4), (7, 5), (1, 1), (2, 9)])
def test_a_constant_map_stays_what_it_is_as_rows_and_columns_sum_to_one(sides):
    block = awake(pa.nn.BATransform(4, block_size=3, groups=2)).eval()
    x = torch.full((1, 4, *sides), 2.5)
    torch.testing.assert_close(block.transform(x), x)


@pytest.mark.parametrize("normalisation", ["l1", "softmax"])
@pytest.mark.parametrize("dim", [2, 3])
def test_its_specification_evaluated_as_written_gives_its_values(normalisation, dim):
    block = awake(pa.nn.BATransform(4, block_size=(2, 3), groups=2, normalisation=normalisation, dim=dim)).eval()
    x = torch.randn(4, *(2, 4, 6)[3 - dim :])
    parameters = {name: value.detach().double().numpy() for name, value in block.spec_parameters().items()}
    y = block.spec.evaluate({"x": x.movedim(0, -1).double().numpy(), **parameters}, {})
    with torch.no_grad():
        torch.testing.assert_close(
            block.transform(x[None])[0].double(), torch.from_numpy(y).movedim(-1, 0), rtol=1e-4, atol=1e-5
        )


def test_its_product_is_the_one_of_the_catalogue():
    mine = str(part(pa.nn.BATransform(4, block_size=2, groups=2).spec, "y", "x", "p", "q"))
    theirs = str(part(pa.catalog.ba_transform_block(), "y", "x", "p", "q"))
    assert pa.prove(mine.replace("R*V", "S*V").replace("q[G,R,R]", "q[G,S,S]"), theirs)


def test_with_the_sides_themselves_as_blocks_it_is_the_full_resolution_transform():
    block, x = awake(pa.nn.BATransform(4, block_size=(3, 5), groups=2)).eval(), torch.randn(2, 4, 3, 5)
    p, q = block.matrices(x)
    y = torch.einsum("bgik,bgnkl,bglj->bgnij", p, x.view(2, 2, 2, 3, 5), q).reshape(x.shape)
    torch.testing.assert_close(block.transform(x), y)


@pytest.mark.parametrize("sides", [(3, 3), (7, 8)])
def test_down_sampling_averages_multiplies_convolves_and_interpolates(sides):
    block, x = awake(pa.nn.BATransform(4, block_size=3, groups=2, downsample=True)).eval(), torch.randn(2, 4, *sides)
    torch.nn.init.zeros_(block.conv2.norm.bias)  # so that the ReLU cuts some of it
    p, q = block.matrices(x)
    small = F.adaptive_avg_pool2d(x, 3).view(2, 2, 2, 3, 3)
    y = torch.einsum("bgik,bgnkl,bglj->bgnij", p, small, q).reshape(2, 4, 3, 3)
    torch.testing.assert_close(block.transform(x), y, rtol=1e-5, atol=1e-6)
    conv, norm = block.conv2.conv, block.conv2.norm
    z = F.batch_norm(conv(y), norm.running_mean, norm.running_var, norm.weight, norm.bias).relu()
    assert 0 < (z == 0).float().mean() < 1
    torch.testing.assert_close(block(x), F.interpolate(z, sides, mode="bilinear"), rtol=1e-5, atol=1e-6)


def test_down_sampling_in_3d_interpolates_each_frame():
    words = {"block_size": 2, "groups": 2, "downsample": True, "normalisation": "softmax", "dim": 3}
    block, x = awake(pa.nn.BATransform(4, **words)).eval(), torch.randn(2, 4, 3, 5, 7)
    y = block.conv2(block.transform(x))
    assert y.shape == (2, 4, 3, 2, 2)
    frames = torch.stack([F.interpolate(frame, (5, 7), mode="bilinear") for frame in y.unbind(2)], 2)
    torch.testing.assert_close(block(x), frames)


@pytest.mark.parametrize(("channels", "side"), [(512, 28), (1024, 14)])
def test_the_convolution_of_a_down_sampled_map_is_of_the_blocks_alone(channels, side):
    """As the paper's cost in Table 2 has it; the other convolutions are of the whole map."""
    macs = {}
    for downsample in (True, False):
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            pa.nn.BATBlock(channels, downsample=downsample).eval()(torch.zeros(1, channels, side, side))
        macs[downsample] = counter.get_flop_counts()["Global"][torch.ops.aten.convolution] // 2
    assert macs[False] - macs[True] == (channels // 2) ** 2 * (side**2 - 7**2)


def test_without_groups_the_matrices_are_the_identity_and_no_predictor_is_there():
    block, x = pa.nn.BATransform(4, groups=0), torch.randn(2, 4, 5, 6)
    assert block.transform(x) is x
    assert {name.split(".")[0] for name, _ in block.named_parameters()} == {"conv2"}
    with pytest.raises(pa.SizeError, match="they are the identity"):
        block.matrices(x)


def test_scores_of_any_size_give_finite_matrices():
    block, x = pa.nn.BATransform(4, block_size=3, groups=2).eval(), 1e4 * torch.randn(2, 4, 6, 6)
    for matrix, axis in zip(block.matrices(x), (-1, -2), strict=True):
        torch.testing.assert_close(matrix.sum(axis), torch.ones(2, 2, 3))


def test_a_block_drops_channels_only_in_training():
    block, x = awake(pa.nn.BATBlock(8, dropout=0.9, groups=2)), torch.randn(1, 8, 7, 7)
    kept = (block(x) - x).flatten(2).ne(0).any(2)
    assert not kept.all()
    assert torch.equal(block.eval()(x), block(x))


def grown(block, blocks):
    """Millions of parameters of ResNet-50 with blocks of 512 channels on Res3 and of 1024 on Res4, to three digits."""
    added = sum(sum(p.numel() for p in block(c).parameters()) * n for c, n in zip((512, 1024), blocks, strict=True))
    return round((25_557_032 + added) / 1e6, 3)


@pytest.mark.parametrize(
    ("groups", "counted"), [(1, 30.175), (2, 30.188), (4, 30.234), (16, 31.088)], ids=lambda value: str(value)
)
def test_resnet50_with_it_has_the_papers_parameters(groups, counted):
    assert grown(lambda channels: pa.nn.BATBlock(channels, groups=groups), (2, 3)) == counted


def test_resnet50_without_groups_at_full_resolution_and_down_sampled_has_the_papers_parameters():
    assert round(grown(lambda channels: pa.nn.BATBlock(channels, groups=0), (2, 3)), 2) == 30.17
    assert round(grown(lambda channels: pa.nn.BATBlock(channels, downsample=True), (2, 3)), 2) == 30.23
    full = grown(lambda channels: pa.nn.BATBlock(channels, block_size=28 if channels == 512 else 14), (2, 3))
    assert abs(full - 31.86) < 0.05


def test_resnet50_and_18_with_non_local_blocks_have_the_papers_parameters():
    assert grown(lambda channels: pa.nn.NonLocal(channels), (2, 3)) == 32.915
    small = {
        name: sum(p.numel() for c in (128, 256) for p in make(c).parameters())
        for name, make in {"nl": pa.nn.NonLocal, "bat": pa.nn.BATBlock}.items()
    }
    assert round((11_689_512 + small["nl"]) / 1e6, 3) == 11.855
    assert round((11_689_512 + small["bat"]) / 1e6, 3) == 11.818


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"channels": 6}, "groups = 4 does not divide the 6 channels"),
        ({"channels": 8, "block_size": 0}, "block_size must be a positive whole number"),
        ({"channels": 8, "normalisation": "l2"}, "normalisation must be 'l1' or 'softmax'"),
        ({"channels": 8, "dim": 1}, "dim must be 2 or 3, not 1"),
        ({"channels": 8, "temporal_groups": 2, "temporal_size": 4}, "need dim=3"),
        ({"channels": 8, "temporal_groups": 2, "dim": 3}, "temporal_groups needs temporal_size"),
        ({"channels": 8, "temporal_groups": 3, "temporal_size": 4, "dim": 3}, "temporal_groups = 3 does not divide"),
        ({"channels": 8, "groups": -1}, "groups must be a positive whole number"),
    ],
)
def test_words_that_make_no_transform_are_refused(words, message):
    with pytest.raises(pa.SizeError, match=message):
        pa.nn.BATransform(**words)


@pytest.mark.parametrize(("word", "value"), [("reduction", 3), ("dropout", 1.0), ("inner_channels", 0)])
def test_words_that_make_no_block_are_refused(word, value):
    with pytest.raises(pa.SizeError, match=word):
        pa.nn.BATBlock(8, **{word: value})


@pytest.mark.parametrize("channels_last", [False, True])
def test_on_a_gpu_maps_in_any_memory_are_transformed_by_the_kernel(monkeypatch, channels_last):
    """On tensors that pretend to be on one; nothing is computed."""
    for place in ("polyattn.lowering.matching.has_triton", "polyattn.nn.blocks.bat_transform.has_triton"):
        monkeypatch.setattr(place, lambda: True)
    called = set()

    class Called(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            called.add(func.name())
            return func(*args, **(kwargs or {}))

    with FakeTensorMode(), torch.device("cuda"), torch.no_grad():
        block = pa.nn.BATransform(64, block_size=7, groups=4).eval()
        x = torch.empty(8, 64, 56, 56)
        x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
        with Called():
            y = block(x)
    assert "polyattn::block_mix" in called
    assert (y.shape, y.stride(), y.device.type) == (x.shape, x.stride(), "cuda")
