"""A core's error measured on the data: the square root of second moments on each mode of x."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from polyattn.errors import FittingError
from polyattn.fitting.family import Weight
from polyattn.fitting.scaling import as_array, exponent, times_power


def square_root(moments: np.ndarray | Tensor, channels: int, bias: bool = False) -> Tensor:
    """Compute a root A of second moments, A Aᵀ = E[x xᵀ], up to a power of two, which cancels in a core's error.

    Each feature's own power is lifted by a millionth of the features' mean, for dead channels. The root is that of the
    correlations, times the features' scales: so it has as many digits for small features beside the constant 1 of the
    biases as for large ones.

    Raises:
        FittingError: they are not a matrix of the core's channels, symmetric, finite and positive semidefinite.
    """
    given = as_array(moments, "moments")
    if given.shape != (channels, channels) or not np.isfinite(given).all():
        raise FittingError(f"`moments` are a finite ({channels}, {channels}) matrix; found shape {given.shape}")
    # An even power of two, so that the root's is whole; the constant 1 of the biases is scaled along.
    given = times_power(given, -2 * ((exponent(given) + 1) // 2))
    features = slice(0, channels - 1 if bias else channels)
    power = np.diag(given).copy()
    mean = power[features].mean()
    if np.abs(given - given.T).max() > 1e-6 * np.abs(given).max() or power.min() < 0 or mean <= 0:
        raise FittingError("`moments` are symmetric and positive semidefinite, as E[x xᵀ] is; these are not")
    # Without it a channel that is never on would make the root singular.
    lift = np.zeros(channels)
    lift[features] = 1e-6 * mean
    own = np.sqrt(power + lift)
    if (own == 0).any():
        raise FittingError("`moments` with biases have E[1] = 1 as their last entry; found 0")
    # Symmetrised, since `eigh` reads one triangle only.
    correlations = ((given + given.T) / 2 + np.diag(lift)) / own[:, None] / own
    values, vectors = np.linalg.eigh(correlations)
    if values[0] < -1e-6 * values[-1]:
        raise FittingError("`moments` are symmetric and positive semidefinite, as E[x xᵀ] is; these are not")
    root = (vectors * np.sqrt(values.clip(1e-14))) @ vectors.T
    return torch.from_numpy(own[:, None] * root)


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
                solved = torch.linalg.solve(root.T, factor.movedim(axis, 0).flatten(1))
                factor = solved.reshape(factor.movedim(axis, 0).shape).movedim(0, axis)
        found.append(factor)
    return found
