"""A tiny ImageFolder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from polyattn.optional import need


def noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a dark image (height, width, 3) of bytes."""
    return rng.integers(0, 80, (height, width, 3), dtype=np.uint8)


def save(image: np.ndarray, path: Path) -> None:
    """Write an image (height, width, 3) of bytes, in the format of the file's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    need("PIL.Image", "train").fromarray(image).save(path)


def image_folder(root: Path, classes: int = 3, train: int = 4, val: int = 2, side: int = 48) -> str:
    """Write photographs of one bright stripe; its direction and colour are the class."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for label in range(classes):
            for number in range(count):
                image = noise(rng, side, side + 8)
                place = int(rng.integers(8, side - 16))
                stripe = (slice(place, place + 8), slice(None)) if label % 2 else (slice(None), slice(place, place + 8))
                image[(*stripe, label % 3)] = 255
                save(image, root / split / f"n{label:08d}" / f"n{label:08d}_{number}.JPEG")
    return f"{classes} classes with {train} + {val} photographs each (ImageFolder)"
