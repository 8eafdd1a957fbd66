"""The log of a training: CSV files, TensorBoard, and a line of progress. In the first process only."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from polyattn.errors import TrainingError
from polyattn.optional import need
from polyattn.training import files

STEPS, EVALUATIONS = "steps.csv", "evaluations.csv"


class Log:
    """The log of one training; every row has the number of steps done.

    A training that continues from a checkpoint drops later entries, so that each step occurs once.

    Args:
        folder: the folder of the files; None for progress only.
        first: whether this process writes and prints.
        start: number of steps done so far.
        total: number of steps of the training.
    """

    def __init__(self, folder: Path | None, first: bool, start: int, total: int):
        self.folder, self.first, self.start, self.total = folder, first, start, total
        self.console = Console(quiet=not first, highlight=False)
        self.board: Any = None
        if folder is not None and first:
            for name in (STEPS, EVALUATIONS):
                _cut(folder / name, start)
            # `purge_step` hides the board's entries after the checkpoint.
            self.board = need("torch.utils.tensorboard", "train").SummaryWriter(
                folder / "tensorboard", purge_step=start
            )
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=self.console, transient=True, disable=not (first and self.console.is_terminal),
        )  # fmt: skip
        self.bar = self.progress.add_task("training", total=total, completed=start)
        self.clock, self.counted = time.perf_counter(), start

    def __enter__(self) -> Log:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()
        if self.board is not None:
            self.board.close()

    def line(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, markup=False, soft_wrap=True)

    def done(self, step: int) -> None:
        """Record the number of steps done."""
        self.progress.update(self.bar, completed=step)

    def losses(self, step: int, epoch: float, rate: float, losses: Mapping[str, float], batch: int) -> None:
        """Record the losses of the last step."""
        now = time.perf_counter()
        speed = (step - self.counted) * batch / (now - self.clock) if step > self.counted else 0.0
        self.clock, self.counted = now, step
        self._row(STEPS, {"step": step, "epoch": epoch, "rate": rate, **losses, "samples_per_second": round(speed, 3)})
        self._scalars("training", step, {"rate": rate, **losses})
        self.progress.update(self.bar, description=f"epoch {epoch:.2f}, loss {losses['loss']:.4f}")
        # Without a terminal the bar is invisible, as in a job's log file.
        if not self.progress.live.is_started or not self.console.is_terminal:
            self.line(f"step {step}/{self.total}, epoch {epoch:.2f}, rate {rate:.3g}, loss {losses['loss']:.4f}")

    def evaluation(self, step: int, epoch: float, figures: Mapping[str, float]) -> None:
        """Record the figures of an evaluation."""
        self._row(EVALUATIONS, {"step": step, "epoch": epoch, **figures})
        self._scalars("evaluation", step, figures)
        self.line(f"step {step}, epoch {epoch:.2f}: " + ", ".join(f"{k} {v:.4f}" for k, v in figures.items()))

    def evaluated(self, step: int) -> bool:
        """Test if the log has an evaluation after a step."""
        if self.folder is None or not (self.folder / EVALUATIONS).exists():
            return False
        with (self.folder / EVALUATIONS).open(newline="") as file:
            return any(row["step"] == str(step) for row in csv.DictReader(file))

    def _row(self, name: str, row: Mapping[str, Any]) -> None:
        if self.folder is None or not self.first:
            return
        path = self.folder / name
        new = not path.exists() or not path.stat().st_size
        # Opened for each row: a kill loses at most the row being written.
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)

    def _scalars(self, group: str, step: int, values: Mapping[str, float]) -> None:
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(f"{group}/{name}", value, step)


def _cut(path: Path, start: int) -> None:
    """Drop the rows after a step, and an incomplete last row.

    Raises:
        TrainingError: the file is not a log of this kind; it is untouched.
    """
    if not path.exists():
        return
    try:
        head, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
        names = next(csv.reader(io.StringIO(head)), [])
        if head and names[:1] != ["step"]:
            raise ValueError("its first column should be `step`")
        # A kill may end a row anywhere, even inside its last number.
        whole = [line for line in lines if line.endswith("\n") and len(next(csv.reader([line]), [])) == len(names)]
        kept = [line for line in whole if int(line.split(",")[0]) <= start]
    except (OSError, ValueError, csv.Error) as error:
        raise TrainingError(
            f"{path} is not a log of this training ({files.reason(error)}): move it elsewhere, and the log starts anew"
        ) from error
    files.write_text(path, "".join([head, *kept]) if kept else "")
