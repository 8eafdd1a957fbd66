"""Costs of `hadamard_mean` and its backward pass."""

from polyattn.kernels.cost import Cost
from polyattn.kernels.gram import cost as gram


def forward(batch: int, positions: int, channels: int, columns: int, itemsize: int) -> Cost:
    """Count two projections and their product; memory traffic is X, the two matrices and the mean."""
    macs = batch * positions * columns * (2 * channels + 1)
    return Cost(macs, itemsize * (batch * positions * channels + 2 * channels * columns + batch * columns))


def backward(batch: int, positions: int, channels: int, columns: int, itemsize: int) -> Cost:
    """Count the backward pass: by the Gram matrix if positions outnumber channels, else by the projections."""
    if positions >= channels:
        small = Cost(3 * batch * channels**2 * columns, itemsize * batch * channels * (4 * channels + 3 * columns))
        last = Cost(batch * positions * channels**2, 2 * itemsize * batch * positions * channels)
        return gram.forward(batch, positions, channels, itemsize) + small + last
    traffic = itemsize * batch * positions * (4 * channels + 8 * columns)
    return Cost(6 * batch * positions * channels * columns, traffic)
