"""Fused kernels and layers on a GPU: correctness first, then every measurement, in one command and one JSON file.

Usage: python benchmarks/gpu.py [--out results.json] [--quick] [--minutes 8.5] [--rehearse]

1. Every kernel against its definition in float64, values and gradients, in each dtype and memory layout, at sizes that
   are no multiples of a tile; and, on all cores, every kernel and layer compiled that is timed later. Where one is
   wrong or fails, the file says so, the command's status is 1, and what it had a part in counts for nothing.
2. Two ceilings, measured here: bytes per second of a large copy, and multiply-accumulates per second of a large matrix
   product in each dtype.
3. Kernels and layers, bfloat16: median times of CUDA graphs replayed in turns (the cache flushed before each), and how
   near they are to the larger of MACs / rate and bytes / bandwidth. Torch's own way to the same values stands beside
   each. "called" is the time of a call from Python on an idle device.
4. How the time of a layer grows with the number of positions, and the goals that these figures are to meet.

The file is written anew after each of these, and after each row.

`--rehearse` runs all of it once at tiny sizes in Triton's interpreter, on a machine without a GPU: what would stop a
run on one shows itself before. Its times mean nothing.

What a run needs: torch with CUDA, triton, numpy, sympy, opt_einsum; for planning lark, igraph, texttable and
platformdirs. Where some are missing and there is no package index, fetch their wheels for that Python and platform
elsewhere (`pip download --no-deps --only-binary=:all: --python-version ... --platform ... -d wheels lark igraph
texttable platformdirs`), carry the folder along, install it there (`pip install --no-index --no-deps --target site
wheels/*.whl`), and put `site` and the root of this repository on PYTHONPATH. With timm there its BA-Transform is
compared too; without it that is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from math import inf
from pathlib import Path
from typing import Any


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to write the JSON; gpu.json, and nowhere in a rehearsal")
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--quick", action="store_true", help="one size")
    parser.add_argument("--rehearse", action="store_true", help="run everything once on the CPU, and time nothing")
    return parser.parse_args(arguments)


def main() -> int:
    args = parsed()
    if args.rehearse:
        os.environ |= {"TRITON_INTERPRET": "1", "POLYATTN_TUNING": "off"}  # before triton is imported
    import torch
    from _gpu.bench import REHEARSED, Bench, Sizes

    if not args.rehearse and not torch.cuda.is_available():
        print("error: this benchmark measures a GPU, and torch finds none; --rehearse needs none", file=sys.stderr)
        return 2
    torch.manual_seed(0)
    end = time.perf_counter() + 60 * args.minutes
    bench = Bench("cpu", inf, REHEARSED) if args.rehearse else Bench("cuda", end, Sizes())
    out = args.out if args.rehearse or args.out else Path("gpu.json")

    def write(record: dict[str, Any]) -> None:
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(record, indent=1) + "\n")

    record = measured(bench, args.quick, write)
    write(record)
    return int(bool(record["failed"]) or not all(c["right"] for c in record["correctness"]))


PREPARED = 0.55
"""The share of the time that checks and compilation may take."""


def measured(bench: Any, quick: bool, write: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Everything, written as it comes."""
    import torch
    import triton
    from _gpu.bench import Table, ceilings
    from _gpu.checks import correctness, ways
    from _gpu.kernels import attention_rows, bilinear_rows, product_rows
    from _gpu.layers import bat_rows, enl_rows, goals, growth, poly_nl_rows
    from _gpu.prepare import Job, compile_growth, compiled, on_all_cores

    from polyattn.kernels import tuning

    started = time.perf_counter()
    record: dict[str, Any] = {
        "benchmark": "gpu", "rehearsal": not bench.timed,
        "gpu": torch.cuda.get_device_name() if bench.timed else None, "torch": torch.__version__,
        "triton": triton.__version__, "python": platform.python_version(), "date": date.today().isoformat(),
    }  # fmt: skip
    points = bench.sizes.points[:1] if quick else bench.sizes.points
    kinds = (poly_nl_rows, bat_rows, enl_rows, product_rows, bilinear_rows, attention_rows)
    jobs: list[Job] = [  # the longest first
        (compiled, (rows, bench.device, *point)) for point in points[: None if bench.timed else 1] for rows in kinds
    ]
    jobs.append((compile_growth, (bench.device,)))
    jobs += [(correctness, (bench.device, way)) for way in ways(bench.timed)]
    found = on_all_cores(jobs, inf if bench.end == inf else started + PREPARED * (bench.end - started))
    failed = record["failed"] = [f for f in found if isinstance(f, str)]
    record["correctness"] = [c for f in found if isinstance(f, list) for c in f]
    wrong = [c for c in record["correctness"] if not c["right"]]
    record["seconds of checks and compilation"] = round(time.perf_counter() - started)
    print(f"correctness: {len(record['correctness'])} checks, {len(wrong)} wrong, {len(failed)} jobs failed,",
          record["seconds of checks and compilation"], "s", flush=True)  # fmt: skip
    for case in [*failed, *wrong[:20]]:
        print(case)
    write(record)
    record["ceilings"] = ceilings(bench)
    print(record["ceilings"], flush=True)
    table = Table(bench, record["ceilings"])
    record |= {"rows": table.rows, "left out": bench.left_out}
    for rows in kinds:
        for point in points:
            if bench.over:
                bench.left_out.append(f"{rows.__name__} {point}: no time left")
                continue
            try:
                rows(table, *point)
            except Exception as error:
                failed.append(f"{rows.__name__} {point}: {type(error).__name__}: {error}")
                print(failed[-1], flush=True)
            write(record)
    try:
        record["growth"] = growth(bench)
    except Exception as error:
        failed.append(f"growth: {type(error).__name__}: {error}")
    record["tiles"] = tuning.remembered()
    record["goals"] = goals(table.rows, record.get("growth", {}).get("exponent"))
    for goal in record["goals"]:
        print(goal)
    return record


if __name__ == "__main__":
    sys.exit(main())
