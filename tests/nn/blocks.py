"""The blocks of `polyattn.nn`, each small enough to differentiate numerically: what test_blocks.py holds of all."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import polyattn as pa


@dataclass(frozen=True)
class Case:
    """A block at its small size, and how to make it for a million positions (None: it has no such form)."""

    make: Callable[[], nn.Module]
    channels: int
    positions: tuple[int, ...] = (4, 6)
    large: Callable[[], nn.Module] | None = None
    large_channels: int = 2

    def image(self, batch: int = 2, **options) -> Tensor:
        return torch.randn(batch, self.channels, *self.positions, **options)


CASES: dict[str, Case] = {
    "NonLocal": Case(
        lambda: pa.nn.NonLocal(4, reduction=1, heads=2, zero_init=False),
        4,
        large=lambda: pa.nn.NonLocal(2, sub_sample=250, zero_init=False),
    ),
    "NonLocal, dot product": Case(
        lambda: pa.nn.NonLocal(4, similarity="dot_product", zero_init=False),
        4,
        large=lambda: pa.nn.NonLocal(2, similarity="dot_product", zero_init=False),
    ),
    "NonLocal, concatenation, 3D": Case(
        lambda: pa.nn.NonLocal(2, similarity="concatenation", norm=False, zero_init=False, sub_sample=2, dim=3),
        2,
        (2, 2, 4),
    ),
    "NonLocal, gaussian, 1D": Case(
        lambda: pa.nn.NonLocal(4, similarity="gaussian", sub_sample=2, pool="after", zero_init=False, dim=1), 4, (7,)
    ),
}
"""Add a block here and every fact of test_blocks.py is checked of it."""
