"""Checkpoints read without running code in them.

torch's reader unpickles `.metadata` and the plain values of a state, and unpickling runs code named by the file. Here
`.metadata` becomes inert records: names in it are never imported, and names unknown to torch's writer are refused. The
layout is built from the records' numbers and texts, each with its type checked. Tensors and plain values are read by
`torch.load(weights_only=True)`.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.distributed.checkpoint import DefaultLoadPlanner, FileSystemReader
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from polyattn.errors import CheckpointError

LAYOUT = ".metadata"
WRITTEN = frozenset(
    {f"torch.distributed.checkpoint.metadata.{name}" for name in (
        "BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties",
        "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    )}
    | {"torch.distributed.checkpoint.filesystem._StorageInfo", "torch.Size", "torch.serialization._get_layout"}
    | {"torch.device", "collections.OrderedDict"}
    | {f"pathlib.{name}" for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")}
    | {f"pathlib._local.{name}" for name in ("PosixPath", "WindowsPath")}
    | {f"torch.{name}" for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
)  # fmt: skip
"""The names that torch writes into `.metadata`."""


class Record:
    """The arguments and the state of an object in a pickle, without behaviour."""

    of = ""

    def __init__(self, *args: Any):
        self.args, self.state = args, None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __getitem__(self, name: str) -> Any:
        if not isinstance(self.state, dict):
            raise ValueError(f"{self.of} has no fields")
        if name not in self.state:
            raise ValueError(f"{self.of} has no {name}")
        return self.state[name]

    def has(self, name: str) -> bool:
        """Test if a field is present and not None; torch omits such fields."""
        return isinstance(self.state, dict) and self.state.get(name) is not None


class Records(pickle.Unpickler):
    """An unpickler into records, each of a class of its own, so that no state can reach another object."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        name = f"{module_name}.{global_name}"
        if name not in WRITTEN:
            raise ValueError(f"it names {name[:200]}, which torch does not write there")
        return type("Record", (Record,), {"of": name})


def layout(folder: Path, files: Collection[str]) -> Metadata:
    """Read the layout of a checkpoint's tensors.

    Args:
        folder: the checkpoint's folder.
        files: the names in its manifest; data in other files are refused.

    Raises:
        CheckpointError: the layout is not one of torch's; no code in it was run.
    """
    path = folder / LAYOUT
    try:
        if LAYOUT not in files:
            raise ValueError("the manifest does not have it")
        return _built(Records(io.BytesIO(path.read_bytes())).load(), files)
    except Exception as error:  # a damaged pickle raises errors of every kind
        raise CheckpointError(
            f"{path} is not the layout of a checkpoint ({error}); nothing in it was run: remove {folder} if it comes "
            f"from elsewhere, and the training goes on from the checkpoint before it"
        ) from error


def _built(record: Any, files: Collection[str]) -> Metadata:
    entries = {}
    for name, entry in _checked(_made(record, "Metadata")["state_dict_metadata"], dict).items():
        if isinstance(entry, Record) and entry.of.endswith(".BytesStorageMetadata"):
            entries[_checked(name, str)] = BytesStorageMetadata()
            continue
        fields = _made(entry, "TensorStorageMetadata")
        chunks = [
            ChunkStorageMetadata(_size(chunk["offsets"]), _size(chunk["sizes"]))
            for chunk in (_made(c, "ChunkStorageMetadata") for c in _checked(fields["chunks"], list))
        ]
        properties = TensorProperties(dtype=_dtype(fields["properties"]))
        entries[_checked(name, str)] = TensorStorageMetadata(properties, _size(fields["size"]), chunks)
    places = {}
    for index, info in _checked(record["storage_data"], dict).items():
        place, data = _made(index, "MetadataIndex"), _made(info, "_StorageInfo")
        file = _checked(data["relative_path"], str)
        # A path in the layout could lead out of the folder, or to a file without a digest.
        if file not in files:
            raise ValueError(f"it places data in {file[:200]!r}, which the manifest does not have")
        # A transformation names an extension to load.
        if data.has("transform_descriptors"):
            raise ValueError("its data are transformed, which no checkpoint of a training is")
        offset = _size(place["offset"]) if place.has("offset") else None
        places[MetadataIndex(_checked(place["fqn"], str), offset)] = SimpleNamespace(
            relative_path=file,
            offset=_natural(data["offset"]),
            length=_natural(data["length"]),
            transform_descriptors=None,
        )
    return Metadata(entries, storage_data=places, storage_meta=StorageMeta())


def _made(record: Any, name: str) -> Record:
    if not isinstance(record, Record) or record.of.rpartition(".")[2] != name:
        raise ValueError(f"{name} should be where {getattr(record, 'of', '') or type(record).__name__!s} is")
    return record


def _checked(value: Any, kind: type) -> Any:
    # `type` and not `isinstance`: a bool is an int, and a subclass may behave differently.
    if type(value) is not kind:
        raise ValueError(f"{kind.__name__} should be where {type(value).__name__} is")
    return value


def _natural(value: Any) -> int:
    if _checked(value, int) < 0:
        raise ValueError(f"{value} is negative")
    return value


def _size(record: Any) -> torch.Size:
    [lengths] = _made(record, "Size").args
    return torch.Size(_natural(length) for length in lengths)


def _dtype(record: Any) -> torch.dtype:
    """Read the dtype, the first entry of the properties' state, by its name."""
    found = _checked(_made(record, "TensorProperties").state, tuple)[0]
    # Looked up by name instead of called, and accepted only if it is a dtype.
    value = getattr(torch, str(getattr(found, "of", "")).removeprefix("torch."), None)
    if not isinstance(value, torch.dtype):
        raise ValueError("a dtype is missing")
    return value


class Reader(FileSystemReader):
    """torch's reader of a folder, with a layout read before."""

    def __init__(self, folder: Path, metadata: Metadata):
        super().__init__(folder)
        self.metadata = metadata

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self.metadata


class Planner(DefaultLoadPlanner):
    """torch's planner, restricted to plain values of tensors, numbers, texts, lists and dictionaries."""

    def load_bytes(self, read_item: Any, value: io.BytesIO) -> None:
        plain = io.BytesIO()
        torch.save(torch.load(value, weights_only=True), plain)  # the planner itself would unpickle whatever is there
        plain.seek(0)
        super().load_bytes(read_item, plain)
