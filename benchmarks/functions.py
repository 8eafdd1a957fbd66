"""Layers with functions: the planned backward pass against autograd's, where neither wins arithmetic or memory.

The rule that says when a planned backward pass is taken (`polyattn.lowering.training`) leaves such layers to autograd;
here is what that costs or saves. Inputs are small, so that softmax does not saturate: denormal gradients
slow a processor down and say nothing of either program.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from _common import arguments, interleaved, ratio, resumed, show, sides, sizes_of, tensors_of
from layers_cpu import training_call

from polyattn import catalog, lower, plan
from polyattn.lowering import as_function, calibrated, training_function
from polyattn.lowering.training import backward_pays

LAYERS = {"nl": partial(catalog.nl, softmax=True), "e_nl": partial(catalog.e_nl, softmax=True)}
POINTS = ((1, 49, 1024), (1, 196, 256), (1, 196, 1024), (1, 784, 256), (1, 784, 512), (8, 196, 512), (8, 784, 256))
SMALL = 0.1
"""The input's standard deviation."""


def measure(name: str, batch: int, positions: int, channels: int, seconds: float) -> dict[str, Any]:
    spec = LAYERS[name]()
    sizes = sizes_of(spec, *sides(positions), channels)
    made = plan(spec, sizes, "training", batch=batch)
    assert made.backward is not None
    x, *parameters = tensors_of(spec, sizes, batch)
    programs = {"planned": training_function(made), "autograd": as_function(lower(made))}
    dy = torch.randn_like(programs["autograd"](SMALL * x, *parameters))
    calls = {which: training_call(call, [SMALL * x, *parameters], dy) for which, call in programs.items()}
    times = interleaved(calls, seconds=seconds, least=11, most=400)
    return {
        "layer": name,
        "B": batch,
        "N": positions,
        "C": channels,
        "MACs / autograd's": made.backward_macs / (2 * made.macs),
        "chosen": "planned" if backward_pays(made, calibrated("cpu")) else "autograd",
        "planned / autograd": ratio(times, "planned", "autograd"),
        "seconds": {which: [round(t, 9) for t in taken] for which, taken in times.items()},
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The chosen program's time over the other's: how much is lost where the rule is wrong."""
    shares = [r["planned / autograd"] if r["chosen"] == "planned" else 1 / r["planned / autograd"] for r in runs]
    return {"points": len(runs), "chosen / other, at most": max(shares), "at least": min(shares)}


def main() -> None:
    args = arguments(__doc__, resumable=True)
    torch.set_flush_denormal(True)
    cases = {
        f"{name} B={b} N={n} C={c}": partial(measure, name, b, n, c, 0.5 if args.quick else 6.0)
        for b, n, c in (POINTS[:2] if args.quick else POINTS)
        for name in LAYERS
    }
    runs = resumed(args, cases, summary)
    head = ("case", "planned / autograd", "chosen", "MACs / autograd's")
    show("the backward pass of layers with functions", head, [[r["case"], *(r[h] for h in head[1:])] for r in runs])
    totals = summary(runs)
    show("summary", list(totals), [list(totals.values())])


if __name__ == "__main__":
    main()
