"""Checkpoints: whole or not there, whatever is cut, changed, full or killed."""

import errno
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyattn.errors import CheckpointError
from polyattn.training import Checkpoints, files, started
from tests.drawing import share


@pytest.fixture(scope="module")
def alone():
    with started("cpu", environ={}) as processes:
        yield processes


def state(step: int) -> dict:
    """Tensors that tell which step they are of."""
    return {"model": {"w": torch.full((40, 5), float(step)), "b": torch.full((3,), step)}, "average": {}}


def opened(folder: Path, processes, keep: int = 3) -> tuple[Checkpoints, list[str]]:
    lines: list[str] = []
    found = Checkpoints(folder, keep, processes, lines.append)
    found.prepare(1)
    return found, lines


def holds(checkpoints: Checkpoints, step: int) -> bool:
    target = state(-1)
    checkpoints.load(step, target)
    return all(bool((t == step).all()) for t in target["model"].values()) and checkpoints.facts(step)["step"] == step


@pytest.fixture(scope="module")
def two(alone, tmp_path_factory) -> Path:
    """Checkpoints of the steps 5 and 10."""
    folder = tmp_path_factory.mktemp("two")
    checkpoints, _ = opened(folder, alone)
    for step in (5, 10):
        checkpoints.save(step, state(step), {"network": "toy"})
    return folder


def test_the_last_ones_stay(alone, tmp_path):
    checkpoints, lines = opened(tmp_path, alone, keep=2)
    assert checkpoints.latest() is None
    for step in (1, 2, 3, 12):
        checkpoints.save(step, state(step), {})
    assert checkpoints.steps() == [12, 3]
    assert holds(checkpoints, 12)
    assert holds(checkpoints, 3)
    assert lines == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000003", "step-000000012"]


