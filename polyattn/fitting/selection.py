"""The candidates that go into a compressed model: the nearest of each layer, or the best within one budget for all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from polyattn.fitting.compression import Candidate
from polyattn.fitting.surgery import evaluating

ROUNDS = 7


@torch.no_grad()
def median_seconds(modules: Sequence[nn.Module], x: Tensor) -> list[float]:
    """Return the median seconds of each module on an input; runs are interleaved, so that a slowdown concerns all."""
    times: list[list[float]] = [[] for _ in modules]
    wait = torch.cuda.synchronize if x.device.type == "cuda" else lambda: None
    for turn in range(ROUNDS + 1):
        for module, own in zip(modules, times, strict=True):
            with evaluating(module):
                wait()
                start = time.perf_counter()
                # Past the hooks: they are the caller's, and not part of the layer.
                module.forward(x)
                wait()
                # The first call plans and fills caches.
                own += [time.perf_counter() - start] if turn else []
    return [statistics.median(own) for own in times]


def nearest(candidates: Sequence[Candidate], key: Callable[[Candidate], float]) -> dict[str, Candidate]:
    """Return each layer's candidate with the smallest key, of equal ones the one with fewer multiply-accumulates."""
    best: dict[str, Candidate] = {}
    for layer in dict.fromkeys(c.layer for c in candidates):
        best[layer] = min((c for c in candidates if c.layer == layer), key=lambda c: (key(c), c.macs))
    return best


def shared_budget(
    candidates: Sequence[Candidate], trained: Mapping[str, int], total: float, key: Callable[[Candidate], float]
) -> dict[str, Candidate] | None:
    """Return the candidates with the least sum of squared keys whose multiply-accumulates keep to one budget.

    A layer may stay as it is, at its own cost and with no error.

    Args:
        trained: the multiply-accumulates of each trained layer.
        total: the budget, as a fraction of their sum.

    Returns:
        None if no choice keeps to it.
    """
    limit = total * sum(trained.values())
    # Choices for the layers so far, without those that another one has for fewer multiply-accumulates and less error.
    states: list[tuple[int, float, dict[str, Candidate]]] = [(0, 0.0, {})]
    for layer, cost in trained.items():
        options: list[tuple[int, float, Candidate | None]] = [(cost, 0.0, None)]
        options += [(c.macs, key(c) ** 2, c) for c in candidates if c.layer == layer]
        grown = [
            (macs + more, error + own, made if candidate is None else {**made, layer: candidate})
            for macs, error, made in states
            for more, own, candidate in options
            if macs + more <= limit
        ]
        states = []
        for state in sorted(grown, key=lambda s: s[:2]):
            if not states or state[1] < states[-1][1]:
                states.append(state)
    return states[-1][2] if states else None


def timed(candidates: Sequence[Candidate], trained: nn.Module, x: Tensor) -> list[Candidate]:
    """Return the candidates of one layer with their measured times on one sample."""
    own, *times = median_seconds([trained, *(c.module for c in candidates)], x)
    return [replace(c, seconds=t, trained_seconds=own) for c, t in zip(candidates, times, strict=True)]
