"""Softmax attention by torch's fused kernels, or by its formula where they cannot be differentiated."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from polyattn.kernels.runtime import transformed


def attention(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> Tensor:
    """Compute softmax(scale * query keyᵀ) value on (..., N, R), (..., M, R) and (..., M, S).

    Under `torch.func` and in forward mode the formula runs: the fused kernels are without rules for these.

    Args:
        scale: factor of the similarities; R ** -0.5 by default.
    """
    if not transformed():
        return F.scaled_dot_product_attention(query, key, value, scale=scale)
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    return torch.softmax((factor * query) @ key.transpose(-1, -2), -1) @ value
