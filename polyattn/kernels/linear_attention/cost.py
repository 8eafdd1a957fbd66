"""What `linear_attention` and its backward pass take. The batch counts heads too."""

from polyattn.kernels.cost import Cost


def forward(batch: int, positions: int, keys: int, values: int, itemsize: int) -> Cost:
    """KᵀV, then Q times it: K, V and Q are read, and Y is written."""
    traffic = batch * (positions * (2 * keys + 2 * values) + 2 * keys * values)
    return Cost(2 * batch * positions * keys * values, itemsize * traffic)


def backward(batch: int, positions: int, keys: int, values: int, itemsize: int) -> Cost:
    """Two products for each of the forward pass; Q and dY are read for dQ and once more for the context's gradient."""
    traffic = batch * (positions * (5 * keys + 4 * values) + 4 * keys * values)
    return Cost(4 * batch * positions * keys * values, itemsize * traffic)
