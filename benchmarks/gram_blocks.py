"""Whether computing half of a symmetric product pays on the CPU: XᵀX whole, against its blocks from the diagonal on.

With 2 x 2 blocks three products of a quarter are made instead of the whole, 3/4 of its multiply-accumulates, and the
fourth is the transposed second one. Ratios of medians of interleaved repeats, in time on the processor, so that other
load on the machine counts little; above 1 the blocks are the faster form.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from _common import arguments, show, write
from torch import Tensor

POINTS = ((784, 512), (3136, 256), (12544, 64), (12544, 512), (3136, 1024))


def whole(x: Tensor) -> Tensor:
    return x.mT @ x


def blocks(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    found = x.new_empty(x.shape[0], 2 * half, 2 * half)
    off = a.mT @ b
    torch.bmm(a.mT, a, out=found[:, :half, :half])
    torch.bmm(b.mT, b, out=found[:, half:, half:])
    found[:, :half, half:] = off
    found[:, half:, :half] = off.mT
    return found


def measure(positions: int, channels: int, batch: int, seconds: float) -> dict[str, Any]:
    x = torch.randn(batch, positions, channels)
    torch.testing.assert_close(blocks(x), whole(x), rtol=1e-3, atol=1e-2)
    times: dict[str, list[float]] = {"whole": [], "blocks": []}
    end = time.process_time() + seconds
    while len(times["whole"]) < 7 or time.process_time() < end:
        for name, form in (("whole", whole), ("blocks", blocks)):
            start = time.process_time()
            form(x)
            times[name].append(time.process_time() - start)
    ratio = statistics.median(times["whole"]) / statistics.median(times["blocks"])
    return {"N": positions, "C": channels, "B": batch, "whole / blocks": ratio, "seconds": times}


def main() -> None:
    args = arguments(__doc__)
    batches = (1,) if args.quick else (1, 8)
    runs = [measure(n, c, b, 0.3 if args.quick else 3.0) for n, c in POINTS for b in batches]
    show(
        "time of XᵀX over that of its blocks (4/3 by the arithmetic)",
        ("N", "C", "B", "whole / blocks"),
        [[r["N"], r["C"], r["B"], r["whole / blocks"]] for r in runs],
    )
    ratios = [r["whole / blocks"] for r in runs]
    write(args, {"points": len(runs), "most": max(ratios), "least": min(ratios)}, runs)


if __name__ == "__main__":
    with torch.no_grad():
        main()
