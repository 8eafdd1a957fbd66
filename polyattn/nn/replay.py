"""`Replay`: pieces that come one after the other, whose sums are made by running each piece again.

A layer reduces over positions a few times, each reduction depending on the ones before it. The first pass over the
pieces stops each at its first reduction, and adds up what is to be reduced; the second pass knows that sum and stops at
the second reduction; and so on, until nothing stops a piece and its output comes. Only the sums are kept, so memory
does not grow with the number of pieces. The backward pass goes the same way back.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polyattn.nn.exchange import Pieces


class Stop(Exception):
    """A piece has come to a reduction whose result is not known yet; control flow within `chunked`, no error."""


@dataclass
class Reduction:
    """One reduction over the pieces.

    Attributes:
        maximum: whether it is a maximum, through which no gradient goes.
        value: the result over the pieces so far, and in the end over all.
        gradient: of the result, as far as it is known.
    """

    maximum: bool
    value: Tensor
    gradient: Tensor | None = None

    def take(self, value: Tensor) -> None:
        """Reduce one more piece's value."""
        self.value = torch.maximum(self.value, value) if self.maximum else self.value + value

    def push(self, gradient: Tensor) -> None:
        self.gradient = gradient if self.gradient is None else self.gradient + gradient


class Replay(Pieces):
    """Reductions over pieces that come one after the other.

    Attributes:
        known: the reductions that are complete, in the order in which the layer makes them.
        open: the one that is being made in this pass, if any.
        summands: what the running piece gave to the known reductions; with gradients while these are wanted.
        results: what it got for them, leaves of autograd while gradients are wanted.
    """

    slack = 64.0  # with gradients torch may take other operations than without

    def __init__(self, axis: int):
        super().__init__(axis)
        self.known: list[Reduction] = []
        self.open: Reduction | None = None
        self.summands: list[Tensor] = []
        self.results: list[Tensor] = []
        self.limit: int | None = None
        self.training = True  # the same order of contraction in all passes

    def begin(self, known: list[Reduction], limit: int | None = None) -> None:
        """A piece starts, with what is known; it is stopped at the reduction of number `limit`."""
        self.known, self.limit = known, limit
        self.summands, self.results = [], []

    def close(self) -> bool:
        """The end of a pass: the open reduction is known. Whether there was one."""
        if self.open is None:
            return False
        self.known.append(self.open)
        self.open = None
        return True

    def sum(self, value: Tensor) -> Tensor:
        return self._meet(value, False)

    def maximum(self, value: Tensor) -> Tensor:
        return self._meet(value.detach(), True)

    def _meet(self, value: Tensor, maximum: bool) -> Tensor:
        place = len(self.summands)
        if place == self.limit:
            self.summands.append(value)
            raise Stop
        if place < len(self.known):
            known = self.known[place]
            wanted = torch.is_grad_enabled() and not maximum
            result = known.value.detach().requires_grad_() if wanted else known.value
            self.summands.append(value)
            self.results.append(result)
            return result
        if self.open is None:
            self.open = Reduction(maximum, value.detach().clone())
        else:
            self.open.take(value.detach())
        raise Stop
