"""Costs of `cross_gram` and its backward pass."""

from polyattn.kernels.cost import Cost


def forward(batch: int, positions: int, rows: int, columns: int, itemsize: int) -> Cost:
    """Count XᵀY, with both inputs read once."""
    traffic = itemsize * batch * (positions * (rows + columns) + rows * columns)
    return Cost(batch * positions * rows * columns, traffic)


def backward(batch: int, positions: int, rows: int, columns: int, itemsize: int) -> Cost:
    """Count dX = Y dGᵀ and dY = X dG."""
    traffic = 2 * itemsize * batch * (positions * (rows + columns) + rows * columns)
    return Cost(2 * batch * positions * rows * columns, traffic)
