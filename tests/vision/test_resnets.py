"""Facts of the image networks."""

import copy

import pytest
import torch
from torch import nn
from torchvision import models

import polyattn as pa
from polyattn.vision.insert import inserted
from polyattn.vision.places import DEPTHS

SPEC = pa.catalog.poly_nl()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", [n for n in DEPTHS if n != "seresnet50"])
def test_a_network_without_attention_is_torchvisions(name: str):
    with torch.device("meta"):
        ours, theirs = getattr(pa.vision, name)(), getattr(models, name)()
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


@pytest.mark.parametrize("name", [n for n in DEPTHS if n not in ("resnet34", "resnet101", "resnet152")])
def test_every_network_takes_attention_in_every_layout(name: str):
    for layout in ("bat", "poly_nl", "res345"):
        with torch.device("meta"):
            model = getattr(pa.vision, name)(SPEC, places=layout, image_size=64)
        assert tuple(inserted(model)) == pa.vision.places_of(name, layout)


def test_a_network_gives_one_row_of_classes_for_images_of_any_size_in_train_and_eval(images: torch.Tensor):
    model = pa.vision.resnet18(SPEC, places="res345", num_classes=7, image_size=64)
    for training in (True, False):
        for shape in ((64, 64), (65, 87), (33, 40)):
            assert model.train(training)(images[:, :, : shape[0]].new_zeros(2, 3, *shape)).shape == (2, 7)


def test_state_dicts_and_copies_give_the_same_outputs(images: torch.Tensor):
    model = pa.vision.resnet18(SPEC, image_size=64).eval()
    nn.init.constant_(model.layer3[0].attention.beta, 0.5)
    other = pa.vision.resnet18(SPEC, image_size=64).eval()
    other.load_state_dict(model.state_dict())
    expected = model(images)
    assert torch.equal(other(images), expected)
    assert torch.equal(copy.deepcopy(model)(images), expected)


@pytest.mark.parametrize("name", pa.vision.NAMES)
def test_every_block_trains_in_a_network_and_takes_odd_sizes(name: str, images: torch.Tensor):
    model = pa.vision.resnet18(name, places="layer3.0", num_classes=3, image_size=64)
    model(images).sum().backward()
    attention = inserted(model)["layer3.0"].attention
    assert any(p.grad is not None and p.grad.ne(0).any() for p in attention.parameters())
    assert model.eval()(images[..., :61, :53]).isfinite().all()
    twin = copy.deepcopy(model)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(images), model(images))


def test_words_of_the_block_reach_it():
    model = pa.vision.resnet18("bat", groups=2, reduction=4, image_size=64)
    assert model.layer2[1].attention.transform.groups == 2
    assert model.layer2[1].attention.inner_channels == 32


def test_bat_blocks_drop_out_in_bottleneck_networks_only():
    with torch.device("meta"):
        deep, shallow = pa.vision.resnet50("bat", image_size=64), pa.vision.resnet34("bat", image_size=64)
        chosen = pa.vision.resnet50("bat", dropout=0.5, image_size=64)
    drops = [model.layer2[1].attention.dropout.p for model in (deep, shallow, chosen)]
    assert drops == [0.2, 0.0, 0.5]


def test_attention_by_place_can_be_mixed():
    model = pa.vision.resnet18({"layer1.0": "nl", "layer2.1": pa.catalog.nl()}, image_size=64)
    assert list(inserted(model)) == ["layer1.0", "layer2.1"]
    assert type(model.layer1[0].attention) is not type(model.layer2[1].attention)


def test_sizes_that_parameters_need_come_from_the_image_size():
    spec = pa.catalog.ba_transform()
    model = pa.vision.resnet18(spec, places="layer2.0", image_size=(64, 96), sizes={"G": 2, "K": 3})
    assert model.layer2[0].attention.sizes == {"C": 128, "G": 2, "K": 3, "H": 8, "W": 12}


def test_further_words_reach_torchvision():
    model = pa.vision.resnet18(network={"norm_layer": nn.InstanceNorm2d})
    assert isinstance(model.bn1, nn.InstanceNorm2d)


@pytest.mark.parametrize("words", [{"groups": 4}, {"places": "bat"}, {"sizes": {"G": 4}}])
def test_words_for_attention_that_is_not_there_are_refused(words: dict):
    with pytest.raises(pa.InsertError, match=next(iter(words))):
        pa.vision.resnet18(**words)


def test_places_are_said_once():
    with pytest.raises(pa.InsertError, match="places"):
        pa.vision.resnet18({"layer1.0": SPEC}, places="bat")


def test_a_network_exports(images: torch.Tensor):
    model = pa.vision.resnet18(SPEC, image_size=64).eval()
    nn.init.constant_(model.layer3[0].attention.beta, 0.5)
    exported = torch.export.export(model, (images,)).module()
    torch.testing.assert_close(exported(images), model(images), rtol=1e-4, atol=1e-5)
