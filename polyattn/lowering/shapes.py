"""The one run-time check of a lowered graph: a graph is made for given sizes and refuses others."""

from __future__ import annotations

from torch import Tensor

from polyattn.errors import SizeError


def expect_shape(tensor: Tensor, name: str, shape: tuple[int, ...], batched: bool) -> Tensor:
    """The tensor itself, if its shape (behind the batch axis, if it is batched) is the one the plan was made for."""
    have = tuple(tensor.shape[1:] if batched else tensor.shape)
    if have != shape or (batched and not tensor.dim()):
        wanted = ", ".join(["B", *map(str, shape)] if batched else map(str, shape))
        raise SizeError(f"'{name}' has shape {tuple(tensor.shape)}, but this graph was planned for ({wanted})")
    return tensor
