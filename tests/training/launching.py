"""Several processes at the cost of a fork each: they come from one process that has imported everything already."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing import connection, get_context
from typing import Any

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *("polyattn.vision", "polyattn.training", "torch._dynamo", "torch.utils.tensorboard", "torchmetrics", "tyro"),
        "tests.training.warmed",
    ]
)
LONGEST = 240


class Killed(Exception):
    """The process ended by a signal."""


def _entry(pipe: connection.Connection, environ: dict[str, str], function: Callable, args: tuple) -> None:
    os.environ.update(environ)
    try:
        pipe.send((function(*args), None))
    except ChildFailedError as error:  # it cannot be pickled
        pipe.send((None, RuntimeError(str(error))))
    except BaseException as error:
        pipe.send((None, error))


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def together(
    count: int, function: Callable, *args: Any, kill_when: Callable[[], bool] | None = None
) -> list[Any | BaseException]:
    """Run a function in so many processes with torchrun's variables; its results, or the exceptions, by rank.

    Args:
        kill_when: asked all the time; once it says yes, every process gets SIGKILL.
    """
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    running = []
    for rank in range(count):
        mine, theirs = CONTEXT.Pipe(duplex=False)
        environ = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
        process = CONTEXT.Process(target=_entry, args=(theirs, environ, function, args), daemon=False)
        process.start()
        theirs.close()
        running.append((process, mine))
    end = time.monotonic() + LONGEST
    while kill_when is not None and any(process.is_alive() for process, _ in running) and time.monotonic() < end:
        if kill_when():
            for process, _ in running:
                assert process.pid is not None
                os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.001)
    found: list[Any] = []
    for process, pipe in running:
        try:
            value, error = pipe.recv() if pipe.poll(max(0.0, end - time.monotonic())) else (None, TimeoutError())
        except EOFError:
            value, error = None, Killed()
        if isinstance(error, TimeoutError):
            process.kill()
        process.join()
        pipe.close()
        found.append(value if error is None else error)
    return found
