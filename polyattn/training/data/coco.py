"""Images with instances, as COCO's: `train2017/`, `val2017/`, `annotations/instances_{train,val}2017.json`."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyattn.errors import TrainingError
from polyattn.optional import need
from polyattn.training.data.places import existing


class CocoInstances:
    """Samples (image, target) of one split, in torchvision's form for detectors.

    The target has `boxes` (n, 4) as x1, y1, x2, y2 in pixels, `labels` (n,) from 1 on in the order of the category ids,
    `masks` (n, H, W) and `image_id`. Crowds and boxes without area are left out.

    Args:
        root: the folder.
        split: "train2017" or "val2017".
        transform: of (image, target), from torchvision.transforms.v2.
        with_instances: leave out images without any instance, as is done for training.

    Raises:
        TrainingError: files are missing, or the annotations are no such file.
    """

    def __init__(self, root: Path, split: str, transform: Any, *, with_instances: bool):
        self.images = existing(root / split, "COCO's images lie in train2017/ and val2017/")
        annotations = existing(
            root / "annotations" / f"instances_{split}.json", "COCO's annotations lie in annotations/"
        )
        self.coco = read(annotations)
        self.categories: list[int] = sorted(self.coco.getCatIds())
        self.label_of = {category: label for label, category in enumerate(self.categories, 1)}
        self.ids = [i for i in sorted(self.coco.getImgIds()) if not with_instances or self._instances(i)]
        self.transform = transform
        self.read_image = need("torchvision.datasets.folder", "train").default_loader
        self.tensors = need("torchvision.tv_tensors", "train")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        number = self.ids[index]
        image = self.read_image(str(self.images / self.coco.imgs[number]["file_name"]))
        found = self._instances(number)
        size = (image.height, image.width)
        corners = torch.tensor([a["bbox"] for a in found], dtype=torch.float32).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        masks = torch.zeros(len(found), *size, dtype=torch.uint8)
        for place, annotation in enumerate(found):
            masks[place] = torch.from_numpy(self.coco.annToMask(annotation))
        target = {
            "boxes": self.tensors.BoundingBoxes(corners, format="XYXY", canvas_size=size),  # pyright: ignore
            "labels": torch.tensor([self.label_of[a["category_id"]] for a in found], dtype=torch.int64),
            "masks": self.tensors.Mask(masks),
            "image_id": torch.tensor(number),
        }
        return self.transform(image, target)

    def _instances(self, number: int) -> list[dict[str, Any]]:
        found = self.coco.loadAnns(self.coco.getAnnIds(imgIds=[number], iscrowd=False))
        return [a for a in found if min(a["bbox"][2:]) > 0]


def read(annotations: Path) -> Any:
    """pycocotools' index of an annotation file."""
    api = need("pycocotools.coco", "train")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return api.COCO(str(annotations))
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise TrainingError(f"{annotations} is no file of COCO annotations: {error}") from error


def transform(*, training: bool) -> Any:
    """For training a random horizontal flip (Poly-NL, section 5.1); images as floats in [0, 1]."""
    v2 = need("torchvision.transforms.v2", "train")
    flip = [v2.RandomHorizontalFlip()] if training else []
    return v2.Compose([*flip, v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def collate(samples: list[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    """Images of different sizes stay a list."""
    return [image for image, _ in samples], [target for _, target in samples]
