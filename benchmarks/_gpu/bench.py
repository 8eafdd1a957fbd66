"""Measuring on a GPU: times, ceilings, rows with their share of the roofline; and the rehearsal of all that without."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import nan
from typing import Any

import torch
from torch import Tensor

from polyattn.kernels.cost import Cost
from polyattn.lowering import calibrated
from polyattn.lowering.matching import NAMES
from polyattn.planning import Device

Function = Callable[..., Tensor]

LEAST_RUNS = 20
MOST_RUNS = 200
FLUSHED = 2**28
"""Bytes written before every measured run: several times the cache of a large GPU."""
CALLED = ("fused", "compiled")
"""Ways that are also timed as Python calls them."""


@dataclass(frozen=True)
class Sizes:
    """What is measured: positions and channels, the batch, lengths for the growth, and how large the ceilings are."""

    points: tuple[tuple[int, int], ...] = ((3136, 256), (784, 512), (12544, 64), (65536, 64))
    batch: int = 32
    lengths: tuple[int, ...] = (10_000, 31_616, 100_000, 316_224, 1_000_000)
    copied: int = 2**29
    side: int = 8192


REHEARSED = Sizes(points=((49, 8), (20, 12)), batch=1, lengths=(100, 300), copied=2**12, side=32)


@dataclass
class Bench:
    """Measurements until the time is over; what comes after is listed as left out.

    Attributes:
        device: "cuda", or "cpu" for the rehearsal, in which everything runs once and no time means anything.
        end: of the time, as `time.perf_counter` counts.
        sizes: what is measured.
        left_out: what was not measured, and why.
        seconds: about how long one way is measured.
    """

    device: str
    end: float
    sizes: Sizes
    left_out: list[str] = field(default_factory=list)
    seconds: float = 0.06

    @property
    def timed(self) -> bool:
        return self.device == "cuda"

    @property
    def model(self) -> Device:
        """What layers are planned and lowered for."""
        return calibrated(self.device, "bfloat16")

    @property
    def kernels(self) -> str | tuple[str, ...]:
        """Which kernels layers are lowered with: what pays on the GPU, all of them in the rehearsal."""
        return "auto" if self.timed else NAMES

    def draw(self, *shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.randn(shape, device=self.device, dtype=dtype)

    def milliseconds(self, what: str, call: Callable[[], object]) -> float | None:
        """The median time of one call on the device; None if it was left out."""
        return self.compared(what, {"": call}).get("")

    def compared(self, what: str, ways: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        """The median times of several ways to one result on the device, in milliseconds, taken in turns.

        Each way is recorded as a CUDA graph and replayed, so that what Python and the launches take is left aside
        (`called` has that in it), and the cache is flushed before every replay.
        """
        found: dict[str, float] = {}
        if not self.timed:
            for name, call in ways.items():
                started = time.perf_counter()
                call()
                found[name] = 1e3 * (time.perf_counter() - started)
            return found
        replays: dict[str, Callable[[], object]] = {}
        flag = torch.zeros(1, device=self.device)
        for name, call in ways.items():
            if time.perf_counter() > self.end:
                self.left_out.append(f"{what} {name}: no time left")
                continue
            try:
                with torch.cuda.stream(torch.cuda.current_stream()):  # which a failed capture may not give back
                    replays[name] = recorded(call).replay
            except RuntimeError as error:
                self.left_out.append(f"{what} {name}: {error}")
                gc.collect()
                # A capture that fails leaves torch's generator of random numbers capturing until one succeeds.
                recorded(lambda: flag.add_(1))
                torch.cuda.empty_cache()
        return interleaved(replays, LEAST_RUNS, self.seconds)

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return time.perf_counter() > self.end

    def called(self, call: Callable[[], object]) -> float | None:
        """The median milliseconds from a call on an idle device until its result is there, launches included."""
        if not self.timed or time.perf_counter() > self.end:
            return None
        times = []
        for _ in range(LEAST_RUNS):
            torch.cuda.synchronize()
            started = time.perf_counter()
            call()
            torch.cuda.synchronize()
            times.append(1e3 * (time.perf_counter() - started))
        return statistics.median(times)

    def compiled(self, function: Function) -> Function:
        torch._dynamo.reset()
        return torch.compile(function, dynamic=False, backend="inductor" if self.timed else "eager")


def recorded(call: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """A call as a graph of its launches; it is called a few times before, for what is compiled and chosen first."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph


