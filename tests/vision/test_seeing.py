"""Facts of the maps of attention."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import polyattn as pa

SIZES = [(12, 12), (9, 16), (25, 42), (3, 5)]


def blocks_of(length: int, blocks: int) -> list[tuple[int, int]]:
    """Each position's block and its offset in it."""
    starts = [s * length // blocks for s in range(blocks + 1)]
    return [(s, i - starts[s]) for s in range(blocks) for i in range(starts[s], starts[s + 1])]


def resized(small: np.ndarray, length: int) -> np.ndarray:
    """P at full resolution: positions of one offset are connected as their blocks; rows sum to 1."""
    places = blocks_of(length, len(small))
    full = np.array([[small[s, t] if u == v else 0.0 for t, v in places] for s, u in places])
    return full / full.sum(1, keepdims=True)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("dim", "rule"), [(2, "blocks"), (3, "blocks"), (3, "slide")])
def test_the_bat_map_is_eq_8_with_full_matrices(height: int, width: int, dim: int, rule: str):
    transform = pa.nn.BATransform(8, block_size=(3, 4), groups=2, dim=dim, larger_maps=rule).eval()
    x = torch.randn(2, 8, *[2] * (dim - 2), height, width)
    got = pa.vision.bat_map(transform, x).detach().numpy()
    with torch.no_grad():
        p, q = (m.double().numpy() for m in transform.matrices(x))
    assert got.shape == (2, 2, *x.shape[2:])
    for index in np.ndindex(p.shape[:-2]):
        rows, columns = resized(p[index], height), resized(q[index].T, width).T
        expected = rows.T @ np.ones((height, width)) @ columns.T
        batch, *frame, group = index
        np.testing.assert_allclose(got[(batch, group, *frame)], expected, rtol=1e-4, atol=1e-6)


def test_the_map_is_what_a_change_of_the_input_adds_to_the_output():
    """With P and Q held, the derivative of the sum of P X Q is W."""
    transform = pa.nn.BATransform(4, block_size=2, groups=2).eval()
    x = torch.randn(1, 4, 4, 6)
    p, q = (m.detach() for m in transform.matrices(x))
    free = x.clone().requires_grad_()
    blocks = free.view(1, 2, 2, 2, 2, 2, 3)  # groups, channels of each, (blocks, offsets) of rows and of columns
    torch.einsum("bgik,bgnkulv,bglj->", p, blocks, q).backward()
    expected = torch.as_tensor(free.grad).view(1, 2, 2, 4, 6)[:, :, 0]
    torch.testing.assert_close(pa.vision.bat_map(transform, x), expected, rtol=1e-4, atol=1e-6)


def test_the_mean_of_a_map_is_one_also_where_the_transform_downsamples():
    for downsample in (False, True):
        transform = pa.nn.BATransform(4, block_size=3, groups=2, downsample=downsample).eval()
        weights = pa.vision.bat_map(transform, torch.randn(2, 4, 12, 15))
        assert weights.shape == (2, 2, 12, 15)
        torch.testing.assert_close(weights.mean((2, 3)), torch.ones(2, 2), rtol=0.1, atol=0.1)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return pa.vision.resnet18({"layer2.1": "bat", "layer3.0": "poly_nl"}, num_classes=3, image_size=64)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 72, generator=torch.Generator().manual_seed(0))


def test_maps_of_a_network_are_those_of_its_blocks_at_their_inputs(model: nn.Module, images: Tensor):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    maps = pa.vision.bat_maps(model.train(), images)
    assert list(maps) == ["layer2.1.attention.transform"]
    assert maps["layer2.1.attention.transform"].shape == (2, 4, 8, 9)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_network_without_bilinear_transforms_has_no_maps(images: Tensor):
    with pytest.raises(pa.InsertError, match="no BA-Transform"):
        pa.vision.bat_maps(pa.vision.resnet18(), images)


