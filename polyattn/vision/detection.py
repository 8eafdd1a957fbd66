"""Detectors of the Poly-NL paper, on torchvision: Mask R-CNN (section 5.1), a RetinaNet for faces (section 5.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from polyattn.optional import need
from polyattn.vision.make import Value
from polyattn.vision.resnets import attend_to

FACE_STRIDES = (4, 8, 16, 32, 64, 128)
"""Strides of the levels P2 to P7."""

FACE_SCALES = tuple(2 ** (k / 3) for k in (4, 5, 6))
"""An anchor's side over its level's stride. The paper states three scales per level without values; these are
TinaFace's (Zhu et al. 2020), whose training settings on the same data it follows."""

FACE_RATIO = 1.3
"""Height over width of the anchors (Poly-NL, section 5.2)."""

FACE_IOU = 0.35
"""The overlap from which an anchor is a positive sample (Poly-NL, section 5.2); below, it is a negative one."""


def mask_rcnn_resnet50_fpn(
    attention: Value | Mapping[str, Value] | None = None,
    *,
    weights: Any = None,
    weights_backbone: Any = None,
    progress: bool = True,
    num_classes: int | None = None,
    network: Mapping[str, Any] | None = None,
    **words: Any,
) -> nn.Module:
    """Build torchvision's Mask R-CNN on a ResNet-50-FPN with attention in its backbone (Poly-NL, Tables 1 and 2).

    Args:
        attention: attention as in `polyattn.vision.resnet50`; places are names inside `backbone.body`, such as
            "layer3.4".
        weights, weights_backbone, progress, num_classes: passed on to torchvision.
        network: further keyword arguments of torchvision's `maskrcnn_resnet50_fpn`, such as `{"min_size": 640}`.
        words: `places`: "res3", "res4", "res5" or "res345" for one block right before the last residual block of that
            stage or of each, by default "res4" except for "bat" and "nl"; `image_size`: images for which the blocks are
            built (detectors run on images of any size); `sizes`, and the block's own keyword arguments: all as in
            `polyattn.vision.resnet50`.

    Raises:
        InsertError, MissingPackageError: as in `polyattn.vision.resnet50`.
    """
    detection = need("torchvision.models.detection", "vision")
    model = detection.maskrcnn_resnet50_fpn(
        weights=weights,
        weights_backbone=weights_backbone,
        progress=progress,
        num_classes=num_classes,
        **(network or {}),
    )
    _attend(model.backbone, attention, **words)
    return model


def face_retinanet_resnet50_fpn(
    attention: Value | Mapping[str, Value] | None = None,
    *,
    weights_backbone: Any = None,
    num_classes: int = 2,
    network: Mapping[str, Any] | None = None,
    **words: Any,
) -> nn.Module:
    """Build a RetinaNet for faces on a ResNet-50-FPN with attention in its backbone (Poly-NL, section 5.2).

    Six levels, P2 to P7; on each, anchors of three scales and the aspect ratio 1.3; positive samples from an overlap of
    0.35 on; focal loss and DIoU loss; images resized so that their short side is 1100 and their long side at most 1650.
    Trained from scratch, all of it, unless `weights_backbone` is given.

    Args:
        attention, words: as in `mask_rcnn_resnet50_fpn`.
        weights_backbone: passed on to torchvision's `resnet_fpn_backbone`.
        num_classes: with the background, as torchvision counts: label 1 is a face.
        network: further keyword arguments of torchvision's `RetinaNet`, such as `{"min_size": 640, "max_size": 640}`.

    Raises:
        InsertError, MissingPackageError: as in `polyattn.vision.resnet50`.
    """
    detection = need("torchvision.models.detection", "vision")
    retinanet = need("torchvision.models.detection.retinanet", "vision")
    anchor_utils = need("torchvision.models.detection.anchor_utils", "vision")
    pyramid = need("torchvision.ops.feature_pyramid_network", "vision")
    utils = need("torchvision.models.detection.backbone_utils", "vision")
    backbone = utils.resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=weights_backbone,
        # torchvision's default freezes batch norms, which suits pretrained weights only.
        norm_layer=nn.BatchNorm2d,
        # Trained from scratch: all stages learn.
        trainable_layers=5,
        returned_layers=[1, 2, 3, 4],
        extra_blocks=pyramid.LastLevelP6P7(256, 256),
    )
    anchors = anchor_utils.AnchorGenerator(
        tuple(tuple(stride * scale for scale in FACE_SCALES) for stride in FACE_STRIDES),
        ((FACE_RATIO,),) * len(FACE_STRIDES),
    )
    head = retinanet.RetinaNetHead(backbone.out_channels, anchors.num_anchors_per_location()[0], num_classes)
    # torchvision's own way to another box loss (retinanet_resnet50_fpn_v2): the head has no argument for it.
    head.regression_head._loss_type = "diou"
    # One threshold for both: no anchor is ignored between negative and positive.
    own: dict[str, Any] = {"min_size": 1100, "max_size": 1650, "fg_iou_thresh": FACE_IOU, "bg_iou_thresh": FACE_IOU}
    model = detection.RetinaNet(
        backbone, num_classes, anchor_generator=anchors, head=head, **(own | dict(network or {}))
    )
    _attend(model.backbone, attention, **words)
    return model


def _attend(
    backbone: nn.Module,
    attention: Value | Mapping[str, Value] | None,
    places: str | Iterable[str] | None = None,
    image_size: int | tuple[int, int] = 224,
    sizes: Mapping[str, int] | None = None,
    **options: Any,
) -> None:
    """Insert attention into the body, traced on the backbone alone, without region proposals."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    example = backbone.get_submodule("body.conv1").get_parameter("weight").new_zeros(1, 3, height, width)
    attend_to(
        backbone, "resnet50", attention, places=places, example_input=example, sizes=sizes, prefix="body.",
        options=options,
    )  # fmt: skip
