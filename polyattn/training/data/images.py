"""Photographs in one folder for each class, as ImageNet's: `train/<class>/*.JPEG`, `val/<class>/*.JPEG`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from polyattn.errors import TrainingError
from polyattn.optional import need
from polyattn.training.data.places import existing
from polyattn.training.files import reason

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's pixels by channel, as in the training of torchvision's weights."""


def image_folder(root: Path, split: str, transform: Any) -> Any:
    """Return torchvision's `ImageFolder` of one split: samples (image, class).

    Raises:
        TrainingError: the folder is missing, or a class in it is empty. An unreadable image raises one when it is
            loaded.
    """
    datasets = need("torchvision.datasets", "train")
    form = "an ImageFolder has train/<class>/ and val/<class>/ with images"
    folder = existing(root / split, form)
    try:
        return datasets.ImageFolder(str(folder), transform, loader=read_image)
    except OSError as error:
        raise TrainingError(f"{folder}: {form} ({error})") from error


def read_image(path: str | Path) -> Any:
    """Read an image in RGB, by Pillow.

    Raises:
        TrainingError: the file is missing or cannot be decoded; names it.
    """
    load = need("torchvision.datasets.folder", "train").pil_loader
    try:
        return load(str(path))
    except Exception as error:  # decoders raise errors of every kind on damaged files
        raise TrainingError(
            f"{path} cannot be read as an image ({reason(error)}): restore it, or take it out of the data; a training "
            f"goes on from its last checkpoint"
        ) from error


def training_transform(size: int) -> Any:
    """Return a crop of random area and aspect ratio, and a random flip, as He et al. and both papers on ImageNet."""
    v2 = need("torchvision.transforms.v2", "train")
    return v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip(), *normalised(v2)])


def evaluation_transform(size: int) -> Any:
    """Return the central crop: the short side resized to 8/7 of the size, so 256 for 224."""
    v2 = need("torchvision.transforms.v2", "train")
    return v2.Compose([v2.Resize(size * 8 // 7, antialias=True), v2.CenterCrop(size), *normalised(v2)])


def normalised(v2: Any) -> list[Any]:
    """Return the steps from an image to a tensor (3, H, W) with ImageNet's mean and variance."""
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
