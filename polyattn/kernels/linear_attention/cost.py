"""What `linear_attention` and its backward pass take. The batch counts heads too."""

from polyattn.kernels.cost import Cost


def context(batch: int, positions: int, keys: int, values: int, itemsize: int) -> Cost:
    """softmax(K)ᵀV: K and V are read."""
    traffic = batch * (positions * (keys + values) + keys * values)
    return Cost(batch * positions * keys * values, itemsize * traffic)


def query(batch: int, positions: int, keys: int, values: int, itemsize: int) -> Cost:
    """softmax(Q) times the context: Q is read, Y is written."""
    return context(batch, positions, keys, values, itemsize)


def forward(batch: int, positions: int, keys: int, values: int, itemsize: int) -> Cost:
    """Both halves."""
    return context(batch, positions, keys, values, itemsize) + query(batch, positions, keys, values, itemsize)


def backward(batch: int, positions: int, keys: int, values: int, itemsize: int) -> Cost:
    """Two products for each of the forward pass; Q and dY are read for dQ and once more for the context's gradient."""
    traffic = batch * (positions * (5 * keys + 4 * values) + 4 * keys * values)
    return Cost(4 * batch * positions * keys * values, itemsize * traffic)
