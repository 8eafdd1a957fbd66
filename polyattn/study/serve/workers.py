"""Processes that compute answers and can be killed: input cannot exceed its time or its memory."""

from __future__ import annotations

import json
import multiprocessing
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from polyattn.errors import PolyattnError
from polyattn.study.serve.limits import Limits

STARTING = 300.0
"""Seconds for a worker's imports, on a busy machine."""
LARGEST = 8 << 20
"""Bytes of an answer."""
READY = b"ready"
PREPARED = "polyattn.study.serve.prepared"


class BusyError(PolyattnError):
    """Too many requests wait for a worker."""


class StoppedError(PolyattnError):
    """A computation was stopped: its time was up, or its process ended."""


def work(connection: Connection, memory: int, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Run a worker: one request after the other, until its pipe closes or its memory is exhausted."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends its workers itself
    import_module(PREPARED)  # a fork has it already
    _limit_memory(memory)
    connection.send_bytes(READY)
    with suppress(EOFError, OSError):
        while True:
            request = json.loads(connection.recv_bytes())
            full = False
            try:
                found = answer(request)
            except (MemoryError, RecursionError):
                full, found = True, {"error": {"reason": "this is too large for the server", "line": 0, "column": 0}}
            # Any other error is a fault of the library: report its kind, not its text, which may quote the input.
            except Exception as error:
                print(f"polyattn serve: {type(error).__name__} in {request.get('job')}", file=sys.stderr)
                full, found = True, {"failed": True}
            data = json.dumps(found).encode()
            if len(data) > LARGEST:
                data = json.dumps(
                    {"error": {"reason": "the answer is too large to show", "line": 0, "column": 0}}
                ).encode()
            # After exhausted memory the process may be damaged, so it ends with its answer.
            connection.send_bytes(data)
            if full:
                return


def _limit_memory(memory: int) -> None:
    """Limit the address space to its present size and `memory` bytes more, on systems that enforce it."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return
    import resource

    most = int(status.read_text().split()[0]) * resource.getpagesize() + memory
    # A process may lower its own hard limit, never raise it.
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


@dataclass
class Worker:
    process: BaseProcess
    connection: Connection
    jobs: int = 0

    def kill(self) -> None:
        self.process.kill()
        self.process.join(5)
        self.connection.close()


class Workers:
    """The workers of one server.

    Args:
        limits: their number, and the limits of each.
        answer: their computation; an importable function.
    """

    def __init__(self, limits: Limits, answer: Callable[[dict[str, Any]], dict[str, Any]]):
        self.limits, self.answer = limits, answer
        methods = multiprocessing.get_all_start_methods()
        # A fork server has imported everything once; a new worker is there at once.
        self.context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            self.context.set_forkserver_preload([PREPARED])
        self.idle: list[Worker] = []
        self.all: list[Worker] = []
        self.waiting = 0
        self.places = anyio.Semaphore(limits.workers)

    async def start(self) -> None:
        """Start all workers."""
        for _ in range(self.limits.workers - len(self.idle)):
            self.idle.append(await self._new())

    def stop(self) -> None:
        for worker in self.all:
            worker.kill()
        self.all, self.idle = [], []

    async def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Compute the answer to a request; if the caller is cancelled, its process is killed.

        Raises:
            BusyError: too many requests wait already.
            StoppedError: the time was exhausted, or the process ended.
        """
        if self.waiting >= self.limits.waiting:
            raise BusyError("the server is busy")
        self.waiting += 1
        try:
            await self.places.acquire()
        # Also on cancellation while waiting, or the count would never come down.
        finally:
            self.waiting -= 1
        try:
            return await self._run(request)
        finally:
            self.places.release()

    async def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        worker = self.idle.pop() if self.idle else await self._new()
        done = False
        try:
            data = await _exchange(worker, json.dumps(request).encode(), self.limits.seconds)
            worker.jobs += 1
            done = worker.jobs < self.limits.jobs and worker.process.is_alive()
            return json.loads(data)
        finally:
            # A worker in an unknown state is never reused.
            if done:
                self.idle.append(worker)
            else:
                self.all.remove(worker)
                # Cancellation must not leave a running process behind.
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(worker.kill)

    async def _new(self) -> Worker:
        here, there = self.context.Pipe()
        process = self.context.Process(target=work, args=(there, self.limits.memory, self.answer), daemon=True)
        worker = Worker(process, here)
        self.all.append(worker)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(process.start)
            # The parent's copy would keep the pipe open after the worker's death.
            there.close()
            if await _exchange(worker, b"", STARTING) != READY:
                raise StoppedError("a worker did not start")
        return worker


async def _exchange(worker: Worker, data: bytes, seconds: float) -> bytes:
    """Exchange bytes with a worker within some seconds; without data, read its first message."""

    def both() -> bytes:
        if data:
            worker.connection.send_bytes(data)
        # A thread waits here, since a pipe cannot be awaited; it is abandoned on cancellation.
        if not worker.connection.poll(seconds):
            raise StoppedError(f"this takes more than {seconds:g} seconds")
        return worker.connection.recv_bytes(LARGEST)

    try:
        return await anyio.to_thread.run_sync(both, abandon_on_cancel=True)
    except (EOFError, OSError):
        raise StoppedError("this is too large for the server") from None
