"""Lowered plans by input shape: few programs, each for many shapes.

The order of a plan's steps does not depend on the numbers of the sizes, only the choice among orders does. A `Family`
therefore keeps the orders that are cheapest somewhere around the sizes it has met, chooses among them at each size by
their prices there, and lowers each once, with sizes read from the shapes of the tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, combinations, product
from typing import Any

from torch import Tensor

from polyattn.algebra import Spec
from polyattn.errors import SizeError
from polyattn.language import value_of
from polyattn.lowering import (
    FUNCTIONS,
    calibrated,
    candidates,
    forward_function,
    keep,
    kind,
    plan,
    price_of,
    training_function,
    whole_plan,
)
from polyattn.lowering.functions import constant_result
from polyattn.lowering.graphs import Sizes
from polyattn.lowering.matching import as_choice, by_step, fusions
from polyattn.lowering.products import LARGEST_IDENTITY
from polyattn.lowering.shapes import Read, readings
from polyattn.lowering.training import kernels_differentiate, plans_backward
from polyattn.planning import BATCH, Device, Plan, Question
from polyattn.planning.backward import autograd_macs
from polyattn.planning.recomputing import with_backward
from polyattn.runtime.layouts import of_maps

Function = Callable[..., Tensor]
Numbers = Mapping[str, int]
Pairs = tuple[tuple[str, int], ...]
Owns = tuple[tuple[str, str], ...]

NOMINAL_BATCH = 8
"""The batch that a plan is made for where a compiler keeps the batch symbolic. A plan computes every batch, and the
batch only weighs work done once against work done for each sample."""
AROUND = 4
"""Sizes within this factor of those for which orders were compared are served by these orders."""
CANDIDATES = 4
"""Orders that are compared around a size."""
TOGETHER = 2
"""Sizes that change at once where orders are compared."""
FAMILIES = 1024
"""Families that a process keeps; the one that was used last goes last."""


@dataclass(frozen=True)
class Region:
    """Orders of contraction that are the cheapest at some size around a point.

    Attributes:
        middle: the point.
        reach: the factor within which sizes of the region are.
        plans: one plan of each order.
    """

    middle: Numbers
    reach: int
    plans: tuple[Plan, ...]

    def has(self, sizes: Numbers, varying: Sequence[str]) -> bool:
        """Test if sizes are in the region."""
        pairs = ((sizes[s], self.middle[s]) for s in varying)
        return all(n <= self.reach * m and m <= self.reach * n for n, m in pairs)


@dataclass
class Family:
    """The programs of a specification for all shapes of its inputs.

    Attributes:
        spec: the specification.
        fixed: numbers of sizes that no shape changes.
        objective, model, channels_first, dtype: see `lowering.plan` and `lowering.lower`.
        own: functions of the user's own, and the names of their callables in `polyattn.lowering.FUNCTIONS`.
        accuracy: see `lowering.plan`.
        wanted: the tensors that get gradients, if others are frozen. Then the order with the least arithmetic of both
            passes is taken, with autograd's backward pass or one planned for these tensors.
        read: where the other atomic sizes are read from shapes; empty where they do not follow one by one.
        regions: candidates, by the sizes that they are for.
        programs: lowered plans by all that their lowering depends on.
    """

    spec: Spec
    fixed: Pairs
    objective: str
    model: Device
    channels_first: bool
    dtype: str
    own: Owns = ()
    accuracy: str = "written"
    wanted: tuple[str, ...] = ()
    read: tuple[Read, ...] = ()
    regions: list[Region] = field(default_factory=list)
    programs: dict[object, Function] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.read = reads(self.spec, self.fixed)
        self.varying = (*(r.size for r in self.read), BATCH)
        self.kernels = as_choice("auto", self.model)
        asked = Question(self.spec, (), self.objective, None, "roofline", self.model, self.accuracy)
        self.price = price_of(asked, self.kernels)

    def function(self, sizes: Numbers, positions: int | None = None) -> Function:
        """Return the function of the inputs and parameters for the numbers of all sizes, the batch included.

        Args:
            positions: if given, a function of one map (B, C, *positions) to another; see `lowering.graphs.Sizes`.
        """
        region, number, chosen = self.chosen(sizes)
        backward = self._plans_backward(chosen)
        short = tuple(r.size for r in self.read if sizes[r.size] <= LARGEST_IDENTITY)
        taken = tuple(by_step(fusions(chosen.graph, frozenset(), self.kernels), chosen.names)) if self.kernels else ()
        key = (region, number, backward, short, taken, positions)
        found = self.programs.get(key)
        if found is None:
            read = tuple(r.size for r in self.read)
            found = self.programs[key] = self._lowered(chosen, backward, Sizes(read, short, positions=positions))
        return found

    def chosen(self, sizes: Numbers) -> tuple[int, int, Plan]:
        """Return the cheapest plan at these sizes, behind the numbers of its region and of its place there."""
        for number, region in enumerate(self.regions):
            if region.has(sizes, self.varying):
                return number, *self._cheapest(region.plans, sizes)
        # A layer that meets one shape only needs no more than the plan for it.
        first = not self.regions or not self.read
        self.regions.append(Region(sizes, 1, self._candidates(sizes, 1)) if first else self._around(sizes))
        return len(self.regions) - 1, *self._cheapest(self.regions[-1].plans, sizes)

    def _plans_backward(self, chosen: Plan) -> bool:
        if not self.wanted:
            return plans_backward(chosen, self.model, self.kernels)
        planned = chosen.backward_macs < autograd_macs(chosen.graph, self.wanted)
        return planned and not kernels_differentiate(chosen, self.kernels)

    def symbolic(self, sizes: Numbers, read: tuple[str, ...], eager: bool) -> Function:
        """Return the function for a compiler or tracer: with the plan for these sizes, some of them read from shapes.

        Args:
            eager: whether the operations are taken one by one, without a backward pass of their own.
        """
        chosen = self._candidates(sizes, 1)[0]
        backward = not eager and plans_backward(chosen, self.model, self.kernels)
        return self._lowered(chosen, backward, Sizes(read))

    def _lowered(self, chosen: Plan, backward: bool, sizes: Sizes) -> Function:
        lowered = training_function if backward else forward_function
        options: dict[str, Any] = {"channels_first": self.channels_first, "device": self.model, "dtype": self.dtype}
        options["functions"] = {name: getattr(FUNCTIONS, kept) for name, kept in self.own}
        function = lowered(chosen, **options, sizes=sizes)
        return function if sizes.positions is None or not backward else of_maps(function, sizes.positions)

    def _around(self, sizes: Numbers) -> Region:
        """Return the orders that are the cheapest at some size around these, with the author's as the last."""
        plans = self._candidates(sizes, CANDIDATES)
        best = {self._cheapest(plans, sizes)[0], len(plans) - 1}
        if len(plans) > 1:
            for near in neighbours(sizes, self.varying):
                best.add(self._cheapest(plans, whole({**sizes, **near}, self.spec))[0])
                if len(best) == len(plans):
                    break
        return Region(sizes, AROUND, tuple(plans[k] for k in sorted(best)))

    def _candidates(self, sizes: Numbers, most: int) -> tuple[Plan, ...]:
        known = {s: n for s, n in sizes.items() if s != BATCH}
        options: dict[str, Any] = {"batch": sizes[BATCH], "device": self.model, "accuracy": self.accuracy}
        if self.wanted:
            # Of larger maps, too: candidates are ranked with all gradients, and some are best with fewer of them only.
            larger = whole({**sizes, **{n: AROUND * sizes[n] for n in self.varying if n != BATCH}}, self.spec)
            asked = [
                candidates(self.spec, {n: at[n] for n in known}, o, CANDIDATES, **options)
                for at in (sizes, larger)
                for o in ("forward", "training")
            ]
            plans = {p.graph: p for p in (q.at(sizes) for q in chain.from_iterable(asked))}
            found = sorted((with_backward(p, self.wanted) for p in plans.values()), key=self._both_macs)
            return tuple(found[:most])
        if most == 1:
            return (plan(self.spec, known, self.objective, **options),)
        return candidates(self.spec, known, self.objective, most, **options)

    def _cheapest(self, plans: Sequence[Plan], sizes: Numbers) -> tuple[int, Plan]:
        """Return the number of the cheapest plan at some sizes that takes no more than the author's, and the plan."""
        there = [p.at(sizes) for p in plans]
        if len(there) == 1:
            return 0, there[0]
        if self.wanted:
            number = min(range(len(there)), key=lambda k: self._both_macs(there[k]))
            return number, there[number]
        training = self.objective == "training"
        counts = [p.training_macs if training else p.macs for p in there]
        fair = [k for k, n in enumerate(counts) if n <= counts[-1] or "centred" in there[k].strategy]
        number = min(fair, key=lambda k: self.price(there[k]))
        return number, there[number]

    def _both_macs(self, made: Plan) -> int:
        """Return the multiply-accumulates of both passes, the cheaper backward pass for what is wanted."""
        return made.macs + min(made.backward_macs, autograd_macs(made.graph, self.wanted))


