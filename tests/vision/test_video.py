"""Facts of inflation and of the video networks."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

import polyattn as pa
from polyattn.vision.inflate import inflate_weight
from polyattn.vision.insert import inserted
from polyattn.vision.video import i3d_lengths

SPEC = pa.catalog.poly_nl()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def still(image: torch.Tensor, frames: int) -> torch.Tensor:
    return image.unsqueeze(2).expand(-1, -1, frames, -1, -1)


def with_statistics(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.eval()


def features(model: nn.Module, x: torch.Tensor, name: str) -> torch.Tensor:
    kept: list[torch.Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(lambda m, i, o: kept.append(o.detach()))
    model(x)
    handle.remove()
    return kept[0]


def test_an_inflated_network_gives_the_2d_outputs_for_a_still_video(image: torch.Tensor):
    model = with_statistics(resnet18())
    expected = model(image)
    torch.testing.assert_close(pa.vision.inflate(model)(still(image, 3)), expected)


def test_centred_kernels_give_the_2d_outputs_at_any_length(image: torch.Tensor):
    model = with_statistics(resnet18())
    expected = model(image)
    lengths = {"conv1": 5, "layer1.0.conv1": 3, "layer3.1.conv2": 3}
    torch.testing.assert_close(pa.vision.inflate(model, lengths, "centre")(still(image, 2)), expected)


def test_mean_kernels_give_the_2d_features_where_no_padding_is_in_reach(image: torch.Tensor):
    model = with_statistics(resnet18())
    expected = features(model, image, "layer1")
    pa.vision.inflate(model, {"conv1": 5, "layer1.0.conv1": 3, "layer1.1.conv1": 3})
    got = features(model, still(image, 11), "layer1")
    for frame in range(4, 7):  # 2 + 1 + 1 frames to either side are in reach
        torch.testing.assert_close(got[:, :, frame], expected)
    assert not torch.allclose(got[:, :, 0], expected)


def test_the_paper_c2d_network_computes_the_2d_features_of_each_frame_if_its_pooling_is_padded(image: torch.Tensor):
    plain = with_statistics(pa.vision.resnet50(num_classes=5))
    expected = plain(image)
    video = pa.vision.c2d_resnet50(num_classes=5, pool_padding=1).eval()
    pa.vision.load_backbone(video, plain.state_dict())
    torch.testing.assert_close(video(still(image, 4)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("length", [1, 3, 5])
@pytest.mark.parametrize("inflation", ["mean", "centre"])
def test_an_inflated_kernel_sums_to_the_2d_one(length: int, inflation):
    weight = torch.randn(4, 3, 3, 3)
    inflated = inflate_weight(weight, length, inflation)
    assert inflated.shape == (4, 3, length, 3, 3)
    torch.testing.assert_close(inflated.sum(2), weight)


def test_the_i3d_network_has_the_papers_lengths():
    """9 of its 16 blocks have one, as in the authors' code; 3.7 M parameters more than C2D (BAT, Table 8)."""
    lengths = i3d_lengths("resnet50")
    assert [sum(name.startswith(f"layer{stage}") for name in lengths) for stage in range(1, 5)] == [3, 2, 3, 1]
    with torch.device("meta"):
        i3d, c2d = pa.vision.i3d_resnet50(), pa.vision.c2d_resnet50()
    more, fewer = (sum(p.numel() for p in model.parameters()) for model in (i3d, c2d))
    assert round((more - fewer) / 1e6, 2) == 3.72


def test_video_networks_take_attention_clips_of_any_length_and_images_of_any_size():
    model = pa.vision.i3d_resnet50(SPEC, num_classes=4, frames=4, image_size=32).eval()
    assert list(inserted(model)) == ["layer3.4"]
    for shape in ((2, 3, 4, 32, 32), (1, 3, 5, 40, 33)):
        assert model(torch.zeros(shape)).shape == (shape[0], 4)


@pytest.mark.parametrize("name", ["bat", "nl", "poly_nl"])
def test_blocks_run_in_video_networks(name: str):
    model = pa.vision.c2d_resnet50(name, num_classes=3, frames=4, image_size=32)
    assert model(torch.zeros(2, 3, 4, 32, 40)).shape == (2, 3)
    assert all(module.attention.dim == 3 for module in inserted(model).values())


def test_video_blocks_have_the_words_of_the_papers_code():
    with torch.device("meta"):
        one = {"places": "layer2.1", "image_size": 112}
        plain = pa.vision.c2d_resnet50("bat", groups=4, temporal_groups=0, num_classes=200, **one)
        deep = pa.vision.c2d_resnet50("bat", groups=8, temporal_groups=4, frames=64, **one)
        nl = pa.vision.c2d_resnet50("nl", **one)
    assert plain.layer2[1].attention.transform.normalisation == "softmax"
    assert deep.layer2[1].attention.transform.temporal_size == 8
    assert nl.layer2[1].attention.sub_sample == 2


@pytest.mark.parametrize("build", [pa.vision.c2d_resnet101, pa.vision.i3d_resnet101])
def test_deep_video_networks_take_attention_in_the_bat_layout(build):
    with torch.device("meta"):
        model = build(SPEC, places="bat")
    assert tuple(inserted(model)) == pa.vision.places_of("resnet101", "bat")


@pytest.mark.parametrize(
    ("lengths", "part"),
    [({"bn1": 3}, "BatchNorm2d"), ({"conv1": 4}, "odd"), ({"conv9": 3}, "no submodule")],
)
def test_wrong_lengths_are_refused(lengths: dict, part: str):
    with pytest.raises(pa.InsertError, match=part):
        pa.vision.inflate(resnet18(), lengths)


def test_modules_without_an_inflation_are_named():
    with pytest.raises(pa.InsertError, match="ConvTranspose2d"):
        pa.vision.inflate(nn.Sequential(nn.ConvTranspose2d(3, 3, 3)))


def test_a_network_with_attention_is_inflated_before_it_gets_it():
    with pytest.raises(pa.InsertError, match="inflate it first"):
        pa.vision.inflate(pa.vision.resnet18(SPEC, image_size=64))


@pytest.mark.parametrize("words", [{"frames": 1}, {"pool_padding": 2}])
def test_clips_and_paddings_that_cannot_be_are_refused(words: dict):
    with pytest.raises(pa.InsertError, match=next(iter(words)).split("_")[0][:4]):
        pa.vision.c2d_resnet50(**words)
