"""The choice of a kernel's tile: the fastest of a few candidates, measured once per kind of problem and cached.

Choices are cached in the process and in `tuning.json` in the folder POLYATTN_CACHE (by default the user's cache
folder); the cache key is the device, Triton's version, the kernel and the problem. Lengths are rounded up to powers of
two. With POLYATTN_TUNING=off each kernel runs with its first tile, without timing; with a number, with the tile of that
index, modulo the number of tiles.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from functools import cache
from math import inf
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor


class Tile(NamedTuple):
    """Sides of a kernel's blocks, and the compiler options of Triton.

    Attributes:
        rows, columns: sides of the block of results of one program.
        inner: length of the summed axis per step.
        warps: warps of one program.
        stages: pipeline stages of loads ahead of the arithmetic.
    """

    rows: int
    columns: int
    inner: int
    warps: int = 4
    stages: int = 3

    @property
    def launch(self) -> dict[str, int]:
        return {"num_warps": self.warps, "num_stages": self.stages}


SMALL = Tile(16, 16, 16)
"""Smallest tile of a matrix product: for the interpreter, so that small tests have several tiles."""

TORCH = Tile(0, 0, 0, 0, 0)
"""Stands for torch's own products, a candidate wherever they compute the same result."""

FILE = "tuning.json"

_chosen: dict[tuple[object, ...], Tile] = {}


def best(
    kernel: str, problem: Sequence[object], x: Tensor, tiles: Sequence[Tile], run: Callable[[Tile], object]
) -> Tile:
    """Choose the fastest tile for a problem.

    Args:
        kernel: name of the kernel.
        problem: cache key of the choice: lengths (rounded up to powers of two), dtypes, layouts.
        x: a tensor on the device.
        tiles: the candidates; the first if measuring is impossible, as in the capture of a CUDA graph.
        run: launches the kernel with a tile.
    """
    if x.device.type != "cuda":
        return SMALL
    if x.dtype == torch.float32 and "ieee" in problem:
        tiles = without_matrix_units(tiles)
    asked = os.environ.get("POLYATTN_TUNING", "")
    if asked == "off" or asked.isdecimal():
        return tiles[0 if asked == "off" else int(asked) % len(tiles)]
    # type() instead of isinstance: booleans in the key stay booleans.
    parts = tuple(1 << max(0, p - 1).bit_length() if type(p) is int else p for p in problem)
    key = (x.device, kernel, x.dtype, parts)
    if key not in _chosen:
        name = " ".join(map(str, (_device(x.device), kernel, x.dtype, *parts)))
        # A stored tile may come from another version's candidates, and is then measured again.
        known = remembered().get(name)
        if known is not None and Tile(*known) in tiles:
            _chosen[key] = Tile(*known)
        elif torch.cuda.is_current_stream_capturing():
            return tiles[0]
        else:
            times = {tile: _milliseconds(tile, run) for tile in tiles}
            _chosen[key] = min(times, key=lambda tile: times[tile])
            if times[_chosen[key]] == inf:
                run(_chosen[key])  # raises the error common to all tiles
            _remember(name, _chosen[key])
    return _chosen[key]


def without_matrix_units(tiles: Sequence[Tile]) -> Sequence[Tile]:
    """Return smaller tiles: exact float32 products are unrolled, and large tiles compile for minutes."""
    small = [
        t if t == TORCH else Tile(min(t.rows, 64), min(t.columns, 64), min(t.inner, 16), 4, min(t.stages, 2))
        for t in tiles
    ]
    return tuple(dict.fromkeys(small))


@cache
def _device(device: torch.device) -> str:
    import triton

    return f"{torch.cuda.get_device_name(device)} {triton.__version__}"


def _milliseconds(tile: Tile, run: Callable[[Tile], object]) -> float:
    """Measure a launch's median time; infinite for tiles that exceed the device's resources or do not compile."""
    from triton.runtime.errors import TritonError
    from triton.testing import do_bench

    try:
        time = do_bench(lambda: run(tile), warmup=10, rep=40, return_mode="median")
    except (TritonError, RuntimeError):
        return inf
    assert isinstance(time, float)
    return time


def cache_file() -> Path:
    """Return the path of the file with choices of earlier processes."""
    import platformdirs

    folder = os.environ.get("POLYATTN_CACHE")
    return (Path(folder).expanduser() if folder else platformdirs.user_cache_path("polyattn", appauthor=False)) / FILE


def remembered() -> dict[str, list[int]]:
    """Read the choices in the file by cache key; unreadable files and entries are ignored."""
    try:
        found = json.loads(cache_file().read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    fields = len(Tile._fields)
    return {
        key: tile
        for key, tile in (found.items() if isinstance(found, dict) else ())
        if isinstance(tile, list) and len(tile) == fields and all(type(number) is int for number in tile)
    }


def _remember(key: str, tile: Tile) -> None:
    """Store a choice; if the folder is not writable, the next process measures again."""
    with contextlib.suppress(OSError):
        path = cache_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        # Write and rename: a concurrent reader never sees half a file.
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(remembered() | {key: list(tile)}, indent=1))
        draft.replace(path)
