"""What `bilinear` and its backward pass take."""

from polyattn.kernels.cost import Cost


def forward(batch: int, height: int, width: int, channels: int, groups: int, s: int, t: int, itemsize: int) -> Cost:
    """Each position's block is a sum of all S T blocks, with the weights p ⊗ qᵀ in memory."""
    elements, weights = batch * height * width * channels, batch * groups * (s * t) ** 2
    return Cost(elements * s * t, itemsize * (2 * elements + weights))


def backward(batch: int, height: int, width: int, channels: int, groups: int, s: int, t: int, itemsize: int) -> Cost:
    """The same sum with the weights transposed, and the inner products of the blocks of dY and X."""
    elements, weights = batch * height * width * channels, batch * groups * (s * t) ** 2
    return Cost(2 * elements * s * t, itemsize * (4 * elements + 2 * weights))
