"""Checkpoints by `torch.distributed.checkpoint`: written atomically, verified before use.

A checkpoint is written into a hidden folder, each file forced to the disk; then a manifest with the size and the
SHA-256 of every file is added, and the folder renamed into place, an atomic operation of the file system. A training
killed at any moment finds the last renamed checkpoint. A damaged one is set aside, and its predecessor is used.
Verification compares every file with the manifest, but cannot tell the manifest's origin: `polyattn.training.reading`
reads files without running code in them.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from polyattn.errors import CheckpointError
from polyattn.training import files
from polyattn.training.files import reason
from polyattn.training.processes import Processes
from polyattn.training.reading import Planner, Reader, layout

PREFIX = "step-"


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: their folder, the same on all machines.
        keep: number of checkpoints to keep.
        processes: the processes of the training, all of which have to call each method.
        report: function that prints a line, in the first process.
    """

    folder: Path
    keep: int
    processes: Processes
    report: Callable[[str], None]

    def steps(self) -> list[int]:
        """Return the steps with a checkpoint, whole or not, the last one first."""
        found = [p.name.removeprefix(PREFIX) for p in self.folder.glob(f"{PREFIX}*") if p.is_dir()]
        steps = (int(name) for name in found if name.isdecimal())
        return sorted((step for step in steps if self.path(step).is_dir()), reverse=True)

    def path(self, step: int) -> Path:
        return self.folder / f"{PREFIX}{step:09d}"

    def prepare(self, bytes_needed: int) -> None:
        """Make the folder, and check that checkpoints can be written to it, before the first step.

        Args:
            bytes_needed: size of one checkpoint.

        Raises:
            CheckpointError: the folder is not writable, or too small for one more checkpoint.
        """
        self.processes.on_first(lambda: self._prepare(bytes_needed))

    def _prepare(self, bytes_needed: int) -> None:
        probe = self.folder / ".probe"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Leftovers of a killed training: never complete, since complete folders are renamed.
            for leftover in (*self.folder.glob(".partial-*"), *self.folder.glob(".removed-*")):
                files.discard(leftover)
            files.write_text(probe, "writable\n")
            probe.unlink()
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise CheckpointError(f"no checkpoints can be written to {self.folder}: {reason(error)}") from error
        if free < bytes_needed:
            raise CheckpointError(
                f"a checkpoint in {self.folder} takes about {bytes_needed:,} bytes, and {free:,} are free: make room, "
                f"or choose another folder"
            )

    def save(self, step: int, state: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Write the state after a step, and remove the oldest checkpoints.

        Args:
            step: number of steps done.
            state: a nested dictionary of tensors, whole or sharded over the processes, and plain values.
            facts: further contents of the manifest, such as the identity of the training.

        Raises:
            CheckpointError: a process could not write it. The earlier ones are untouched.
        """
        partial = self.folder / f".partial-{step:09d}"
        try:
            self.processes.on_first(lambda: files.discard(partial))
            dcp.save(dict(state), checkpoint_id=partial)
            digests = self._digests(partial)
            self.processes.on_first(lambda: self._seal(partial, step, digests, facts))
        except (OSError, CheckpointException) as error:
            free, why = shutil.disk_usage(self.folder).free, reason(error)
            if free < bytes_in(state) and not isinstance(error, OSError):  # torch's writer does not always say so
                why = f"{os.strerror(errno.ENOSPC)} ({why})"
            if self.processes.first:
                shutil.rmtree(partial, ignore_errors=True)
            kept = ", ".join(self.path(s).name for s in self.steps()) or "none yet"
            raise CheckpointError(
                f"the checkpoint of step {step} could not be written to {self.folder}: {why}; {free:,} bytes were "
                f"free; the checkpoints before it are untouched ({kept}): put that right and start the command again"
            ) from error

    def _digests(self, folder: Path) -> dict[str, str]:
        """Compute every file's digest; each process reads its share of them."""
        names = self.processes.on_first(lambda: sorted(p.name for p in folder.iterdir()))
        mine: dict[str, str] | OSError
        try:
            mine = {name: files.digest(folder / name) for name in names[self.processes.rank :: self.processes.count]}
        except OSError as error:
            mine = error
        found: dict[str, str] = {}
        # An error of one process is raised in all, or the others would wait for it in the next exchange.
        for part in self.processes.gathered(mine):
            if isinstance(part, OSError):
                raise part
            found |= part
        return found

    def _seal(self, partial: Path, step: int, digests: dict[str, str], facts: Mapping[str, Any]) -> None:
        target = self.path(step)
        files.discard(target)
        files.seal(partial, target, digests, {"step": step, **facts})
        for old in self.steps()[self.keep :]:
            files.discard(self.path(old))

    def latest(self) -> int | None:
        """Return the last step with a whole checkpoint; None without checkpoints.

        Raises:
            CheckpointError: all checkpoints are damaged.
        """
        return self.processes.on_first(self._latest)

    def _latest(self) -> int | None:
        damaged = []
        for step in self.steps():
            wrong = files.damage(self.path(step))
            if wrong is None:
                for bad, _ in damaged:
                    # Set aside instead of removed: the files may still be of use to a person.
                    aside = self.folder / f"damaged-{self.path(bad).name}"
                    files.discard(aside)
                    self.path(bad).rename(aside)
                if damaged:
                    bad = "; ".join(f"{self.path(s).name}: {text}" for s, text in damaged)
                    self.report(f"damaged and set aside: {bad}; going on from {self.path(step).name}")
                return step
            damaged.append((step, wrong))
        if damaged:
            bad = "; ".join(f"{self.path(s).name}: {text}" for s, text in damaged)
            raise CheckpointError(
                f"no checkpoint in {self.folder} is whole ({bad}): restore one, or choose another folder to start anew"
            )
        return None

    def facts(self, step: int) -> dict[str, Any]:
        """Return the `facts` given to `save`."""
        return self.processes.on_first(lambda: files.facts(self.path(step)))

    def load(self, step: int, state: dict[str, Any]) -> None:
        """Read a checkpoint into the tensors of a state, whole or sharded as they are now, without running code in it.

        Raises:
            CheckpointError: it lacks a part of the state, or contains an entry that training does not write.
        """
        folder = self.path(step)
        # Only files with a digest in the manifest may hold data.
        names = tuple(self.facts(step)["files"])
        metadata = self.processes.on_first(lambda: layout(folder, names))
        try:
            dcp.load(state, storage_reader=Reader(folder, metadata), planner=Planner())
        except (CheckpointException, OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{self.path(step)} cannot be read into this network: {reason(error)}") from error


def bytes_in(state: Any) -> int:
    """Count the bytes of the tensors in nested dictionaries, over all processes."""
    if isinstance(state, Mapping):
        return sum(bytes_in(value) for value in state.values())
    return state.numel() * state.element_size() if isinstance(state, torch.Tensor) else 0
