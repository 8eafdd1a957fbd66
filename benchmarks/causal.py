"""Causal layers masked, in chunks and step by step: python benchmarks/causal.py [--quick] [--out FILE]

Multiply-accumulates of the three executions; times of a whole sequence, forward and in training, beside chunked linear
attention in plain torch (Katharopoulos et al., Eq. 9, in chunks) and torch's scaled-dot-product attention; bytes at
growing lengths; times of a step behind up to a million positions; errors of steps.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import polyattn as pa
from benchmarks._common import arguments, interleaved, medians, ratio, show, write

D = 32
LINEAR = ("causal_linear", "retnet", "mamba2")


def sizes_of(spec: pa.Spec, positions: int, channels: int = D) -> dict[str, int]:
    known = {"N": positions, "D": channels, "C": channels, "P": channels, "H": 1, "W": 128}
    return {n: v for n, v in known.items() if n in spec.sizes.names}


def inputs_of(spec: pa.Spec, sizes: dict[str, int], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ([sizes[s] for s in shape] for shape in spec.inputs.values())
    return [torch.rand(1, *shape, generator=generator, dtype=torch.float64).to(dtype) / D**0.5 for shape in shapes]


def plain_chunked(v: Tensor, k: Tensor, q: Tensor, length: int = 64) -> Tensor:
    """Linear attention in chunks, all at once."""
    v, k, q = (x.unflatten(1, (-1, length)) for x in (v, k, q))
    sums = (k.mT @ v).cumsum(1)
    before = torch.cat([torch.zeros_like(sums[:, :1]), sums[:, :-1]], 1)
    return (q @ before + (q @ k.mT).tril() @ v).flatten(1, 2)


def costs(positions: int) -> list[dict[str, Any]]:
    runs = []
    for name in LINEAR:
        spec = pa.catalog.get(name)
        sizes = sizes_of(spec, positions)
        chunked = pa.plan(spec, sizes, cost="macs")
        step = pa.plan(spec, {n: v for n, v in sizes.items() if n != "N"}, "decoding")
        runs.append(
            {
                "layer": name,
                "N": positions,
                "masked macs": chunked.masked.macs,
                "chunked macs": chunked.macs,
                "length": chunked.length,
                "steps macs": positions * step.macs,
                "state numbers": step.state_numbers,
            }
        )
    return runs


def with_backward(function: Callable[..., Tensor], tensors: list[Tensor]) -> Callable[[], object]:
    held = [x.clone().requires_grad_() for x in tensors]
    return lambda: torch.autograd.grad(function(*held).sum(), held, materialize_grads=True, allow_unused=True)


def times(positions: int) -> list[dict[str, Any]]:
    runs = []
    for name in ("causal_linear", "causal_softmax"):
        spec = pa.catalog.get(name)
        sizes = sizes_of(spec, positions)
        tensors = inputs_of(spec, sizes)
        layer = pa.nn.Layer(spec, {n: v for n, v in sizes.items() if n != "N"})
        both: dict[str, Callable[..., Tensor]] = {"layer": layer}
        trained = both.copy()
        if name == "causal_linear":
            both["masked"] = pa.lower(pa.plan(spec, sizes, cost="macs").masked)
            trained["masked"] = pa.training_function(pa.plan(spec, sizes, "training", cost="macs").masked)
        if name == "causal_linear":
            both["plain chunks"] = trained["plain chunks"] = plain_chunked
        if name == "causal_softmax":
            both["scaled_dot_product_attention"] = lambda v, k, q: scaled_dot_product_attention(
                q[:, None], k[:, None], v[:, None], is_causal=True
            )[:, 0]
            trained = both
        with torch.no_grad():
            wanted = both["layer"](*tensors)
            for other in both.values():
                torch.testing.assert_close(other(*tensors), wanted, rtol=1e-3, atol=1e-4)
            forward = interleaved({n: partial(f, *tensors) for n, f in both.items()}, seconds=3, least=5, most=30)
        training = interleaved({n: with_backward(f, tensors) for n, f in trained.items()}, seconds=3, least=5, most=30)
        for what, found in (("forward", forward), ("training", training)):
            against = {n: ratio(found, n, "layer") for n in both if n != "layer"}
            runs.append(
                {"layer": name, "N": positions, "part": what, "seconds": medians(found), "times faster": against}
            )
    return runs


def memory(lengths: list[int]) -> list[dict[str, Any]]:
    runs = []
    for n in lengths:
        spec = pa.catalog.causal_linear()
        plan = pa.plan(spec, sizes_of(spec, n), "training", cost="macs")
        runs.append(
            {"N": n, "peak bytes": plan.peak_bytes, "kept bytes": plan.kept_bytes, "masked": plan.masked.kept_bytes}
        )
    return runs


def decoding(milestones: list[int]) -> list[dict[str, Any]]:
    """Times of a step behind so many positions, which are read in pieces."""
    runs = []
    for name in ("causal_linear", "gla", "sliding_window"):
        spec = pa.catalog.get(name)
        sizes = sizes_of(spec, 1)
        layer = pa.nn.Layer(spec, {n: v for n, v in sizes.items() if n != "N"})
        piece = inputs_of(spec, {**sizes, "N": 4096})
        piece = [-x if n == "g" else x for n, x in zip(spec.inputs, piece, strict=True)]
        with torch.no_grad():
            state, come = layer.initial_state(1), 0
            for milestone in milestones:
                while come < milestone:
                    number = min(4096, milestone - come)
                    _, state = layer(*(x[:, :number] for x in piece), state=state)
                    come += number
                taken = []
                for t in range(400):
                    here = [x[:, t] for x in piece]
                    start = time.perf_counter()
                    _, state = layer.step(*here, state)
                    taken.append(time.perf_counter() - start)
                come += 400
                runs.append({"layer": name, "positions": milestone, "seconds a token": statistics.median(taken)})
    return runs


def errors(steps: int) -> list[dict[str, Any]]:
    spec, runs = pa.catalog.causal_linear(), []
    sizes = sizes_of(spec, steps)
    exact = inputs_of(spec, sizes, torch.float64)
    layer = pa.nn.Layer(spec, {"D": D, "C": D})
    with torch.no_grad():
        wanted, _ = layer(*exact, state=layer.initial_state(1, dtype=torch.float64))
        for dtype, most in ((torch.float64, 2000), (torch.bfloat16, 2000), (torch.float32, steps)):
            tensors = [x.to(dtype) for x in exact]
            state, rows = layer.initial_state(1, dtype=dtype), []
            for t in range(most):
                y, state = layer.step(*(x[:, t] for x in tensors), state)
                rows.append(y)
            scale = wanted[:, most - 100 : most].abs().max()
            off = (torch.stack(rows[-100:], 1).double() - wanted[:, most - 100 : most]).abs().max() / scale
            run = {"dtype": str(dtype).removeprefix("torch."), "steps": most, "relative error of steps": off.item()}
            if dtype == torch.bfloat16:
                whole = layer(*(x[:, :most] for x in tensors))[:, -100:].double()
                run["relative error of the whole"] = ((whole - wanted[:, most - 100 : most]).abs().max() / scale).item()
            runs.append(run)
    return runs


def main() -> None:
    args = arguments(__doc__)
    torch.manual_seed(0)
    positions = 1024 if args.quick else 4096
    parts = {
        "costs": costs(positions),
        "times": times(positions),
        "memory": memory([1024, 2048] if args.quick else [1024, 4096, 16384]),
        "decoding": decoding([1000, 10_000] if args.quick else [10**3, 10**4, 10**5, 10**6]),
        "errors": errors(3000 if args.quick else 10**5),
    }
    hla = pa.plan(pa.catalog.hla(), {"D": 64, "C": 64}, "decoding")
    summary = {
        "masked to chunked macs, least": min(r["masked macs"] / r["chunked macs"] for r in parts["costs"]),
        "masked to steps macs, causal_linear": parts["costs"][0]["masked macs"] / parts["costs"][0]["steps macs"],
        "hla at 64 channels": {"state": hla.state_numbers, "macs a token": hla.macs},
        "slowest to fastest step": {
            n: max(t) / min(t)
            for n in ("causal_linear", "gla", "sliding_window")
            if (t := [r["seconds a token"] for r in parts["decoding"] if r["layer"] == n])
        },
    }
    for name, runs in parts.items():
        head = list(dict.fromkeys(k for r in runs for k in r))
        show(name, head, [[r.get(k, "") for k in head] for r in runs])
    print(summary)
    write(args, summary, [{"part of the benchmark": name, **run} for name, runs in parts.items() for run in runs])


if __name__ == "__main__":
    main()
