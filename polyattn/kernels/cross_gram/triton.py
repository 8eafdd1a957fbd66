"""`cross_gram` in Triton: the kernels of `gram`, on all tiles."""

from __future__ import annotations

from torch import Tensor

from polyattn.kernels.gram.triton import products
from polyattn.kernels.tuning import Tile


def cross_gram(
    x: Tensor, y: Tensor, scale: float, precision: str, tile: Tile | None = None, splits: int | None = None
) -> Tensor:
    """Compute XᵀY of x (B, N, C) and y (B, N, D), any strides, times a scale: (B, C, D)."""
    # `products` takes identity of x and y as a Gram matrix; a view asks for all tiles.
    return products(x, y.view(y.shape) if x is y else y, scale, precision, tile, splits)
