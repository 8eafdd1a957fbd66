"""What can run on all cores before anything is timed: the checks, and compiling whatever the measurements call.

Triton and torch keep what they compile on disk; the process that measures finds it there.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from math import inf
from pathlib import Path
from typing import Any

import torch

from _gpu.bench import REHEARSED, Bench, Sizes, Table
from _gpu.layers import growth
from polyattn.kernels import tuning

Job = tuple[Callable[..., Any], tuple[Any, ...]]

MOST_PROCESSES = 12
"""They share one GPU's memory."""


def on_all_cores(jobs: list[Job], end: float = inf) -> list[Any]:
    """The jobs' results in their order; of one that fails, or is not done by `end`, what is wrong as text."""
    context = multiprocessing.get_context("spawn")
    count = max(1, min(len(jobs), MOST_PROCESSES, (os.cpu_count() or 2) - 1))
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin)
    waiting = [pool.submit(_finished, number, job) for number, job in enumerate(jobs)]
    found = []
    for future, (function, arguments) in zip(waiting, jobs, strict=True):
        try:
            left = None if end == inf else max(0.0, end - time.perf_counter())
            found.append(future.result(left))
        except Exception as error:  # the process was killed, or the time is over
            found.append(f"{function.__name__}{arguments}: {error!r}")
    workers = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.kill()  # one that hangs would keep the GPU, and this process from ending
    return found


def compiled(rows: Callable[..., None], device: str, n: int, c: int) -> None:
    """Run a function of rows once, every candidate tile included, and keep no figure."""
    with contextlib.redirect_stdout(None):
        rows(Table(untimed(device), {"MACs per second, bfloat16": 1.0, "bytes per second": 1.0}), n, c)


def compile_growth(device: str) -> None:
    growth(untimed(device))


def untimed(device: str) -> Bench:
    return Untimed(device, inf, Sizes() if device == "cuda" else REHEARSED)


class Untimed(Bench):
    """Calls once what is to be measured later. What fails here for want of memory may not fail there."""

    def compared(self, what: str, ways: Any) -> dict[str, float]:
        for name, call in ways.items():
            if name == "attention":  # nothing of ours, and the longest
                continue
            try:
                call()
                if self.timed:
                    torch.cuda.synchronize()
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
        return {}

    def called(self, call: Any) -> None:
        return None


def _begin() -> None:
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    # What torch's compiler times here, beside other processes, must not be what the measuring process finds on disk.
    from torch._inductor import config

    config.autotune_local_cache = False

    def once(tile: Any, run: Callable[[Any], object]) -> float:
        from triton.runtime.errors import TritonError

        try:
            run(tile)
        except (TritonError, RuntimeError):
            return inf
        return 0.0

    # What is fastest is found later, on a device that does nothing else; here each tile is compiled.
    tuning._milliseconds = once
    tuning._remember = lambda name, tile: None


def _finished(number: int, job: Job) -> Any:
    function, arguments = job
    torch.manual_seed(number)
    try:
        return function(*arguments)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        places = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames[-6:]]
        return f"{function.__name__}{arguments}: {type(error).__name__}: {error} (in {', '.join(places)})"
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