@share(0.6)
@given(data=st.data())
def test_a_checkpoint_damaged_in_any_file_is_set_aside_and_the_one_before_it_is_used(alone, two, data):
    folder = two.parent / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(two, folder)
    last = folder / "step-000000010"
    path = last / data.draw(st.sampled_from(sorted(p.name for p in last.iterdir())))
    content = bytearray(path.read_bytes())
    how = data.draw(st.sampled_from(["cut", "changed", "removed", "longer"]))
    if how == "removed":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    elif how == "longer":
        path.write_bytes(content + data.draw(st.binary(min_size=1, max_size=9).filter(lambda b: b.strip())))
    else:
        place = data.draw(st.integers(0, len(content.rstrip()) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
    checkpoints, lines = opened(folder, alone)
    assert checkpoints.latest() == 5
    assert holds(checkpoints, 5)
    [line] = lines
    assert "step-000000010" in line
    assert path.name in line or "manifest.json" in line
    assert checkpoints.steps() == [5]  # so that keeping the last ones does not keep a damaged one
    assert opened(folder, alone)[0].latest() == 5


def test_where_nothing_is_whole_training_does_not_silently_start_anew(alone, two, tmp_path):
    folder = tmp_path / "all"
    shutil.copytree(two, folder)
    for file in folder.glob("*/*.distcp"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is whole"):
        opened(folder, alone)[0].latest()
    assert opened(folder, alone)[0].steps() == [10, 5]


class Stopped(BaseException):
    """What a kill is to the disk: from here on nothing on it changes, whatever the code still tries."""


CHANGES = ("fsync", "rename", "replace", "rmdir", "mkdir", "unlink")


@contextmanager
def failing(error: BaseException, at: int, folder: Path):
    """The at-th change of the disk inside the folder does not happen, and raises; counts all of them.

    With `Stopped`, no later one happens either.
    """
    made = [0]

    def maybe() -> None:
        made[0] += 1
        if made[0] == at or (made[0] > at and isinstance(error, Stopped)):
            raise error

    def guarded(real):
        def call(*args, **words):
            maybe()
            return real(*args, **words)

        return call

    def opening(file, mode="r", *args, **words):
        if set(mode) & set("wax+") and str(file).startswith(str(folder)):
            maybe()
        return open(file, mode, *args, **words)

    changed = mock.patch.multiple(os, **{name: guarded(getattr(os, name)) for name in CHANGES})
    with changed, mock.patch("io.open", opening):
        yield made


def attempts(two: Path, folder: Path, alone, error: BaseException, keep: int):
    """Saving step 15 with the error at its first change of the disk, its second, ... until it is not reached."""
    for at in range(1, 200):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(two, folder)
        checkpoints, _ = opened(folder, alone, keep)
        raised = None
        with failing(error, at, folder) as made:
            try:
                checkpoints.save(15, state(15), {})
            except (CheckpointError, Stopped) as found:
                raised = found
        if made[0] < at:
            assert raised is None
            assert at > 8
            return
        assert raised is not None
        yield raised


def test_a_kill_at_any_change_of_the_disk_leaves_the_checkpoint_before_or_the_new_one(alone, two, tmp_path):
    found = []
    for _ in attempts(two, tmp_path / "killed", alone, Stopped(), keep=2):
        checkpoints, lines = opened(tmp_path / "killed", alone, keep=2)
        step = checkpoints.latest()
        assert step in (10, 15)
        assert holds(checkpoints, step)
        assert lines == []  # a partial checkpoint is not even looked at
        found.append(step)
        checkpoints.save(20, state(20), {})
        assert holds(checkpoints, 20)
        assert not list((tmp_path / "killed").glob(".*"))
    assert found == sorted(found)
    assert set(found) == {10, 15}


def test_a_full_disk_is_an_error_that_says_so_and_loses_nothing(alone, two, tmp_path):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for raised in attempts(two, tmp_path / "full", alone, full, keep=3):
        assert isinstance(raised, CheckpointError)
        assert "No space left on device" in str(raised)
        assert "step-000000010" in str(raised)
        checkpoints, _ = opened(tmp_path / "full", alone)
        step = checkpoints.latest()
        assert step in (10, 15)
        assert holds(checkpoints, step)
        assert holds(checkpoints, 5)


@contextmanager
def mounted(folder: Path, *options: str):
    """A file system of its own in a folder, where that is allowed."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_file_system_that_runs_full_keeps_the_checkpoints_that_it_has(alone, tmp_path):
    with mounted(tmp_path / "small", "size=64k"):
        checkpoints, _ = opened(tmp_path / "small", alone)
        checkpoints.save(1, state(1), {})
        with pytest.raises(CheckpointError, match=r"step 2 .*No space left.*step-000000001"):
            checkpoints.save(2, {"model": {"w": torch.zeros(100_000)}}, {})
        again, _ = opened(tmp_path / "small", alone)
        assert again.latest() == 1
        assert holds(again, 1)
        again.save(2, state(2), {})
        assert again.latest() == 2


def test_a_folder_that_cannot_be_written_is_an_error_before_anything_is_computed(alone, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"no checkpoints can be written to .*Not a directory"):
        opened(tmp_path / "file" / "run", alone)
    with mounted(tmp_path / "fixed", "ro"), pytest.raises(CheckpointError, match="Read-only file system"):
        opened(tmp_path / "fixed", alone)


def test_too_little_room_is_said_before_anything_is_computed(alone, tmp_path):
    with pytest.raises(CheckpointError, match="are free: make room"):
        Checkpoints(tmp_path, 1, alone, print).prepare(10**18)


def test_a_state_with_other_names_is_not_loaded(alone, two):
    checkpoints, _ = opened(two, alone)
    with pytest.raises(CheckpointError, match="step-000000010 cannot be read into this network"):
        checkpoints.load(10, {"model": {"other": torch.zeros(2)}})


@share(0.2)
@given(st.text(max_size=40))
def test_a_small_file_is_replaced_as_a_whole(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "small.txt"
    files.write_text(path, "before")
    with failing(Stopped(), 2, path.parent), pytest.raises(Stopped):
        files.write_text(path, text)
    assert path.read_text() == "before"
    files.write_text(path, text)
    assert path.read_bytes().decode() == text
