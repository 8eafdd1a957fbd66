"""Whole published networks compute here, with their checkpoints, what they publish."""

import copy
from functools import partial

import pytest
import timm
import torch
from timm.layers.non_local_attn import BatNonLocalAttn
from torch import nn

import polyattn as pa
from polyattn.vision.insert import inserted
from polyattn.vision.video import WindowAverage, build_video
from tests.drawing import PROFILE
from tests.nn import published as blocks

from . import authors

nightly = pytest.mark.nightly  # of networks that differ in kinds of residual branches only


def undropped(network):
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    return network


def checkpoint(network):
    """As a training on several devices writes it."""
    return {"epoch": 3, "state_dict": {f"module.{key}": tensor for key, tensor in network.state_dict().items()}}


def assert_the_same(mine, theirs, inputs, modes=(False, True)):
    """To 1e-5, in evaluation and with the statistics of a batch, and the running statistics afterwards."""
    undropped(mine), undropped(theirs)
    for x in inputs:
        for training in modes:
            with torch.no_grad():
                y, wanted = (network.train(training)(x) for network in (mine, theirs))
            assert (y - wanted).norm() <= 1e-5 * wanted.norm()
    torch.testing.assert_close(mine.bn1.running_var, theirs.bn1.running_var)


def clips(*sides, frames=4):
    return [torch.randn(1, 3, frames, side, side) for side in sides]


def test_the_image_code_with_both_of_its_blocks():
    made = iter((authors.image_bat(), authors.image_non_local))
    theirs = authors.off_its_start(authors.Network(2, (2, 2, 2, 2), 7, lambda c: next(made)(c), bottleneck=False))
    mine = pa.vision.resnet18({"layer2.1": "bat", "layer3.1": "nl"}, num_classes=7)
    assert pa.vision.load_backbone(mine, checkpoint(theirs), "bat") is mine
    assert_the_same(mine, theirs, [torch.randn(2, 3, 224, 224)])


def test_the_video_code_fully_convolutionally_at_256_pixels():
    theirs = authors.off_its_start(authors.Network(3, (2, 2, 2, 2), 7, authors.video_bat(4, 2, 2), bottleneck=False))
    words = {"groups": 4, "temporal_groups": 2, "frames": 4, "image_size": 64, "num_classes": 7}
    mine = build_video("resnet18", "bat", temporal={}, **words)
    pa.vision.load_backbone(mine, checkpoint(theirs), "bat")
    transform = mine.layer2[1].attention.transform
    assert transform.matrices(torch.randn(1, 64, 2, 32, 32))[0].shape == (1, 2, 4, 8, 8)
    assert_the_same(mine, theirs, clips(256))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "words", "attention", "lengths"),
    [
        ("c2d_resnet50", {"groups": 8, "temporal_groups": 4, "temporal_size": 2}, authors.video_bat(8, 2, 4), None),
        pytest.param("i3d_resnet50", {"groups": 8}, authors.video_bat(8, 2, 0), authors.I3D, marks=nightly),
        ("i3d_resnet50", {}, authors.video_non_local, authors.I3D),
        pytest.param("c2d_resnet50", {}, None, None, marks=nightly),
    ],
    ids=["C2D + 3D-BAT", "I3D + BAT", "I3D + NL", "C2D"],
)
def test_the_video_networks_of_table_8(build, words, attention, lengths):
    theirs = authors.off_its_start(authors.Network(3, (3, 4, 6, 3), 7, attention, lengths=lengths))
    name = None if attention is None else "bat" if words else "nl"
    mine = getattr(pa.vision, build)(name, num_classes=7, frames=4, image_size=64, **words)
    pa.vision.load_backbone(mine, checkpoint(theirs), "bat")
    inputs = clips(224, 256) if PROFILE != "ci" else clips(256)
    if attention is authors.video_non_local:  # products of similarities bring up the roundings of float32
        mine, theirs, inputs = mine.double(), theirs.double(), [x.double() for x in inputs]
    assert_the_same(mine, theirs, inputs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "kind"),
    [
        ("resnet50", {}),
        pytest.param("seresnet50", {"squeezes": True}, marks=nightly),
        pytest.param("resnext50_32x4d", {"groups": 32, "width": 128}, marks=nightly),
    ],
)
def test_the_image_networks_of_table_6(build, kind):
    theirs = authors.off_its_start(authors.Network(2, (3, 4, 6, 3), 7, authors.image_bat(), **kind))
    mine = getattr(pa.vision, build)("bat", num_classes=7)
    pa.vision.load_backbone(mine, checkpoint(theirs), "bat")
    assert_the_same(mine, theirs, [torch.randn(2, 3, 224, 224)])


