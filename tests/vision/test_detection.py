"""Facts of the detectors."""

import math

import pytest
import torch
from torch import nn
from torchvision.models.detection import maskrcnn_resnet50_fpn

import polyattn as pa
from polyattn.vision.insert import inserted

SPEC = pa.catalog.poly_nl()
SMALL = {"min_size": 64, "max_size": 96}


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ("res3", ["layer2.2"]),
        ("res4", ["layer3.4"]),
        ("res5", ["layer4.1"]),
        ("res345", ["layer2.2", "layer3.4", "layer4.1"]),
        (None, ["layer3.4"]),
    ],
)
def test_mask_rcnn_has_attention_where_poly_nls_table_2_says(places, expected: list[str]):
    with torch.device("meta"):
        model = pa.vision.mask_rcnn_resnet50_fpn(SPEC, places=places, image_size=64)
    assert list(inserted(model)) == [f"backbone.body.{place}" for place in expected]


def test_mask_rcnn_without_attention_is_torchvisions():
    with torch.device("meta"):
        ours, theirs = pa.vision.mask_rcnn_resnet50_fpn(), maskrcnn_resnet50_fpn(weights_backbone=None)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


def test_mask_rcnn_trains_and_detects_on_images_of_odd_sizes():
    few = {"rpn_post_nms_top_n_train": 20, "rpn_post_nms_top_n_test": 20, "box_batch_size_per_image": 8}
    model = pa.vision.mask_rcnn_resnet50_fpn(
        SPEC, places="res345", num_classes=3, image_size=64, network=SMALL | few | {"box_detections_per_img": 4}
    )
    images = [torch.rand(3, 61, 75), torch.rand(3, 64, 50)]
    targets = [
        {
            "boxes": torch.tensor([[5.0, 5.0, 40.0, 40.0]]),
            "labels": torch.tensor([1]),
            "masks": torch.ones(1, *image.shape[1:], dtype=torch.uint8),
        }
        for image in images
    ]
    losses = model.train()(images, targets)
    sum(losses.values()).backward()
    assert all(module.attention.beta.grad.isfinite() for module in inserted(model).values())
    found = model.eval()(images)
    assert [f["masks"].shape[2:] for f in found] == [image.shape[1:] for image in images]


@pytest.fixture(scope="module")
def faces() -> nn.Module:
    torch.manual_seed(0)
    return pa.vision.face_retinanet_resnet50_fpn(SPEC, image_size=64, network=SMALL)


def test_face_anchors_are_three_scales_of_one_ratio_on_six_levels(faces: nn.Module):
    cells = faces.anchor_generator.cell_anchors
    assert [len(cell) for cell in cells] == [3] * 6
    for cell, stride in zip(cells, (4, 8, 16, 32, 64, 128), strict=True):
        width, height = cell[:, 2] - cell[:, 0], cell[:, 3] - cell[:, 1]
        for k, (w, h) in enumerate(zip(width.tolist(), height.tolist(), strict=True)):
            side = stride * 2 ** ((4 + k) / 3)
            assert w == pytest.approx(side / math.sqrt(1.3), abs=1)  # torchvision rounds corners to whole pixels
            assert h == pytest.approx(side * math.sqrt(1.3), abs=1)


def test_the_face_detectors_levels_have_the_strides_of_its_anchors(faces: nn.Module):
    levels = faces.eval().backbone(torch.zeros(1, 3, 128, 128))
    assert [128 // level.shape[-1] for level in levels.values()] == [4, 8, 16, 32, 64, 128]


def test_overlaps_from_0_35_on_are_faces(faces: nn.Module):
    overlaps = torch.tensor([[0.34, 0.36, 0.9]])
    assert faces.proposal_matcher(overlaps).tolist() == [-1, 0, 0]


def test_the_face_detectors_box_loss_is_diou(faces: nn.Module):
    """DIoU is 1 - IoU + d² / c² (Zheng et al. 2020): an anchor against itself moved by half its width."""
    anchor = torch.tensor([[0.0, 0.0, 40.0, 40.0]])
    target = anchor + torch.tensor([20.0, 0.0, 20.0, 0.0])
    head = faces.head.regression_head
    loss = head.compute_loss(
        [{"boxes": target}], {"bbox_regression": torch.zeros(1, 1, 4)}, [anchor], [torch.tensor([0])]
    )
    assert loss.item() == pytest.approx(1 - 1 / 3 + 20**2 / (60**2 + 40**2), rel=1e-4)


def test_the_face_detector_trains_and_detects(faces: nn.Module):
    images = [torch.rand(3, 70, 61)]
    targets = [{"boxes": torch.tensor([[5.0, 5.0, 20.0, 26.0]]), "labels": torch.tensor([1])}]
    sum(faces.train()(images, targets).values()).backward()
    assert faces.backbone.body.layer3[4].attention.beta.grad.isfinite()
    assert set(faces.eval()(images)[0]) == {"boxes", "scores", "labels"}


def test_the_face_detectors_images_are_bounded_as_in_the_paper():
    with torch.device("meta"):
        model = pa.vision.face_retinanet_resnet50_fpn()
    assert (model.transform.min_size, model.transform.max_size) == ((1100,), 1650)
    assert all(p.requires_grad for p in model.parameters())
