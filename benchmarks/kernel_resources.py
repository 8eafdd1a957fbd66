"""Compile every kernel with every tile for a GPU that need not be there, and say what each takes of it.

Registers that spill, shared memory beyond the device's, matrix products without Hopper's instructions and narrow loads
show here at no device time. Nothing is run.
Usage: python benchmarks/kernel_resources.py [--capability 90] [--dtype bfloat16] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import torch
import triton
from _common import show
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from polyattn.kernels.bilinear import triton as bilinear
from polyattn.kernels.cross_gram import triton as cross_gram
from polyattn.kernels.gram import triton as gram
from polyattn.kernels.hadamard_mean import triton as hadamard_mean
from polyattn.kernels.linear_attention import triton as linear_attention
from polyattn.kernels.project import triton as project

REGISTERS = re.compile(r"Used (\d+) registers")
SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
AHEAD = re.compile(r"cp\.async\.c[ag]\.shared\.global[^;]*?\], *\[[^\]]*\], *(0x[0-9a-f]+|\d+)")
AT_ONCE = re.compile(r"\bld\.global(?:\.[a-z_]\w*|::\w+)*?(?:\.v(\d))?\.[bfus](\d+)")
MOST_SPILLED, MOST_SHARED = 4096, 232448
HEAD = ["kernel", "channels", "tile, warps, stages", "function", "by", "regs", "spill", "shared", "loads of bytes"]


class NoDevice:
    """As much of a driver as compiling asks for."""

    def __init__(self, capability: int):
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def map_python_to_cpp_type(self, kind: str) -> str:
        return kind


def launches(dtype: torch.dtype) -> list[tuple[str, str, Any, Any]]:
    """Each kernel by name and memory with its tiles and a call of it, on memory that is never touched.

    Positions of maps come before or after the channels; 196 of them (14 x 14) are no multiple of 16.
    """

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype)

    b, c = 2, 256
    mixed, ctx, divisor = empty(b, 4, 49, 49), empty(b, 1, 64, 64), torch.empty(b, 1, 64)
    found: list[tuple[str, str, Any, Any]] = []
    for memory, x in (
        ("last, 3136", empty(b, 3136, c)),
        ("first, 3136", empty(b, c, 3136).mT),
        ("first, 196", empty(b, c, 196).mT),
        ("last, 3136 x 64", empty(b, 3136, 64)),
        ("last, 333 x 47", empty(b, 333, 47)),
    ):
        found += rows_kernels(memory, x, divisor)
    for memory, side, x in (
        ("last", 56, empty(b, 56, 56, c)),
        ("first", 56, empty(b, c, 56, 56).movedim(1, -1)),
        ("first", 28, empty(b, c, 28, 28).movedim(1, -1)),
    ):
        where = f"{memory}, {side} x {side}"
        found += [
            ("block_mix", where, bilinear.MIX_TILES, lambda t, x=x: bilinear.block_mix(x, mixed, 7, 7, "", t, 9)),
            ("block_cross", where, bilinear.CROSS_TILES, lambda t, x=x: bilinear.block_cross(x, x, 4, 7, 7, "", t, 4)),
        ]
    for memory, k in (
        ("last, 3136", empty(b, 1, 3136, 64)),
        ("first, 3136", empty(b, 1, 64, 3136).mT),
        ("first, 196", empty(b, 1, 64, 196).mT),
    ):
        found += [
            (f"linear_{name}", memory, tiles, call)
            for name, tiles, call in (
                ("context", linear_attention.TILES, lambda t, k=k: linear_attention.context(k, k, "", t, 4)),
                ("query", linear_attention.ROW_TILES, lambda t, k=k: linear_attention.query(k, ctx, "", t)),
                (
                    "query_backward", linear_attention.ROW_TILES,
                    lambda t, k=k: linear_attention.query_backward(k, ctx, k, "", t, 4),
                ),
                (
                    "context_backward", linear_attention.ROW_TILES,
                    lambda t, k=k: linear_attention.context_backward(k, k, ctx, divisor, ctx, "", t),
                ),
            )
        ]  # fmt: skip
    return found


def rows_kernels(memory: str, x: torch.Tensor, divisor: torch.Tensor) -> list[tuple[str, str, Any, Any]]:
    """The kernels that take a map as rows of channels."""
    (b, _, c), heads = x.shape, x[:, None]

    def empty(*shape: int) -> torch.Tensor:
        return x.new_empty(shape)

    w, scale, pair = empty(c, c), empty(b, c), (empty(b, c, c).mT, empty(b, c, c))
    narrow, wide = empty(c, 64), empty(b, 1, 64, c)
    attention = linear_attention
    calls: list[tuple[str, Any, Any]] = [
        ("gram", gram.TILES, lambda t: gram.gram(x, 1.0, "", t, 4)),
        ("gram, one part", gram.TILES, lambda t: gram.gram(x, 1.0, "", t, 1)),
        ("cross_gram", gram.TILES, lambda t: cross_gram.cross_gram(x, x[:, :, : c // 4], 1.0, "", t, 4)),
        ("project", project.TILES, lambda t: project.project(x, w, scale, "", t)),
        ("project_pair", project.TILES, lambda t: project.project_pair(x, pair[0], x, pair[1], "", t)),
        ("hadamard_mean", hadamard_mean.TILES, lambda t: hadamard_mean.hadamard_mean(x, w, w, 1.0, "", t, 4)),
        ("projected_context", attention.TILES, lambda t: attention.context(heads, heads, "", t, 4, narrow)),
        ("projected_query", attention.ROW_TILES, lambda t: attention.query(heads, wide, "", t, narrow)),
        (
            "projected_query_backward", attention.ROW_TILES,
            lambda t: attention.query_backward(heads, wide, heads, "", t, 4, narrow),
        ),
        (
            "projected_context_backward", attention.ROW_TILES,
            lambda t: attention.context_backward(heads, heads, wide, divisor, wide, "", t, narrow),
        ),
    ]  # fmt: skip
    return [(name, memory, tiles, call) for name, tiles, call in calls]


def loads(ptx: str) -> dict[int, int]:
    """How many loads from memory the code has, by their bytes for a thread, those ahead of their use included."""
    widths = [int(w, 0) for w in AHEAD.findall(ptx)]
    widths += [int(count or 1) * int(bits) // 8 for count, bits in AT_ONCE.findall(ptx)]
    return dict(sorted(Counter(widths).items(), reverse=True))


def resources(ptx: str, capability: int) -> tuple[int, int]:
    """Registers of a thread and bytes spilled, as the assembler reports them."""
    folder = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    ptxas = max(folder.glob("ptxas*"))  # the newest: PTX says which version it needs at the least
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        command = [str(ptxas), "-v", f"--gpu-name=sm_{capability}a", str(source), "-o", str(Path(folder) / "out")]
        said = subprocess.run(command, capture_output=True, text=True).stderr
    if "fatal" in said:
        raise SystemExit(said)
    spilled = SPILLS.search(said)
    used = REGISTERS.search(said)
    return int(used.group(1)) if used else -1, int(spilled.group(1)) if spilled else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, default=90)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--first", action="store_true", help="only each kernel's first tile")
    parser.add_argument("--out", type=Path, help="where to write the JSON")
    args = parser.parse_args()
    driver.set_active(NoDevice(args.capability))
    compiled: list[Any] = []
    run = JITFunction.run

    def compile_only(self: Any, *values: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = run(self, *values, grid=grid, warmup=True, **options)
        compiled.append((self.__name__, kernel))
        return kernel

    JITFunction.run = compile_only
    rows: list[dict[str, Any]] = []
    for name, memory, tiles, call in launches(getattr(torch, args.dtype)):
        for tile in tiles[:1] if args.first else tiles:
            compiled.clear()
            call(tile)
            for function, kernel in compiled:
                ptx = kernel.asm["ptx"]
                registers, spilled = resources(ptx, args.capability)
                product = "wgmma" if "wgmma" in ptx else "mma" if "mma.sync" in ptx else "fma"
                rows.append(
                    {"kernel": name, "memory": memory, "tile": list(tile), "function": function, "product": product}
                    | {"registers": registers, "bytes spilled": spilled, "shared bytes": kernel.metadata.shared}
                    | {"loads by bytes": loads(ptx)}
                )
    shown = [
        [r["kernel"], r["memory"], "{}x{}x{} {} {}".format(*r["tile"]), r["function"], r["product"]]
        + [str(r[k]) for k in ("registers", "bytes spilled", "shared bytes")]
        + [", ".join(f"{count} of {width}" for width, count in r["loads by bytes"].items())]
        for r in rows
    ]
    show(f"compute capability {args.capability}, {args.dtype}", HEAD, shown)
    if args.out is not None:
        machine = {"triton": triton.__version__, "torch": torch.__version__, "date": date.today().isoformat()}
        found = {"benchmark": "kernel_resources", "capability": args.capability, "dtype": args.dtype}
        lines = ",\n".join("  " + json.dumps(row) for row in rows)
        head = json.dumps(found | {"compiler": machine}, indent=1)[:-2]
        args.out.write_text(head + ',\n "runs": [\n' + lines + "\n ]\n}\n")
    return int(any(r["bytes spilled"] > MOST_SPILLED or r["shared bytes"] > MOST_SHARED for r in rows))


if __name__ == "__main__":
    sys.exit(main())
