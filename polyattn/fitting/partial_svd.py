"""The first singular vectors of a matrix, where a full decomposition would compute many more than are asked for."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

LARGE, FEW, LONG = 256, 16, 4
"""From so many rows and columns on, less than one in so many vectors are found one by one; a matrix whose one side is
so many times the other is made square first."""


def leading(matrix: Tensor, n_eigenvecs: int | None = None, **_: object) -> tuple[Tensor, Tensor, Tensor]:
    """The n first left singular vectors, singular values and right singular vectors, as tensorly asks for them.

    Few vectors of a large matrix come from Lanczos' method to full precision, its start being fixed.
    """
    rows, columns = matrix.shape
    least = min(rows, columns)
    count = least if n_eigenvecs is None else min(n_eigenvecs, least)
    if rows > LONG * columns:
        side, square = torch.linalg.qr(matrix)
        left, values, right = leading(square, count)
        return side @ left, values, right
    if columns > LONG * rows:
        left, values, right = leading(matrix.T.contiguous(), count)
        return right.T, values, left.T
    if least >= LARGE and FEW * count <= least:
        from scipy.sparse.linalg import ArpackNoConvergence, svds

        with suppress(ArpackNoConvergence):  # as where many singular values are equal: all of them, then
            found = svds(matrix.numpy(), count, v0=np.random.default_rng(0).normal(size=least))
            u, s, v = (torch.from_numpy(np.array(part)) for part in found)
            order = s.argsort(descending=True)
            return u[:, order], s[order], v[order]
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return left[:, :count], values[:count], right[:count]
