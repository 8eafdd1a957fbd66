"""`plan` as users call it: on this machine's calibration, and with candidates timed where that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from polyattn.algebra import Spec
from polyattn.errors import BudgetError, SizeError
from polyattn.language.conditions import RELATIONS, is_condition
from polyattn.language.resolve import accesses_of
from polyattn.lowering.devices import calibrated
from polyattn.planning import Device, Plan, Question, costs, question, ranked_plans, with_backward
from polyattn.planning.memory import Memory, memory_of_steps

if TYPE_CHECKING:
    import torch

    from polyattn.lowering.matching import Kernels

COSTS = (*costs.COSTS, "measured")
WITHIN = 3.0
"""Candidates that the roofline puts above this many times the best are not timed."""
TIMED = 8
"""Candidates that are timed at most."""
LARGEST = 2**60
"""Bytes of a value from which on torch cannot count them in 64 bits."""


@dataclass(frozen=True)
class AsRun:
    """The count of a plan's memory on its lowered graphs.

    Attributes:
        kernels, device: see `lower`.
        channels_first: whether inputs lie in memory with their channels first.
        training: whether autograd's backward pass is counted where none is planned.
    """

    kernels: str | tuple[str, ...]
    device: Device
    channels_first: bool = False
    training: bool = False

    def __call__(self, plan: Plan) -> Memory:
        """Return the memory as the lowered graphs allocate it; as the steps say where that cannot be counted."""
        return self.counted(plan) or memory_of_steps(plan)

    def counted(self, plan: Plan) -> Memory | None:
        """Return the memory of the lowered graphs; None without torch, and for a plan that cannot be lowered."""
        graphs = [plan.graph, *([plan.backward.graph] if plan.backward else [])]
        if any(g.bytes_of(k) >= LARGEST for g in graphs for k in range(len(g.nodes))):
            return None
        try:
            from polyattn.lowering.allocations import memory_of
        except ModuleNotFoundError:  # torch
            return None
        try:
            return memory_of(plan, self.channels_first, self.kernels, self.device, self.training)
        except SizeError:  # a coefficient that no float holds
            return None


def plan(
    spec: Spec | str,
    sizes: Mapping[str, int],
    objective: str = "forward",
    *,
    batch: int | None = None,
    memory_limit: int | None = None,
    cost: str = "roofline",
    device: str | Device = "cpu",
    dtype: str | torch.dtype = "float32",
    kernels: str | Sequence[str] = "auto",
    accuracy: str = "any",
    order: str | None = None,
    state: str = "auto",
) -> Any:
    """The cheapest known way to compute a specification at given sizes.

    A causal specification (with conditions such as `[e <= a]`) is computed with masks, or in chunks of its positions
    with states between them (`ChunkedPlan`), whichever is cheaper. The candidates are the definitions as written, the
    definitions with each product in one of its cheapest orders, and the expanded polynomial with each monomial in one
    of its cheapest orders. Of those that take no more multiply-accumulates than the text as written, the cheapest in
    the cost model is chosen.

    Args:
        spec: a specification or its text.
        sizes: a number for every size (split sizes through any parts that fix them), and "B" for the batch
            (default 1).
        objective: "forward" for one evaluation; "training" for an evaluation and a backward pass, which is planned
            with it; "as_written" follows the author; "decoding" for one step of a causal specification, a
            `DecodingPlan` with its `state`: the length of what runs is not needed in `sizes`. With the past kept it is
            a `CachedPlan`.
        batch: the batch, for a specification that has a size B of its own.
        memory_limit: the most bytes that the lowered plan may allocate at once, in float32, in the forward pass and in
            the planned backward pass: output, intermediates, kept values, copies and returned gradients; inputs,
            parameters and the output's gradient are not counted. Values beyond it are computed again.
        cost: "roofline" (seconds on the device, by its calibration), "macs", or "measured": the candidates that the
            roofline finds good are timed here, on tensors of the sizes given, and the fastest is chosen.
        device: "cpu", "cuda", or a `Device`; see `polyattn.calibrate`.
        dtype: in which products are computed, such as "bfloat16" for layers under autocast on a GPU: arithmetic and
            traffic weigh otherwise there. A `Device` has its own.
        kernels: the fused kernels that the plan will be lowered with, as in `lower`: "auto" counts them where they pay
            on "cuda" with Triton, and `attention` on every device; "off"; or names. An order of contraction in which
            they pay may then be the cheapest; the table shows them. Multiply-accumulates (`cost="macs"`) leave them
            aside.
        accuracy: "any": the cheapest plan, whatever it loses on maps with a mean that weights remove; "written", which
            layers of `polyattn.nn` take: no plan that loses a higher power of the mean than the author's order, if
            need be one of deviations from the mean, whose few products more are not counted against the author's.
            `Plan.accuracy` bounds the error of a plan.

        order: the size whose positions come one by one, or in chunks, if conditions compare positions of several.
        state: of "decoding": "recurrence", "cache" (tensors read of earlier positions are kept, such as keys and
            values), or "auto", a recurrence if there is one, and a cache where it has a fixed length (a window).

    Raises:
        SizeError: a size is missing, unknown or contradictory, or an option is unknown or out of range.
        RecurrenceError: the objective is "decoding", and the specification has no recurrence; the message says what a
            cache would keep of each position.
        BudgetError: the expansion is too large, or no candidate keeps to the memory limit; says the smallest that would
            do.

    >>> print(plan("x[N,C]; y[a,b] = x[a,d]*w[d,b]", {"N": 10, "C": 4}).macs)
    160
    """
    if objective == "decoding":
        from polyattn.lowering.caching import decoding

        return decoding(spec, sizes, order, batch, state)
    options: dict[str, Any] = {"batch": batch, "cost": cost, "device": device, "dtype": dtype, "kernels": kernels}
    limits: dict[str, Any] = {"memory_limit": memory_limit, "accuracy": accuracy}
    if not has_conditions(spec) or objective not in ("forward", "training") or cost == "measured":
        return whole_plan(spec, sizes, objective, **limits, **options)
    spec = Spec(spec) if isinstance(spec, str) else spec
    refused: BudgetError | None = None
    try:
        whole = whole_plan(spec, sizes, objective, **limits, **options)
    except BudgetError as error:
        whole, refused = None, error
    from polyattn.lowering.chunking import chunks_instead

    chunked = chunks_instead(spec, sizes, objective, whole, memory_limit, order, **options)
    if chunked is None and refused is not None:
        raise refused
    return chunked or whole


def has_conditions(spec: Spec | str) -> bool:
    """Return whether conditions compare positions anywhere in a specification; of a text, whether they may."""
    if isinstance(spec, str):
        return any(relation in spec for relation in RELATIONS)
    return any(is_condition(a.tensor) for d in spec.core for a in accesses_of(d.body))


def whole_plan(
    spec: Spec | str,
    sizes: Mapping[str, int],
    objective: str = "forward",
    *,
    batch: int | None = None,
    memory_limit: int | None = None,
    cost: str = "roofline",
    device: str | Device = "cpu",
    dtype: str | torch.dtype = "float32",
    kernels: str | Sequence[str] = "auto",
    accuracy: str = "any",
    channels_first: bool = False,
) -> Plan:
    """Return the plan of all positions at once, with conditions as masks; see `plan`.

    Args:
        channels_first: whether the inputs lie in memory with their channels first, for the count of copies.
    """
    if cost not in COSTS:
        raise SizeError(f"unknown cost {cost!r}; there are {', '.join(COSTS)}")
    model = calibrated(device, dtype) if isinstance(device, str) else device
    chosen = kernel_choice(kernels, model, spec)
    chosen = () if cost == "macs" else chosen
    counter = AsRun(kernels if isinstance(kernels, str) else tuple(kernels), model, channels_first)
    if cost != "measured":
        try:
            numbers = chain.from_iterable(sorted(dict(sizes).items()))
            return _plan(spec, objective, batch, memory_limit, cost, chosen, accuracy, counter, *numbers)
        except TypeError:  # something that is no number, which `question` names
            options: dict[str, Any] = {
                "memory_limit": memory_limit,
                "cost": cost,
                "device": model,
                "accuracy": accuracy,
            }
            asked = question(spec, sizes, objective, batch=batch, **options)
            return _ranked(asked, chosen, 1, counter)[0][0]
    if not isinstance(device, str):
        raise SizeError('cost="measured" times candidates on a device that is here: give "cpu" or "cuda"')
    from polyattn.lowering.timing import check_device

    check_device(model)
    options = {"memory_limit": memory_limit, "device": model, "accuracy": accuracy}
    asked = question(spec, sizes, objective, batch=batch, **options)
    return _fastest(asked, str(dtype).removeprefix("torch."), chosen, counter)


@lru_cache(maxsize=4096, typed=True)  # typed: True is no size
def _plan(
    spec: Spec | str,
    objective: str,
    batch: int | None,
    memory_limit: int | None,
    cost: str,
    kernels: Kernels,
    accuracy: str,
    counter: AsRun,
    *sizes: str | int,
) -> Plan:
    """`plan` by its arguments alone; the sizes are names and numbers in turn."""
    known: Mapping[str, Any] = dict(zip(sizes[::2], sizes[1::2], strict=True))  # pyright: ignore[reportAssignmentType]
    options: dict[str, Any] = {"memory_limit": memory_limit, "cost": cost, "accuracy": accuracy}
    asked = question(spec, known, objective, batch=batch, device=counter.device, **options)
    return _ranked(asked, kernels, 1, counter)[0][0]


def candidates(
    spec: Spec,
    sizes: Mapping[str, int],
    objective: str,
    most: int,
    *,
    batch: int,
    device: Device,
    accuracy: str = "any",
) -> tuple[Plan, ...]:
    """Return the cheapest plans, each another order of contraction, cheapest first; the text as written is the last.

    Args:
        most: the number of plans before the last at most.
        spec, sizes, objective, batch, device, accuracy: see `plan`.
    """
    options: dict[str, Any] = {"batch": batch, "device": device, "accuracy": accuracy}
    counter = AsRun("auto", device)
    written = ranked_plans(question(spec, sizes, "as_written", **options), 1)[0]
    if objective == "as_written":
        return (written,)
    asked = question(spec, sizes, objective, **options)
    found = [p for p, _ in _ranked(asked, kernel_choice("auto", device, spec), most, counter)]
    written = replace(written, objective=objective, allocations=counter)
    return (*found, with_backward(written) if objective == "training" else written)


def price_of(asked: Question, kernels: Kernels) -> Callable[[Plan], float]:
    """Return the price by which plans are ranked: by the roofline, with these kernels."""
    if kernels == ():
        return asked.price
    from polyattn.lowering.fused import Price

    return Price(kernels, asked.device)


def kernel_choice(kernels: str | Sequence[str], device: Device, spec: Spec | str) -> Kernels:
    """Return `matching.as_choice`, without the import of torch where no kernel can apply."""
    if kernels == "off" or (kernels == "auto" and device.kind != "cuda" and "softmax" not in str(spec)):
        return ()
    from polyattn.lowering.matching import as_choice

    return as_choice(kernels, device)


def _ranked(asked: Question, kernels: Kernels, most: int, counter: AsRun) -> list[tuple[Plan, float]]:
    """Return the cheapest plans with their prices, cheapest first."""
    if kernels == ():
        return [(p, asked.price(p)) for p in ranked_plans(asked, most, None, counter)]
    from polyattn.lowering.fused import Price, with_kernels

    found = ranked_plans(asked, most, Price(kernels, asked.device), counter)
    return [with_kernels(p, kernels, asked.device) for p in found]


@lru_cache(maxsize=1024)
def _fastest(asked: Question, dtype: str, kernels: Kernels, counter: AsRun) -> Plan:
    """Return the fastest of the plans that the roofline puts within `WITHIN` of its best."""
    from polyattn.lowering.timing import fastest

    ranked = _ranked(asked, kernels, TIMED, counter)
    best = min(price for _, price in ranked)
    plans = [p for p, price in ranked if price <= WITHIN * best]
    return plans[0] if len(plans) == 1 else fastest(plans, asked.device, dtype, kernels)
