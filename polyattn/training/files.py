"""Folders that appear atomically, with a manifest that reveals damage."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException

from polyattn.errors import TrainingError

MANIFEST = "manifest.json"


def digest(path: Path) -> str:
    """Compute the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Force a file or a folder from the system's cache to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically: after a crash it is the old one or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        # Renamed before its content is on the disk, the file could be empty after a crash.
        os.fsync(file.fileno())
    partial.replace(path)
    # The new name is an entry of the folder, which has to reach the disk too.
    sync(path.parent)


def seal(folder: Path, target: Path, digests: dict[str, str], facts: dict[str, Any]) -> None:
    """Add a manifest to a folder of files, and rename it.

    Args:
        folder: the folder with the files, all on the disk.
        target: its final name, in the same parent; not in use.
        digests: SHA-256 of each file, by its name.
        facts: further contents of the manifest, for JSON.
    """
    sizes = {name: (folder / name).stat().st_size for name in digests}
    body = {**facts, "files": {name: {"bytes": sizes[name], "sha256": digests[name]} for name in sorted(digests)}}
    write_text(folder / MANIFEST, json.dumps({**body, "sha256": _of(body)}, indent=1) + "\n")
    # The files' entries reach the disk before the name that vouches for them.
    sync(folder)
    folder.rename(target)
    sync(target.parent)


def damage(folder: Path) -> str | None:
    """Return the damage of a sealed folder, or None if it is whole."""
    try:
        facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        own = facts.pop("sha256")
        if own != _of(facts):
            return f"{MANIFEST} is not as it was written"
        for name, file in facts["files"].items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            # Sizes first: a truncated file is found without reading it.
            if path.stat().st_size != file["bytes"]:
                return f"{name} has {path.stat().st_size:,} bytes, not {file['bytes']:,}"
            if digest(path) != file["sha256"]:
                return f"{name} is not as it was written"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{MANIFEST} cannot be read: {type(error).__name__}: {error}"
    return None


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a file of weights, as training writes `weights.pt`, on the CPU, without running code in it.

    Raises:
        TrainingError: the file is missing or unreadable, or is not a dictionary of tensors by name.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        wrong = None if isinstance(found, dict) else type(found).__name__
        wrong = wrong or next((f"{k!r}" for k, v in found.items() if not isinstance(v, torch.Tensor)), None)
        if wrong:
            raise ValueError(f"{wrong} is not a tensor by name")
    except Exception as error:  # torch's reader raises errors of every kind on damaged files
        raise TrainingError(
            f"{path} is not a file of weights ({reason(error)}): give the weights.pt of a training, or a state dict "
            f"that was written by torch.save"
        ) from error
    return found


def facts(folder: Path) -> dict[str, Any]:
    """Return the manifest of a whole folder."""
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))


def discard(folder: Path) -> None:
    """Remove a folder; if that is interrupted, the remainder has a name that `prepare` recognises."""
    if folder.exists():
        rest = folder if folder.name.startswith(".") else folder.with_name(f".removed-{folder.name}")
        if rest != folder:
            # A remainder of an earlier interruption may have the name.
            shutil.rmtree(rest, ignore_errors=True)
            folder.rename(rest)
        shutil.rmtree(rest)


def reason(error: BaseException) -> str:
    """Return the first cause of an error, in the system's own message if the system raised it."""
    if isinstance(error, CheckpointException) and error.failures:
        rank, (cause, _) = sorted(error.failures.items())[0]
        return f"process {rank}: {reason(cause)}"
    inner: BaseException | None = error
    while inner is not None:  # torch's writers raise errors of their own while an OSError is on its way
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"


def _of(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
