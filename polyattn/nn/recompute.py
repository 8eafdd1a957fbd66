"""`Replay`: a piece of a map whose pieces come one after the other, and are run again for each reduction over them.

A layer reduces over positions a few times, each reduction depending on the ones before it. The first pass over the
pieces stops each at its first reduction, and adds up what is to be reduced; the second pass knows that sum and stops at
the second reduction; and so on, until nothing stops a piece and its output comes. Only the sums are kept, and the
shares of maxima, so memory is that of one piece. The backward pass goes the same way back.

Everything here is a value: a run of a piece has a `Replay` of its own, which knows the reductions that are complete and
keeps none, so runs can be interrupted, repeated and interleaved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyattn.runtime.communicator import NARROW, Pieces


class Stop(Exception):
    """A piece has come to a reduction whose result is not known; control flow within `chunked`, not an error."""


@dataclass(frozen=True)
class Summand:
    """A piece's part of a reduction.

    Attributes:
        value: to be summed, or of which the maximum is taken.
        maximum: whether that.
        differentiable: whether the result has a gradient, which goes to the summands.
        ties: how many entries of the piece have a maximum; None for sums, and for maxima without a gradient.
    """

    value: Tensor
    maximum: bool = False
    differentiable: bool = True
    ties: Tensor | None = None


@dataclass(frozen=True)
class Reduction:
    """A reduction over all pieces.

    Attributes:
        value: the result.
        differentiable: whether it has a gradient.
        shares: of a maximum's gradient, each piece's. They are kept because pieces cannot be asked again: run with
            gradients torch may take other operations, and the maximum is then not found to the bit.
    """

    value: Tensor
    differentiable: bool
    shares: tuple[Tensor, ...] = ()


class Total:
    """A sum, or a maximum, to which values are added one after the other. 16 bits are summed in 32."""

    def __init__(self) -> None:
        self.wide: Tensor | None = None
        self.dtype = torch.float32

    def add(self, value: Tensor, maximum: bool = False) -> None:
        self.dtype, more = value.dtype, value.detach()
        more = more.float() if more.dtype in NARROW else more
        if self.wide is None:
            self.wide = more
        else:
            self.wide = torch.maximum(self.wide, more) if maximum else self.wide + more

    @property
    def value(self) -> Tensor | None:
        """The result in the values' dtype; None of nothing."""
        return None if self.wide is None else self.wide.to(self.dtype)


class Gathering:
    """A reduction that one pass over the pieces makes."""

    def __init__(self) -> None:
        self.total, self.summands = Total(), list[Summand]()
        self.differentiable = False

    def add(self, summand: Summand) -> None:
        self.total.add(summand.value, summand.maximum)
        self.differentiable = summand.differentiable
        if summand.ties is not None:
            self.summands.append(summand)

    def reduction(self) -> Reduction:
        result = self.total.value
        assert result is not None
        ties = [torch.where(s.value == result, s.ties, 0) for s in self.summands if s.ties is not None]
        return Reduction(result, self.differentiable, tuple(t / sum(ties) for t in ties))


class Replay(Pieces):
    """One run of one piece.

    Attributes:
        results: of the reductions that the piece has passed; leaves of autograd while gradients are wanted.
        summand: what it gave to the one at which it stopped.

    Args:
        known: the reductions that are complete, in the order in which the layer makes them.
        limit: the number of the reduction at which the piece is to stop; by default the first that is not known.
        training, counting: see `Pieces`; whether a backward pass follows is the same in all runs of a call, or they
            would make other reductions.
    """

    def __init__(
        self,
        counts: tuple[int, ...],
        rest: int,
        rank: int,
        known: Sequence[Reduction] = (),
        *,
        limit: int | None = None,
        training: bool = False,
        counting: bool = False,
    ):
        super().__init__(2, counts, rest, rank, training=training, counting=counting)
        self.known, self.limit = known, len(known) if limit is None else limit
        self.results: list[Tensor] = []
        self.summand: Summand | None = None

    def sum(self, value: Tensor) -> Tensor:
        return self._meet(lambda: Summand(value))

    def maximum(self, value: Tensor) -> Tensor:
        return self._meet(lambda: Summand(value.detach(), maximum=True, differentiable=False))

    def first(self, value: Tensor, fill: Callable[[Tensor], Tensor]) -> Tensor:
        return self._meet(lambda: Summand(value if self.rank else fill(value), differentiable=False))

    def greatest(self, own: Tensor, carrier: Tensor, ties: Tensor) -> Tensor:
        place = len(self.results)
        if place == self.limit < len(self.known):
            carried = carrier * self.known[place].shares[self.rank]
            return self._meet(lambda: Summand(carried.to(own.dtype), maximum=True))
        return self._meet(lambda: Summand(own, maximum=True, ties=ties))

    def _meet(self, summand: Callable[[], Summand]) -> Tensor:
        place = len(self.results)
        if place == self.limit:
            self.summand = summand()
            raise Stop
        known = self.known[place]
        result = known.value
        if known.differentiable and torch.is_grad_enabled():
            result = result.detach().requires_grad_()
        self.results.append(result)
        return result