def interleaved(replays: Mapping[str, Callable[[], object]], least: int, seconds: float) -> dict[str, float]:
    """The median milliseconds of each, in turns, the cache flushed before each; at least so many runs of each."""
    flushed = torch.empty(FLUSHED, dtype=torch.int8, device="cuda")
    times: dict[str, list[float]] = {name: [] for name in replays}
    end = time.perf_counter() + seconds * len(replays)
    runs, draw = 0, random.Random(0)
    while runs < least or (runs < MOST_RUNS and time.perf_counter() < end):
        marks = {}
        for name, replay in draw.sample(list(replays.items()), len(replays)):
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flushed.zero_()
            before.record()
            replay()
            after.record()
            marks[name] = before, after
        torch.cuda.synchronize()
        for name, (before, after) in marks.items():
            times[name].append(before.elapsed_time(after))
        runs += 1
    return {name: statistics.median(found) for name, found in times.items()}


def both(function: Function, tensors: list[Tensor]) -> Callable[[], object]:
    """A forward and a backward pass."""
    wanted = [t.detach().requires_grad_() for t in tensors]
    seed = torch.randn_like(function(*tensors))
    return lambda: torch.autograd.grad(function(*wanted), wanted, seed)


def ceilings(bench: Bench) -> dict[str, float]:
    """Bytes per second of a copy, read and written, and multiply-accumulates per second of matrix products."""
    large = torch.randn(bench.sizes.copied, device=bench.device)
    other = torch.empty_like(large)
    # A copy may be done by another engine than a kernel's loads and stores: the faster of the two counts.
    ways = {"copy": lambda: torch.Tensor.copy_(other, large), "kernel": lambda: torch.mul(large, 1.5, out=other)}
    copied = min(bench.compared("copy", ways).values(), default=nan)
    found = {"bytes per second": 2 * large.nbytes / (1e-3 * copied)}
    side = bench.sizes.side
    for name, dtype, precision in (
        ("bfloat16", torch.bfloat16, "highest"),
        ("float16", torch.float16, "highest"),
        ("tf32", torch.float32, "high"),
        ("float32", torch.float32, "highest"),
    ):
        torch.set_float32_matmul_precision(precision)
        a, b = bench.draw(side, side, dtype=dtype), bench.draw(side, side, dtype=dtype)
        took = bench.milliseconds(f"matrix product, {name}", lambda a=a, b=b: a @ b)
        found[f"MACs per second, {name}"] = side**3 / (1e-3 * (took or float("nan")))
    torch.set_float32_matmul_precision("highest")
    return found


class Table:
    """Rows of measurements, each with its share of the roofline."""

    def __init__(self, bench: Bench, limits: dict[str, float]):
        self.bench, self.rows = bench, []
        self.rate, self.bandwidth = limits["MACs per second, bfloat16"], limits["bytes per second"]

    def add(
        self, what: str, which: str, point: tuple[int, int], cost: Cost | None, **ways: Callable[[], object]
    ) -> None:
        """Time several ways to one result; the first is ours."""
        row: dict[str, Any] = {"what": what, "pass": which, "N": point[0], "C": point[1], "B": self.bench.sizes.batch}
        times = self.bench.compared(f"{what} {which} {point}", ways)
        row |= {f"ms {name}": took for name, took in times.items()}
        called = {name: self.bench.called(ways[name]) for name in times if name in CALLED}
        row |= {f"ms {name}, called": took for name, took in called.items() if took is not None}
        names = list(ways)
        mine = row.get(f"ms {names[0]}")
        if cost is not None:
            row |= {"macs": cost.macs, "bytes": cost.bytes}
            row["ms roofline"] = 1e3 * cost.seconds(self.rate, self.bandwidth)
            if mine:
                row["share of the roofline"] = row["ms roofline"] / mine
        for name in names[1:]:
            if mine and f"ms {name}" in row:
                row[f"{name} / ours"] = row[f"ms {name}"] / mine
        self.rows.append(row)
        print("  ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()), flush=True)
