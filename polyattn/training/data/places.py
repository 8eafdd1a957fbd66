"""Where the data are: a folder, or a tiny set that is made for this run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from polyattn.errors import TrainingError
from polyattn.training.processes import Processes


@contextmanager
def data_at(path: Path | None, make: Callable[[Path], str], processes: Processes) -> Iterator[Path]:
    """The folder of the data; without one, a temporary folder with a tiny set in the same form.

    Args:
        path: the folder, or None.
        make: writes the tiny set into a folder that is there, and says what it wrote.
        processes: all of them call this.

    Raises:
        TrainingError: the folder does not exist.
    """
    if path is not None:
        if not path.is_dir():
            raise TrainingError(f"there is no folder {path} with data")
        yield path
        return
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
    """A file or folder that has to be there.

    Raises:
        TrainingError: it is not.
    """
    if not path.exists():
        raise TrainingError(f"{path} is missing: {what}")
    return path