def neighbours(sizes: Numbers, varying: Sequence[str]) -> Iterator[dict[str, int]]:
    """Yield numbers that differ from these by AROUND, up or down, in at most `TOGETHER` sizes, or in all alike."""
    # All corners would be 3^n: with the seven sizes of a bilinear transform, seconds of pricing.
    for count in range(1, min(TOGETHER, len(varying)) + 1):
        for some in combinations(varying, count):
            for factors in product((AROUND, 1 / AROUND), repeat=count):
                yield {s: max(1, round(sizes[s] * f)) for s, f in zip(some, factors, strict=True)}
    for factor in (AROUND, 1 / AROUND):
        yield {s: max(1, round(sizes[s] * factor)) for s in varying}


def whole(atomic: Mapping[str, Any], spec: Spec) -> dict[str, Any]:
    """Return the numbers of the atomic sizes and of the batch, and those of the split sizes that they make."""
    table = spec.sizes
    return {**atomic, **{name: value_of(table.atoms(name), atomic) for name in table.names}}


@lru_cache(maxsize=FAMILIES)
def family(
    text: str,
    fixed: Pairs,
    own: Owns,
    objective: str,
    device: str,
    channels_first: bool,
    dtype: str,
    model: Device,
    accuracy: str = "written",
    wanted: tuple[str, ...] = (),
) -> Family:
    """Return the programs of a specification, shared by all layers that ask for the same."""
    return Family(_spec(text), fixed, objective, model, channels_first, dtype, own, accuracy, wanted)


