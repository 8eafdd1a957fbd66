"""Cost of `attention`."""

from polyattn.kernels.cost import Cost


def forward(heads: int, queries: int, keys: int, width: int, values: int, masks: int, itemsize: int) -> Cost:
    """Count both products, with queries, keys, values and `masks` entries of masks read and the result written."""
    moved = heads * (queries * (width + values) + keys * (width + values)) + masks
    return Cost(heads * queries * keys * (width + values), itemsize * moved)
