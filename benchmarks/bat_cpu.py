"""The BAT and non-local blocks against timm's on the CPU: the same weights, one interleaved run, times and peak memory.

The shapes are those of ResNet-50's four stages at 224 and at 448 pixels, with k = 4 groups, s = 7 and inner channels
C / 2; the transform alone has these inner channels. Every pair is first compared in its values.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from typing import Any

import torch
from _common import arguments, geometric_mean, interleaved, medians, ratio, show, write
from timm.layers.non_local_attn import BatNonLocalAttn, BilinearAttnTransform, NonLocalAttn
from torch import Tensor, nn

import polyattn as pa

STAGES = ((256, 56), (512, 28), (1024, 14), (2048, 7))
"""Channels, and the side at 224 pixels."""

BATCHES = {224: 8, 448: 2}
PARTS = tuple(f"{block}-{pixels}" for block in ("transform", "bat", "nl") for pixels in BATCHES)


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


def peak_bytes(call: Callable[[], object]) -> int:
    """The most bytes that one call has allocated at once."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    assert profile.profiler is not None
    changes = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    total = most = 0
    for event in sorted(changes, key=lambda e: e.start_ns()):
        total += event.nbytes()
        most = max(most, total)
    return most


def measure(part: str, pixels: int, stage: int, budget: float) -> list[dict[str, Any]]:
    channels, side = STAGES[stage]
    side = side * pixels // 224
    theirs, ours, channels = pair(part, channels)
    runs = []
    for layout in ("contiguous", "channels-last"):
        x = torch.randn(BATCHES[pixels], channels, side, side)
        x = x.contiguous(memory_format=torch.channels_last if layout == "channels-last" else torch.contiguous_format)
        seed = torch.randn_like(x)
        for which in ("evaluation", "training"):
            make = evaluation if which == "evaluation" else lambda block, x, seed=seed: training(block, x, seed)
            calls = {"timm": make(theirs, x), "polyattn": make(ours, x)}
            if which == "evaluation":
                error = float((calls["polyattn"]() - calls["timm"]()).norm() / calls["timm"]().norm())
                assert error < 1e-5, f"{part}: differs by {error:.1e}"
            seconds = interleaved(calls, seconds=budget, least=3)
            peaks = {name: peak_bytes(call) for name, call in calls.items()}
            runs.append(
                {
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
            )
            gc.collect()
            print(".", end="", flush=True)
    return runs


def main() -> None:
    args = arguments(__doc__, PARTS)
    block, pixels = args.part.split("-")
    runs = []
    for stage in (1,) if args.quick else range(len(STAGES)):
        runs += measure(block, int(pixels), stage, 0.5 if args.quick else 2.0)
    print()
    head = ("stage", "pixels", "shape", "layout", "pass", "ms", "faster", "MB", "less")
    rows = [
        [
            *(r["stage"], r["pixels"], "x".join(map(str, r["shape"])), r["layout"], r["pass"]),
            *(1e3 * r["medians"]["polyattn"], r["times faster"]),
            *(r["peak bytes"]["polyattn"] / 1e6, r["times less memory"]),
        ]
        for r in runs
    ]
    show(f"{args.part} against timm's", head, rows)
    summary = {}
    for which in ("evaluation", "training"):
        mine = [r for r in runs if r["pass"] == which]
        for what in ("times faster", "times less memory"):
            values = [r[what] for r in mine]
            summary[f"{which}, {what}"] = {
                "points": len(values),
                "geometric mean": geometric_mean(values),
                "median": statistics.median(values),
                "least": min(values),
            }
    show("summary", ("what", "points", "mean", "median", "least"), [(k, *v.values()) for k, v in summary.items()])
    write(args, {"part": args.part, **summary}, runs)


if __name__ == "__main__":
    main()