def family_of(
    text: str,
    fixed: Pairs,
    own: Owns,
    objective: str,
    device: str,
    channels_first: bool,
    dtype: str,
    accuracy: str = "written",
    wanted: tuple[str, ...] = (),
) -> Family:
    """Return the family on the present calibration of a device.

    Args:
        text: of the specification; compilers before torch 2.7 know texts as constants, and dataclasses not.
        fixed: the sizes that no shape changes.
        own: functions of the user's own, with the names of their callables in `polyattn.lowering.FUNCTIONS`.
        objective: "training" gives functions whose gradients the planned backward pass makes.
        device: the type of the device, for the cost model and its kernels.
        channels_first: whether the inputs are (B, ..., C) views of tensors that lie in memory as (B, C, ...).
        dtype: in which products are computed.
        accuracy: see `lowering.plan`.
        wanted: the tensors that get gradients, where others do not.
    """
    model = calibrated(kind(device), dtype)
    return family(text, fixed, own, objective, device, channels_first, dtype, model, accuracy, wanted)


@lru_cache(maxsize=FAMILIES)
def limited(
    text: str,
    own: Owns,
    sizes: Pairs,
    objective: str,
    channels_first: bool,
    dtype: str,
    model: Device,
    accuracy: str,
    memory_limit: int,
    positions: int | None = None,
) -> tuple[Plan, Function]:
    """Return the plan within a memory limit at these sizes, the batch included, and its function.

    A planned backward pass always runs: autograd's is not bounded.

    Raises:
        BudgetError: no plan keeps to the limit.
    """
    known = {s: n for s, n in sizes if s != BATCH}
    limits: dict[str, Any] = {"memory_limit": memory_limit, "channels_first": channels_first, "accuracy": accuracy}
    made = whole_plan(_spec(text), known, objective, batch=dict(sizes)[BATCH], device=model, **limits)
    lowered = forward_function if made.backward is None else training_function
    options: dict[str, Any] = {"channels_first": channels_first, "device": model, "dtype": dtype}
    options["functions"] = {name: getattr(FUNCTIONS, kept) for name, kept in own}
    function = lowered(made, **options)
    return made, function if positions is None else of_maps(function, positions)


@lru_cache(maxsize=FAMILIES)
def reads(spec: Spec, fixed: Pairs) -> tuple[Read, ...]:
    """Return where the sizes that are not fixed are read from shapes; nothing where they do not follow one by one."""
    known = spec.sizes.fixed_by(name for name, _ in fixed)
    try:
        return readings(spec, [s for s in spec.sizes.atomic if s not in known])
    except SizeError:
        return ()


@constant_result
def traced(
    text: str,
    fixed: Pairs,
    own: Owns,
    sizes: Pairs,
    read: tuple[str, ...],
    objective: str,
    device: str,
    channels_first: bool,
    dtype: str,
    eager: bool,
    accuracy: str = "written",
) -> str:
    """Return the name in `polyattn.lowering.FUNCTIONS` of the lowered plan for a compiler's shapes.

    Args:
        sizes: numbers of the atomic sizes and of the batch.
        read: the atomic sizes that the compiler keeps symbolic.
        eager: whether the operations are taken one by one, without a backward pass of their own.
    """
    model = calibrated(kind(device), dtype)
    how = (objective, device, channels_first, dtype, eager, model, accuracy)
    return _traced(text, fixed, tuple(own), tuple(sizes), tuple(read), *how)


@lru_cache(maxsize=FAMILIES)
def _traced(
    text: str,
    fixed: Pairs,
    own: Owns,
    sizes: Pairs,
    read: tuple[str, ...],
    objective: str,
    device: str,
    channels_first: bool,
    dtype: str,
    eager: bool,
    model: Device,
    accuracy: str,
) -> str:
    made = family(text, fixed, own, objective, device, channels_first, dtype, model, accuracy)
    numbers = whole({s: int(n) for s, n in sizes}, made.spec)
    return keep(made.symbolic(numbers, read, eager))


def forget() -> None:
    """Empty the caches of programs; layers keep those for the shapes that they have met."""
    family.cache_clear()
    limited.cache_clear()
    _traced.cache_clear()


@lru_cache(maxsize=FAMILIES)
def _spec(text: str) -> Spec:
    return Spec(text)
