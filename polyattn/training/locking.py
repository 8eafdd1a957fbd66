"""One training at a time in a folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from polyattn.errors import CheckpointError, TrainingError
from polyattn.training.files import reason
from polyattn.training.processes import Processes

LOCK = ".lock"
WITHOUT = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
"""Errors of file systems without locks."""

_handles: set[int] = set()
"""Open files of locks: a lock lasts until each copy of its handle is closed, and a fork copies handles."""


def _drop() -> None:
    for handle in _handles:
        os.close(handle)
    _handles.clear()


os.register_at_fork(after_in_child=_drop)


@contextmanager
def held(folder: Path | None, processes: Processes, report: Callable[[str], None]) -> Iterator[None]:
    """Hold a folder for one training, in the first of its processes; called in all of them.

    The system releases the lock when that process ends, for whatever reason: child processes do not inherit it.

    Args:
        folder: the folder, made if it is missing; None locks nothing.
        processes: the processes of the training.
        report: prints a line if the file system does not support locks.

    Raises:
        TrainingError: another training holds the folder; names its process.
        CheckpointError: the folder is not writable.
    """
    if folder is None:
        yield
        return
    handle: int | None = None

    def acquire() -> None:
        nonlocal handle
        handle = _acquired(folder, report)

    # One lock for all machines of a training: the folder is shared, so the first process suffices.
    processes.on_first(acquire)
    try:
        yield
    finally:
        if handle is not None:
            _released(handle)


def _acquired(folder: Path, report: Callable[[str], None]) -> int:
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # NOFOLLOW: a link planted in a shared folder must not make this overwrite another file.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise CheckpointError(f"no checkpoints can be written to {folder}: {reason(error)}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            # The lock is advisory: its file can be read while another process holds it.
            holder = os.pread(handle, 4096, 0)
            os.close(handle)
            raise TrainingError(_taken(folder, holder)) from None
        if error.errno not in WITHOUT:
            os.close(handle)
            raise CheckpointError(f"{path} cannot be locked: {reason(error)}") from error
        report(f"{folder} is on a file system without locks: start no second training in it")
    _handles.add(handle)
    me = {"process": os.getpid(), "host": socket.gethostname(), "command": " ".join(sys.argv)[:1000]}
    with suppress(OSError):  # a full disk: the lock holds without a name
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(me).encode(), 0)
    return handle


def _released(handle: int) -> None:
    _handles.discard(handle)
    with suppress(OSError):
        # The name goes before the lock, or the next holder could see it.
        os.ftruncate(handle, 0)
    os.close(handle)


def _taken(folder: Path, content: bytes) -> str:
    try:
        holder: dict[str, Any] = json.loads(content)
        who = f"process {int(holder['process'])} on {holder['host']}, {holder['command']!r}"
    except (ValueError, KeyError, TypeError, RecursionError):
        who = "a process that has not written its number yet"
    return (
        f"{folder} is in use by another training ({who}): wait for its end, stop that process, or choose another folder"
    )
