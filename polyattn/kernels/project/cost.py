"""Costs of `project` and `project_pair`."""

from polyattn.kernels.cost import Cost


def project(batch: int, positions: int, channels: int, columns: int, itemsize: int, scaled: bool = True) -> Cost:
    """Count a product with a scale per batch element and channel, and one matrix for the whole batch."""
    traffic = batch * positions * (channels + columns) + channels * columns + scaled * batch * channels
    return Cost(batch * positions * channels * columns, itemsize * traffic)


def project_pair(batch: int, positions: int, channels: int, other: int, columns: int, itemsize: int) -> Cost:
    """Count two added products, with a matrix each per batch element."""
    traffic = batch * (positions * (channels + other + columns) + (channels + other) * columns)
    return Cost(batch * positions * (channels + other) * columns, itemsize * traffic)
