"""The planned choice against timing every candidate: how often it is within 10 % of the fastest.

Every candidate is run once; those within FAR times the quickest are timed in turn; then the chosen one against the one
that was fastest, with more repeats, so that the luckiest of many timings does not count as the fastest. Candidates run
as layers run them. One that would need too much memory or time is not run, and is counted.
"""

from __future__ import annotations

import gc
import time
from functools import partial
from typing import Any

import torch
from _common import arguments, interleaved, limit_memory, medians, ratio, resumed, show, sides, sizes_of, tensors_of
from layers_cpu import MOST_MEMORY, Call, forward_call, too_much, training_call

from polyattn import catalog, lower
from polyattn.lowering import calibrated, differentiable
from polyattn.planning import Plan, Question, question, ranked_plans

POINTS = ((196, 512), (784, 256), (3136, 128), (12544, 64))
BATCHES = (1, 8)
FAR = 3.0
"""A candidate whose first run took this many times the quickest one's is timed no further."""


def candidates(asked: Question) -> tuple[list[Plan], list[str]]:
    """The chosen plan first, then every other candidate that may be run; and why others are not."""
    first, *others = ranked_plans(asked, 1000)
    others = [p for p in others if p.graph != first.graph]
    reasons = [too_much(p, asked.objective == "training") for p in others]
    runnable = [p for p, why in zip(others, reasons, strict=True) if not why]
    return [first, *runnable], [why for why in reasons if why]


def once(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(name: str, positions: int, channels: int, batch: int, training: bool, seconds: float) -> dict[str, Any]:
    spec = catalog.get(name)
    sizes = sizes_of(spec, *sides(positions), channels)
    device = calibrated("cpu")
    asked = question(spec, {"B": batch, **sizes}, "training" if training else "forward", device=device)
    tensors = tensors_of(spec, sizes, batch)
    plans, left_out = candidates(asked)
    layers = [differentiable(p) if training else lower(p) for p in plans]
    with torch.no_grad():
        dy = torch.randn_like(layers[0](*tensors))
    calls = {
        str(k): training_call(layer, tensors, dy) if training else forward_call(layer, tensors)
        for k, layer in enumerate(layers)
    }
    alone = {k: once(call) for k, call in calls.items()}
    near = {k: call for k, call in calls.items() if k == "0" or alone[k] <= FAR * min(alone.values())}
    first = interleaved(near, seconds=seconds, least=3)
    fastest = min(first, key=medians(first).__getitem__)
    gc.collect()
    second = interleaved({k: calls[k] for k in {"0": None, fastest: None}}, seconds=seconds, least=11)
    return {
        "layer": name,
        "pass": "forward + backward" if training else "forward",
        "N": positions,
        "C": channels,
        "B": batch,
        "candidates": [p.strategy for p in plans],
        "fastest": int(fastest),
        "chosen / fastest": ratio(second, "0", fastest),
        "left_out": left_out,
        "once": {k: round(t, 7) for k, t in alone.items()},
        "first": {k: round(t, 7) for k, t in medians(first).items()},
        "second": {k: [round(t, 7) for t in times] for k, times in second.items()},
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    close = sum(r["chosen / fastest"] <= 1.1 for r in runs)
    return {"points": len(runs), "within 10 %": close, "share": close / len(runs)}


def main() -> None:
    args = arguments(__doc__, resumable=True)
    limit_memory(MOST_MEMORY)
    names = ("poly_nl", "e_nl") if args.quick else catalog.names("third_order")
    cases = {
        f"{name} {which} B={batch} N={positions} C={channels}": partial(
            measure, name, positions, channels, batch, which == "training", 0.5 if args.quick else 1.0
        )
        for positions, channels in (((784, 64),) if args.quick else POINTS)
        for batch in ((1,) if args.quick else BATCHES)
        for name in names
        for which in ("forward", "training")
    }
    runs = resumed(args, cases, summary)
    rows = [
        [r["case"], r["chosen / fastest"], r["candidates"][r["fastest"]], len(r["candidates"]), len(r["left_out"])]
        for r in runs
    ]
    head = ("case", "chosen / fastest", "fastest", "candidates", "not run")
    show("the plan's time over the fastest candidate's", head, rows)
    totals = summary(runs)
    show("summary", list(totals), [list(totals.values())])


if __name__ == "__main__":
    main()
