"""`Kept`: the bytes that autograd keeps for the backward pass."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class Kept(saved_tensors_hooks):
    """Counts the memory of saved tensors while it is entered, each storage once.

    Attributes:
        bytes: so far.

    Args:
        held: tensors that are there anyway, such as parameters.
    """

    def __init__(self, held: Iterable[Tensor] = ()):
        self.bytes = 0
        self._seen = {_storage(t) for t in held}
        self._alive: list[Tensor] = []  # so that no storage takes the place of another that has ended
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
