"""Maps of more than 32 MiB on a processor: what pages of 2 MiB save, which torch asks for if THP_MEM_ALLOC_ENABLE=1.

glibc takes so large a block from the system and gives it back when it is freed (mallopt(3), M_MMAP_THRESHOLD), so every
such result of a call is new memory, page by page of 4 KiB. Two processes, one with the variable, hold the same layer
and take turns, one call each.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _common import arguments, medians, ratio, resumed, show, sides, sizes_of, tensors_of
from layers_cpu import forward_call, training_call

from polyattn import catalog, plan
from polyattn.lowering import differentiable

LAYERS = ("poly_nl", "e_nl", "ba_transform_block")
POINTS = ((8, 65536, 64), (1, 65536, 64))
VARIABLE = "THP_MEM_ALLOC_ENABLE"
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def serve(name: str, batch: int, positions: int, channels: int, training: bool) -> None:
    """Call the layer once for each line of the input, and answer with the seconds."""
    spec = catalog.get(name)
    sizes = sizes_of(spec, *sides(positions), channels)
    tensors = tensors_of(spec, sizes, batch)
    layer = differentiable(plan(spec, {"B": batch, **sizes}, "training" if training else "forward"))
    call = training_call(layer, tensors, torch.randn_like(tensors[0])) if training else forward_call(layer, tensors)
    for _ in sys.stdin:
        start = time.perf_counter()
        call()
        print(round(time.perf_counter() - start, 7), flush=True)


def measure(name: str, batch: int, positions: int, channels: int, training: bool, rounds: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--serve", name, str(batch), str(positions), str(channels), str(int(training))]
    workers = {
        pages: subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, VARIABLE: value}
        )
        for pages, value in (("4 KiB", "0"), ("2 MiB", "1"))
    }

    def once(pages: str) -> float:
        worker = workers[pages]
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
        return float(worker.stdout.readline())

    try:
        for pages in workers:
            once(pages)
        draw = random.Random(0)
        seconds: dict[str, list[float]] = {pages: [] for pages in workers}
        for _ in range(rounds):
            for pages in draw.sample(list(workers), 2):
                seconds[pages].append(once(pages))
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    return {
        "layer": name,
        "pass": "forward + backward" if training else "forward",
        "B": batch,
        "N": positions,
        "C": channels,
        "times faster": ratio(seconds, "4 KiB", "2 MiB"),
        "seconds": seconds,
    }


def main() -> None:
    args = arguments(__doc__, resumable=True)
    setting = SETTING.read_text() if SETTING.exists() else ""
    if "[madvise]" not in setting and "[always]" not in setting:
        sys.exit(f"this system has no pages of 2 MiB to give: {SETTING} says {setting.strip() or 'nothing'}")
    points = ((1, 16384, 64),) if args.quick else POINTS
    cases = {
        f"{name} {'training' if training else 'forward'} B={b} N={n} C={c}": partial(
            measure, name, b, n, c, training, 3 if args.quick else 11
        )
        for b, n, c in points
        for name in LAYERS
        for training in (False, True)
    }
    runs = resumed(args, cases, lambda runs: {"setting": setting.strip(), "points": len(runs)})
    show(
        "with pages of 2 MiB",
        ("case", "times faster", "ms with 4 KiB", "ms with 2 MiB"),
        [[r["case"], r["times faster"], *(1e3 * t for t in medians(r["seconds"]).values())] for r in runs],
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        words: list[Any] = sys.argv[2:]
        serve(words[0], *map(int, words[1:4]), bool(int(words[4])))
    else:
        main()