def test_timms_network_with_attention_inside_its_residual_branches():
    theirs = authors.off_its_start(timm.create_model("resnet14t", block_args={"attn_layer": "bat"}, num_classes=7))
    values = {
        f"{name}.bn3": partial(pa.nn.BATBlock, reduction=4, groups=2, bias=False, dropout=0.0)
        for name, module in theirs.named_modules()
        if isinstance(getattr(module, "se", None), BatNonLocalAttn)
    }
    assert len(values) == 4
    mine = pa.vision.insert(timm.create_model("resnet14t", num_classes=7), values)
    pa.vision.load_backbone(mine, theirs.state_dict(), "timm")
    assert_the_same(mine, theirs, [torch.randn(2, 3, 224, 224)])


class Video(nn.Module):
    """One residual block of MMAction2's names with a non-local block as its last step, and a head."""

    def __init__(self):
        super().__init__()
        self.backbone, self.cls_head = nn.Module(), nn.Module()
        self.backbone.layer1 = nn.Sequential(nn.Module())
        (block,) = self.backbone.layer1
        for name in ("conv1", "downsample"):
            setattr(block, name, blocks.Wrapped(3, 3, 8, norm=True))
        block.non_local_block = blocks.MmcvNonLocal(3, 8, 4, "embedded_gaussian", True, True)
        self.cls_head.fc_cls = nn.Linear(8, 5)

    def forward(self, x):
        (block,) = self.backbone.layer1
        return self.cls_head.fc_cls(
            block.non_local_block((block.conv1(x) + block.downsample(x)).relu()).mean((2, 3, 4))
        )


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1, self.fc = nn.Sequential(Residual()), nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.layer1(x).mean((2, 3, 4)))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv3d(3, 8, 1, bias=False), nn.BatchNorm3d(8)
        self.downsample = nn.Sequential(nn.Conv3d(3, 8, 1, bias=False), nn.BatchNorm3d(8))

    def forward(self, x):
        return (self.bn1(self.conv1(x)) + self.downsample(x)).relu()


def plain_with_attention():
    block = partial(pa.nn.NonLocal, sub_sample=2, pool="after", dim=3)
    return pa.vision.insert(Plain(), {"layer1.0": block}, example_input=torch.zeros(1, 3, 2, 4, 4))


@pytest.mark.parametrize("scale", [None, 1.0])
def test_mmactions_names(scale):
    theirs, mine, x = authors.off_its_start(Video()), plain_with_attention(), torch.randn(2, 3, 2, 4, 4)
    if scale:  # `use_scale=False`: as if the queries were larger
        with torch.no_grad():
            theirs.backbone.layer1[0].non_local_block.theta.conv.weight.mul_(2)
            theirs.backbone.layer1[0].non_local_block.theta.conv.bias.mul_(2)
    pa.vision.load_backbone(mine, {"meta": {}, "state_dict": theirs.state_dict()}, "mmcv", scale=scale)
    if scale:
        mine.layer1[0].attention.theta.weight.data.div_(2)
        mine.layer1[0].attention.theta.bias.data.div_(2)
    torch.testing.assert_close(mine(x), theirs(x))


def small():
    return pa.vision.resnet18({"layer2.1": "bat"}, num_classes=7, image_size=64)


def test_every_key_that_is_left_is_named_and_the_network_is_as_it_was():
    made = authors.image_bat()
    theirs = authors.Network(2, (2, 2, 2, 2), 9, made, bottleneck=False, steps=(2, 3)).state_dict()
    wrong = [f"layer4.1.more{k}" for k in range(8)] + ["layer2.nl1.batransform.conv_r.weight", "layer2.nl0.t.weight"]
    lost = ["layer1.0.conv1.weight", "layer2.nl1.conv1.0.bias", "layer2.nl1.batransform.conv1.1.running_var"]
    weights = {key: tensor for key, tensor in theirs.items() if key not in lost}
    weights |= dict.fromkeys(wrong, torch.zeros(3))
    mine = small()
    before = copy.deepcopy(mine.state_dict())
    with pytest.raises(pa.InsertError) as caught:
        pa.vision.load_backbone(mine, weights, "bat")
    missing, many, shapes = str(caught.value).split("; ")[:3]
    assert sorted(missing.partition("missing: ")[2].split(", ")) == sorted(map(repr, lost))
    assert sorted(many.partition("too many: ")[2].split(", ")) == sorted(map(repr, wrong))
    assert "'fc.weight' is (9, 512), and (7, 512) in the network" in shapes
    assert all(torch.equal(tensor, before[key]) for key, tensor in mine.state_dict().items())
    rest = {key: tensor for key, tensor in theirs.items() if key not in lost}
    pa.vision.load_backbone(mine, rest, "bat", skip=("fc", "layer1.0.conv1", "layer2.1.attention"))
    assert torch.equal(mine.layer4[1].bn2.running_var, theirs["layer4.1.bn2.running_var"])


