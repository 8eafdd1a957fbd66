"""Tucker decomposition: tensorly's HOOI, with the antisymmetric part that suits it best."""

from __future__ import annotations

from math import prod

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
    symmetric,
    torch_backend,
)


def rebuild(factors: Factors) -> Tensor:
    wq, wk, wv, core, wo = factors
    return torch.einsum("dr,fs,ht,rstu,ub->dfhb", wq, wk, wv, core, wo)


def fit(core: Tensor, ranks: Ranks, settings: Settings) -> tuple[Factors, tuple[float, ...]]:
    from tensorly.decomposition import tucker

    def decompose(target: Tensor) -> Factors:
        with torch_backend():
            middle, (u, v, w, o) = tucker(target, list(ranks), init="svd", n_iter_max=50, tol=1e-10)
        return [u, v, w, torch.as_tensor(middle), o.T]

    return decomposed(core, decompose, rebuild, settings)


def _most(ranks: Ranks, shape: Ranks) -> Ranks:
    """No rank is larger than its mode, nor than the product of the others."""
    limits = []
    for k, size in enumerate(shape):
        others = [r for j, r in enumerate(ranks) if j != k and isinstance(r, int)]
        limits.append(min(size, prod(others)) if len(ranks) == 4 else size)
    return tuple(limits)


def _ladder(core: Tensor) -> list[Ranks]:
    core = symmetric(core)
    spectra = [torch.linalg.svdvals(core.movedim(k, 0).flatten(1)) for k in range(4)]
    shape = tuple(core.shape)
    return [r for r in spectra_ladder(spectra) if all(a <= b for a, b in zip(r, _most(r, shape), strict=True))]


TUCKER = Family(
    "tucker_nl",
    ("wq", "wk", "wv", "core", "wo"),
    _most,
    _ladder,
    lambda ranks, mean, bias, _: get("tucker_nl", ranks=ranks, mean=mean, bias=bias),
    rebuild,
    fit,
    (0, 0, 0, None, None),
)
