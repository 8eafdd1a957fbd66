"""A folder belongs to one training at a time."""

import errno
import fcntl
import os
import re
import time
from dataclasses import replace

import pytest

from polyattn.errors import CheckpointError, TrainingError
from polyattn.training import started
from polyattn.training.locking import LOCK, held
from tests.training.launching import CONTEXT, together
from tests.training.toy import SETTINGS, curve, train


@pytest.fixture(scope="module")
def alone():
    with started("cpu", environ={}) as processes:
        yield processes


def refuses(folder, processes, message, kind=TrainingError):
    with pytest.raises(kind, match=message), held(folder, processes, print):
        pass


def hold(folder, ready):
    """Hold a folder until killed; a child that outlives this process does not hold it."""
    with started("cpu", environ={}) as processes, held(folder, processes, print):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        (folder / LOCK).read_bytes()  # some kinds of locks end where their file is closed anywhere in the process
        ready.send(child)
        time.sleep(60)


def test_a_held_folder_is_refused_until_its_process_is_killed(alone, tmp_path):
    mine, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=hold, args=(tmp_path, theirs))
    process.start()
    child = mine.recv()
    try:
        wanted = rf"{re.escape(str(tmp_path))} is in use by another training \(process {process.pid} on .*\): wait for"
        refuses(tmp_path, alone, wanted)
        refuses(tmp_path, alone, wanted)
        process.kill()
        process.join()
        with held(tmp_path, alone, print):
            pass
    finally:
        os.kill(child, 9)


def test_two_trainings_in_one_process_do_not_share_a_folder(alone, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with held(tmp_path / "run", alone, print):
        for name in ("run", "link"):
            refuses(tmp_path / name, alone, f"in use by another training .process {os.getpid()} on")
        with held(tmp_path / "other", alone, print), held(None, alone, print):
            pass
    with held(tmp_path / "run", alone, print):
        pass


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[" * 100_000, b"{}", b"[1]"])
def test_what_is_left_in_a_lock_does_not_matter(alone, tmp_path, content):
    (tmp_path / LOCK).write_bytes(content)
    with held(tmp_path, alone, print):
        (tmp_path / LOCK).write_bytes(content)
        refuses(tmp_path, alone, "a process that has not written its number yet")


def test_a_file_system_without_locks_is_said(alone, tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    lines = []
    with held(tmp_path, alone, lines.append):
        assert lines == [f"{tmp_path} is on a file system without locks: start no second training in it"]


def test_a_lock_that_is_no_file_is_a_named_error(alone, tmp_path):
    (tmp_path / LOCK).mkdir()
    refuses(tmp_path, alone, f"no checkpoints can be written to {tmp_path}: Is a directory", CheckpointError)


def test_a_second_training_leaves_the_first_one_s_files(alone, tmp_path):
    """Two jobs of two processes each: the first one ends as if alone, the second one is refused in every process."""
    settings = replace(SETTINGS, out=tmp_path, steps=2)
    with held(tmp_path, alone, print):
        (tmp_path / ".partial-000000001").mkdir()  # which the other job is writing
        for error in together(2, train, settings):
            assert isinstance(error, TrainingError), error
            assert "is in use by another training" in str(error)
        assert sorted(p.name for p in tmp_path.iterdir()) == [LOCK, ".partial-000000001"]
    assert [result[0] for result in together(2, train, settings)] == [0, 0]
    assert [row["step"] for row in curve(tmp_path)] == [1, 2]
