"""The planned choice against timing every candidate: how often it is within 10 % of the fastest.

All candidates are timed in turn; then the chosen one against the one that was fastest, with more repeats, so that the
luckiest of many timings does not count as the fastest.
"""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

import torch
from _common import arguments, interleaved, medians, ratio, resumed, show, sides, sizes_of, tensors_of
from layers_cpu import forward_call, too_much, training_call

from polyattn import catalog, lower
from polyattn.lowering import calibrated, training_function
from polyattn.planning import Plan, Question, question, ranked_plans

POINTS = ((196, 512), (784, 256), (3136, 128), (12544, 64))
BATCHES = (1, 8)


def candidates(asked: Question) -> list[Plan]:
    """The chosen plan first, then every other candidate that may be run."""
    first, *others = ranked_plans(asked, 1000)
    training = asked.objective == "training"
    return [first, *(p for p in others if p.graph != first.graph and not too_much(p, training))]


def measure(name: str, positions: int, channels: int, batch: int, training: bool, seconds: float) -> dict[str, Any]:
    spec = catalog.get(name)
    sizes = sizes_of(spec, *sides(positions), channels)
    device = calibrated("cpu")
    asked = question(spec, {"B": batch, **sizes}, "training" if training else "forward", device=device)
    tensors = tensors_of(spec, sizes, batch)
    plans = candidates(asked)
    layers = [training_function(p) if training else lower(p) for p in plans]
    with torch.no_grad():
        dy = torch.randn_like(layers[0](*tensors))
    calls = {
        str(k): training_call(layer, tensors, dy) if training else forward_call(layer, tensors)
        for k, layer in enumerate(layers)
    }
    first = interleaved(calls, seconds=seconds)
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
        "first": first,
        "second": second,
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    close = sum(r["chosen / fastest"] <= 1.1 for r in runs)
    return {"points": len(runs), "within 10 %": close, "share": close / len(runs)}


def main() -> None:
    args = arguments(__doc__, resumable=True)
    names = ("poly_nl", "e_nl") if args.quick else catalog.names()
    cases = {
        f"{name} {which} B={batch} N={positions} C={channels}": partial(
            measure, name, positions, channels, batch, which == "training", 1.0 if args.quick else 2.0
        )
        for positions, channels in (((784, 64),) if args.quick else POINTS)
        for batch in ((1,) if args.quick else BATCHES)
        for name in names
        for which in ("forward", "training")
    }
    runs = resumed(args, cases, summary)
    rows = [[r["case"], r["chosen / fastest"], r["candidates"][r["fastest"]]] for r in runs]
    show("the plan's time over the fastest candidate's", ("case", "chosen / fastest", "fastest"), rows)
    totals = summary(runs)
    show("summary", list(totals), [list(totals.values())])


if __name__ == "__main__":
    main()
