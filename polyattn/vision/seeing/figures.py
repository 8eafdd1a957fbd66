"""Figures of maps over their images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from polyattn.errors import InsertError
from polyattn.optional import need

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float32]


def overlay(
    images: Tensor | Array,
    maps: Mapping[str, Array],
    *,
    title: str = "",
    opacity: float = 0.6,
    colours: str = "viridis",
) -> Figure:
    """Plot one row per image: the image, then each map over it, scaled from its lowest to its highest value.

    Args:
        images: (B, 3, H, W) or (B, H, W, 3), of any range; each is shown from its lowest to its highest value.
        maps: maps (B, h, w) of any resolution, by the title of their column.
        title: title of the figure.
        opacity: opacity of the maps, from 0 to 1.
        colours: name of a colour map of matplotlib.

    Returns:
        The figure, neither shown nor saved.

    Raises:
        InsertError: a map is not (B, h, w) for the images at hand.
        MissingPackageError: matplotlib is not installed.
    """
    need("matplotlib", "study")
    figures = need("matplotlib.figure", "study")
    pictures = _pictures(images)
    for name, values in maps.items():
        if np.ndim(values) != 3 or len(values) != len(pictures):
            raise InsertError(
                f"the map {name!r} has the shape {np.shape(values)}; for {len(pictures)} image(s) it has to be "
                f"({len(pictures)}, height, width)"
            )
    height, width = pictures.shape[1:3]
    columns = 1 + len(maps)
    size = (1.9 * columns, 1.9 * len(pictures) * height / width + 0.5)
    # Not pyplot: it would register the figure globally and may open a window.
    figure = figures.Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(pictures), columns, squeeze=False)
    for row, picture in enumerate(pictures):
        for column, name in enumerate(("image", *maps)):
            place = axes[row][column]
            place.imshow(picture)
            place.set_axis_off()
            if row == 0:
                place.set_title(name, fontsize=8)
            if column:
                # imshow draws a coarse map in the image's pixel coordinates, whose pixels are centred on integers.
                extent = (-0.5, width - 0.5, height - 0.5, -0.5)
                place.imshow(maps[name][row], cmap=colours, alpha=opacity, extent=extent, interpolation="bilinear")
    figure.suptitle(title, fontsize=9)
    return figure


def _pictures(images: Any) -> Array:
    """Scale images to (B, H, W, 3) from 0 to 1."""
    values = images.detach().float().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images, np.float32)
    # Three columns and three channels are ambiguous; channels last wins.
    if values.ndim == 4 and values.shape[1] == 3 and values.shape[-1] != 3:
        values = values.transpose(0, 2, 3, 1)
    if values.ndim != 4 or values.shape[-1] != 3:
        raise InsertError(f"images have the shape (B, 3, H, W) or (B, H, W, 3), not {values.shape}")
    low, high = (f(values, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
    # A constant image would divide by 0.
    return (values - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
