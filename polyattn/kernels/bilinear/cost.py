"""Costs of `bilinear` and its backward pass."""

from polyattn.kernels.cost import Cost


def forward(batch: int, height: int, width: int, channels: int, groups: int, s: int, t: int, itemsize: int) -> Cost:
    """Count the forward pass: each block of Y sums all S T blocks of X, with the weights p ⊗ qᵀ in memory."""
    elements, weights = batch * height * width * channels, batch * groups * (s * t) ** 2
    return Cost(elements * s * t, itemsize * (2 * elements + weights))


def backward(batch: int, height: int, width: int, channels: int, groups: int, s: int, t: int, itemsize: int) -> Cost:
    """Count the backward pass: the same sum with transposed weights, and inner products of blocks of dY and X."""
    elements, weights = batch * height * width * channels, batch * groups * (s * t) ** 2
    return Cost(2 * elements * s * t, itemsize * (4 * elements + 2 * weights))
