"""What `projected_context` and `projected_query` take."""

from polyattn.kernels.cost import Cost

VALUES = 256
"""The most values of one program; the keys are made again for every so many."""


def context(
    batch: int, positions: int, channels: int, keys: int, values: int, itemsize: int, *, same: bool = False
) -> Cost:
    """softmax(X W)ᵀV: X, W and V are read; V is no more to read where it is X."""
    again = -(-values // VALUES)
    macs = batch * positions * keys * (channels * again + values)
    read = batch * positions * (channels + (0 if same else values)) + channels * keys
    return Cost(macs, itemsize * (read + batch * keys * values))


def query(batch: int, positions: int, channels: int, keys: int, values: int, itemsize: int) -> Cost:
    """softmax(X W) times the context: X, W and the context are read, Y is written."""
    macs = batch * positions * keys * (channels + values)
    moved = batch * positions * (channels + values) + channels * keys + batch * keys * values
    return Cost(macs, itemsize * moved)
