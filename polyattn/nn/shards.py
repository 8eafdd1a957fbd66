"""`PieceFunction`: a specification as a function of shards of its inputs, on the plan for shards of their length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from operator import index

import torch
from torch import Tensor

from polyattn.algebra import Spec
from polyattn.errors import ShardingError, SizeError
from polyattn.lowering import FUNCTIONS, calibrated, keep, lower_sharded, products_dtype
from polyattn.lowering.functions import constant_result, is_static
from polyattn.lowering.graphs import is_narrow
from polyattn.lowering.training import without_autocast
from polyattn.planning import DEVICES, Apply, Link, Plan, Question, Sharded, question, ranked_plans, shard
from polyattn.planning.sharding import SLICE
from polyattn.runtime.communicator import Pieces
from polyattn.runtime.function import SpecFunction, _lies_channels_first
from polyattn.runtime.layouts import channels_first, positions_first
from polyattn.runtime.plan_cache import NOMINAL_BATCH

CANDIDATES = 12
"""Number of contraction orders compared with their communication."""
CENTRED = 2.0
"""Factor on the time of an order on deviations from the mean: the mean is one more reduction over all positions, which
costs streamed maps a pass and devices a message for which they wait."""
LARGER = 4096
"""Factor on a shard's length for a second search, if no good order for the true length can be sharded."""

Sizes = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Candidate:
    """One order of contraction on shards.

    Attributes:
        plan: the plan at the sizes of one shard.
        sharded: its graph with communication; None if it cannot be sharded.
        refusal: the reason if it cannot be sharded, else "".
        computing, exchanging: seconds of one call on one device in the cost model; the backward pass is included for
            training.
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
    dtype: str = "float32",
) -> tuple[Candidate, ...]:
    """Rank orders of contraction for shards of a size by time with communication; refused orders come last.

    As in layers on whole maps, an order loses no more digits of maps with a mean than the author's.

    Args:
        sizes, batch: sizes and batch of the whole map.
        size: name of the sharded size.
        pieces: number of shards.
        training: whether a backward pass follows, with as much communication again.
        device, link: device type and link of the cost model.
        dtype: dtype of products.

    Raises:
        ShardingError: no candidate can be sharded; gives the reason for the cheapest.
    """
    known = question(spec, dict(sizes), batch=batch).sizes
    whole = {name: number for name, number in known if name in spec.sizes.atomic}
    # The longest shard decides the time of all.
    local = max(1, -(-whole[size] // pieces))
    model = calibrated(device if device in DEVICES else "cpu", dtype)
    asked = question(spec, whole | {size: local}, batch=batch, device=model, accuracy="written")
    found = [_candidate(p, asked, known, size, pieces, training, link) for p in ranked_plans(asked, CANDIDATES)]
    if all(c.sharded is None for c in found):
        # At small sizes, orders that can be sharded may rank below others; a larger map favours them.
        larger = question(spec, whole | {size: LARGER * local}, batch=batch, device=model, accuracy="written")
        # Only the order comes from the larger map; its cost is computed at the true sizes.
        more = [replace(p, graph=replace(p.graph, sizes=asked.sizes)) for p in ranked_plans(larger, CANDIDATES)]
        found += [_candidate(p, asked, known, size, pieces, training, link) for p in more]
    if all(c.sharded is None for c in found):
        raise ShardingError(f"this layer cannot be cut along {size}: {found[0].refusal}")
    return tuple(sorted(found, key=lambda c: c.seconds * (CENTRED if c.plan.means else 1.0)))


def _candidate(
    made: Plan, asked: Question, known: Sizes, size: str, pieces: int, training: bool, link: Link
) -> Candidate:
    # A backward pass costs about two forward passes of arithmetic and one of communication.
    passes, crossings = (3, 2) if training else (1, 1)
    computing, local = passes * asked.price(made), dict(asked.sizes)[size]
    try:
        sharded = shard(replace(made.graph, sizes=known), made.names, size, local, tuple(made.spec.inputs))
    except ShardingError as error:
        return Candidate(made, None, str(error), computing, float("inf"))
    crossing = link.seconds(sharded.payload, pieces, len(sharded.exchanges)) if pieces > 1 else 0.0
    return Candidate(made, sharded, "", computing, crossings * crossing)


@cache
def _lowered(chosen: Candidate, piece: tuple[int, int], channels_first: bool, dtype: str) -> str:
    assert chosen.sharded is not None
    made = lower_sharded(chosen.plan, chosen.sharded, piece, channels_first=channels_first, dtype=dtype)
    # The generated forward reads no module state, so None can stand for self.
    function = partial(type(made).forward, None)
    inputs = len(chosen.plan.spec.inputs)

    def narrow(exchange: Pieces, *tensors: Tensor) -> Tensor:
        return without_autocast(partial(function, exchange), inputs)(*tensors)

    return keep(narrow if is_narrow(dtype) else function)


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
    dtype: str,
) -> str:
    """Return the name in `polyattn.lowering.FUNCTIONS` of the lowered function for one shard."""
    chosen = candidates(spec, sizes, batch, size, len(counts), training, device, link, dtype)[0]
    assert chosen.sharded is not None
    # Only graphs with a slice depend on the shard's start; without one, all ranks share one lowered function.
    slices = any(isinstance(n, Apply) and n.function == SLICE for n in chosen.sharded.graph.nodes)
    start = sum(counts[:rank]) if slices else 0
    return _lowered(chosen, (start, counts[rank]), channels_first, dtype)


class PieceFunction:
    """A `SpecFunction` on a shard of its inputs.

    Args:
        function: the function on whole inputs.
        exchange: communicator of the shards.
        size: the sharded atomic size.
        flat: whether that size counts all positions instead of the rows along the sharded axis.
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
        """Return the sizes of the whole map, and each shard's part of the sharded size."""
        inputs = [tensors[name] for name in self.inputs]
        # A shard sees its own length along the sharded size; the plan needs the length of the whole map.
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
        """Return each shard's part of the sharded size; for grouped channels, channels / group width."""
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
        """Call the function on the inputs and then the parameters, each in the specification's order."""
        return self(dict(zip((*self.inputs, *self.parameters), tensors, strict=True)))

    def of_map(self, x: Tensor, axes: int, parameters: Sequence[Tensor], check: Callable[[Tensor], None]) -> Tensor:
        """Call the function on a shard of a map (B, C, *positions); see `SpecFunction.of_map`."""
        check(x)
        return channels_first(self.apply(positions_first(x, axes), *parameters), x, axes)

    def __call__(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Compute the output's shard (or the whole output if it is without positions) from shards of the inputs.

        Raises:
            SizeError: a tensor's shape contradicts another shape or the given sizes.
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
            # A symbolic batch must not become a guard of the compiled graph.
            max(1, index(batch)) if is_static(batch) else NOMINAL_BATCH,
            self.size,
            counts,
            self.exchange.rank,
            training,
            self.exchange.device or inputs[0].device.type,
            _lies_channels_first(inputs[0]),
            self.link,
            products_dtype(inputs[0]),
        )
        return getattr(FUNCTIONS, name)(self.exchange, *inputs, *parameters)
