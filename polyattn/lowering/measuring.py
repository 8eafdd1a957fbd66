"""The figures of a roofline, measured on a possibly busy machine.

By wall time, a parallel operation on a processor waits for the last of its threads, and that thread on a busy machine
waits for its turn: a product takes ten times as long as it computes. So as many threads as torch uses run products and
copies side by side, each timed by its own processor time, which stops while another process has the core. A GPU is
timed by wall time.

Rounds of all workloads are assigned to three groups in turn. The measurement ends when the groups agree; the largest
difference between them is its noise.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier

import torch
from torch import Tensor

from polyattn.planning import Device

SHORT, LONG = (8, 16, 32, 64), {"cpu": 1536, "cuda": 8192}
"""Short sides for the fall of the rate, and the long sides of those products, divided among the threads."""
SIDE = {"cpu": 320, "cuda": 8192}
"""Side of the square product of each thread: so small that most of its runs fit into a time slice."""
ENTRIES = {"cpu": (1 << 19, 1 << 25), "cuda": (1 << 28, 1 << 28)}
"""float32 entries of one copy, and of the buffers of all threads together, too large for caches."""
OPERATIONS = 50
"""Operations on a single entry in one run."""
GROUPS, ROUNDS = 3, 24
"""Groups of rounds, and the least number of rounds."""
QUIET, NOISY = 0.03, 0.5
"""The noise at which a measurement ends early, and the noise above which it is useless."""


@dataclass(frozen=True)
class Measured:
    """Figures of a device, and their reliability.

    Attributes:
        device: the figures.
        noise: largest relative difference between the three groups of rounds.
        waiting: share of the time that threads waited for a core, 0 on a quiet machine.
        rounds: number of rounds.
    """

    device: Device
    noise: float
    waiting: float
    rounds: int


def measure(name: str, device: str, dtype: torch.dtype, seconds: float) -> Measured:
    """Measure the rates of a device.

    Args:
        name: name of the device in tables.
        device: "cpu" or "cuda".
        dtype: dtype of the products.
        seconds: the longest time for the rounds, twice that if they differ by more than `NOISY`; a quiet machine needs
            a fraction of it.
    """
    threads = torch.get_num_threads() if device == "cpu" else 1
    # One torch thread in each worker: the workers themselves stand for torch's threads.
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        workers = [Workloads(device, dtype, threads) for _ in range(threads)]
        rounds, waiting = _rounds(workers, seconds)
    finally:
        if device == "cpu":
            torch.set_num_threads(threads)
    times = times_of(workers)
    typical = {key: low([t for found in each for t in found]) for key, each in times.items()}
    return Measured(workers[0].device(name, typical), noise_of(times), waiting, rounds)


def _rounds(workers: Sequence[Workloads], seconds: float) -> tuple[int, float]:
    """Run the rounds; return their number, and the share of the time that threads waited."""
    # The timeout frees the other threads if one of them fails.
    together = Barrier(len(workers), timeout=60 + seconds)
    taken, used = 0.0, 0.0
    with ThreadPoolExecutor(len(workers)) as pool:

        def each(function: Callable[[Workloads], tuple[float, float]]) -> None:
            nonlocal taken, used
            for wall, own in pool.map(function, workers):
                taken, used = taken + wall, used + own

        each(lambda w: w.round(together, keep=False))  # the first run of each makes handles and buffers
        start, rounds, taken, used = time.perf_counter(), 0, 0.0, 0.0
        while True:
            each(lambda w: w.round(together, keep=True))
            rounds += 1
            # Equal groups of two rounds at least, or their lower deciles cannot be compared.
            if rounds < 2 * GROUPS or rounds % GROUPS:
                continue
            noise, spent = noise_of(times_of(workers)), time.perf_counter() - start
            enough = noise <= QUIET and rounds >= ROUNDS
            if enough or spent >= (seconds if noise <= NOISY else 2 * seconds):
                return rounds, max(0.0, 1 - used / taken)


def times_of(workers: Sequence[Workloads]) -> dict[str, list[list[float]]]:
    """Return the times by round, for each workload and thread."""
    return {key: [worker.times[key] for worker in workers] for key in workers[0].times}


def low(times: Sequence[float]) -> float:
    """Return the lower decile: a run is lengthened by caches filled by another process, and never shortened."""
    return sorted(times)[len(times) // 10]


def noise_of(times: dict[str, list[list[float]]]) -> float:
    """Return the largest relative difference between the groups' lower deciles.

    Args:
        times: for each workload and thread, the times by round.
    """
    worst = 0.0
    for each in times.values():
        groups = [[t for found in each for t in found[k::GROUPS]] for k in range(GROUPS)]
        least = [low(group) for group in groups]
        worst = max(worst, max(least) / min(least) - 1)
    return worst


class Workloads:
    """One thread's share of the calls that yield a device's figures.

    Args:
        device: "cpu" or "cuda".
        dtype: dtype of the products.
        threads: number of threads with such calls side by side.
    """

    def __init__(self, device: str, dtype: torch.dtype, threads: int):
        self.kind, self.dtype, self.threads = device, dtype, threads
        # Coarse thread clocks (15 ms on some systems) would round most calls to zero.
        precise = device == "cpu" and time.get_clock_info("thread_time").resolution < 1e-6
        self.clock = time.thread_time if precise else time.perf_counter
        self.side = SIDE[device]
        self.part, entries = ENTRIES[device]
        self.long, self.share = LONG[device], max(LONG[device] // threads, 16)
        square, right = self._numbers(self.side, self.side), self._numbers(self.long, self.share)
        # A buffer holds at least one part, however many threads share it.
        entries = max(entries // threads, self.part)
        source, target = (torch.ones(entries, device=device) for _ in range(2))
        self.parts = list(zip(source.split(self.part), target.split(self.part), strict=True))
        self.turn = 0
        tiny = torch.zeros(1, device=device)
        self.calls: dict[str, Callable[[], object]] = {"large": lambda: square @ square}
        for short in SHORT:
            left = self._numbers(short, self.long)
            self.calls[f"short {short}"] = lambda left=left: left @ right
        self.calls["copy"] = self._copy
        self.calls["step"] = lambda: [tiny + 1 for _ in range(OPERATIONS)]
        self.times: dict[str, list[float]] = {key: [] for key in self.calls}

    def _numbers(self, *shape: int) -> Tensor:
        return torch.rand(*shape, device=self.kind, dtype=self.dtype)

    def _copy(self) -> None:
        """Copy the next part: the whole buffer lies between two copies of one part, so caches do not hold it."""
        source, target = self.parts[self.turn % len(self.parts)]
        self.turn += 1
        target.copy_(source)

    @torch.no_grad()
    def round(self, together: Barrier, *, keep: bool) -> tuple[float, float]:
        """Run each call once, all threads at the same time; return the seconds of the wall clock and of `clock`."""
        # Threads start together, so that they compete for memory as torch's threads do.
        together.wait()
        began, own = time.perf_counter(), self.clock()
        for key, call in self.calls.items():
            start = self.clock()
            call()
            # CUDA calls return before they are done.
            if self.kind == "cuda":
                torch.cuda.synchronize()
            if keep:
                self.times[key].append(self.clock() - start)
        return time.perf_counter() - began, self.clock() - own

    def device(self, name: str, times: dict[str, float]) -> Device:
        """Compute the figures of all threads from one thread's times.

        The rate r of a product with a side s is modelled as large * s / (s + tile), for each of its sides; `large` and
        `tile` are fitted to the measured rates.
        """
        step = times["step"] / OPERATIONS
        square = self.side**3 / times["large"]
        rates = {s: s * self.long * self.share / times[f"short {s}"] for s in SHORT}
        large, tile = square, 1.0
        for _ in range(20):  # a fixed point: each figure is read with the other one
            large = square * (1 + tile / self.side) ** 3
            rest = large / (1 + tile / self.long) ** 2
            tile = max(1.0, statistics.median(s * (rest / min(rate, rest) - 1) for s, rate in rates.items()))
            # Bounds the fixed point where noisy rates would drive it off.
            tile = min(tile, self.side / 4)
        # A float32 entry is read and written, 8 bytes in all.
        bandwidth = 8 * self.part / times["copy"]
        n = self.threads
        return Device(name, n * large, n * bandwidth, step, round(tile), self.dtype.itemsize, self.kind)
