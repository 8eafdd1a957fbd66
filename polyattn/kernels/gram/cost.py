"""Costs of `gram` and its backward pass."""

from polyattn.kernels.cost import Cost


def forward(batch: int, positions: int, channels: int, itemsize: int) -> Cost:
    """Count upper tiles only: half of N C² multiply-accumulates, and the diagonal."""
    macs = batch * positions * channels * (channels + 1) // 2
    return Cost(macs, itemsize * batch * channels * (positions + channels))


def backward(batch: int, positions: int, channels: int, itemsize: int) -> Cost:
    """Count dX = X (dG + dGᵀ): one product with X."""
    traffic = itemsize * batch * channels * (2 * positions + channels)
    return Cost(batch * positions * channels**2, traffic)
