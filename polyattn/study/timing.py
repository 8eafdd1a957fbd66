"""Measured times of plans: medians of interleaved runs, so that a slowdown of the machine affects all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

from polyattn.language import value_of
from polyattn.lowering import lower, training_function
from polyattn.planning import Plan

LEAST_ROUNDS, MOST_ROUNDS = 5, 200


def medians(calls: Sequence[Callable[[], object]], device: str, seconds: float) -> list[float]:
    """Return the median seconds of each call, interleaved.

    Args:
        calls: such as those of `call_of`.
        device: "cpu" or "cuda".
        seconds: approximate limit for all timings; at least five rounds are run.
    """
    times: list[list[float]] = [[] for _ in calls]
    # The first call compiles kernels and fills caches.
    for call in calls:
        call()
    end = time.perf_counter() + seconds
    while len(times[0]) < LEAST_ROUNDS or (time.perf_counter() < end and len(times[0]) < MOST_ROUNDS):
        # Each round starts with another plan, since the caches a run finds depend on its predecessor.
        shift = len(times[0]) % len(calls)
        for k in (*range(shift, len(calls)), *range(shift)):
            # CUDA calls return before they are done; earlier work must not count.
            _wait(device)
            start = time.perf_counter()
            calls[k]()
            _wait(device)
            times[k].append(time.perf_counter() - start)
    return [statistics.median(t) for t in times]


def call_of(plan: Plan, objective: str, device: str, dtype: str = "float32") -> Callable[[], object]:
    """Return a call of a plan on random tensors of a dtype; "training" runs a backward pass as well."""
    generator, tensors = torch.Generator().manual_seed(0), []
    for tensor in (*plan.spec.inputs, *plan.spec.parameters):
        shape = [value_of(atoms, plan.sizes) for atoms in plan.spec.shape(tensor)]
        shape = [plan.batch, *shape] if tensor in plan.spec.inputs else shape
        tensors.append(torch.randn(shape, generator=generator).to(device, getattr(torch, dtype)))
    if objective != "training":
        forward = lower(plan, device=device, dtype=dtype)

        def evaluate() -> object:
            with torch.no_grad():
                return forward(*tensors)

        return evaluate
    wanted = [t.requires_grad_() for t in tensors]
    layer = (
        lower(plan, device=device, dtype=dtype)
        if plan.backward is None
        else training_function(plan, device=device, dtype=dtype)
    )
    # Autograd alone would need a scalar output.
    seed = torch.ones_like(layer(*wanted))
    return lambda: torch.autograd.grad(layer(*wanted), wanted, seed, allow_unused=True)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
