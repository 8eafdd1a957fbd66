"""The action of an explicit interaction tensor on an input, its symmetrisation, its sparsity and its ranks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from math import factorial, prod

import numpy as np

from polyattn.errors import SizeError


def apply_interaction(tensor: np.ndarray, x: np.ndarray, output_axes: int | None = None) -> np.ndarray:
    """Return `(((W • X) • X) • X)`: Poly-NL, Eq. 4, at any degree.

    Args:
        tensor: W, of the output's axes followed by the input's axes D times.
        x: the input, of shape (N, C), or of as many axes as the layer's input has.
        output_axes: number of the output's axes; by default as many as the input.

    Returns:
        The output, of the output's shape.

    Raises:
        SizeError: the order or the shape of W does not fit such an input.
    """
    w, x = np.asarray(tensor), np.asarray(x)
    for _ in range(_degree(w, x.ndim, output_axes)):
        if w.shape[-x.ndim :] != x.shape:
            raise SizeError(
                f"the last {x.ndim} modes have sizes {w.shape[-x.ndim :]}, but the input has shape {x.shape}"
            )
        # The last x first: each contraction makes the tensor smaller by the input's size.
        w = np.tensordot(w, x, axes=x.ndim)
    return w


def symmetrise(tensor: np.ndarray, axes: int = 2, output_axes: int | None = None) -> np.ndarray:
    """Return the mean of W over all permutations of its x's.

    Two interaction tensors give the same function exactly if their symmetrisations are equal.

    Args:
        tensor: W, of the output's axes followed by the input's axes D times.
        axes: number of an input's axes; 2 for (position, channel).
        output_axes: number of the output's axes; by default as many as an input.

    Raises:
        SizeError: the order of W does not fit these numbers of axes.
    """
    w = np.asarray(tensor)
    degree = _degree(w, axes, output_axes)
    first = w.ndim - degree * axes
    total = np.zeros_like(w)
    for order in permutations(range(degree)):
        modes = [*range(first), *(first + axes * p + k for p in order for k in range(axes))]
        total = total + w.transpose(modes)
    return total / factorial(degree)


def _degree(w: np.ndarray, axes: int, output_axes: int | None) -> int:
    """Return the number of x's that an interaction tensor acts on."""
    rest = w.ndim - (axes if output_axes is None else output_axes)
    if axes < 1 or rest < 0 or rest % axes:
        raise SizeError(
            f"a tensor of order {w.ndim} does not act on inputs of {axes} axes "
            f"to give outputs of {axes if output_axes is None else output_axes}"
        )
    return rest // axes


@dataclass(frozen=True)
class TensorStructure:
    """Sparsity and ranks of an interaction tensor ("block-sparse, low-rank", Poly-NL section 4.1)."""

    shape: tuple[int, ...]
    nonzeros: int
    ranks: tuple[int, ...]
    full_ranks: tuple[int, ...]

    @property
    def density(self) -> float:
        """Return the share of nonzero entries."""
        return self.nonzeros / prod(self.shape)

    def __str__(self) -> str:
        rows = [
            f"order {len(self.shape)}, shape {' x '.join(map(str, self.shape))}",
            f"nonzero entries {self.nonzeros} of {prod(self.shape)} ({100 * self.density:.3g} %)",
            "mode  size  rank of unfolding  full rank would be",
        ]
        for mode, (size, rank, full) in enumerate(zip(self.shape, self.ranks, self.full_ranks, strict=True)):
            rows.append(f"{mode:>4}  {size:>4}  {rank:>17}  {full:>18}")
        return "\n".join(rows)


def structure(tensor: np.ndarray, tolerance: float = 1e-10) -> TensorStructure:
    """Count an explicit tensor's nonzeros and the rank of its unfolding along each mode.

    Args:
        tensor: W as a numpy array.
        tolerance: entries and singular values below this times the largest count as zero.
    """
    from tensorly.base import unfold

    w = np.asarray(tensor, dtype=float)
    largest = float(np.abs(w).max(initial=0.0))
    nonzeros = int((np.abs(w) > tolerance * largest).sum()) if largest else 0
    ranks, full = [], []
    for mode in range(w.ndim):
        unfolding = unfold(w, mode)
        values = np.linalg.svd(unfolding, compute_uv=False)
        ranks.append(int((values > tolerance * values[0]).sum()) if values[0] else 0)
        full.append(min(unfolding.shape))
    return TensorStructure(w.shape, nonzeros, tuple(ranks), tuple(full))
