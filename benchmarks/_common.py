"""What the benchmarks share: the machine in words, interleaved repeats, sizes for the catalogue, results as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from math import exp, log
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from polyattn import Spec, __version__
from polyattn.lowering.devices import processor

Seconds = dict[str, list[float]]
"""Every single timing by contender, in the order in which they were taken."""


def arguments(doc: str | None, parts: Sequence[str] = (), *, resumable: bool = False) -> argparse.Namespace:
    """`--quick` for a first look, `--out` for a JSON file of everything that was measured, `--part` for one part.

    Args:
        parts: of the benchmark, the first one being the default.
        resumable: whether `--only` and `--most-minutes` choose a part of the cases, and the runs that `--out` has
            already are kept.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few small cases")
    parser.add_argument("--out", type=Path, help="where to write the results as JSON")
    if parts:
        parser.add_argument("--part", choices=parts, default=parts[0], help="what to measure")
    if resumable:
        parser.add_argument("--only", default="", help="only cases whose name has this text, such as 'poly_nl forward'")
        parser.add_argument("--most-minutes", type=float, default=float("inf"), help="stop then; run again to go on")
    return parser.parse_args()


def resumed(
    args: argparse.Namespace,
    cases: Mapping[str, Callable[[], Mapping[str, Any]]],
    summary: Callable[[list[dict[str, Any]]], Mapping[str, Any]],
    *,
    fields: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Measure the cases that `--out` does not have yet, writing the file after each, so that a run may be cut short.

    Args:
        cases: what to measure, by a name that stays the same from run to run.
        summary: of all runs.
        fields: what a run must have; one of an older script that has it not is measured again.
    """
    found: dict[str, dict[str, Any]] = {}
    if args.out is not None and args.out.exists():
        runs = json.loads(args.out.read_text()).get("runs", ())
        found = {r["case"]: r for r in runs if r["case"] in cases and all(f in r for f in fields)}
    wanted = [name for name in cases if name not in found and args.only in name]
    end = time.monotonic() + 60 * args.most_minutes
    for number, name in enumerate(wanted):
        if time.monotonic() > end:
            print(f"stopped with {len(wanted) - number} cases to go; the same command goes on")
            break
        started = time.monotonic()
        found[name] = {"case": name, **cases[name]()}
        print(f"{number + 1}/{len(wanted)}  {name}  {time.monotonic() - started:.1f} s", flush=True)
        runs = [found[k] for k in cases if k in found]
        write(args, summary(runs), runs)
    return [found[k] for k in cases if k in found]


def machine() -> dict[str, Any]:
    """What a reader needs to know of the machine, and nothing that names it.

    The processor's model comes with the widest vector instructions that torch uses on it.
    """
    return {
        "processor": f"{processor()}, {torch.backends.cpu.get_cpu_capability()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "polyattn": __version__,
        "date": date.today().isoformat(),
    }


def write(args: argparse.Namespace, summary: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> None:
    """Write the machine, the summary and every run to `--out`, if it is given."""
    if args.out is None:
        return
    everything = {
        "benchmark": Path(sys.argv[0]).stem,
        "quick": args.quick,
        "machine": machine(),
        "summary": summary,
        "runs": runs,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(everything, indent=1, allow_nan=False) + "\n")


def show(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table; as plain text where the output is no terminal."""
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for k, name in enumerate(head):
        table.add_column(name, justify="left" if k == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def interleaved(
    contenders: Mapping[str, Callable[[], object]], *, seconds: float = 2.0, least: int = 5, most: int = 200
) -> Seconds:
    """Timings of several functions, one of each in turn, so that what slows the machine slows all of them.

    The order is drawn anew for each round: in one order, even shifted, each would find the caches as the same other one
    left them.

    Args:
        contenders: called without arguments, once before anything is timed.
        seconds: about how long all of it may take.
        least, most: bounds on the number of rounds, whatever the time.
    """
    names = list(contenders)
    started = time.perf_counter()
    for name in names:
        contenders[name]()
    once = time.perf_counter() - started
    rounds = min(most, max(least, int(seconds / max(once, 1e-6))))
    found: Seconds = {name: [] for name in names}
    draw = random.Random(0)
    for _ in range(rounds):
        for name in draw.sample(names, len(names)):
            start = time.perf_counter()
            contenders[name]()
            found[name].append(time.perf_counter() - start)
    return found


def ratio(seconds: Seconds, slower: str, faster: str) -> float:
    """How many times faster one contender is than another: a ratio of medians of one interleaved run."""
    return statistics.median(seconds[slower]) / statistics.median(seconds[faster])


def medians(seconds: Seconds) -> dict[str, float]:
    return {name: statistics.median(times) for name, times in seconds.items()}


def limit_memory(gibibytes: float) -> None:
    """Let larger allocations fail with an error: a form that needs too much is left out, and nothing else dies."""
    import resource

    most = int(gibibytes * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def geometric_mean(values: Iterable[float]) -> float:
    logs = [log(v) for v in values]
    return exp(sum(logs) / len(logs)) if logs else float("nan")


def sides(positions: int) -> tuple[int, int]:
    """Height and width of a grid, as near to a square as can be."""
    height = next(h for h in range(int(positions**0.5), 0, -1) if positions % h == 0)
    return height, positions // height


def sizes_of(spec: Spec, height: int, width: int, channels: int) -> dict[str, int]:
    """Numbers for all sizes of a catalogue entry, its ranks and groups as they are used with so many channels."""
    blocks = next(s for s in (7, 8, 5, 6, 4, 3, 2, 1) if height % s == 0 and width % s == 0)
    groups = 4
    known = {"N": height * width, "H": height, "W": width, "C": channels, "G": groups, "K": 16}
    known["R"] = (
        100 if {"wpsi", "wtheta"} & set(spec.parameters) and "adj" in spec.parameters else max(8, channels // 8)
    )
    if "S" in spec.sizes.names:
        known |= {"S": blocks, "U": height // blocks, "V": width // blocks}
    else:
        known["V"] = max(8, channels // 8)
    if "D" in spec.sizes.names:
        known |= {"D": channels // 2, "M": channels // 2 // groups}
    elif "M" in spec.sizes.names:
        known["M"] = channels // groups
    return {name: known[name] for name in spec.sizes.names}


def tensors_of(spec: Spec, sizes: Mapping[str, int], batch: int, seed: int = 0) -> list[torch.Tensor]:
    """The inputs, with the batch, and the parameters, scaled so that no sum of products grows large."""
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(batch, *(sizes[s] for s in shape), generator=generator) for shape in spec.inputs.values()]
    parameters = []
    for shape in spec.parameters.values():
        numbers = [sizes[s] for s in shape]
        fan = max(numbers, default=1)
        parameters.append(torch.randn(numbers, generator=generator) * fan**-0.5)
    return [*inputs, *parameters]


def matrix_rate(seconds: float = 1.0, side: int = 2048) -> float:
    """Multiply-accumulates a second of a large float32 matrix product, by its median time."""
    a, b = torch.randn(side, side), torch.randn(side, side)
    return side**3 / statistics.median(interleaved({"matmul": lambda: a @ b}, seconds=seconds)["matmul"])


def judge_pairs(
    doc: str | None, title: str, kinds: tuple[str, str], judged: Callable[[int, bool], dict[str, Any]]
) -> None:
    """Run the command of a benchmark of generated pairs: as many as PAIRS says (400), half of them near misses.

    Args:
        kinds: the names of the equal pairs, and of the near misses.
        judged: from a pair's number, and whether it is a near miss, its record: "status", "same" (what the oracle
            says), "wrong" and "seconds".
    """
    args = arguments(doc)
    pairs = 40 if args.quick else int(os.environ.get("PAIRS", "400"))
    summary: dict[str, Any] = {}
    wrong: list[dict[str, Any]] = []
    for near in (False, True):
        found = [judged(number, near) for number in range(pairs // 2)]
        wrong += [case for case in found if case["wrong"]]
        for case in found:
            if os.environ.get("SHOW") and (case["wrong"] or case["status"] in ("undecided", "refused")):
                print(json.dumps(case), flush=True)
        counts = Counter(case["status"] for case in found)
        summary[kinds[near]] = {
            "pairs": len(found),
            **{status: counts[status] for status in ("equal", "different", "undecided", "refused")},
            "of the same values": sum(case["same"] is True for case in found),
            "wrong": sum(case["wrong"] for case in found),
            "mean ms": round(1000 * sum(case["seconds"] for case in found) / len(found), 1),
            "worst ms": round(1000 * max(case["seconds"] for case in found)),
        }
    rows = [(kind, *row.values()) for kind, row in summary.items()]
    show(title, ("pairs are", *next(iter(summary.values()))), rows)
    write(args, summary, wrong)
