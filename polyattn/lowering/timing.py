"""The fastest of a plan's candidates, timed on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from polyattn.errors import SizeError
from polyattn.language import value_of
from polyattn.lowering.graphs import shared
from polyattn.lowering.matching import Kernels
from polyattn.lowering.training import differentiable
from polyattn.planning import Device, Plan

SECONDS = 0.5
"""Approximate limit for all timings of one question; at least three rounds are timed."""


def check_device(device: Device) -> None:
    """Check that candidates can be timed on a device.

    Raises:
        SizeError: `device` is a CUDA device on a machine without one.
    """
    if device.kind == "cuda" and not torch.cuda.is_available():
        raise SizeError('`cost="measured"` on `device="cuda"` needs a CUDA device, and this machine has none')


def fastest(plans: list[Plan], device: Device, dtype: str, kernels: Kernels) -> Plan:
    """Return the plan whose calls have the least median time; all are timed in turn, on random tensors."""
    medians = _medians([_call(p, device, getattr(torch, dtype), kernels) for p in plans], device.kind)
    return plans[medians.index(min(medians))]


def _call(plan: Plan, device: Device, dtype: torch.dtype, kernels: Kernels) -> Callable[[], object]:
    """Build one evaluation as layers run it, on random tensors, with its backward pass for the objective "training"."""
    tensors = [t.to(device.kind, dtype) for t in _tensors(plan)]
    taken = "auto" if isinstance(kernels, Device) else kernels
    if plan.objective != "training":
        forward = shared(plan, "forward", kernels=taken, device=device)
        return lambda: forward(*tensors)
    wanted = [t.requires_grad_() for t in tensors]
    layer = differentiable(plan, kernels=taken, device=device)
    seed = torch.ones_like(layer(*wanted))

    def both() -> object:
        with torch.enable_grad():
            return torch.autograd.grad(layer(*wanted), wanted, seed, allow_unused=True)

    return both


def _tensors(plan: Plan) -> list[Tensor]:
    # A fixed seed: candidates are compared on the same numbers, and the global generator is untouched.
    spec, generator = plan.spec, torch.Generator().manual_seed(0)
    found = []
    for tensor in (*spec.inputs, *spec.parameters):
        shape = [value_of(atoms, plan.sizes) for atoms in spec.shape(tensor)]
        shape = [plan.batch, *shape] if tensor in spec.inputs else shape
        found.append(torch.randn(shape, generator=generator))
    return found


def _medians(calls: list[Callable[[], object]], device: str) -> list[float]:
    """Return the median times of the calls, interleaved."""
    times: list[list[float]] = [[] for _ in calls]
    with torch.no_grad():
        # The first call compiles kernels and fills caches.
        for call in calls:
            call()
        end = time.perf_counter() + SECONDS
        while len(times[0]) < 3 or time.perf_counter() < end:
            # In turn, so that a change of the machine's load meets all candidates alike.
            for k, call in enumerate(calls):
                start = time.perf_counter()
                call()
                # CUDA calls return before they are done.
                if device == "cuda":
                    torch.cuda.synchronize()
                times[k].append(time.perf_counter() - start)
    return [statistics.median(t) for t in times]