def test_norms_are_those_of_input_contribution_and_output(model: nn.Module, images: Tensor):
    block = model.layer3[0].attention
    nn.init.constant_(block.alpha, 0.5)
    nn.init.constant_(block.beta, 2.0)
    seen: list[Tensor] = []
    handle = block.register_forward_hook(lambda m, i, o: seen.extend((i[0].detach(), o.detach())))
    model.eval()(images)
    handle.remove()
    x, z = seen
    found = pa.vision.norms(model, images)
    for got, expected in ((found.x, x), (found.y, 2.0 * block.attend(x)), (found.z, z)):
        np.testing.assert_allclose(got, expected.detach().norm(dim=1).numpy(), rtol=1e-3, atol=1e-3)


def test_the_norms_of_a_block_without_alpha_are_of_the_difference(model: nn.Module, images: Tensor):
    found = pa.vision.norms(model, images, place="layer2.1")
    assert found.x.shape == found.y.shape == found.z.shape == (2, 8, 9)
    assert (found.y > 0).any()


@pytest.mark.parametrize(("place", "part"), [("layer7", "no submodule 'layer7'"), ("layer2", "one shape")])
def test_places_without_norms_are_refused(model: nn.Module, images: Tensor, place: str, part: str):
    with pytest.raises(pa.InsertError, match=part):
        pa.vision.norms(model, images, place=place)


def test_grad_cam_sees_where_the_evidence_is():
    """A network that says how red the image is on the left or on the right."""
    sides = nn.Conv2d(3, 1, 1, bias=False)
    nn.init.zeros_(sides.weight)
    nn.init.ones_(sides.weight[:, 0])

    class Side(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(sides, nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            y = self.features(x)
            return torch.stack((y[..., :4].mean((1, 2, 3)), -y.mean((1, 2, 3))), 1)

    model, images = Side(), torch.zeros(1, 3, 8, 8)
    images[:, 0, 2:4, 1:3] = 1.0
    kept = [p.grad for p in model.parameters()]
    cam = pa.vision.grad_cam(model, images, "features", classes=0)
    assert cam.shape == (1, 8, 8)
    assert cam[0, 2:4, 1:3].min() > 0.9
    assert cam[0, :, 5:].max() == 0
    assert model.training
    assert [p.grad for p in model.parameters()] == kept


def test_grad_cam_refuses_unknown_layers_and_numbers_of_classes(model: nn.Module, images: Tensor):
    with pytest.raises(pa.InsertError, match="'layer9'"):
        pa.vision.grad_cam(model, images, "layer9")
    with pytest.raises(pa.InsertError, match="3 classes for 2 images"):
        pa.vision.grad_cam(model, images, classes=[0, 1, 2])


def test_grad_cam_keeps_gradients_that_are_there(model: nn.Module, images: Tensor):
    model(images).sum().backward()
    kept = model.conv1.weight.grad.clone()
    assert pa.vision.grad_cam(model, images).shape == (2, 64, 72)
    assert torch.equal(model.conv1.weight.grad, kept)


def test_a_figure_has_a_row_for_each_image_and_a_column_for_each_map(images: Tensor):
    figure = pa.vision.overlay(images, {"a": np.zeros((2, 4, 5)), "b": np.ones((2, 8, 8))}, title="maps")
    assert isinstance(figure, Figure)
    axes = figure.get_axes()
    assert [a.get_title() for a in axes[:3]] == ["image", "a", "b"]
    assert [len(a.get_images()) for a in axes] == [1, 2, 2] * 2
    assert axes[1].get_images()[1].get_extent() == [-0.5, 71.5, 63.5, -0.5]


def test_a_figure_refuses_maps_of_other_images(images: Tensor):
    with pytest.raises(pa.InsertError, match=r"'a' has the shape \(3, 4, 5\)"):
        pa.vision.overlay(images, {"a": np.zeros((3, 4, 5))})
    with pytest.raises(pa.InsertError, match="images have the shape"):
        pa.vision.overlay(images[0], {})
