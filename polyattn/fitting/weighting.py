"""A core's error measured on the data: the square root of second moments on each mode of x."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from polyattn.errors import FittingError
from polyattn.fitting.family import Weight


def square_root(moments: np.ndarray | Tensor, channels: int) -> Tensor:
    """Compute the symmetric square root of second moments, plus a millionth of their mean for dead channels.

    Raises:
        FittingError: they are not a matrix of the core's channels, symmetric, finite and positive semidefinite.
    """
    matrix = torch.as_tensor(moments).detach().cpu().double()
    if matrix.shape != (channels, channels) or not matrix.isfinite().all():
        raise FittingError(f"moments are a finite ({channels}, {channels}) matrix; found shape {tuple(matrix.shape)}")
    # Symmetrised, since `eigh` reads one triangle only.
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    largest = values[-1].item()
    if largest <= 0 or values[0] < -1e-6 * largest or (matrix - matrix.T).abs().max() > 1e-6 * largest:
        raise FittingError("moments are symmetric and positive semidefinite, as E[x xᵀ] is; these are not")
    # Without it a channel that is never on would make the root singular.
    lifted = (values.clamp_min(0) + 1e-6 * values.mean()).sqrt()
    return (vectors * lifted) @ vectors.T


def weighted(core: Tensor, root: Tensor) -> Tensor:
    """Multiply the core by a root of moments on each x's mode."""
    for mode in range(core.dim() - 1):
        core = (core.movedim(mode, -1) @ root).movedim(-1, mode)
    return core.contiguous()


def unweighted(factors: list[Tensor], weights: list[Weight], root: Tensor) -> list[Tensor]:
    """Convert the factors of the weighted core to those of the core."""
    found = []
    for (_, slots), factor in zip(weights, factors, strict=True):
        for axis, slot in enumerate(slots):
            if isinstance(slot, int) and slot:  # the channels of an x
                solved = torch.linalg.solve(root, factor.movedim(axis, 0).flatten(1))
                factor = solved.reshape(factor.movedim(axis, 0).shape).movedim(0, axis)
        found.append(factor)
    return found
