"""The planned choice against timing every candidate: how often it is within 10 % of the fastest.

All candidates are timed in turn; then the chosen one against the one that was fastest, with more repeats, so that the
luckiest of many timings does not count as the fastest.
"""

from __future__ import annotations

import gc
from typing import Any

import torch
from _common import arguments, interleaved, medians, ratio, show, sides, sizes_of, tensors_of, write
from layers_cpu import forward_call, too_much, training_call

from polyattn import catalog, lower, plan
from polyattn.lowering import training_function
from polyattn.planning.plan import Plan, _candidates, _with_backward

POINTS = ((196, 512), (784, 256), (3136, 128), (12544, 64))
BATCHES = (1, 8)


def candidates(planned: Plan, training: bool) -> list[Plan]:
    """The chosen plan first, then every other candidate that may be run."""
    spec, found = planned.spec, [planned]
    for strategy, graph in _candidates(spec, dict(planned.graph.sizes)):
        other = Plan(spec, planned.objective, strategy, graph)
        if graph != planned.graph and not too_much(other, training):
            found.append(_with_backward(other) if training else other)
    return found


def measure(name: str, positions: int, channels: int, batch: int, training: bool, seconds: float) -> dict[str, Any]:
    spec = catalog.get(name)
    sizes = sizes_of(spec, *sides(positions), channels)
    planned = plan(spec, {"B": batch, **sizes}, "training" if training else "forward")
    tensors = tensors_of(spec, sizes, batch)
    plans = candidates(planned, training)
    layers = [training_function(p) if training else lower(p) for p in plans]
    with torch.no_grad():
        dy = torch.randn_like(layers[0](*tensors))
    calls = {
        str(k): training_call(layer, tensors, dy) if training else forward_call(layer, tensors)
        for k, layer in enumerate(layers)
    }
    first = interleaved(calls, seconds=seconds)
    fastest = min(first, key=medians(first).__getitem__)
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
        "first": first,
        "second": second,
    }


def main() -> None:
    args = arguments(__doc__)
    names = ("poly_nl", "e_nl") if args.quick else catalog.names()
    runs = []
    for positions, channels in ((784, 64),) if args.quick else POINTS:
        for batch in (1,) if args.quick else BATCHES:
            for name in names:
                for training in (False, True):
                    runs.append(measure(name, positions, channels, batch, training, 1.0 if args.quick else 3.0))
                    gc.collect()
    head = ("layer", "pass", "N", "C", "B", "chosen / fastest", "fastest")
    show(
        "the plan's time over the fastest candidate's",
        head,
        [[*(r[k] for k in head[:-1]), r["candidates"][r["fastest"]]] for r in runs],
    )
    close = sum(r["chosen / fastest"] <= 1.1 for r in runs)
    summary = {"points": len(runs), "within 10 %": close, "share": close / len(runs)}
    show("summary", list(summary), [list(summary.values())])
    write(args, summary, runs)


if __name__ == "__main__":
    main()
