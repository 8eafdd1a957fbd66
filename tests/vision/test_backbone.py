"""Facts of loading a plain backbone's weights."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

import polyattn as pa

SPEC = pa.catalog.poly_nl()


def test_the_backbone_loads_and_the_attention_stays():
    source = resnet18().state_dict()
    model = pa.vision.resnet18(SPEC, image_size=64)
    before = model.layer3[0].attention.w1.clone()
    pa.vision.load_backbone(model, source)
    loaded = model.state_dict()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in source.items())
    assert torch.equal(model.layer3[0].attention.w1, before)


def test_timms_weights_load_as_torchvisions_do():
    import timm

    model = pa.vision.resnet18(SPEC, image_size=64).eval()
    theirs = timm.create_model("resnet18").eval()
    pa.vision.load_backbone(model, theirs.state_dict())
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model(images), theirs(images))


def test_other_classes_are_refused_with_the_remedy_and_skipped_when_told():
    model = pa.vision.resnet18(SPEC, image_size=64, num_classes=3)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(pa.InsertError, match=r"'fc\.weight' is \(1000, 512\), and \(3, 512\).*skip"):
        pa.vision.load_backbone(model, resnet18().state_dict())
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    pa.vision.load_backbone(model, resnet18().state_dict(), skip="fc")
    assert torch.equal(model.fc.weight, before["fc.weight"])
    assert not torch.equal(model.conv1.weight, before["conv1.weight"])


def test_missing_and_foreign_keys_are_named():
    model, source = pa.vision.resnet18(SPEC, image_size=64), resnet18().state_dict()
    del source["layer1.0.bn1.bias"]
    source["layer9.weight"] = torch.zeros(1)
    with pytest.raises(pa.InsertError, match=r"missing: 'layer1\.0\.bn1\.bias'; too many: 'layer9\.weight'$"):
        pa.vision.load_backbone(model, source)


def test_what_cannot_be_skipped_is_refused():
    with pytest.raises(pa.InsertError, match="'head'"):
        pa.vision.load_backbone(pa.vision.resnet18(), resnet18().state_dict(), skip="head")


def test_a_detector_takes_the_weights_of_its_body():
    detector = pa.vision.mask_rcnn_resnet50_fpn(SPEC, image_size=32)
    source = pa.vision.resnet50().state_dict()
    pa.vision.load_backbone(detector, source, skip="fc")
    assert torch.equal(detector.backbone.body.conv1.weight, source["conv1.weight"])


def test_a_video_network_takes_2d_weights():
    source = pa.vision.resnet50(num_classes=5)
    nn.init.normal_(source.bn1.running_mean)
    video = pa.vision.i3d_resnet50(num_classes=5)
    pa.vision.load_backbone(video, source.state_dict())
    torch.testing.assert_close(video.conv1.weight.sum(2), source.conv1.weight)
    assert torch.equal(video.bn1.running_mean, source.bn1.running_mean)
