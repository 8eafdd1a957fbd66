"""Costs of `linear_attention` and its backward pass, with heads counted in the batch."""

from polyattn.kernels.cost import Cost


def context(batch: int, positions: int, keys: int, values: int, itemsize: int) -> Cost:
    """Count softmax(K)ᵀV, with K and V read."""
    traffic = batch * (positions * (keys + values) + keys * values)
    return Cost(batch * positions * keys * values, itemsize * traffic)


def query(batch: int, positions: int, keys: int, values: int, itemsize: int) -> Cost:
    """Count softmax(Q) times the context, with Q read and Y written."""
    return context(batch, positions, keys, values, itemsize)


def forward(batch: int, positions: int, keys: int, values: int, itemsize: int) -> Cost:
    """Count both halves."""
    return context(batch, positions, keys, values, itemsize) + query(batch, positions, keys, values, itemsize)


def backward(batch: int, positions: int, keys: int, values: int, itemsize: int) -> Cost:
    """Count two products per forward product; Q and dY are read for dQ and again for the context's gradient."""
    traffic = batch * (positions * (5 * keys + 4 * values) + 4 * keys * values)
    return Cost(4 * batch * positions * keys * values, itemsize * traffic)
