"""Tensor train: tensorly's TT-SVD, with the most suitable antisymmetric part."""

from __future__ import annotations

from math import prod

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
    spectra_ladder,
    torch_backend,
)
from polyattn.fitting.partial_svd import leading, leading_square
from polyattn.fitting.search import tails


def rebuild(factors: Factors) -> Tensor:
    first, *middle, last = factors
    for factor in (*middle, last):
        first = torch.tensordot(first, factor, dims=1)
    return first


def fit(core: Tensor, ranks: Ranks, settings: Settings) -> tuple[Factors, tuple[float, ...]]:
    from tensorly.decomposition import tensor_train

    def decompose(target: Tensor, _: Factors | None) -> Factors:
        with torch_backend():
            first, *middle, last = tensor_train(target, [1, *ranks, 1], svd=leading)  # pyright: ignore[reportArgumentType]
        return [first[0], *middle, last[..., 0]]

    return decomposed(core, decompose, rebuild, settings)


def _most(ranks: Ranks, shape: Ranks) -> Ranks:
    """Return the largest useful ranks: at most either side of the unfolding, and a neighbouring rank times its mode."""
    limits = [min(prod(shape[: k + 1]), prod(shape[k + 1 :])) for k in range(len(shape) - 1)]
    if len(ranks) != len(limits) or not all(isinstance(r, int) for r in ranks):
        return tuple(limits)
    around = (1, *ranks, 1)
    return tuple(min(limit, around[k] * shape[k], shape[k + 1] * around[k + 2]) for k, limit in enumerate(limits))


def _ladder(core: Tensor, _: Orders) -> list[Ranks]:
    shape = tuple(core.shape)
    spectra = [torch.linalg.svdvals(core.reshape(prod(shape[:k]), -1)) for k in range(1, len(shape))]
    # TT-SVD cannot use a rank that exceeds its neighbours' product with the mode.
    return [r for r in spectra_ladder(spectra) if all(a <= b for a, b in zip(r, _most(r, shape), strict=True))]


def _left_out(core: Tensor) -> np.ndarray:
    """Return the sum of the shares that truncations of each unfolding leave out: at most so much TT-SVD does."""
    shape, whole = tuple(core.shape), core.square().sum().item()
    spectra = [
        torch.linalg.svdvals(leading_square(m) if m.shape[0] <= m.shape[1] else leading_square(m.T))
        for m in (core.reshape(prod(shape[:k]), -1) for k in range(1, len(shape)))
    ]
    ranks = np.ogrid[tuple(slice(1, len(s) + 1) for s in spectra)]
    found = np.zeros([len(s) for s in spectra])
    for k, values in enumerate(spectra):
        found = found + (tails(values.numpy()) / whole)[ranks[k] - 1]
    around = [np.ones(1), *ranks, np.ones(1)]
    for k, own in enumerate(ranks):
        useless = (own > around[k] * shape[k]) | (own > shape[k + 1] * around[k + 2])
        found = np.where(useless, np.inf, found)
    return found


def _weights(ranks: Ranks, degree: int) -> tuple[list[Weight], dict[str, int]]:
    names = [f"r{m}" for m in range(1, degree + 1)]
    middle: list[Weight] = [(f"w{letter(m, degree)}", (names[m - 2], m, names[m - 1])) for m in range(2, degree + 1)]
    return [("wq" if degree <= 3 else "w1", (1, names[0])), *middle, ("wo", (names[-1], 0))], dict(
        zip(names, ranks, strict=True)
    )


TT = Family(
    "tt_nl",
    ("wq", "wk", "wv", "wo"),
    _most,
    _ladder,
    lambda ranks, mean, bias, _: get("tt_nl", ranks=ranks, mean=mean, bias=bias),
    _weights,
    rebuild,
    fit,
    (0, 1, 1, None),
    left_out=_left_out,
)
