"""Images with instances, as COCO's: `train2017/`, `val2017/`, `annotations/instances_{train,val}2017.json`."""

from __future__ import annotations

import contextlib
import io
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyattn.errors import TrainingError
from polyattn.optional import need
from polyattn.training.data.images import read_image
from polyattn.training.data.places import all_there, existing
from polyattn.training.files import reason


class CocoInstances:
    """Samples (image, target) of one split, in torchvision's form for detectors.

    The target has `boxes` (n, 4) as x1, y1, x2, y2 in pixels, `labels` (n,) from 1 on in the order of the category ids,
    `masks` (n, H, W) and `image_id`. Crowds and boxes without area are excluded.

    Args:
        root: the folder.
        split: "train2017" or "val2017".
        transform: transform of (image, target), from torchvision.transforms.v2.
        with_instances: exclude images without instances, as usual in training.

    Raises:
        TrainingError: files are missing, or the annotations are not in COCO's form.
    """

    def __init__(self, root: Path, split: str, transform: Any, *, with_instances: bool):
        self.images = existing(root / split, "COCO's images lie in train2017/ and val2017/")
        annotations = existing(
            root / "annotations" / f"instances_{split}.json", "COCO's annotations lie in annotations/"
        )
        self.coco = read(annotations)
        self.categories: list[int] = sorted(self.coco.getCatIds())
        self.label_of = {category: label for label, category in enumerate(self.categories, 1)}
        # Checked at once: a missing image would stop the training in the middle of an epoch.
        all_there(self.images, (image["file_name"] for image in self.coco.imgs.values()), annotations)
        self.ids = [i for i in sorted(self.coco.getImgIds()) if not with_instances or self._instances(i)]
        self.transform = transform
        self.tensors = need("torchvision.tv_tensors", "train")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        number = self.ids[index]
        entry = self.coco.imgs[number]
        path = self.images / entry["file_name"]
        image = read_image(path)
        found = self._instances(number)
        size = (image.height, image.width)
        if size != (entry["height"], entry["width"]):
            raise TrainingError(
                f"{path} has {size[0]} x {size[1]} pixels, and its annotations are of {entry['height']} x "
                f"{entry['width']}: take images and annotations of one data set"
            )
        corners = torch.tensor([a["bbox"] for a in found], dtype=torch.float32).reshape(-1, 4)
        # COCO's boxes are x, y, width, height.
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
    """Load pycocotools' index of an annotation file.

    Raises:
        TrainingError: the file has another form; names the first faulty image or annotation.
    """
    api = need("pycocotools.coco", "train")
    try:
        # It prints its progress.
        with contextlib.redirect_stdout(io.StringIO()):
            coco = api.COCO(str(annotations))
        _check(coco.dataset)
    except Exception as error:  # pycocotools and JSON raise errors of many kinds on damaged files
        raise TrainingError(
            f"{annotations} is no file of COCO annotations ({reason(error)}): restore it, or write it in the form of "
            f"instances_train2017.json"
        ) from error
    return coco


def _check(dataset: dict[str, Any]) -> None:
    """Check every entry needed for samples, since an error in the middle of a training would cost steps."""
    categories = {category["id"] for category in dataset["categories"]}
    images = {}
    for image in dataset["images"]:
        if not isinstance(image["file_name"], str) or min(_numbers([image["height"], image["width"]])) < 1:
            raise ValueError(f"image {image['id']!r} needs a file_name, a height and a width")
        images[image["id"]] = (image["height"], image["width"])
    for annotation in dataset["annotations"]:
        number = annotation["id"]
        if annotation["image_id"] not in images:
            raise ValueError(f"annotation {number!r} is of image {annotation['image_id']!r}, which is not listed")
        if annotation["category_id"] not in categories:
            raise ValueError(f"annotation {number!r} has the unknown category {annotation['category_id']!r}")
        if annotation["iscrowd"] not in (0, 1) or len(_numbers(annotation["bbox"])) != 4:
            raise ValueError(f"annotation {number!r} needs an iscrowd of 0 or 1 and a bbox of four finite numbers")
        if not _outlines(annotation["segmentation"], images[annotation["image_id"]]):
            raise ValueError(f"the segmentation of annotation {number!r} is neither polygons nor runs of its image")


def _numbers(values: Any) -> list[float]:
    """Return the values, or minus infinity alone if one is not a finite number."""
    return values if all(isinstance(v, int | float) and isfinite(v) for v in values) else [float("-inf")]


def _outlines(found: Any, size: tuple[int, int]) -> bool:
    if isinstance(found, dict):
        counts = found["counts"]
        # Compressed runs are a string, which only pycocotools can decode.
        whole = isinstance(counts, str) or (min(_numbers(counts), default=0) >= 0 and sum(counts) == size[0] * size[1])
        return whole and tuple(found["size"]) == size
    polygons = found if isinstance(found, list) else []
    return bool(polygons) and all(len(p) >= 4 and len(p) % 2 == 0 and len(_numbers(p)) > 1 for p in polygons)


def transform(*, training: bool) -> Any:
    """Return the transform: in training a random horizontal flip (Poly-NL, section 5.1); images as floats in [0, 1]."""
    v2 = need("torchvision.transforms.v2", "train")
    flip = [v2.RandomHorizontalFlip()] if training else []
    return v2.Compose([*flip, v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def collate(samples: list[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    """Collate into lists, since images differ in size."""
    return [image for image, _ in samples], [target for _, target in samples]
