"""What `project` and `project_pair` take."""

from polyattn.kernels.cost import Cost


def project(batch: int, positions: int, channels: int, columns: int, itemsize: int, scaled: bool = True) -> Cost:
    """With a scale for each batch element and channel; one matrix for the whole batch."""
    traffic = batch * positions * (channels + columns) + channels * columns + scaled * batch * channels
    return Cost(batch * positions * channels * columns, itemsize * traffic)


def project_pair(batch: int, positions: int, channels: int, other: int, columns: int, itemsize: int) -> Cost:
    """Two products added, with a matrix each for every batch element."""
    traffic = batch * (positions * (channels + other + columns) + (channels + other) * columns)
    return Cost(batch * positions * (channels + other) * columns, itemsize * traffic)
