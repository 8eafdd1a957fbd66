"""The first singular vectors of a matrix, without a full decomposition if few are needed."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

LARGE, FEW, LONG = 256, 16, 4
"""From this many rows and columns on, less than one in `FEW` vectors are found one by one; a matrix with one side
`LONG` times the other is made square first."""


def leading(matrix: Tensor, n_eigenvecs: int | None = None, **_: object) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the n first left singular vectors, singular values and right singular vectors, in tensorly's form.

    Few vectors of a large matrix come from Lanczos' method to full precision, with a fixed start.
    """
    rows, columns = matrix.shape
    least = min(rows, columns)
    count = least if n_eigenvecs is None else min(n_eigenvecs, least)
    # A QR decomposition is cheaper than an SVD of the tall matrix, and keeps its singular values.
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
            # ARPACK returns them in ascending order.
            order = s.argsort(descending=True)
            return u[:, order], s[order], v[order]
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return left[:, :count], values[:count], right[:count]


def leading_square(wide: Tensor) -> Tensor:
    """Return a square matrix with the left singular vectors and values of a wide one."""
    rows, columns = wide.shape
    return torch.linalg.qr(wide.T, mode="r").R.T if columns > rows else wide
