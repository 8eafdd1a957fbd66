"""Files from elsewhere: nothing in them runs, and an error names the file before a step is taken."""

import io
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader

from polyattn.errors import CheckpointError
from polyattn.training import Checkpoints, files, started
from polyattn.training.reading import layout

pytestmark = pytest.mark.xdist_group("hostile files")


@pytest.fixture(scope="module")
def alone():
    with started("cpu", environ={}) as processes:
        yield processes


class Touching:
    """Makes a folder where it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def sealed(folder: Path, target: Path) -> None:
    """Give changed files a manifest that is right."""
    (folder / files.MANIFEST).unlink(missing_ok=True)
    names = sorted(p.name for p in folder.iterdir())
    files.seal(folder, target, {name: files.digest(folder / name) for name in names}, {"step": 3})


def state(value: float) -> dict:
    return {"model": {"w": torch.full((4, 5), value)}, "optimiser": {"lr": value, "names": ["w"], "none": None}}


@pytest.fixture
def saved(alone, tmp_path):
    checkpoints = Checkpoints(tmp_path / "run", 3, alone, print)
    checkpoints.prepare(1)
    checkpoints.save(3, state(3.0), {})
    return checkpoints


def changed(checkpoints: Checkpoints, change) -> None:
    """Change the files of the checkpoint, and seal it again."""
    folder = checkpoints.path(3)
    draft = folder.with_name(".draft")
    folder.rename(draft)
    change(draft)
    sealed(draft, folder)
    assert files.damage(folder) is None
    assert checkpoints.latest() == 3


def test_a_layout_that_would_run_code_is_refused_and_runs_nothing(saved, tmp_path):
    made = tmp_path / "made"
    changed(saved, lambda folder: (folder / ".metadata").write_bytes(pickle.dumps(Touching(made))))
    with pytest.raises(CheckpointError, match=r"step-000000003/\.metadata is not .* names posix\.mkdir, .*: remove"):
        saved.load(3, state(0.0))
    assert not made.exists()
    with pytest.raises(AttributeError):
        FileSystemReader(saved.path(3)).read_metadata()  # torch's own reader runs it
    assert made.exists()


def test_a_plain_value_that_would_run_code_is_refused_and_runs_nothing(saved, tmp_path):
    made = tmp_path / "made"

    def change(folder: Path) -> None:
        [data] = folder.glob("*.distcp")
        metadata = FileSystemReader(folder).read_metadata()
        content = bytearray(data.read_bytes())
        for index, info in metadata.storage_data.items():
            if index.fqn == "optimiser.lr":
                pickled = io.BytesIO()
                torch.save(Touching(made), pickled)
                info.offset, info.length = len(content), len(pickled.getvalue())
                content += pickled.getvalue()
        data.write_bytes(content)
        (folder / ".metadata").write_bytes(pickle.dumps(metadata))

    changed(saved, change)
    with pytest.raises(CheckpointError, match="step-000000003 cannot be read into this network"):
        saved.load(3, state(0.0))
    assert not made.exists()


def damaged_layouts(good: bytes) -> dict[str, bytes]:
    metadata = pickle.loads(good)

    def other(**changes) -> bytes:
        copy = pickle.loads(good)
        for name, value in changes.items():
            setattr(copy, name, value)
        return pickle.dumps(copy)

    [(index, info), *_] = metadata.storage_data.items()
    elsewhere, negative, transformed = (type(info)(*fields) for fields in (
        ("../../outside", 0, 9), (info.relative_path, -1, 9), (info.relative_path, 0, 9, ["zstd"]),
    ))  # fmt: skip
    return {
        "empty": b"",
        "cut": good[:-9],
        "a number": pickle.dumps(3),
        "brackets": b"\x80\x04" + b"]" * 30_000 + b"a" * 29_999 + b".",
        "no data": other(storage_data=None),
        "no tensors": other(state_dict_metadata=[1]),
        "other entries": other(state_dict_metadata={"model.w": index}),
        "another file": other(storage_data={index: elsewhere}),
        "a negative offset": other(storage_data={index: negative}),
        "an extension": other(storage_data={index: transformed}),
        "state for a class": b"\x80\x02ctorch.distributed.checkpoint.metadata\nMetadata\n}X\x01\x00\x00\x00aK\x01sb.",
    }


LAYOUTS = (
    "empty", "cut", "a number", "brackets", "no data", "no tensors", "other entries", "another file",
    "a negative offset", "an extension", "state for a class",
)  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_that_torch_does_not_write_is_a_named_error(saved, name):
    good = (saved.path(3) / ".metadata").read_bytes()
    changed(saved, lambda folder: (folder / ".metadata").write_bytes(damaged_layouts(good)[name]))
    with pytest.raises(CheckpointError, match=r"step-000000003/\.metadata is not the layout of a checkpoint \(.+\)"):
        saved.load(3, state(0.0))


def test_a_layout_that_the_manifest_does_not_have_is_not_read(saved):
    with pytest.raises(CheckpointError, match="the manifest does not have it"):
        layout(saved.path(3), ["__0_0.distcp"])


def test_tensors_and_plain_values_are_read_as_they_were_written(saved):
    read = state(0.0) | {"optimiser": {"lr": 0.0, "names": [], "none": 1}}
    saved.load(3, read)
    assert torch.equal(read["model"]["w"], torch.full((4, 5), 3.0))
    assert read["optimiser"] == {"lr": 3.0, "names": ["w"], "none": None}


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "[]", "3", "", '{"files": 3, "sha256": "a"}'])
def test_a_manifest_of_anything_is_damage(saved, text):
    saved.save(4, state(4.0), {})
    (saved.path(4) / files.MANIFEST).write_text(text)
    assert saved.latest() == 3
