"""What `hadamard_mean` and its backward pass take."""

from polyattn.kernels.cost import Cost
from polyattn.kernels.gram import cost as gram


def forward(batch: int, positions: int, channels: int, columns: int, itemsize: int) -> Cost:
    """Two projections and their product; only X, the two matrices and the mean touch memory."""
    macs = batch * positions * columns * (2 * channels + 1)
    return Cost(macs, itemsize * (batch * positions * channels + 2 * channels * columns + batch * columns))


def backward(batch: int, positions: int, channels: int, columns: int, itemsize: int) -> Cost:
    """Through the Gram matrix where positions outnumber channels, else through the projections."""
    if positions >= channels:
        small = Cost(3 * batch * channels**2 * columns, itemsize * batch * channels * (4 * channels + 3 * columns))
        last = Cost(batch * positions * channels**2, 2 * itemsize * batch * positions * channels)
        return gram.forward(batch, positions, channels, itemsize) + small + last
    traffic = itemsize * batch * positions * (4 * channels + 8 * columns)
    return Cost(6 * batch * positions * channels * columns, traffic)
