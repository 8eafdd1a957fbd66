"""Tucker decomposition: tensorly's HOOI, with the most suitable antisymmetric part."""

from __future__ import annotations

from functools import reduce
from math import prod
from operator import mul
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyattn.catalog import get
from polyattn.fitting.family import (
    Factors,
    Family,
    Orders,
    Ranks,
    Settings,
    Weight,
    decomposed,
    letter,
    projected,
    spectra_ladder,
    torch_backend,
)
from polyattn.fitting.partial_svd import leading, leading_square
from polyattn.fitting.search import outside_boxes

WARM = 4
"""Sweeps of HOOI from the factors of a near tensor."""


def rebuild(factors: Factors) -> Tensor:
    *sides, core, out = factors
    for side in sides:
        core = torch.einsum("r...,dr->...d", core, side)  # the modes rotate: the first goes, its channels come last
    return torch.einsum("s...,sb->...b", core, out)


def fit(core: Tensor, ranks: Ranks, settings: Settings) -> tuple[Factors, tuple[float, ...]]:
    from tensorly.decomposition import tucker

    def decompose(target: Tensor, near: Factors | None) -> Factors:
        options: dict[str, Any] = {"init": "svd", "n_iter_max": 50, "svd": leading}
        # The target moved little since the last call, so its factors are a better start than an SVD.
        if near is not None:
            *sides, middle, out = near
            options |= {"init": (middle, [*sides, out.T]), "n_iter_max": WARM}
        with torch_backend():
            middle, (*sides, out) = tucker(target, list(ranks), tol=1e-10, **options)
        return [*sides, torch.as_tensor(middle), out.T]

    return decomposed(core, decompose, rebuild, settings)


def _most(ranks: Ranks, shape: Ranks) -> Ranks:
    """Return the largest useful ranks: at most the mode, and the product of the others."""
    limits = []
    for k, size in enumerate(shape):
        others = [r for j, r in enumerate(ranks) if j != k and isinstance(r, int)]
        limits.append(min(size, prod(others)) if len(ranks) == len(shape) else size)
    return tuple(limits)


def _ladder(core: Tensor, orders: Orders) -> list[Ranks]:
    # The spectra of the symmetric part: the rest of the core can be changed freely.
    core = projected(core, orders)
    spectra = [torch.linalg.svdvals(core.movedim(k, 0).flatten(1)) for k in range(core.dim())]
    shape = tuple(core.shape)
    return [r for r in spectra_ladder(spectra) if all(a <= b for a, b in zip(r, _most(r, shape), strict=True))]


def _left_out(core: Tensor) -> np.ndarray:
    """Return the share of the square that the truncated higher-order SVD leaves out, for all ranks at once."""
    inner = core
    for k in range(core.dim()):
        # A wide unfolding's left vectors are those of the square factor of its QR decomposition.
        left, _, _ = torch.linalg.svd(leading_square(core.movedim(k, 0).flatten(1)))
        inner = torch.tensordot(inner, left, dims=([0], [0]))  # pyright: ignore[reportArgumentType]
    found = outside_boxes(inner.numpy()) / core.square().sum().item()
    ranks = np.ogrid[tuple(slice(1, n + 1) for n in core.shape)]
    for k, own in enumerate(ranks):
        others = reduce(mul, (r for j, r in enumerate(ranks) if j != k), np.ones((1,) * core.dim()))
        found = np.where(own > others, np.inf, found)
    return found


def _weights(ranks: Ranks, degree: int) -> tuple[list[Weight], dict[str, int]]:
    names = [f"r{m}" for m in range(1, degree + 1)]
    sides: list[Weight] = [(f"w{letter(m, degree)}", (m, names[m - 1])) for m in range(1, degree + 1)]
    return [*sides, ("core", (*names, "s")), ("wo", ("s", 0))], dict(zip([*names, "s"], ranks, strict=True))


TUCKER = Family(
    "tucker_nl",
    ("wq", "wk", "wv", "core", "wo"),
    _most,
    _ladder,
    lambda ranks, mean, bias, _: get("tucker_nl", ranks=ranks, mean=mean, bias=bias),
    _weights,
    rebuild,
    fit,
    (0, 0, 0, None, None),
    left_out=_left_out,
)
