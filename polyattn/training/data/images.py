"""Photographs in one folder for each class, as ImageNet's: `train/<class>/*.JPEG`, `val/<class>/*.JPEG`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from polyattn.optional import need
from polyattn.training.data.places import existing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels by channel, with which torchvision's weights were trained."""


def image_folder(root: Path, split: str, transform: Any) -> Any:
    """torchvision's `ImageFolder` of one split: samples (image, class)."""
    datasets = need("torchvision.datasets", "train")
    folder = existing(root / split, "an ImageFolder has train/<class>/ and val/<class>/ with images")
    return datasets.ImageFolder(str(folder), transform)


def training_transform(size: int) -> Any:
    """A crop of random area and aspect ratio, and a random flip: how He et al. and both papers train on ImageNet."""
    v2 = need("torchvision.transforms.v2", "train")
    return v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip(), *normalised(v2)])


def evaluation_transform(size: int) -> Any:
    """The middle: the short side to 8/7 of the size, so 256 for 224, and one crop."""
    v2 = need("torchvision.transforms.v2", "train")
    return v2.Compose([v2.Resize(size * 8 // 7, antialias=True), v2.CenterCrop(size), *normalised(v2)])


def normalised(v2: Any) -> list[Any]:
    """From an image to a tensor (3, H, W) with ImageNet's mean and variance."""
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
