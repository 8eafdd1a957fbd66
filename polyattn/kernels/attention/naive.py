"""`attention` in torch: two products around a softmax."""

from __future__ import annotations

import torch
from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Compute y[b,h,n,s] = Σ_m softmax_m(scale * Σ_r q[b,h,n,r] k[b,h,m,r] + mask[b,h,n,m]) v[b,h,m,s].

    A row with all places masked out is 0.
    """
    alike = scale * (q @ k.mT)
    if mask is None:
        return torch.softmax(alike, -1) @ v
    alike = alike + mask
    out = (alike == -torch.inf).all(-1, keepdim=True)
    return torch.softmax(alike.masked_fill(out, 0.0), -1).masked_fill(out, 0.0) @ v
