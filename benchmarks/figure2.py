"""Figure 2 of the Poly-NL paper today: runtime and peak memory of one layer against positions and channels.

TESA, NL, L-GNN, E-NL, Poly-NL, BA-Transform and a plain 3 x 3 convolution, each in the paper's own form (plain torch by
hand), in the planned form, and in the best that a user can install: timm's block for BA-Transform (with its two
convolutions and its normalisation), scaled-dot-product attention for NL (with softmax), `torch.compile` of the paper's
form for the others. Forward, and forward with backward; float32 on the CPU and bfloat16 on a GPU, unless `--dtype` says
another. A cell that does not fit in memory says so: on a GPU the allocator's word counts, on the CPU `--memory` (GiB),
against the order of contraction that the author wrote.

Every cell has the seconds of all its runs, 20 at least (5 with `--quick`), and their median. Results are appended to
`--out` point by point; what is there already is not measured again, so a run can be stopped and continued. Then the
tables, and the plots beside it.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _common import machine, show, sides, sizes_of, tensors_of
from _papers import CHANNELS_FIRST, FORMS, channels_first
from _peak import peak_bytes
from _plots import draw
from torch import Tensor, nn

from polyattn import catalog, plan
from polyattn.lowering import calibrated, differentiable
from polyattn.planning import Leaf, Plan

LAYERS = {
    "tesa": "TESA",
    "nl": "NL",
    "latent_gnn": "L-GNN",
    "e_nl": "E-NL",
    "poly_nl": "Poly-NL",
    "ba_transform_block": "BA-Transform",
    "conv": "CONV",
}
POSITIONS = (256, 1024, 4096, 16384, 65536, 262144, 1048576)
CHANNELS = (64, 128, 256, 512, 1024)
AT_CHANNELS = 64
AT_POSITIONS = 784
GIB = 2**30
ASSUMED_RATE = {"cpu": 40e9, "cuda": 50e12}
"""Multiply-accumulates a second, for saying beforehand what would take too long."""

Call = Callable[[], object]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=Path("figure2.json"))
    parser.add_argument("--quick", action="store_true", help="few points and five runs of each")
    parser.add_argument("--forms", nargs="*", default=["paper", "planned", "best"])
    parser.add_argument("--memory", type=float, default=4.0, help="GiB that a cell may take on the CPU")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="float32 on the CPU, else bfloat16")
    parser.add_argument("--seconds", type=float, default=6.0, help="for the runs of one cell, of which 20 are made")
    parser.add_argument("--stop-after", type=float, default=1e9, help="seconds after which no new point is started")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--plot", action="store_true", help="only draw what is there")
    args = parser.parse_args()
    args.dtype = args.dtype or ("float32" if args.device == "cpu" else "bfloat16")
    return args


def points(args: argparse.Namespace) -> list[tuple[str, int, int]]:
    """What is varied, and the positions and channels of every point, cheap ones first."""
    positions = POSITIONS[:3] if args.quick else POSITIONS
    channels = CHANNELS[:3] if args.quick else CHANNELS
    found = [("positions", n, AT_CHANNELS) for n in positions] + [("channels", AT_POSITIONS, c) for c in channels]
    return sorted(found, key=lambda p: p[1] * p[2] ** 2)


def written_plan(name: str, sizes: dict[str, int], batch: int) -> Plan:
    return plan(catalog.get(name), {"B": batch, **sizes}, "as_written")


def reason(args: argparse.Namespace, written: Plan, training: bool) -> str:
    """Why the author's order is not run; empty where it is."""
    if args.device == "cpu":
        graph = written.graph
        kept = sum(graph.bytes_of(k) for k, node in enumerate(graph.nodes) if not isinstance(node, Leaf))
        largest = max(graph.bytes_of(k) for k in range(len(graph.nodes)))
        needed = kept + 2 * largest if training else written.peak_bytes
        if needed > args.memory * GIB:
            return f"out of memory: {needed / GIB:.1f} GiB"
    return too_slow(args, written, training)


def too_slow(args: argparse.Namespace, written: Plan, training: bool) -> str:
    """Why nothing is run that takes the arithmetic of the author's order; empty where it is."""
    seconds = written.macs * (3 if training else 1) / ASSUMED_RATE[args.device]
    return f"too slow: {seconds:.0f} s a run" if seconds > 20 else ""


