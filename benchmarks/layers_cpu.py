"""Layers on the CPU: the planned form against the paper's own, torch.einsum with opt_einsum, and torch.compile.

Forward, and forward with backward, in float32. Every ratio is one of medians of interleaved repeats; above 1 the
planned form is the faster one; it runs as layers run it, with the planned backward pass where that pays. The rate of a
large matrix product and the bandwidth of a large copy are measured between the same repeats. "floor" is the share of
that rate that the planned form reaches, by its multiply-accumulates; "roofline" counts for each step the larger of its
arithmetic at that rate and its traffic at that bandwidth, as though nothing stayed in a cache.

Forms that would need more than MOST_BYTES or MOST_SECONDS are left out, and so is one that fails to allocate; the
reasons are printed and written.
"""

from __future__ import annotations

import gc
import statistics
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from _common import (
    arguments,
    geometric_mean,
    interleaved,
    limit_memory,
    medians,
    ratio,
    resumed,
    show,
    sides,
    sizes_of,
    tensors_of,
)
from _papers import CHANNELS_FIRST, FORMS, Layer, channels_first, einsum_form
from torch import Tensor

from polyattn import Spec, catalog, lower, plan
from polyattn.lowering import differentiable
from polyattn.planning import Device, Leaf, Plan

POINTS = ((196, 1024), (784, 512), (3136, 256), (12544, 64), (65536, 64))
BATCHES = (1, 8)
MOST_BYTES = 4 * 2**30
MOST_SECONDS = 5.0
MOST_MEMORY = 14.0
"""GiB of the whole process."""
COPIED = 2**24
"""Entries of the large copy: 64 MiB from and to."""
ASSUMED_RATE = 50e9
"""Multiply-accumulates a second, for saying beforehand what would take too long."""

Call = Callable[[], object]


def forward_call(layer: Layer, tensors: Sequence[Tensor]) -> Call:
    def call() -> object:
        with torch.no_grad():
            return layer(*tensors)

    return call


def training_call(layer: Layer, tensors: Sequence[Tensor], seed: Tensor) -> Call:
    wanted = [t.detach().requires_grad_() for t in tensors]

    def call() -> object:
        return torch.autograd.grad(layer(*wanted), wanted, seed)

    return call


def compiled(layer: Layer) -> Layer:
    torch._dynamo.reset()
    return torch.compile(layer, fullgraph=True, dynamic=False)


def too_much(written: Plan, training: bool) -> str:
    """Why a form by the author's order is not run here; empty where it is."""
    graph = written.graph
    kept = sum(graph.bytes_of(k) for k, node in enumerate(graph.nodes) if not isinstance(node, Leaf))
    largest = max(graph.bytes_of(k) for k in range(len(graph.nodes)))
    needed = kept + 2 * largest if training else written.peak_bytes
    if needed > MOST_BYTES:
        return f"would need {needed / 2**30:.1f} GiB"
    seconds = written.macs * (3 if training else 1) / ASSUMED_RATE
    return f"would take {seconds:.0f} s a run" if seconds > MOST_SECONDS else ""


def contenders(name: str, planned: Plan, tensors: list[Tensor], training: bool) -> tuple[dict[str, Call], dict]:
    """The calls to time, and the reasons why some are left out."""
    spec, sizes = planned.spec, planned.sizes
    mine = differentiable(planned) if training else lower(planned)
    first = name in CHANNELS_FIRST
    theirs = channels_first(tensors) if first else tensors
    with torch.no_grad():
        output = mine(*tensors)
    generator = torch.Generator().manual_seed(1)
    seed = torch.randn(output.shape, generator=generator)
    seed_theirs = seed.movedim(-1, 1).contiguous() if first else seed

    def call(layer: Layer, values: Sequence[Tensor], dy: Tensor) -> Call:
        return training_call(layer, values, dy) if training else forward_call(layer, values)

    calls, left_out = {"planned": call(mine, tensors, seed)}, {}
    calls["einsum"] = call(einsum_form(spec, sizes), tensors, seed)
    why = too_much(plan(spec, {"B": planned.batch, **sizes}, "as_written"), training)
    if why:
        left_out |= {"paper": why, "compiled": why}
    else:
        calls["paper"] = call(FORMS[name], theirs, seed_theirs)
        calls["compiled"] = call(compiled(FORMS[name]), theirs, seed_theirs)
    return calls, left_out


