"""Facts of the names in timm and in torchvision."""

import pytest
import timm
import torch
from torchvision.models import get_model, list_models

import polyattn as pa
import polyattn.vision.registry
from polyattn.vision.insert import inserted
from polyattn.vision.places import DEPTHS


@pytest.mark.parametrize("attention", pa.vision.NAMES)
@pytest.mark.parametrize("network", DEPTHS)
def test_every_network_with_every_block_is_a_model_of_timm_and_of_torchvision(network: str, attention: str):
    name = f"polyattn_{network}_{attention}"
    assert timm.is_model(name)
    assert list_models(include=name) == [name]


def test_timm_makes_its_own_network_with_the_blocks():
    model = timm.create_model("polyattn_resnet18_bat", num_classes=7, in_chans=1, groups=2, image_size=64)
    assert type(model) is timm.models.ResNet
    assert list(inserted(model)) == ["layer2.1", "layer3.1"]
    assert model.layer2[1].attention.transform.groups == 2
    assert model(torch.zeros(2, 1, 64, 65)).shape == (2, 7)


def test_timm_makes_pyramids_of_features_with_the_blocks_in_them():
    model = timm.create_model("polyattn_resnet18_poly_nl", features_only=True, image_size=64)
    assert list(inserted(model)) == ["layer3.0"]
    assert [f.shape[1] for f in model(torch.zeros(1, 3, 64, 64))] == [64, 64, 128, 256, 512]


def test_timm_takes_places():
    model = timm.create_model("polyattn_resnet18_nl", places="res345", image_size=64)
    assert list(inserted(model)) == ["layer2.0", "layer3.0", "layer4.0"]


@pytest.mark.parametrize("name", ["c2d_resnet50", "i3d_resnet101", "mask_rcnn_resnet50_fpn"])
def test_torchvision_has_the_video_networks_and_detectors(name: str):
    with torch.device("meta"):
        model = get_model(f"polyattn_{name}_poly_nl")
    assert len(inserted(model)) == 1


def test_torchvision_makes_the_builders_network():
    model = get_model("polyattn_resnet18_bat", num_classes=3, image_size=64)
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in pa.vision.resnet18("bat", num_classes=3, image_size=64).state_dict().items()
    }
