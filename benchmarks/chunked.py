"""Poly-NL and E-NL on a memory-mapped map of 8 GB, forward and backward: seconds and memory beyond the page cache.

    python benchmarks/chunked.py --out benchmarks/results/chunked.json [--gigabytes 0.5 1 2 4 8] [--folder DIR]

Two files of the map's size are written in the folder, and deleted at the end: the input, which also serves as the
output's gradient, and the output, which the input's gradient then overwrites. Memory is the largest RssAnon that
/proc/self/status shows in between, which leaves out pages of mapped files.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import resumed

import polyattn as pa

CHANNELS = 64
LAYERS = {
    "poly_nl": lambda: pa.nn.PolyNL(CHANNELS, dim=1, beta=1.0),
    "e_nl softmax": lambda: pa.nn.EfficientNL(CHANNELS, reduction=4, dim=1),
}


def anonymous() -> int:
    """Bytes of this process's memory that are no pages of files."""
    found = re.search(r"^RssAnon:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found, "the kernel does not tell RssAnon"
    return 1024 * int(found[1])


@contextmanager
def watched(seen: dict[str, float]) -> Iterator[None]:
    """Seconds, those of the processor, and the largest RssAnon, sampled a hundred times a second."""
    end = threading.Event()

    def sample() -> None:
        while not end.wait(0.01):
            seen["rss_anon"] = max(seen["rss_anon"], anonymous())

    seen["rss_anon"] = anonymous()
    thread = threading.Thread(target=sample)
    thread.start()
    start, busy = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        seen["seconds"], seen["cpu_seconds"] = time.perf_counter() - start, time.process_time() - busy
        end.set()
        thread.join()


def measure(name: str, gigabytes: float, folder: Path | None, positions: int) -> dict[str, Any]:
    torch.manual_seed(0)
    length = int(gigabytes * 1e9 / 4 / CHANNELS)
    layer = LAYERS[name]()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(0.5)
    with tempfile.TemporaryDirectory(dir=folder) as where:
        x, out = (np.memmap(f"{where}/{k}", np.float32, "w+", shape=(1, CHANNELS, length)) for k in ("x", "out"))
        generator = np.random.default_rng(0)
        for start in range(0, length, positions):
            some = x[:, :, start : start + positions]
            some[:] = generator.standard_normal(some.shape, np.float32)
        streamed = pa.nn.chunked(layer, positions)
        forward, backward = {}, {}
        before = anonymous()
        with watched(forward):
            streamed.stream(x, out)
        checked = _check(layer, x, out, positions)
        with watched(backward):
            streamed.stream_backward(x, x, out)
    return {
        "layer": name,
        "map_bytes": 4 * CHANNELS * length,
        "positions": length,
        "channels": CHANNELS,
        "piece": positions,
        "rss_anon_before": before,
        "forward": forward,
        "backward": backward,
        "off_by": checked,
    }


def _check(layer: torch.nn.Module, x: np.ndarray, out: np.ndarray, positions: int) -> float | None:
    """For Poly-NL, how far the last rows are from Eq. 6 with the mean in float64; relative to the largest."""
    if not isinstance(layer, pa.nn.PolyNL):
        return None
    w1, w2, w3 = (getattr(layer, n).detach().double().numpy() for n in ("w1", "w2", "w3"))
    mean = np.zeros(CHANNELS)
    for start in range(0, x.shape[2], positions):
        rows = x[0, :, start : start + positions].T.astype(np.float64)
        mean += ((rows @ w1) * (rows @ w2)).sum(0) / x.shape[2]
    rows = x[0, :, -100:].T.astype(np.float64)
    alpha, beta = layer.alpha.item(), layer.beta.item()
    y = alpha * rows + beta * (rows * mean) @ w3
    return float(np.abs(out[0, :, -100:].T - y).max() / np.abs(y).max())


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The largest memory, and processor seconds a gigabyte by size, which are equal where time is linear."""
    return {
        "largest_rss_anon": max(r[part]["rss_anon"] for r in runs for part in ("forward", "backward")),
        "cpu_seconds_per_gigabyte": {
            f"{r['layer']} {r['map_bytes'] / 1e9:g} GB": round(
                (r["forward"]["cpu_seconds"] + r["backward"]["cpu_seconds"]) / r["map_bytes"] * 1e9, 3
            )
            for r in runs
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to write the results as JSON")
    parser.add_argument("--quick", action="store_true", help="maps of 20 MB only")
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.5, 1, 2, 4, 8])
    parser.add_argument("--folder", type=Path, help="where there is room for two maps")
    parser.add_argument("--positions", type=int, default=2**16, help="in memory at once")
    parser.add_argument("--only", default="", help="only cases whose name has this text")
    parser.add_argument("--most-minutes", type=float, default=float("inf"))
    args = parser.parse_args()
    cases = {
        f"{name}, {size:g} GB": lambda name=name, size=size: measure(name, size, args.folder, args.positions)
        for name in LAYERS
        for size in ([0.02] if args.quick else args.gigabytes)
    }
    for run in resumed(args, cases, summary):
        print(
            f"{run['case']}: forward {run['forward']['seconds']:.1f} s, backward {run['backward']['seconds']:.1f} s,"
            f" at most {max(run['forward']['rss_anon'], run['backward']['rss_anon']) / 1e6:.0f} MB"
        )


if __name__ == "__main__":
    main()
