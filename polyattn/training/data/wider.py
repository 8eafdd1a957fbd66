"""Photographs of faces, as WIDER FACE's: `WIDER_train/images/`, `wider_face_split/wider_face_train_bbx_gt.txt`, ...

The annotation text has for each image its name, the number of faces, and a line for each face: x, y, width, height, and
six marks (blur, expression, illumination, invalid, occlusion, pose). An image without faces has one line of zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyattn.errors import MissingPackageError, TrainingError
from polyattn.optional import need
from polyattn.training.data.images import read_image
from polyattn.training.data.places import all_there, existing, text_of
from polyattn.training.files import reason

SCALES = (0.3, 0.45, 0.6, 0.8, 1.0)
"""Sides of training patches as fractions of the image's short side. Poly-NL says only that the scale is random; these
are the values of RetinaFace (Deng et al. 2020), adopted by later face detectors."""

LEVELS = ("easy", "medium", "hard")
"""Difficulties of the official evaluation."""


@dataclass(frozen=True)
class Photograph:
    """One image and its faces: `boxes` (n, 4) as x1, y1, x2, y2; `valid` (n,) is false for those marked as invalid."""

    name: str
    boxes: Tensor
    valid: Tensor


def photographs(path: Path) -> list[Photograph]:
    """Read an annotation text.

    Raises:
        TrainingError: a malformed line, by its number.
    """
    lines = text_of(path, "WIDER FACE's annotations lie in wider_face_split/").splitlines()
    found, place = [], 0
    while place < len(lines) and lines[place].strip():
        name = lines[place].strip()
        try:
            count = int(lines[place + 1])
            # One line follows even without faces.
            rows = [[float(v) for v in line.split()] for line in lines[place + 2 : place + 2 + max(count, 1)]]
            if count < 0 or len(rows) != max(count, 1) or any(len(row) != 10 for row in rows):
                raise ValueError(f"{max(count, 1)} lines of 10 numbers should follow")
            if not all(isfinite(value) for row in rows for value in row):
                raise ValueError("a number is not finite")
        except (ValueError, IndexError) as error:
            raise TrainingError(f"{path}, line {place + 2}, {name}: {error}") from error
        table = torch.tensor(rows if count else []).reshape(-1, 10)
        boxes = torch.cat([table[:, :2], table[:, :2] + table[:, 2:4]], 1)
        # Column 7 is the mark "invalid"; boxes without area occur in the data set.
        found.append(Photograph(name, boxes, (table[:, 7] == 0) & (table[:, 2:4] > 0).all(1)))
        place += 2 + max(count, 1)
    if any(line.strip() for line in lines[place:]):
        raise TrainingError(f"{path}, line {place + 1}: an image's name should be here")
    if not found:
        raise TrainingError(f"{path} lists no images: restore the file of the data set")
    return found


def difficulties(root: Path, photographs: Sequence[Photograph]) -> dict[str, list[np.ndarray]]:
    """Read the official evaluation's selection of faces, `eval_tools/ground_truth/wider_{easy,medium,hard}_val.mat`.

    Returns:
        For each difficulty and photograph, (n,) booleans of the counted faces; {} without the folder.

    Raises:
        TrainingError: a file is missing or unreadable, or does not fit the annotations; names the file.
    """
    folder = root / "eval_tools" / "ground_truth"
    if not folder.is_dir():
        return {}
    return {level: _counting(folder / f"wider_{level}_val.mat", photographs) for level in LEVELS}


def _counting(path: Path, photographs: Sequence[Photograph]) -> list[np.ndarray]:
    existing(path, "the evaluation by difficulty needs all three files of eval_tools/ground_truth/; restore it, or "
             "remove the folder to evaluate AP_all alone")  # fmt: skip
    chosen: dict[str, np.ndarray] = {}
    try:
        table: Mapping[str, Any] = need("scipy.io", "train").loadmat(str(path))
        for event, names, kept in zip(table["event_list"], table["file_list"], table["gt_list"], strict=True):
            for name, numbers in zip(names[0], kept[0], strict=True):
                faces = np.asarray(numbers[0]).reshape(-1)
                # An empty list may have any type.
                if faces.size and faces.dtype.kind not in "iuf":
                    raise ValueError(f"numbers of faces have the type {faces.dtype}")
                chosen[f"{event[0].item()}/{name[0].item()}.jpg"] = faces.astype(int)
    except MissingPackageError:
        raise
    except Exception as error:  # scipy raises errors of many kinds on damaged files
        raise TrainingError(
            f"{path} cannot be read as the official evaluation's list of faces ({reason(error)}): restore it"
        ) from error
    found = []
    for photograph in photographs:
        if photograph.name not in chosen:
            raise TrainingError(f"{path} does not list the image {photograph.name}: take the files of one data set")
        faces, count = chosen[photograph.name], len(photograph.boxes)
        beyond = faces[(faces < 1) | (faces > count)]
        if beyond.size:
            raise TrainingError(
                f"{path} chooses face {beyond[0]} of {photograph.name}, which has {count} faces in the annotations: "
                f"take the files of one data set"
            )
        counts = np.zeros(count, dtype=bool)
        # MATLAB counts from 1.
        counts[faces - 1] = True
        found.append(counts)
    return found


class Faces:
    """Samples (image, target) of one split, in torchvision's form for detectors: `boxes` (n, 4), `labels` (n,), all 1.

    Args:
        root: the folder.
        split: "train" or "val".
        transform: transform of (image, target), from torchvision.transforms.v2.

    Raises:
        TrainingError: files are missing or malformed.
    """

    def __init__(self, root: Path, split: str, transform: Any):
        self.images = existing(root / f"WIDER_{split}" / "images", "WIDER FACE's images lie in WIDER_<split>/images/")
        listing = root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
        self.photographs = photographs(listing)
        all_there(self.images, (p.name for p in self.photographs), listing)
        self.transform = transform
        self.tensors = need("torchvision.tv_tensors", "train")

    def __len__(self) -> int:
        return len(self.photographs)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        photograph = self.photographs[index]
        image = read_image(self.images / photograph.name)
        boxes = photograph.boxes[photograph.valid]
        boxes = self.tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(image.height, image.width))
        return self.transform(image, {"boxes": boxes, "labels": torch.ones(len(boxes), dtype=torch.int64)})


class RandomPatch:
    """A square patch of random scale and place with at least one face's centre in it, resized (Poly-NL, section 5.2).

    Faces with their centre outside are dropped. If 50 draws find no face, the last one is used.

    Args:
        size: side of the result, in pixels.
    """

    def __init__(self, size: int):
        self.size = size
        self.functional = need("torchvision.transforms.v2.functional", "train")

    def __call__(self, image: Any, target: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        boxes = target["boxes"]
        centres = (boxes[:, :2] + boxes[:, 2:]).as_subclass(Tensor) / 2
        for _ in range(50):
            scale = SCALES[int(torch.randint(len(SCALES), ()))]
            side = max(1, int(scale * min(image.height, image.width)))
            left = int(torch.randint(image.width - side + 1, ()))
            top = int(torch.randint(image.height - side + 1, ()))
            offset = centres - torch.tensor([left, top])
            inside = ((offset >= 0) & (offset < side)).all(1)
            if inside.any():
                break
        place = (top, left, side, side, [self.size, self.size])
        kept = {**target, "labels": target["labels"][inside]}
        kept["boxes"] = self.functional.resized_crop(boxes, *place)[inside]
        return self.functional.resized_crop(image, *place, antialias=True), kept


def training_transform(size: int) -> Any:
    """Return random patches, photometric distortion and flips (Poly-NL, section 5.2)."""
    v2 = need("torchvision.transforms.v2", "train")
    floats = v2.ToDtype(torch.float32, scale=True)
    return v2.Compose(
        [RandomPatch(size), v2.RandomPhotometricDistort(p=0.5), v2.RandomHorizontalFlip(), v2.ToImage(), floats]
    )


def evaluation_transform() -> Any:
    """Return the conversion to floats in [0, 1]; the network resizes."""
    v2 = need("torchvision.transforms.v2", "train")
    return v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
