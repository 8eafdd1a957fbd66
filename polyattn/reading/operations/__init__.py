"""The operations of torch that have a meaning in the language, by name: `OPERATIONS`."""

from polyattn.reading.operations import masks, neighbours, pointwise, products, reductions, views
from polyattn.reading.operations.table import OPERATIONS, Called

__all__ = ["OPERATIONS", "Called", "masks", "neighbours", "pointwise", "products", "reductions", "views"]
