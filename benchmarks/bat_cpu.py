"""The BAT and non-local blocks against timm's on the CPU: the same weights, one interleaved run, times and peak memory.

The shapes are those of ResNet-50's four stages at 224 and at 448 pixels, with k = 4 groups, s = 7 and inner channels
C / 2; the transform alone has these inner channels. Every pair is first compared in its values. With `--out` the same
command goes on where it stopped; `--only "nl-448"` or `--only "transform-224 res3"` takes some of the cases.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import torch
from _common import arguments, geometric_mean, interleaved, medians, ratio, resumed, show
from _peak import peak_bytes
from timm.layers.non_local_attn import BatNonLocalAttn, BilinearAttnTransform, NonLocalAttn
from torch import Tensor, nn

import polyattn as pa

STAGES = ((256, 56), (512, 28), (1024, 14), (2048, 7))
"""Channels, and the side at 224 pixels."""

BATCHES = {224: 8, 448: 2}
LAYOUTS, PASSES = ("contiguous", "channels-last"), ("evaluation", "training")


def pair(part: str, channels: int) -> tuple[nn.Module, nn.Module, int]:
    """timm's block, ours with its weights, and the channels of their input."""
    inner = channels // 2
    if part == "transform":
        theirs: nn.Module = BilinearAttnTransform(inner, 7, 4)
        ours: nn.Module = pa.nn.BATransform(inner, block_size=7, groups=4, bias=False)
        channels = inner
    elif part == "bat":
        theirs = BatNonLocalAttn(channels, 7, 4, rd_channels=inner)
        ours = pa.nn.BATBlock(channels, block_size=7, groups=4, bias=False)
    else:
        theirs, ours = NonLocalAttn(channels, rd_channels=inner), pa.nn.NonLocal(channels)
        nn.init.ones_(theirs.norm.weight)
    return theirs, pa.nn.load_weights(ours, theirs.state_dict(), "timm"), channels


def evaluation(block: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    block = block.eval()

    def call() -> Tensor:
        with torch.no_grad():
            return block(x)

    return call


def training(block: nn.Module, x: Tensor, seed: Tensor) -> Callable[[], Tensor]:
    block = block.train()
    leaf = x.detach().requires_grad_()

    def call() -> Tensor:
        torch.autograd.grad(block(leaf), [leaf, *block.parameters()], seed)
        return leaf

    return call


def measure(part: str, pixels: int, stage: int, layout: str, which: str, budget: float) -> dict[str, Any]:
    """One pass of both blocks at one stage's map: times of one interleaved run, and the peak of memory."""
    channels, side = STAGES[stage]
    side = side * pixels // 224
    torch.manual_seed(0)
    theirs, ours, channels = pair(part, channels)
    x = torch.randn(BATCHES[pixels], channels, side, side)
    x = x.contiguous(memory_format=torch.channels_last if layout == "channels-last" else torch.contiguous_format)
    checked = {"timm": evaluation(theirs, x)(), "polyattn": evaluation(ours, x)()}
    error = float((checked["polyattn"] - checked["timm"]).norm() / checked["timm"].norm())
    assert error < 1e-5, f"{part}: differs by {error:.1e}"
    seed = torch.randn_like(x)
    make = evaluation if which == "evaluation" else lambda block, x: training(block, x, seed)
    calls = {"timm": make(theirs, x), "polyattn": make(ours, x)}
    seconds = interleaved(calls, seconds=budget, least=3)
    peaks = {name: peak_bytes(call, "cpu") for name, call in calls.items()}
    gc.collect()
    return {
        "block": part,
        "stage": f"res{stage + 2}",
        "pixels": pixels,
        "shape": list(x.shape),
        "layout": layout,
        "pass": which,
        "medians": medians(seconds),
        "times faster": ratio(seconds, "timm", "polyattn"),
        "peak bytes": peaks,
        "times less memory": peaks["timm"] / peaks["polyattn"],
        "seconds": seconds,
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Ratios of each block at each number of pixels in each pass."""
    found: dict[str, Any] = {}
    for key in dict.fromkeys((r["block"], r["pixels"], r["pass"]) for r in runs):
        mine = [r for r in runs if (r["block"], r["pixels"], r["pass"]) == key]
        for what in ("times faster", "times less memory"):
            values = [r[what] for r in mine]
            found[f"{key[0]}-{key[1]}, {key[2]}, {what}"] = {
                "points": len(values),
                "geometric mean": geometric_mean(values),
                "median": statistics.median(values),
                "least": min(values),
            }
    return found


def main() -> None:
    args = arguments(__doc__, resumable=True)
    cases = {}
    for part, pixels, stage, layout, which in product(
        ("transform", "bat", "nl"), BATCHES, (1,) if args.quick else range(len(STAGES)), LAYOUTS, PASSES
    ):
        name = f"{part}-{pixels} res{stage + 2} {layout} {which}"
        cases[name] = partial(measure, part, pixels, stage, layout, which, 0.5 if args.quick else 2.0)
    runs = resumed(args, cases, summary)
    head = ("case", "shape", "ms", "faster", "MB", "less")
    rows = [
        [
            *(r["case"], "x".join(map(str, r["shape"]))),
            *(1e3 * r["medians"]["polyattn"], r["times faster"]),
            *(r["peak bytes"]["polyattn"] / 1e6, r["times less memory"]),
        ]
        for r in runs
    ]
    show("against timm's", head, rows)
    total = summary(runs)
    show("summary", ("what", "points", "mean", "median", "least"), [(k, *v.values()) for k, v in total.items()])


if __name__ == "__main__":
    main()
