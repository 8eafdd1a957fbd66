"""The choice of the length of chunks, and between chunks and masks, on this machine's calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from torch import Tensor, nn

from polyattn.algebra import Spec
from polyattn.errors import BudgetError, RecurrenceError, SizeError
from polyattn.lowering.chunk_loop import Part, run_chunks
from polyattn.lowering.devices import calibrated
from polyattn.lowering.graphs import lower
from polyattn.lowering.training import training_function
from polyattn.planning import Device, Plan
from polyattn.planning.chunked_plan import GROUP, ChunkedPlan, seconds
from polyattn.planning.chunks import chunk_lengths, chunks
from polyattn.planning.decoding import ordered_size
from polyattn.planning.memory import Memory
from polyattn.planning.steps import BATCH

GAIN = 1.5
"""How many times faster than masks chunks have to be by the roofline: a chunk is a call of its own."""


def chunked_plan(
    spec: Spec | str,
    sizes: Mapping[str, int],
    *,
    order: str | None = None,
    batch: int | None = None,
    length: int | None = None,
    training: bool = False,
    cost: str = "roofline",
    device: str = "cpu",
    dtype: str = "float32",
) -> ChunkedPlan:
    """Return the plan of a causal specification in chunks.

    Args:
        length: positions in a chunk; the fastest by the roofline unless given.
        training: whether a backward pass is planned with it.

    Raises:
        RecurrenceError: a specification without a recurrence.
        SizeError: a size is missing, unknown or contradictory, or the sequence is shorter than two chunks.
    """
    spec = Spec(spec) if isinstance(spec, str) else spec
    given = dict(sizes)
    if BATCH_NAME in given and BATCH_NAME not in spec.sizes.names:
        batch = given.pop(BATCH_NAME) if batch is None else batch
    known = spec.sizes.solve(given, spec.sizes.names)
    running = ordered_size(spec, order)
    if length is not None and not 1 <= length <= known[running]:
        raise SizeError(f"`length` is {length!r}, but a chunk has 1 to {known[running]} positions")
    lengths = (length,) if length is not None else tuple(chunk_lengths(known[running]))
    if not lengths:
        raise SizeError(f"{running} = {known[running]} is too short for two chunks: take the masked form")
    found = [_planned(spec, running, n, batch or 1, training, device, dtype, *sorted(known.items())) for n in lengths]
    if cost == "macs":
        return min(found, key=lambda p: p.training_macs if training else p.macs)
    model = calibrated(device, dtype)
    return min(found, key=lambda p: p.seconds(model))


def chunks_instead(
    spec: Spec,
    sizes: Mapping[str, int],
    objective: str,
    whole: Plan | None,
    memory_limit: int | None,
    order: str | None,
    *,
    batch: int | None,
    cost: str,
    device: str | Device,
    dtype: Any,
    kernels: Any,
) -> ChunkedPlan | None:
    """Return the plan in chunks if it is cheaper than the whole with masks, or alone within the limit; None if not."""
    if not isinstance(device, str):
        return None
    training, name = objective == "training", str(dtype).removeprefix("torch.")
    try:
        found = chunked_plan(
            spec, sizes, order=order, batch=batch, training=training, cost=cost, device=device, dtype=name
        )
    except (RecurrenceError, SizeError, BudgetError):
        return None
    if memory_limit is not None and found.peak_bytes > memory_limit:
        return None
    if whole is None:
        return found
    if cost == "macs":
        mine, theirs = (found.training_macs, whole.training_macs) if training else (found.macs, whole.macs)
        return found if mine < theirs else None
    model = calibrated(device, name)
    return found if GAIN * found.seconds(model) < seconds(whole, model) else None


def allocated(plan: ChunkedPlan) -> Memory:
    """Return the memory of a plan in chunks as torch allocates it, with the backward pass where one is planned."""
    from polyattn.lowering.allocations import memory_of_chunks  # which imports this module

    return memory_of_chunks(plan, all(p.backward is not None for p in plan.plans))


class LoweredChunks(nn.Module):
    """A causal specification in chunks: called as the graph of a plan is, with the inputs and then the parameters.

    Args:
        plan: from `chunked_plan`.
        training: whether each chunk runs its planned backward pass; autograd joins them by their states.
        options: see `lower`.
    """

    def __init__(self, plan: ChunkedPlan, training: bool = False, **options: Any):
        super().__init__()
        self.plan, self.training_plans, self.options = plan, training, options
        self.graphs: dict[int, list[Callable[..., Tensor]]] = {}

    def of_length(self, length: int) -> list[Callable[..., Tensor]]:
        """Return the graphs of the parts of a chunk of this many positions."""
        if length not in self.graphs:
            size = self.plan.equations.size
            plans = (p.at({**dict(p.graph.sizes), size: length}) for p in self.plan.plans)
            lowered = training_function if self.training_plans else lower
            self.graphs[length] = [lowered(p, **self.options) for p in plans]
        return self.graphs[length]

    def forward(self, *given: Tensor, **named: Tensor) -> Tensor:
        spec, equations = self.plan.spec, self.plan.equations
        tensors = dict(zip((*spec.inputs, *spec.parameters), given, strict=False)) | named
        missing = [n for n in (*spec.inputs, *spec.parameters) if n not in tensors]
        if missing or len(tensors) > len(spec.inputs) + len(spec.parameters):
            raise SizeError(f"this graph takes {', '.join((*spec.inputs, *spec.parameters))}; got {', '.join(tensors)}")
        known = self.plan.masked.graph.known
        axes = {n: next((k for k, s in enumerate(spec.shape(n)) if equations.size in s), None) for n in spec.inputs}
        inputs = {n: tensors[n] for n in spec.inputs}
        first = inputs[next(n for n in spec.inputs if axes[n] is not None)]
        state = {
            n: first.new_zeros(first.shape[0], *(int(a) if a.isdigit() else known[a] for a in s))
            for n, s in equations.shapes
        }
        total = known[equations.size]
        blocks = {n: x.shape[(axes[n] or 0) + 1] // total for n, x in inputs.items() if axes[n] is not None}
        along = next(k for k, s in enumerate(spec.shape(spec.output)) if equations.size in s)
        parameters = {n: tensors[n] for n in spec.parameters}
        return run_chunks(equations, self.parts, axes, along, blocks, self.plan.length, inputs, parameters, state)[0]

    def parts(self, length: int) -> list[Part]:
        """Return the functions of the parts of a chunk of this many positions."""

        def named(graph: Callable[..., Tensor], part: Spec) -> Part:
            names = (*part.inputs, *part.parameters)
            return lambda here: graph(*(here[n] for n in names))

        return list(map(named, self.of_length(length), self.plan.equations.parts))


BATCH_NAME = "B"


@lru_cache(maxsize=512)
def _planned(
    spec: Spec,
    running: str,
    length: int,
    batch: int,
    training: bool,
    device: str,
    dtype: str,
    *known: tuple[str, int],
) -> ChunkedPlan:

    from polyattn.lowering.planner import whole_plan  # which imports this module in turn

    numbers = {name: n for name, n in known if name in spec.sizes.atomic}
    others = tuple(sorted((name, n) for name, n in numbers.items() if name != running))
    equations = chunks(spec, running, (*others, (BATCH, batch)))
    objective = "training" if training else "forward"
    options: dict[str, Any] = {"device": device, "dtype": dtype}
    number = -(-numbers[running] // length)
    within = {**numbers, running: length}
    plans = tuple(
        whole_plan(
            part,
            {n: v for n, v in within.items() if n in part.sizes.names},
            objective,
            batch=batch * min(GROUP, number),
            **options,
        )
        for part in equations.parts
    )
    masked = whole_plan(spec, {n: v for n, v in known if n in spec.sizes.names}, objective, batch=batch, **options)
    return ChunkedPlan(spec, equations, length, number, plans, masked, allocated)


@lru_cache(maxsize=1024)
def worthwhile_length(
    spec: Spec, order: str | None, batch: int, training: bool, device: str, dtype: str, *sizes: tuple[str, int]
) -> int:
    """Return the length of chunks that are faster than masks by the roofline; 0 if masks are."""
    try:
        found = chunked_plan(spec, dict(sizes), order=order, batch=batch, training=training, device=device, dtype=dtype)
    except (RecurrenceError, SizeError, BudgetError):
        return 0
    model = calibrated(device, dtype)
    return found.length if GAIN * found.seconds(model) < seconds(found.masked, model) else 0