def as_call(layer: Callable[..., Tensor], tensors: Sequence[Tensor], training: bool) -> Call:
    if not training:

        def forward() -> object:
            with torch.no_grad():
                return layer(*tensors)

        return forward
    wanted = [t.detach().requires_grad_() for t in tensors]
    seeds: list[Tensor] = []

    def both() -> object:
        y = layer(*wanted)
        if not seeds:
            seeds.append(torch.randn_like(y))
        return torch.autograd.grad(y, wanted, seeds[0])

    return both


def best(name: str, tensors: list[Tensor], sizes: dict[str, int]) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """What a user can install instead, and its tensors."""
    if name == "nl":

        def attention(x: Tensor, wf: Tensor, wg: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention((x @ wf)[:, None], x[:, None], (x @ wg)[:, None])[:, 0]

        return attention, tensors
    if name == "ba_transform_block":
        from timm.layers.non_local_attn import BilinearAttnTransform

        block = BilinearAttnTransform(tensors[0].shape[-1], sizes["S"], sizes["G"]).to(tensors[0])
        parameters = dict(block.named_parameters())

        def timm(x: Tensor, *values: Tensor) -> Tensor:
            return torch.func.functional_call(block, dict(zip(parameters, values, strict=True)), (x,))

        return timm, [tensors[0].movedim(-1, 1).contiguous(), *parameters.values()]
    torch._dynamo.reset()
    return torch.compile(FORMS[name], dynamic=False), tensors


def calls(
    args: argparse.Namespace, name: str, n: int, c: int, training: bool
) -> tuple[dict[str, Call], dict[str, str]]:
    """The calls of a layer by form, and why others are left out."""
    height, width = sides(n)
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    if name == "conv":
        conv = nn.Conv2d(c, c, 3, padding=1, bias=False, device=device, dtype=dtype)
        x = torch.randn(args.batch, c, height, width, device=device, dtype=dtype)
        form = partial(nn.functional.conv2d, padding=1)
        return {"paper": as_call(form, [x, conv.weight.detach()], training)}, {}
    sizes = sizes_of(catalog.get(name), height, width, c)
    tensors = [t.to(device, dtype) for t in tensors_of(catalog.get(name), sizes, args.batch)]
    made: dict[str, Call] = {}
    out: dict[str, str] = {}
    written = written_plan(name, sizes, args.batch)
    why, slow = reason(args, written, training), too_slow(args, written, training)
    if "paper" in args.forms:
        if why:
            out["paper"] = why
        else:
            theirs = channels_first(tensors) if name in CHANNELS_FIRST else tensors
            made["paper"] = as_call(FORMS[name], theirs, training)
    if "planned" in args.forms:
        objective = "training" if training else "forward"
        model = calibrated(args.device, args.dtype)
        chosen = plan(catalog.get(name), {"B": args.batch, **sizes}, objective, device=model)
        made["planned"] = as_call(differentiable(chosen, device=model), tensors, training)
    if "best" in args.forms:
        hindered = slow if name in ("nl", "ba_transform_block") else why  # those two take less memory than as written
        if hindered:
            out["best"] = hindered
        else:
            layer, theirs = best(name, tensors, sizes)
            made["best"] = as_call(layer, theirs, training)
    return made, out


def interleaved(contenders: dict[str, Call], args: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, str]]:
    """One run of each in turn, in an order drawn for each round; those that have had their time or their runs leave.
    CUDA is waited for. What runs out of memory leaves too, and is said."""

    def run(name: str) -> float:
        start = time.perf_counter()
        contenders[name]()
        if args.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    failed: dict[str, str] = {}

    def timed(name: str) -> float | None:
        try:
            return run(name)
        except torch.OutOfMemoryError:
            failed[name] = "out of memory"
            torch.cuda.empty_cache()
            return None

    for name in contenders:
        if timed(name) is not None:
            timed(name)
    found: dict[str, list[float]] = {name: [] for name in contenders if name not in failed}
    least, most = (5, 5) if args.quick else (20, 40)
    active, draw = list(found), random.Random(0)
    while active:
        for name in draw.sample(active, len(active)):
            took, times = timed(name), found[name]
            if took is None:
                del found[name]
                active.remove(name)
                continue
            times.append(took)
            if len(times) >= most or (len(times) >= least and sum(times) > args.seconds):
                active.remove(name)
    return found, failed


