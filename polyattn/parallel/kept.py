"""`Kept`: the bytes kept by autograd for the backward pass."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class Kept(saved_tensors_hooks):
    """A context that counts the memory of saved tensors, each storage once.

    Attributes:
        bytes: bytes counted so far.

    Args:
        held: tensors not to count, such as parameters, which are in memory anyway.
    """

    def __init__(self, held: Iterable[Tensor] = ()):
        self.bytes = 0
        self._seen = {_storage(t) for t in held}
        self._alive: list[Tensor] = []  # a freed storage's address could be reused and then not counted
        super().__init__(self._pack, lambda saved: saved)

    def _pack(self, tensor: Tensor) -> Tensor:
        place = _storage(tensor)
        if place not in self._seen:
            self._seen.add(place)
            self._alive.append(tensor.detach())
            self.bytes += tensor.untyped_storage().nbytes()
        return tensor


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
