"""What can run on all cores before anything is timed: the checks, and compiling whatever the measurements call.

Triton and torch keep what they compile on disk; the process that measures finds it there.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from math import inf
from typing import Any

import torch

from _gpu.bench import REHEARSED, Bench, Sizes, Table
from polyattn.kernels import tuning

Job = tuple[Callable[..., Any], tuple[Any, ...]]


def on_all_cores(jobs: list[Job], processes: int | None = None) -> list[Any]:
    """The jobs' results in their order; of one that fails, its traceback as text."""
    context = multiprocessing.get_context("spawn")
    count = min(len(jobs), processes or max(1, (os.cpu_count() or 2) - 2))
    with ProcessPoolExecutor(count, mp_context=context, initializer=_begin) as pool:
        return list(pool.map(_finished, jobs))


def compiled(rows: Callable[..., None], device: str, n: int, c: int) -> None:
    """Run a function of rows once, every candidate tile included, and keep no figure."""
    bench = Untimed(device, inf, Sizes() if device == "cuda" else REHEARSED)
    with contextlib.redirect_stdout(None):
        rows(Table(bench, {"MACs per second, bfloat16": 1.0, "bytes per second": 1.0}), n, c)


class Untimed(Bench):
    """Calls once what is to be measured later."""

    def compared(self, what: str, ways: Any) -> dict[str, float]:
        for name, call in ways.items():
            if name != "attention":  # nothing of ours, and the longest
                call()
        if self.timed:
            torch.cuda.synchronize()
        return {}

    def called(self, call: Any) -> None:
        return None


def _begin() -> None:
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"

    def once(tile: Any, run: Callable[[Any], object]) -> float:
        from triton.runtime.errors import OutOfResources

        try:
            run(tile)
        except OutOfResources:
            return inf
        return 0.0

    # What is fastest is found later, on a device that does nothing else; here each tile is compiled.
    tuning._milliseconds = once
    tuning._remember = lambda key, tile: None
    torch.manual_seed(os.getpid())


def _finished(job: Job) -> Any:
    function, arguments = job
    try:
        return function(*arguments)
    except Exception:
        return f"{function.__name__}{arguments}\n{traceback.format_exc()}"