def measure(
    args: argparse.Namespace, axis: str, n: int, c: int, training: bool, done: set[str]
) -> list[dict[str, Any]]:
    """All cells of a point that are not done."""
    contenders: dict[str, Call] = {}
    cells: dict[str, dict[str, Any]] = {}
    for name, title in LAYERS.items():
        wanted = [f for f in args.forms if f"{axis} {n} {c} {training} {title} {f}" not in done]
        if not wanted:
            continue
        made, out = calls(args, name, n, c, training)
        for form in wanted:
            if form not in made and form not in out:
                continue
            key = f"{axis} {n} {c} {training} {title} {form}"
            cells[key] = {"key": key, "axis": axis, "N": n, "C": c, "B": args.batch, "layer": title, "form": form}
            cells[key]["pass"] = "training" if training else "forward"
            if form in out:
                cells[key]["left out"] = out[form]
            else:
                contenders[key] = made[form]
    for key, call in contenders.items():
        try:
            cells[key]["peak bytes"] = peak_bytes(call, args.device)
        except torch.OutOfMemoryError:
            cells[key]["left out"] = "out of memory"
    fitting = {k: call for k, call in contenders.items() if "left out" not in cells[k]}
    times, failed = interleaved(fitting, args)
    for key, runs in times.items():
        cells[key] |= {"seconds": statistics.median(runs), "runs": [float(f"{t:.4g}") for t in runs]}
    for key, why in failed.items():
        cells[key]["left out"] = why
    return list(cells.values())


def main() -> int:
    args = parse()
    warnings.filterwarnings("ignore")
    # A saturated softmax has denormal gradients, which slow a processor down and say nothing of the layers.
    torch.set_flush_denormal(True)
    asked = {"device": args.device, "dtype": args.dtype, "batch": args.batch, "quick": args.quick}
    record: dict[str, Any] = {"benchmark": "figure2", "machine": machine(), "options": asked, "cells": []}
    if args.device == "cuda":
        record["machine"]["gpu"] = torch.cuda.get_device_name()
    if args.out.exists():
        record = json.loads(args.out.read_text())
        if not args.plot and record.get("options") != asked:
            measured = record.get("options", "options that it does not say")
            print(f"error: {args.out} was measured with {measured}, not {asked}; name another file", file=sys.stderr)
            return 2
    started = time.perf_counter()
    for axis, n, c in [] if args.plot else points(args):
        for training in (False, True):
            if time.perf_counter() - started > args.stop_after:
                print("stopped; the same command continues")
                return 0
            done = {cell["key"] for cell in record["cells"]}
            new = measure(args, axis, n, c, training, done)
            if new:
                record["cells"] += new
                args.out.parent.mkdir(parents=True, exist_ok=True)
                args.out.write_text(as_text(record))
                print(f"{axis} N={n} C={c} {'training' if training else 'forward'}: {len(new)} cells", flush=True)
            gc.collect()
    tables(record["cells"])
    draw(record["cells"], args.out, list(LAYERS.values()))
    return 0


def as_text(record: dict[str, Any]) -> str:
    """JSON with a line for each cell."""
    head = {key: value for key, value in record.items() if key != "cells"}
    cells = ",\n".join("  " + json.dumps(cell, allow_nan=False) for cell in record["cells"])
    return json.dumps(head, indent=1)[:-2] + ',\n "cells": [\n' + cells + "\n ]\n}\n"


def tables(cells: list[dict[str, Any]]) -> None:
    """Milliseconds and MiB of every cell, a table for each axis and pass."""
    for axis in ("positions", "channels"):
        for which in ("forward", "training"):
            mine = [c for c in cells if c["axis"] == axis and c["pass"] == which]
            varied = "N" if axis == "positions" else "C"
            values = sorted({c[varied] for c in mine})
            rows = []
            for layer, form in dict.fromkeys((c["layer"], c["form"]) for c in mine):
                by = {c[varied]: c for c in mine if (c["layer"], c["form"]) == (layer, form)}
                rows.append([f"{layer}, {form}"] + [shown(by.get(v)) for v in values])
            show(f"{which}: ms, MiB at the peak", ["layer", *(f"{varied}={v}" for v in values)], rows)


def shown(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "-"
    if "left out" in cell:
        return cell["left out"].partition(":")[0]
    return f"{1e3 * cell['seconds']:.3g}, {cell['peak bytes'] / 2**20:.3g}"


if __name__ == "__main__":
    sys.exit(main())
