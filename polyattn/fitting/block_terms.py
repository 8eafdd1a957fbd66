"""Block terms: sums of a similarity of rank R times a value of rank V.

`T[d,f,h,b] = Σ_g A_g[d,f] B_g[h,b]` is a matrix over (d f) and (h b), so the best terms of full rank are its singular
vectors (Van Loan & Pitsianis, 1993). Each is cut to its rank, and all terms are then optimised together.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from polyattn.catalog import get
from polyattn.errors import FittingError
from polyattn.fitting.family import (
    Factors,
    Family,
    Orders,
    Ranks,
    Settings,
    Weight,
    completed,
    parameters_of,
    polished,
    relative,
    spectra_ladder,
)
from polyattn.fitting.partial_svd import leading
from polyattn.fitting.search import tails

EXACT = 1e-8
MOST_TERMS = 4
"""Terms searched for a budget, for each channel."""


def rebuild(factors: Factors) -> Tensor:
    wq, wk, wv, wo = factors
    a = torch.einsum("gdr,gfr->gdf", wq, wk)
    b = torch.einsum("ghs,gsb->ghb", wv, wo)
    return (a.flatten(1).T @ b.flatten(1)).reshape(a.shape[1], a.shape[2], b.shape[1], b.shape[2])


def fit(core: Tensor, ranks: Ranks, settings: Settings) -> tuple[Factors, tuple[float, ...]]:
    def decompose(target: Tensor, _: Factors | None) -> Factors:
        return _terms(target, ranks)

    # The two decompositions that come closest are worth a descent; the others only cost time.
    candidates = completed(core, decompose, rebuild, settings)
    candidates.sort(key=lambda f: relative(rebuild(f) - core, core, settings.orders))
    del candidates[2:]
    for start in range(max(0, settings.starts - 2)):
        # A large factor keeps the starts of consecutive seeds apart.
        generator = torch.Generator().manual_seed(settings.seed * 7919 + start)
        noise = [torch.randn(f.shape, generator=generator, dtype=f.dtype) * f.std() for f in candidates[0]]
        candidates.append([f + 0.5 * n for f, n in zip(candidates[0], noise, strict=True)])
        settings.done()
    finished, errors = [], []
    for factors in candidates:
        finished.append(polished(core, factors, rebuild, settings))
        errors.append(relative(rebuild(finished[-1]) - core, core, settings.orders))
        # An exact fit cannot be improved.
        if errors[-1] < EXACT:
            break
    return finished[errors.index(min(errors))], tuple(errors)


def _terms(core: Tensor, ranks: Ranks) -> Factors:
    """Compute the singular vectors of the (d f) x (h b) unfolding, as matrices, each cut to its rank."""
    terms, r, s = ranks
    d, f, h, b = core.shape
    left, values, right = leading(core.reshape(d * f, h * b), terms)
    # The root of a singular value on each side: factors of like size make the descent well conditioned.
    roots = values.sqrt()
    similarities = (left * roots).T.reshape(terms, d, f)
    outputs = (right * roots[:, None]).reshape(terms, h, b)
    wq, wk = _cut(similarities, r)
    wv, wo = _cut(outputs, s)
    return [wq, wk.mT, wv, wo]


def _cut(matrices: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Compute the best factors of each matrix with `rank` columns and rows."""
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    roots = values[:, :rank].sqrt()
    return left[..., :rank] * roots[:, None], right[:, :rank] * roots[..., None]


def truncated(core: Tensor, ranks: Ranks, bias: bool) -> tuple[Factors, dict[str, np.ndarray]]:
    """Cut the first term to its ranks by plain singular value decompositions; return its factors, and as parameters."""
    factors = _terms(core, ranks)
    return factors, parameters_of(BLOCK_TERMS, factors, bias)


def _most(ranks: Ranks, shape: Ranks) -> Ranks:
    if len(shape) != 4:
        raise FittingError(f"block_term_nl pairs the modes of a core of degree 3; this one has degree {len(shape) - 1}")
    d, f, h, b = shape
    return min(d * f, h * b), min(d, f), min(h, b)


def _ladder(core: Tensor, _orders: Orders) -> list[Ranks]:
    """List one term, its ranks by the spectra of its two matrices, then more terms of full ranks."""
    most, r, s = _most((), tuple(core.shape))
    d, f, h, b = core.shape
    left, _, right = leading(core.reshape(d * f, h * b), 1)
    spectra = [torch.linalg.svdvals(m) for m in (left.reshape(d, f), right.reshape(h, b))]
    return [(1, *ranks) for ranks in spectra_ladder(spectra)] + [(g, r, s) for g in range(2, most + 1)]


def _left_out(core: Tensor) -> np.ndarray:
    """Return the share that terms cut to their ranks leave out, as if the cut terms were orthogonal."""
    most, *_ = _most((), tuple(core.shape))
    d, f, h, b = core.shape
    # More terms than that cost more than the core's own entries.
    terms = min(most, MOST_TERMS * max(core.shape))
    left, values, right = leading(core.reshape(d * f, h * b), terms)
    weights, whole = values.square().numpy(), core.square().sum().item()
    spectra = [torch.linalg.svdvals(m).numpy() for m in (left.T.reshape(-1, d, f), right.reshape(-1, h, b))]
    first, second = (np.stack([tails(row) for row in rows]) for rows in spectra)
    # What the cuts leave of a term of norm 1: 1 - (1 - p)(1 - q), without loss of digits where both are small.
    lost = first[:, :, None] + (1 - first)[:, :, None] * second[:, None, :]
    rest = max(whole - weights.sum(), 0.0) if terms < most else 0.0
    behind = tails(values.numpy()) + rest
    return ((weights[:, None, None] * lost).cumsum(0) + behind[:, None, None]) / whole


def _weights(ranks: Ranks, _: int) -> tuple[list[Weight], dict[str, int]]:
    slots: list[Weight] = [("wq", ("g", 1, "r")), ("wk", ("g", 2, "r")), ("wv", ("g", 3, "s")), ("wo", ("g", "s", 0))]
    return slots, dict(zip("grs", ranks, strict=True))


BLOCK_TERMS = Family(
    "block_term_nl",
    ("wq", "wk", "wv", "wo"),
    _most,
    _ladder,
    lambda ranks, mean, bias, _: get("block_term_nl", terms=ranks[0], ranks=ranks[1:], mean=mean, bias=bias),
    _weights,
    rebuild,
    fit,
    (1, 1, 1, None),
    left_out=_left_out,
)
