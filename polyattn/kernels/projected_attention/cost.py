"""Costs of `projected_context` and `projected_query`."""

from polyattn.kernels.cost import Cost

VALUES = 256
"""Most values of one program; the keys are recomputed for each such share of the values."""


def context(
    batch: int, positions: int, channels: int, keys: int, values: int, itemsize: int, *, same: bool = False
) -> Cost:
    """Count softmax(X W)ᵀV, with X, W and V read; V is not read again if it is X."""
    again = -(-values // VALUES)
    macs = batch * positions * keys * (channels * again + values)
    read = batch * positions * (channels + (0 if same else values)) + channels * keys
    return Cost(macs, itemsize * (read + batch * keys * values))


def query(batch: int, positions: int, channels: int, keys: int, values: int, itemsize: int) -> Cost:
    """Count softmax(X W) times the context, with X, W and the context read and Y written."""
    macs = batch * positions * keys * (channels + values)
    moved = batch * positions * (channels + values) + channels * keys + batch * keys * values
    return Cost(macs, itemsize * moved)