def agree(name: str, calls: dict[str, Call], left_out: dict[str, str], training: bool) -> None:
    """Check all contenders against the planned form; one that does not compile or allocate is left out."""
    reference = calls["planned"]()
    for other in [k for k in calls if k != "planned"]:
        try:
            values = calls[other]()
        except Exception as error:
            if other != "compiled" and "alloc" not in str(error):
                raise
            left_out[other] = f"failed: {type(error).__name__}: {str(error)[:200]}"
            del calls[other]
            continue
        pairs = zip(reference, values, strict=True) if training else [(reference, values)]
        for mine, theirs in pairs:
            if name in CHANNELS_FIRST and other != "einsum" and mine.dim() == theirs.dim() == 4:
                theirs = theirs.movedim(1, -1)
            error = float((mine - theirs).norm() / theirs.norm().clamp_min(1e-20))
            assert error < 1e-3, f"{name}: {other} differs by {error:.1e}"


def measure(name: str, positions: int, channels: int, batch: int, training: bool, budget: float) -> dict[str, Any]:
    spec: Spec = catalog.get(name)
    height, width = sides(positions)
    sizes = sizes_of(spec, height, width, channels)
    planned = plan(spec, {"B": batch, **sizes}, "training" if training else "forward")
    tensors = tensors_of(spec, sizes, batch)
    calls, left_out = contenders(name, planned, tensors, training)
    agree(name, calls, left_out, training)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    source, target = torch.randn(COPIED), torch.empty(COPIED)
    seconds = interleaved(
        {**calls, "matmul": lambda: a @ b, "copy": lambda: target.copy_(source)}, seconds=budget, least=3
    )
    gc.collect()
    macs = planned.training_macs if training else planned.macs
    rate = 1024**3 / statistics.median(seconds["matmul"])
    bandwidth = 8 * COPIED / statistics.median(seconds["copy"])
    mine = statistics.median(seconds["planned"])
    return {
        "layer": name,
        "pass": "forward + backward" if training else "forward",
        "N": positions,
        "C": channels,
        "B": batch,
        "sizes": sizes,
        "strategy": planned.strategy,
        "macs": macs,
        "matrix_rate": rate,
        "bandwidth": bandwidth,
        "floor_share": macs / rate / mine,
        "roofline_share": roofline(planned, training, rate, bandwidth) / mine,
        "medians": medians(seconds),
        "ratios": {other: ratio(seconds, other, "planned") for other in calls if other != "planned"},
        "left_out": left_out,
        "seconds": seconds,
    }


def roofline(planned: Plan, training: bool, rate: float, bandwidth: float) -> float:
    """Seconds of a plan's steps at a matrix rate and a bandwidth, however narrow its matrices are."""
    device = Device("this run", rate, bandwidth, 0.0, 0)
    seconds = device.seconds(planned.graph)
    if training:
        seconds += 2 * seconds if planned.backward is None else device.seconds(planned.backward.graph)
    return seconds


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for which in ("forward", "forward + backward"):
        mine = [r for r in runs if r["pass"] == which]
        for other in ("paper", "einsum", "compiled"):
            ratios = [r["ratios"][other] for r in mine if other in r["ratios"]]
            if ratios:
                found[f"{which} against {other}"] = {
                    "points": len(ratios),
                    "geometric mean": geometric_mean(ratios),
                    "least": min(ratios),
                    "below 0.95": sum(r < 0.95 for r in ratios),
                }
        for field, words in (("floor_share", "floor"), ("roofline_share", "roofline")):
            shares = [r[field] for r in mine if r["N"] >= 4 * r["C"]]
            if shares:
                found[f"{which}, share of the {words} at N >= 4 C"] = {
                    "points": len(shares),
                    "median": statistics.median(shares),
                    "least": min(shares),
                    "at least 0.8": sum(s >= 0.8 for s in shares),
                }
    return found


def main() -> None:
    args = arguments(__doc__, resumable=True)
    limit_memory(MOST_MEMORY)
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.backends.opt_einsum.strategy = "optimal"
    points = ((784, 64), (3136, 32)) if args.quick else POINTS
    cases = {
        f"{name} {which} B={batch} N={positions} C={channels}": partial(
            measure, name, positions, channels, batch, which == "training", 1.0 if args.quick else 2.0
        )
        for positions, channels in points
        for batch in ((1,) if args.quick else BATCHES)
        for name in FORMS
        for which in ("forward", "training")
    }
    runs = resumed(args, cases, summary, fields=("roofline_share",))
    head = ("case", "ms", "paper", "einsum", "compiled", "floor", "roofline", "strategy")
    rows = [
        [r["case"], 1e3 * r["medians"]["planned"]]
        + [r["ratios"].get(k, "-") for k in ("paper", "einsum", "compiled")]
        + [r["floor_share"], r["roofline_share"], r["strategy"]]
        for r in runs
    ]
    show("times of the others over the planned form's", head, rows)
    left_out = [(r["case"], form, why) for r in runs for form, why in r["left_out"].items()]
    show("left out", ("case", "form", "why"), left_out)
    totals = summary(runs)
    show(
        "summary", ("what", "points", "mean / median", "least", "count"), [(k, *v.values()) for k, v in totals.items()]
    )


if __name__ == "__main__":
    main()
