"""The location of the data: a folder, or a tiny set made for this run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from polyattn.errors import TrainingError
from polyattn.training.files import reason
from polyattn.training.processes import Processes


@contextmanager
def data_at(path: Path | None, make: Callable[[Path], str], processes: Processes) -> Iterator[Path]:
    """Yield the folder of the data; without one, a temporary folder with a tiny set in the same form.

    Args:
        path: the folder, or None.
        make: writes the tiny set into an existing folder, and returns its description.
        processes: the processes of the training; all call this.

    Raises:
        TrainingError: the folder does not exist.
    """
    if path is not None:
        if not path.is_dir():
            raise TrainingError(f"there is no folder {path} with data")
        yield path
        return
    # The other processes read the first one's folder: a tiny set is for one machine.
    temporary = tempfile.TemporaryDirectory(prefix="polyattn-tiny-") if processes.first else None
    try:

        def made() -> str:
            assert temporary is not None
            print(f"no --data: a tiny set of {make(Path(temporary.name))}", flush=True)
            return temporary.name

        yield Path(processes.on_first(made))
    finally:
        if temporary is not None:
            temporary.cleanup()


def existing(path: Path, what: str) -> Path:
    """Return a path after a check that it exists.

    Raises:
        TrainingError: it does not exist.
    """
    if not path.exists():
        raise TrainingError(f"{path} is missing: {what}")
    return path


def all_there(root: Path, names: Iterable[str], listing: Path) -> None:
    """Check that files or folders exist; each folder is listed once, which is fast for many files on a slow disk.

    Args:
        root: the folder of the names.
        names: such as "event/image.jpg".
        listing: the file that names them.

    Raises:
        TrainingError: some are missing; names the first of them.
    """
    folders: dict[Path, set[str]] = {}
    missing: list[Path] = []
    for name in names:
        path = root / name
        if path.parent not in folders:
            try:
                folders[path.parent] = set(os.listdir(path.parent))
            except (OSError, ValueError):
                folders[path.parent] = set()
        if path.name not in folders[path.parent]:
            missing.append(path)
    if missing:
        raise TrainingError(
            f"{missing[0]} is missing, which {listing} lists ({len(missing):,} such files): complete the data, or take "
            f"them out of the list"
        )


def text_of(path: Path, what: str) -> str:
    """Read the text of a required file.

    Raises:
        TrainingError: it is missing, or not text in UTF-8.
    """
    try:
        return existing(path, what).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read as text ({reason(error)}): {what}") from error
