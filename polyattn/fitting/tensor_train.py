"""Tensor train: tensorly's TT-SVD, with the antisymmetric part that suits it best."""

from __future__ import annotations

import torch
from torch import Tensor

from polyattn.catalog import get
from polyattn.fitting.family import (
    Factors,
    Family,
    Ranks,
    Settings,
    decomposed,
    spectra_ladder,
    torch_backend,
)


def rebuild(factors: Factors) -> Tensor:
    wq, wk, wv, wo = factors
    left = torch.einsum("dr,rfs->dfs", wq, wk)
    return torch.einsum("dfs,sht,tb->dfhb", left, wv, wo)


def fit(core: Tensor, ranks: Ranks, settings: Settings) -> tuple[Factors, tuple[float, ...]]:
    from tensorly.decomposition import tensor_train

    def decompose(target: Tensor) -> Factors:
        with torch_backend():
            first, second, third, last = tensor_train(target, [1, *ranks, 1])
        return [first[0], second, third, last[..., 0]]

    return decomposed(core, decompose, rebuild, settings)


def _most(ranks: Ranks, shape: Ranks) -> Ranks:
    """The ranks of the unfoldings: no larger than either side, nor than a neighbouring rank times the mode between."""
    d, f, h, b = shape
    if len(ranks) != 3 or not all(isinstance(r, int) for r in ranks):
        return d, min(d * f, h * b), b
    r, s, t = ranks
    return min(d, f * s), min(r * f, h * t, d * f, h * b), min(b, s * h)


def _ladder(core: Tensor) -> list[Ranks]:
    shape = tuple(core.shape)
    spectra = [torch.linalg.svdvals(core.flatten(0, k).flatten(1)) for k in range(3)]
    return [r for r in spectra_ladder(spectra) if all(a <= b for a, b in zip(r, _most(r, shape), strict=True))]


TT = Family(
    "tt_nl",
    ("wq", "wk", "wv", "wo"),
    _most,
    _ladder,
    lambda ranks, mean, bias, _: get("tt_nl", ranks=ranks, mean=mean, bias=bias),
    rebuild,
    fit,
    (0, 1, 1, None),
)