@pytest.mark.parametrize(
    ("weights", "source", "message"),
    [
        ([], "bat", "`state_dict` must be a dictionary of tensors by name, not a list"),
        ({"epoch": 3, "fc.weight": torch.zeros(1)}, None, "not tensors: 'epoch'"),
        ({}, "torch", "`source` must be 'bat' or 'timm' or 'mmcv' or None, not 'torch'"),
        ({}, "mmcv", "'layer2.1.attention': the source 'mmcv' has no BATBlock; skip='layer2.1.attention' keeps"),
        ({}, "timm", "missing: .*'layer2.1.conv1.conv.weight'"),
    ],
)
def test_what_is_no_checkpoint_of_the_source_is_refused(weights, source, message):
    with pytest.raises(pa.InsertError, match=message):
        pa.vision.load_backbone(small(), weights, source)


def test_a_scale_that_no_block_has_is_refused():
    with pytest.raises(pa.InsertError, match=r"scale=0\.5 would set"):
        pa.vision.load_backbone(small(), {}, "bat", scale=0.5)


def test_an_image_checkpoint_starts_a_video_network_and_its_blocks():
    """As the authors' pre-training does; what is over time is new."""
    theirs = authors.Network(2, (2, 2, 2, 2), 7, authors.image_bat(), bottleneck=False)
    mine = build_video("resnet18", "bat", temporal={}, num_classes=7, frames=4, image_size=64)
    pa.vision.load_backbone(mine, theirs.state_dict(), "bat")
    ours, published = mine.layer2[1].attention.transform, theirs.layer2.nl1.batransform
    assert torch.equal(ours.conv_p.weight[:, :, 0], published.conv_p.weight)
    assert ours.larger_maps == "slide"


def test_loading_sets_the_rule_for_larger_maps():
    words = {"block_size": 3, "groups": 2, "dropout": 0.0}
    video = pa.nn.BATBlock(8, **words, normalisation="softmax", dim=3)
    pa.nn.load_weights(video, authors.blocks_of(3, 8, 3, 2).state_dict(), "bat_video")
    image = pa.nn.BATBlock(8, **words, larger_maps="slide")
    pa.nn.load_weights(image, authors.blocks_of(2, 8, 3, 2).state_dict(), "bat")
    assert (video.transform.larger_maps, image.transform.larger_maps) == ("slide", "blocks")


def test_the_presets_of_video_networks_slide_and_cost_counts_it():
    with torch.device("meta"):
        model = pa.vision.c2d_resnet50("bat", places="layer3.1", groups=4)
    assert {module.attention.transform.larger_maps for module in inserted(model).values()} == {"slide"}
    small, large = (pa.vision.cost(model, torch.zeros(1, 3, 8, s, s, device="meta")).macs_added for s in (224, 256))
    c, k = 512, 4
    products = []
    # Of 4 frames: 1x1 convolutions and the predictor's two, which slide over 1 or 2 places.
    for macs, side, places, m in ((small, 14, 1, 7), (large, 16, 2, 8)):
        positions = 4 * side * side
        convolutions = positions * (2 * 2 * c * c + c * c + c * k) + 2 * 4 * places * k * k * 7**3
        products.append((macs - convolutions) / (positions * m * c))
    assert products[0] == products[1] >= 2


def test_windows_longer_than_the_map_average_all_of_it():
    x = torch.randn(2, 3, 2, 5, 9)
    y = WindowAverage()(x)
    assert y.shape == (2, 3, 1, 1, 3)
    torch.testing.assert_close(y[..., 1], x[..., 1:8].mean((2, 3, 4))[..., None, None])
