"""Compile every kernel with every tile for a GPU that need not be there, and say what each takes of it.

Registers that spill, shared memory beyond the device's, and matrix products without Hopper's instructions show here at
no device time. Nothing is run. Usage: python benchmarks/kernel_resources.py [--capability 90] [--dtype bfloat16]
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
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


def launches(dtype: torch.dtype) -> list[tuple[str, Any, Any]]:
    """Each kernel with its tiles and a call of it at a size of the benchmark's, on memory that is never touched."""

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype)

    b, n, c = 2, 3136, 256
    x, w, k = empty(b, n, c), empty(c, c), empty(b, 1, n, 64)
    maps, mixed = empty(b, 56, 56, c), empty(b, 4, 49, 49)
    ctx = empty(b, 1, 64, 64)
    divisor = torch.empty(b, 1, 64)
    return [
        ("gram", gram.TILES, lambda t: gram.gram(x, 1.0, "", t, 4)),
        ("cross_gram", gram.TILES, lambda t: cross_gram.cross_gram(x, empty(b, n, 64), 1.0, "", t, 4)),
        ("project", project.TILES, lambda t: project.project(x, w, empty(b, c), "", t)),
        ("project, channels first", project.TILES, lambda t: project.project(empty(b, c, n).mT, w, empty(b, c), "", t)),
        ("project_pair", project.TILES, lambda t: project.project_pair(x, empty(b, c, c).mT, x, empty(b, c, c), "", t)),
        ("hadamard_mean", hadamard_mean.TILES, lambda t: hadamard_mean.hadamard_mean(x, w, w, 1.0, "", t, 4)),
        ("block_mix", bilinear.MIX_TILES, lambda t: bilinear.block_mix(maps, mixed, 7, 7, "", t)),
        ("block_cross", bilinear.CROSS_TILES, lambda t: bilinear.block_cross(maps, maps, 4, 7, 7, "", t, 4)),
        ("linear_context", linear_attention.TILES, lambda t: linear_attention.context(k, k, "", t, 4)),
        ("linear_query", linear_attention.ROW_TILES, lambda t: linear_attention.query(k, ctx, "", t)),
        (
            "linear_query_backward",
            linear_attention.ROW_TILES,
            lambda t: linear_attention.query_backward(k, ctx, k, "", t, 4),
        ),
        (
            "linear_context_backward",
            linear_attention.ROW_TILES,
            lambda t: linear_attention.context_backward(k, k, ctx, divisor, ctx, "", t),
        ),
    ]


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
    args = parser.parse_args()
    driver.set_active(NoDevice(args.capability))
    compiled: list[Any] = []
    run = JITFunction.run

    def compile_only(self: Any, *values: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = run(self, *values, grid=grid, warmup=True, **options)
        compiled.append((self.__name__, kernel))
        return kernel

    JITFunction.run = compile_only
    bad = 0
    print(f"{'kernel':24} {'tile':28} {'function':26} registers spilled shared  product")
    for name, tiles, call in launches(getattr(torch, args.dtype)):
        for tile in tiles[:1] if args.first else tiles:
            compiled.clear()
            call(tile)
            for function, kernel in compiled:
                ptx = kernel.asm["ptx"]
                registers, spilled = resources(ptx, args.capability)
                shared = kernel.metadata.shared
                product = "wgmma" if "wgmma" in ptx else "mma" if "mma.sync" in ptx else "fma"
                shown = "x".join(map(str, tile[:3])) + f" {tile.warps} warps {tile.stages} stages"
                print(f"{name:24} {shown:28} {function:26} {registers:9} {spilled:7} {shared:6}  {product}")
                bad += spilled > 1024 or shared > 232448
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
