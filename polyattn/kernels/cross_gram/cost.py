"""What `cross_gram` and its backward pass take."""

from polyattn.kernels.cost import Cost


def forward(batch: int, positions: int, rows: int, columns: int, itemsize: int) -> Cost:
    """Both inputs read once."""
    traffic = itemsize * batch * (positions * (rows + columns) + rows * columns)
    return Cost(batch * positions * rows * columns, traffic)


def backward(batch: int, positions: int, rows: int, columns: int, itemsize: int) -> Cost:
    """dX = Y dGᵀ and dY = X dG."""
    traffic = 2 * itemsize * batch * (positions * (rows + columns) + rows * columns)
    return Cost(2 * batch * positions * rows * columns, traffic)
