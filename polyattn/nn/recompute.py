"""`Replay`: one run of one piece of a streamed map; pieces are run again for each reduction over positions.

A layer reduces over positions a few times, and each reduction depends on the earlier ones. The first pass runs every
piece up to its first reduction and adds up the summands; the second pass knows that sum and stops at the second
reduction; the last pass meets known reductions only and computes the output. Only the sums are kept, and the shares of
maxima, so memory is that of one piece. The backward pass goes through the reductions in reverse.

All of these are values: each run of a piece has its own `Replay`, which reads the completed reductions and stores none,
so runs can be interrupted, repeated and interleaved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyattn.runtime.communicator import NARROW, Pieces


class Stop(Exception):
    """Raised by a piece at a reduction with unknown result; control flow within `chunked`, not an error."""


@dataclass(frozen=True)
class Summand:
    """A piece's part of a reduction.

    Attributes:
        value: the summand, or the operand of the maximum.
        maximum: whether the reduction is a maximum.
        differentiable: whether the result has a gradient, passed on to the summands.
        ties: number of the piece's entries equal to the maximum; None for sums, and for maxima without a gradient.
    """

    value: Tensor
    maximum: bool = False
    differentiable: bool = True
    ties: Tensor | None = None


@dataclass(frozen=True)
class Reduction:
    """A reduction over all pieces.

    Attributes:
        value: result of the reduction.
        differentiable: whether it has a gradient.
        shares: each piece's share of a maximum's gradient. They are stored instead of recomputed: with gradients
            enabled, torch may choose other operations, and the recomputed maximum may then differ in its last bit.
    """

    value: Tensor
    differentiable: bool
    shares: tuple[Tensor, ...] = ()


class Total:
    """A sum, or a maximum, accumulated value by value. 16-bit values are accumulated in 32 bits."""

    def __init__(self) -> None:
        self.wide: Tensor | None = None
        self.dtype = torch.float32

    def add(self, value: Tensor, maximum: bool = False) -> None:
        self.dtype, more = value.dtype, value.detach()
        # Many pieces: a 16-bit running sum would stop growing.
        more = more.float() if more.dtype in NARROW else more
        if self.wide is None:
            self.wide = more
        else:
            self.wide = torch.maximum(self.wide, more) if maximum else self.wide + more

    @property
    def value(self) -> Tensor | None:
        """Return the result in the values' dtype; None before the first value."""
        return None if self.wide is None else self.wide.to(self.dtype)


class Gathering:
    """One reduction, gathered from all pieces in one pass."""

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
        # Equal maxima share the gradient evenly, as torch's `amax` does within one map.
        ties = [torch.where(s.value == result, s.ties, 0) for s in self.summands if s.ties is not None]
        return Reduction(result, self.differentiable, tuple(t / sum(ties) for t in ties))


class Replay(Pieces):
    """One run of one piece.

    Attributes:
        results: results of the reductions passed so far; leaves of autograd while gradients are enabled.
        summand: its summand of the reduction at which it stopped.

    Args:
        known: completed reductions, in the layer's order.
        limit: number of the reduction at which the piece stops; by default the first unknown one.
        training, counting: see `Pieces`. `training` is fixed for all runs of a call: a plan for training may make other
            reductions.
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
            # Backward: the stored shares weight the carrier, whose gradient flows to the piece's largest entries,
            # instead of a second search for the maximum.
            carried = carrier * self.known[place].shares[self.rank]
            return self._meet(lambda: Summand(carried.to(own.dtype), maximum=True))
        return self._meet(lambda: Summand(own, maximum=True, ties=ties))

    def _meet(self, summand: Callable[[], Summand]) -> Tensor:
        # A layer makes its reductions in a fixed order, so their count identifies them.
        place = len(self.results)
        if place == self.limit:
            self.summand = summand()
            raise Stop
        known = self.known[place]
        result = known.value
        if known.differentiable and torch.is_grad_enabled():
            # A leaf cuts the graph at the reduction: its gradient is collected over all pieces before it is passed on.
            result = result.detach().requires_grad_()
        self.results.append(result)
        return result
