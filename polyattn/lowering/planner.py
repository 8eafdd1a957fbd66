"""`plan` as users call it: on this machine's calibration, and with candidates timed where that is asked for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from polyattn.algebra import Spec
from polyattn.errors import SizeError
from polyattn.language import value_of
from polyattn.lowering.devices import calibrated
from polyattn.lowering.fused import Price, with_kernels
from polyattn.lowering.graphs import lower
from polyattn.lowering.matching import Kernels, as_choice
from polyattn.lowering.training import differentiable
from polyattn.planning import Device, Plan, Question, costs, question, ranked_plans

COSTS = (*costs.COSTS, "measured")
WITHIN = 3.0
"""Candidates that the roofline puts above this many times the best are not timed."""
TIMED = 8
"""Candidates that are timed at most."""
SECONDS = 0.5
"""About how long all timings of one question may take; three rounds are timed in any case."""


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
) -> Plan:
    """The cheapest known way to compute a specification at given sizes.

    The candidates are the definitions as written, the definitions with each product in one of its cheapest orders,
    and the expanded polynomial with each monomial in one of its cheapest orders. Of those that take no more
    multiply-accumulates than the text as written, the cheapest in the cost model is chosen.

    Args:
        spec: a specification or its text.
        sizes: a number for every size (split sizes through any parts that fix them), and "B" for the batch
            (default 1).
        objective: "forward" for one evaluation; "training" for an evaluation and a backward pass, which is planned
            with it; "as_written" follows the author.
        batch: the batch, for a specification that has a size B of its own.
        memory_limit: the most bytes, in float32, that intermediates may take at once, and that may be kept for the
            planned backward pass; what is too much is computed again.
        cost: "roofline" (seconds on the device, by its calibration), "macs", or "measured": the candidates that the
            roofline finds good are timed here, on tensors of the sizes given, and the fastest is chosen.
        device: "cpu", "cuda", or a `Device`; see `polyattn.calibrate`.
        dtype: in which products are computed, such as "bfloat16" for layers under autocast on a GPU: arithmetic and
            traffic weigh otherwise there. A `Device` has its own.
        kernels: the fused kernels that the plan will be lowered with, as in `lower`: "auto" counts them where they pay
            on "cuda" with Triton; "off"; or names. An order of contraction in which they pay
            may then be the cheapest; the table shows them. Multiply-accumulates (`cost="macs"`) leave them aside.

    Raises:
        SizeError: a size is missing, unknown or contradictory, or an option is unknown or out of range.
        BudgetError: the expansion is too large, or no candidate keeps to the memory limit; says the smallest that would
            do.

    >>> print(plan("x[N,C]; y[a,b] = x[a,d]*w[d,b]", {"N": 10, "C": 4}).macs)
    160
    """
    if cost not in COSTS:
        raise SizeError(f"unknown cost {cost!r}; there are {', '.join(COSTS)}")
    model = calibrated(device, dtype) if isinstance(device, str) else device
    chosen = as_choice(kernels, model)
    chosen = () if cost == "macs" else chosen
    if cost != "measured":
        try:
            numbers = chain.from_iterable(sorted(dict(sizes).items()))
            return _plan(spec, objective, batch, memory_limit, cost, model, chosen, *numbers)
        except TypeError:  # something that is no number, which `question` names
            asked = question(spec, sizes, objective, batch=batch, memory_limit=memory_limit, cost=cost, device=model)
            return _ranked(asked, chosen, 1)[0][0]
    if not isinstance(device, str):
        raise SizeError('cost="measured" times candidates on a device that is here: give "cpu" or "cuda"')
    if device == "cuda" and not torch.cuda.is_available():
        raise SizeError('cost="measured" on "cuda" needs a CUDA device, and there is none')
    asked = question(spec, sizes, objective, batch=batch, memory_limit=memory_limit, device=model)
    return _fastest(asked, str(dtype).removeprefix("torch."), chosen)


@lru_cache(maxsize=4096, typed=True)  # typed: True is no size
def _plan(
    spec: Spec | str,
    objective: str,
    batch: int | None,
    memory_limit: int | None,
    cost: str,
    device: Device,
    kernels: Kernels,
    *sizes: str | int,
) -> Plan:
    """`plan` by its arguments alone; the sizes are names and numbers in turn."""
    known: Mapping[str, Any] = dict(zip(sizes[::2], sizes[1::2], strict=True))  # pyright: ignore[reportAssignmentType]
    asked = question(spec, known, objective, batch=batch, memory_limit=memory_limit, cost=cost, device=device)
    return _ranked(asked, kernels, 1)[0][0]


def _ranked(asked: Question, kernels: Kernels, most: int) -> list[tuple[Plan, float]]:
    """The cheapest plans with their prices, cheapest first."""
    if kernels == ():
        return [(p, asked.price(p)) for p in ranked_plans(asked, most)]
    return [with_kernels(p, kernels, asked.device) for p in ranked_plans(asked, most, Price(kernels, asked.device))]


@lru_cache(maxsize=1024)
def _fastest(asked: Question, dtype: str, kernels: Kernels) -> Plan:
    ranked = _ranked(asked, kernels, TIMED)
    best = min(price for _, price in ranked)
    plans = [p for p, price in ranked if price <= WITHIN * best]
    if len(plans) == 1:
        return plans[0]
    medians = _medians([_call(p, asked.device, getattr(torch, dtype), kernels) for p in plans], asked.device.kind)
    return plans[medians.index(min(medians))]


def _call(plan: Plan, device: Device, dtype: torch.dtype, kernels: Kernels) -> Callable[[], object]:
    """One evaluation, and for the objective "training" its backward pass, as layers run them, on random tensors."""
    tensors = [t.to(device.kind, dtype) for t in _tensors(plan)]
    taken = "auto" if isinstance(kernels, Device) else kernels
    if plan.objective != "training":
        forward = lower(plan, kernels=taken, device=device)
        return lambda: forward(*tensors)
    wanted = [t.requires_grad_() for t in tensors]
    layer = differentiable(plan, kernels=taken, device=device)
    seed = torch.ones_like(layer(*wanted))

    def both() -> object:
        with torch.enable_grad():
            return torch.autograd.grad(layer(*wanted), wanted, seed, allow_unused=True)

    return both


def _tensors(plan: Plan) -> list[Tensor]:
    spec, generator = plan.spec, torch.Generator().manual_seed(0)
    found = []
    for tensor in (*spec.inputs, *spec.parameters):
        shape = [value_of(atoms, plan.sizes) for atoms in spec.shape(tensor)]
        shape = [plan.batch, *shape] if tensor in spec.inputs else shape
        found.append(torch.randn(shape, generator=generator))
    return found


def _medians(calls: list[Callable[[], object]], device: str) -> list[float]:
    """Median times of calls, one of each in turn."""
    times: list[list[float]] = [[] for _ in calls]
    with torch.no_grad():
        for call in calls:
            call()
        end = time.perf_counter() + SECONDS
        while len(times[0]) < 3 or time.perf_counter() < end:
            for k, call in enumerate(calls):
                start = time.perf_counter()
                call()
                if device == "cuda":
                    torch.cuda.synchronize()
                times[k].append(time.perf_counter() - start)
    return [statistics.median(t) for t in times]
