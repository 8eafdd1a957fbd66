"""The Poly-NL paper's detectors, and smaller ones of the same parts."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import polyattn.vision as vision
from polyattn.errors import TrainingError
from polyattn.optional import need
from polyattn.vision.detection import FACE_IOU, FACE_RATIO, FACE_SCALES, FACE_STRIDES
from polyattn.vision.resnets import attend_to

PAPER, CHANNELS = "resnet50", 256
"""Backbone and pyramid channels of the papers' detectors, which `polyattn.vision` builds."""


def mask_rcnn(
    network: str,
    pyramid: int,
    attention: str | None,
    places: str | None,
    classes: int,
    weights: Any,
    sides: tuple[int, int],
) -> nn.Module:
    """Build a Mask R-CNN.

    Args:
        network: "resnet50" or another ResNet of torchvision.
        pyramid: channels of the feature pyramid; heads of other networks than the paper's have as many.
        attention, places: as in `polyattn.vision.mask_rcnn_resnet50_fpn`.
        classes: number of classes, with the background.
        weights: weights of the backbone, as torchvision names them.
        sides: bounds of the images' short and long side.
    """
    words: dict[str, Any] = {"min_size": sides[0], "max_size": sides[1]}
    if (network, pyramid) == (PAPER, CHANNELS):
        return vision.mask_rcnn_resnet50_fpn(
            attention, places=places, num_classes=classes, weights_backbone=weights, network=words
        )
    detection = need("torchvision.models.detection", "train")
    rcnn, masks = (need(f"torchvision.models.detection.{name}", "train") for name in ("faster_rcnn", "mask_rcnn"))
    poolers = need("torchvision.ops.feature_pyramid_network", "train")
    backbone = _backbone(network, pyramid, attention, places, weights, (1, 2, 3, 4), poolers.LastLevelMaxPool())
    return detection.MaskRCNN(
        backbone,
        box_head=rcnn.TwoMLPHead(pyramid * 7 * 7, pyramid),
        box_predictor=rcnn.FastRCNNPredictor(pyramid, classes),
        mask_head=masks.MaskRCNNHeads(pyramid, (pyramid, pyramid), 1),
        mask_predictor=masks.MaskRCNNPredictor(pyramid, pyramid, classes),
        **words,
    )


def face_retinanet(
    network: str, pyramid: int, attention: str | None, places: str | None, weights: Any, sides: tuple[int, int]
) -> nn.Module:
    """Build a RetinaNet for faces; arguments as in `mask_rcnn`."""
    words: dict[str, Any] = {"min_size": sides[0], "max_size": sides[1]}
    if (network, pyramid) == (PAPER, CHANNELS):
        return vision.face_retinanet_resnet50_fpn(attention, places=places, weights_backbone=weights, network=words)
    detection, retinanet, anchor_utils = (
        need(f"torchvision.models.detection{name}", "train") for name in ("", ".retinanet", ".anchor_utils")
    )
    levels = need("torchvision.ops.feature_pyramid_network", "train").LastLevelP6P7(pyramid, pyramid)
    backbone = _backbone(network, pyramid, attention, places, weights, (1, 2, 3, 4), levels)
    anchors = anchor_utils.AnchorGenerator(
        tuple(tuple(stride * scale for scale in FACE_SCALES) for stride in FACE_STRIDES),
        ((FACE_RATIO,),) * len(FACE_STRIDES),
    )
    head = retinanet.RetinaNetHead(pyramid, len(FACE_SCALES), 2)
    head.regression_head._loss_type = "diou"
    return detection.RetinaNet(
        backbone, 2, anchor_generator=anchors, head=head, fg_iou_thresh=FACE_IOU, bg_iou_thresh=FACE_IOU, **words
    )


def _backbone(
    network: str,
    pyramid: int,
    attention: str | None,
    places: str | None,
    weights: Any,
    stages: tuple[int, ...],
    extra: nn.Module,
) -> nn.Module:
    models, utils = need("torchvision.models", "train"), need("torchvision.models.detection.backbone_utils", "train")
    if not network.startswith("resnet") or not hasattr(models, network):
        raise TrainingError(f"detectors have a ResNet of torchvision as backbone, such as resnet18, not {network!r}")
    # torchvision's ResNets double their width at each stage.
    body = getattr(models, network)(weights=weights)
    widths = [body.inplanes // 2 ** (4 - stage) for stage in stages]
    layers = {f"layer{stage}": str(place) for place, stage in enumerate(stages)}
    backbone = utils.BackboneWithFPN(body, layers, widths, pyramid, extra)
    # One pass shows the stages' channels, for which a small image suffices.
    example = torch.zeros(1, 3, 64, 64)
    return attend_to(backbone, network, attention, places=places, example_input=example, prefix="body.")
