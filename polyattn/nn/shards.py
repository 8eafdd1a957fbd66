"""`PieceFunction`: a specification as a function of a piece of its inputs, on the plan for pieces of such a length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from operator import index

import torch
from torch import Tensor

from polyattn.algebra import Spec
from polyattn.errors import ShardingError, SizeError
from polyattn.lowering import FUNCTIONS, calibrated, keep, lower_sharded
from polyattn.lowering.functions import constant_result
from polyattn.planning import DEVICES, Apply, Link, Plan, Question, Sharded, question, ranked_plans, shard
from polyattn.planning.sharding import SLICE
from polyattn.runtime.communicator import Pieces
from polyattn.runtime.function import SpecFunction, _lies_channels_first
from polyattn.runtime.plan_cache import NOMINAL_BATCH, is_static

CANDIDATES = 12
"""Orders of contraction that are compared with what they exchange."""
LARGER = 4096
"""By so much a piece is taken to be longer where no order that is good for it can be cut."""

Sizes = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Candidate:
    """One order of contraction on pieces.

    Attributes:
        plan: at the sizes of a piece.
        sharded: its graph with exchanges; None where it cannot be cut.
        refusal: why not.
        computing, exchanging: seconds of one call on one device, in the cost model; forward and backward together
            where a backward pass follows.
    """

    plan: Plan
    sharded: Sharded | None
    refusal: str
    computing: float
    exchanging: float

    @property
    def seconds(self) -> float:
        return self.computing + self.exchanging

    def __str__(self) -> str:
        if self.sharded is None:
            return f"{self.plan.strategy}: refused, {self.refusal}"
        return (
            f"{self.plan.strategy}: {self.plan.macs:,} MACs and {self.sharded.payload:,} bytes exchanged,"
            f" {self.computing:.3g} s + {self.exchanging:.3g} s"
        )


@cache
def candidates(
    spec: Spec,
    sizes: Sizes,
    batch: int,
    size: str,
    pieces: int,
    training: bool,
    device: str,
    link: Link,
) -> tuple[Candidate, ...]:
    """Orders of contraction for pieces of a size, the cheapest with their exchanges first, the refused last.

    Args:
        sizes, batch: of the whole.
        size: the one that is cut.
        pieces: into so many pieces.
        training: whether a backward pass follows, which exchanges as much again.
        device, link: for the cost model.

    Raises:
        ShardingError: no candidate can be cut; says why the cheapest cannot.
    """
    known = question(spec, dict(sizes), batch=batch).sizes
    whole = {name: number for name, number in known if name in spec.sizes.atomic}
    local = max(1, -(-whole[size] // pieces))
    model = calibrated(device if device in DEVICES else "cpu")
    asked = question(spec, whole | {size: local}, batch=batch, device=model)
    found = [_candidate(p, asked, known, size, pieces, training, link) for p in ranked_plans(asked, CANDIDATES)]
    if all(c.sharded is None for c in found):
        # At small sizes the orders that can be cut may take more arithmetic than the author's: those of a larger map.
        larger = question(spec, whole | {size: LARGER * local}, batch=batch, device=model)
        more = [replace(p, graph=replace(p.graph, sizes=asked.sizes)) for p in ranked_plans(larger, CANDIDATES)]
        found += [_candidate(p, asked, known, size, pieces, training, link) for p in more]
    if all(c.sharded is None for c in found):
        raise ShardingError(f"this layer cannot be cut along {size}: {found[0].refusal}")
    return tuple(sorted(found, key=lambda c: c.seconds))


def _candidate(
    made: Plan, asked: Question, known: Sizes, size: str, pieces: int, training: bool, link: Link
) -> Candidate:
    passes, crossings = (3, 2) if training else (1, 1)
    computing, local = passes * asked.price(made), dict(asked.sizes)[size]
    try:
        sharded = shard(replace(made.graph, sizes=known), made.names, size, local, tuple(made.spec.inputs))
    except ShardingError as error:
        return Candidate(made, None, str(error), computing, float("inf"))
    crossing = link.seconds(sharded.payload, pieces, len(sharded.exchanges)) if pieces > 1 else 0.0
    return Candidate(made, sharded, "", computing, crossings * crossing)


@cache
def _lowered(chosen: Candidate, piece: tuple[int, int], channels_first: bool) -> str:
    assert chosen.sharded is not None
    made = lower_sharded(chosen.plan, chosen.sharded, piece, channels_first=channels_first)
    return keep(partial(type(made).forward, None))


@constant_result
def planned_piece(
    spec: Spec,
    sizes: Sizes,
    batch: int,
    size: str,
    counts: tuple[int, ...],
    rank: int,
    training: bool,
    device: str,
    channels_first: bool,
    link: Link,
) -> str:
    """The name in `polyattn.lowering.FUNCTIONS` of the function for one piece."""
    chosen = candidates(spec, sizes, batch, size, len(counts), training, device, link)[0]
    assert chosen.sharded is not None
    slices = any(isinstance(n, Apply) and n.function == SLICE for n in chosen.sharded.graph.nodes)
    start = sum(counts[:rank]) if slices else 0
    return _lowered(chosen, (start, counts[rank]), channels_first)


class PieceFunction:
    """A `SpecFunction` on a piece of its inputs.

    Args:
        function: what it stands for.
        exchange: how the pieces meet.
        size: the atomic size that is cut.
        flat: whether that size counts all positions, not those along the axis that is cut.
    """

    def __init__(self, function: SpecFunction, exchange: Pieces, size: str, flat: bool, link: Link):
        self.spec, self.sizes, self.objective = function.spec, function.sizes, function.objective
        self.position_sizes, self.inputs, self.parameters = (
            function.position_sizes,
            function.inputs,
            function.parameters,
        )
        self.exchange, self.size, self.flat, self.link = exchange, size, flat, link

    def question(self, tensors: Mapping[str, Tensor]) -> tuple[Sizes, tuple[int, ...]]:
        """The sizes of the whole, and how many of the cut one each piece has."""
        inputs = [tensors[name] for name in self.inputs]
        times = self.exchange.rest if self.flat else 1
        counts = tuple(count * times for count in self.exchange.counts)
        known = dict(self.sizes)
        lengths = [index(n) for x in inputs for n in x.shape[1:]]
        for name, length in zip(self.position_sizes, lengths, strict=True):
            if name == self.size or self.size in self.spec.sizes.atoms(name):
                if length != counts[self.exchange.rank]:
                    raise SizeError(
                        f"size {name} is {length} in this piece, but {counts[self.exchange.rank]} were announced"
                    )
                length = sum(counts)
            number = int(name) if name.isdigit() else known.setdefault(name, length)
            if number != length:
                raise SizeError(f"size {name} is {number} for this layer, but {length} in the input")
        return tuple(sorted(known.items())), self._groups(known, counts)

    def _groups(self, known: Mapping[str, int], counts: tuple[int, ...]) -> tuple[int, ...]:
        """How many of the size that is cut each piece has: where it counts groups of channels, channels over width."""
        if self.size in self.position_sizes:
            return counts
        whole = next(n for n in self.position_sizes if self.size in self.spec.sizes.atoms(n))
        width = known[whole] // self.spec.sizes.solve(known)[self.size]
        if any(count % width for count in counts):
            raise SizeError(
                f"groups of {width} channels are whole on one device, but the pieces have {counts} channels"
            )
        return tuple(count // width for count in counts)

    def apply(self, *tensors: Tensor) -> Tensor:
        """The same for the inputs and then the parameters, each in the order of the specification."""
        return self(dict(zip((*self.inputs, *self.parameters), tensors, strict=True)))

    def __call__(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The output's piece (or the whole output, where it has no positions) for pieces of the inputs.

        Raises:
            SizeError: a tensor's shape contradicts another one's or the given sizes.
            ShardingError: the specification needs positions of several pieces at once.
        """
        sizes, counts = self.question(tensors)
        inputs = [tensors[name] for name in self.inputs]
        parameters = [tensors[name] for name in self.parameters]
        training = self.exchange.training
        if training is None:
            training = torch.is_grad_enabled() and any(t.requires_grad for t in (*inputs, *parameters))
        batch = inputs[0].shape[0]
        name = planned_piece(
            self.spec,
            sizes,
            max(1, index(batch)) if is_static(batch) else NOMINAL_BATCH,
            self.size,
            counts,
            self.exchange.rank,
            training,
            self.exchange.device or inputs[0].device.type,
            _lies_channels_first(inputs[0]),
            self.link,
        )
        return getattr(FUNCTIONS, name)(self.exchange, *inputs, *parameters)
