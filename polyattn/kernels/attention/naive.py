"""`attention` in torch: two products around a softmax."""

from __future__ import annotations

import torch
from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, causal: bool = False) -> Tensor:
    """Compute y[b,h,n,s] = Σ_m softmax_m(scale * Σ_r q[b,h,n,r] k[b,h,m,r] + mask[b,h,n,m]) v[b,h,m,s].

    A mask of booleans chooses the places m, `causal` those with m <= n. A row with all places masked out is 0.
    """
    alike = scale * (q @ k.mT)
    mask = before(q, k) if causal else mask
    if mask is None:
        return torch.softmax(alike, -1) @ v
    alike = alike.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else alike + mask
    out = (alike == -torch.inf).all(-1, keepdim=True)
    return torch.softmax(alike.masked_fill(out, 0.0), -1).masked_fill(out, 0.0) @ v


def before(q: Tensor, k: Tensor) -> Tensor:
    """Return where a key does not come behind a query, as booleans (N, M)."""
    n, m = (torch.arange(t.shape[2], device=q.device) for t in (q, k))
    return m <= n[:, None]
