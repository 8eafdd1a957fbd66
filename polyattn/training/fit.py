"""The training loop: from the last whole checkpoint, or from the start, to the end."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import nn

from polyattn.errors import CheckpointError, TrainingError
from polyattn.training import files
from polyattn.training.averaging import Average
from polyattn.training.checkpoints import Checkpoints
from polyattn.training.loading import moved, training_batches
from polyattn.training.locking import held
from polyattn.training.logs import Log
from polyattn.training.order import Order
from polyattn.training.processes import Processes
from polyattn.training.settings import Settings
from polyattn.training.state import bytes_of, restore, state_of, whole_weights
from polyattn.training.steps import Stepper, autocast
from polyattn.training.task import Evaluating, Task
from polyattn.training.wrapping import freed, own, wrapped

WEIGHTS = "weights.pt"


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    Args:
        model: the network after the last step.
        steps: number of steps in all.
        resumed: the step from which this run continued; 0 for the start.
        losses: losses of the last step of this run by name; empty if all steps were done before.
        figures: figures of the last evaluation.
    """

    model: nn.Module
    steps: int
    resumed: int
    losses: dict[str, float]
    figures: dict[str, float]


def fit(task: Task, settings: Settings, processes: Processes) -> Trained:
    """Train a task's network; called in all processes.

    Args:
        task: the task.
        settings: the settings. If `settings.out` has checkpoints, the training continues after the last whole one, with
            the very next batch, on any number of processes.
        processes: the processes from `started`.

    Raises:
        TrainingError: settings that do not fit the data, the processes, or the training in the folder; a folder in use
            by another training; or a loss that is not finite.
        CheckpointError: checkpoints cannot be written or read. Earlier ones are untouched.
    """
    order = Order(len(task.samples), settings.batch, settings.micro, settings.seed)
    order.check_processes(processes.count, even=settings.parallel == "fsdp")
    torch.use_deterministic_algorithms(settings.deterministic)
    model = wrapped(task, settings, processes)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(
        parameters, settings.rate, settings.momentum, weight_decay=settings.weight_decay, nesterov=settings.nesterov
    )
    # Taken before anything is restored; a checkpoint overwrites its values.
    average = None if settings.ema is None else Average(own(model), settings.ema)
    # The lock precedes the first look at checkpoints, and outlasts the last write.
    with held(settings.out, processes, Log(None, processes.first, 0, 0).line):
        return _Fit(task, settings, processes, order, model, optimiser, average).run()


class _Fit:
    """One run of a training: the objects shared by all of its parts."""

    def __init__(
        self, task: Task, settings: Settings, processes: Processes, order: Order, model: nn.Module,
        optimiser: torch.optim.Optimizer, average: Average | None,
    ):  # fmt: skip
        self.task, self.settings, self.processes, self.order = task, settings, processes, order
        self.model, self.optimiser, self.average = model, optimiser, average
        length = settings.epochs * order.steps_per_epoch
        self.total = length if settings.steps is None else min(length, settings.steps)
        self.facts = {**task.facts(), "seed": settings.seed, "batch": settings.batch, "micro": settings.micro}

    def run(self) -> Trained:
        checkpoints = self._checkpoints()
        start = self._resume(checkpoints)
        log = Log(self.settings.out, self.processes.first, start, self.total)
        losses: dict[str, float] = {}
        figures: dict[str, float] = {}
        with log:
            log.line(f"{self._described()}, from step {start} to {self.total}")
            steps = range(start, self.total)
            batches = training_batches(
                self.task.samples, self.order, steps, self.processes.rank, self.processes.count, self.task.collate,
                self.settings.workers,
            )  # fmt: skip
            batches = (moved(b, self.processes.device, self.settings.channels_last) for b in batches)
            stepper = Stepper(self.task, self.model, self.optimiser, self.settings, self.processes)
            # A training killed between a checkpoint and its evaluation owes that evaluation.
            if self._evaluates(start) and not self.processes.on_first(lambda: log.evaluated(start)):
                figures = self._evaluate(log, start)
            self.model.train()
            for step in steps:
                losses = self._step(stepper, step, batches, log)
                if checkpoints is not None and self._saves(step + 1):
                    checkpoints.save(step + 1, state_of(self.model, self.optimiser, self.average), self.facts)
                if self._evaluates(step + 1):
                    figures = self._evaluate(log, step + 1)
        if self.settings.out is not None:
            self._write_weights(self.settings.out)
        return Trained(own(self.model), self.total, start, losses, figures)

    def _step(self, stepper: Stepper, step: int, batches: Any, log: Log) -> dict[str, float]:
        micros = self.order.share(step, self.processes.rank, self.processes.count)
        rate = self.settings.rate * self.settings.schedule.factor(self._epoch(step), self.settings.epochs)
        losses = stepper.step(micros, batches, rate, self.order.micros)
        # Before the average: it would never recover from a value that is not finite.
        bad = [name for name, value in losses.items() if not isfinite(value)]
        if bad:
            raise TrainingError(
                f"at step {step + 1} the loss is no number ({', '.join(f'{n} = {losses[n]}' for n in bad)}); the last "
                f"checkpoint is from before it: go on from there with a smaller rate, or with clip_norm"
            )
        if self.average is not None:
            self.average.update()
        # The bar moves every step, files and lines only at intervals.
        log.done(step + 1)
        if (step + 1) % self.settings.log_every == 0 or step + 1 == self.total:
            log.losses(step + 1, self._epoch(step + 1), rate, losses, self.settings.batch)
        return losses

    def _checkpoints(self) -> Checkpoints | None:
        if self.settings.out is None:
            return None
        report = Log(None, self.processes.first, 0, 0).line
        found = Checkpoints(self.settings.out, self.settings.keep, self.processes, report)
        found.prepare(bytes_of(self.model, self.average))
        return found

    def _resume(self, checkpoints: Checkpoints | None) -> int:
        step = None if checkpoints is None else checkpoints.latest()
        if checkpoints is None or step is None:
            return 0
        facts = checkpoints.facts(step)
        # Another order of the data would not continue this training.
        other = [f"{k} was {facts.get(k)!r} and is {v!r}" for k, v in self.facts.items() if facts.get(k) != v]
        if other:
            raise TrainingError(
                f"{checkpoints.path(step)} is of another training: {'; '.join(other)}: give the same settings and "
                f"data, or another folder"
            )
        # The tensors to read into, in their present sharding.
        state = state_of(self.model, self.optimiser, self.average)
        checkpoints.load(step, state)
        restore(state, self.model, self.optimiser, self.average)
        return step

    def _evaluate(self, log: Log, step: int) -> dict[str, float]:
        self.model.eval()
        with (
            torch.no_grad(),
            nullcontext() if self.average is None else self.average.in_place(),
            autocast(self.settings, self.processes.device),
        ):
            figures = self.task.evaluate(Evaluating(own(self.model), self.processes, self.settings))
            # FSDP2 still has the averaged parameters gathered.
            freed(self.model)
        self.model.train()
        log.evaluation(step, self._epoch(step), figures)
        return figures

    def _write_weights(self, folder: Path) -> None:
        """Write the weights alone, averaged if there is an average, for `load_state_dict` of the same network."""
        with nullcontext() if self.average is None else self.average.in_place():
            weights = whole_weights(self.model)  # on a CPU these are the parameters themselves, not copies
            self.processes.on_first(lambda: _write(weights, folder))

    def _epoch(self, step: int) -> float:
        return step / self.order.steps_per_epoch

    def _saves(self, step: int) -> bool:
        ends = step % self.order.steps_per_epoch == 0 or step == self.total
        return ends or step % self.settings.checkpoint_every == 0

    def _evaluates(self, step: int) -> bool:
        """Test if an evaluation follows: after the last step, and after every `evaluate_every` epochs."""
        every = self.settings.evaluate_every * self.order.steps_per_epoch
        return step > 0 and (step == self.total or step % every == 0)

    def _described(self) -> str:
        count, settings = self.processes.count, self.settings
        who = f"{count} processes" if count > 1 else "1 process"
        return (
            f"{settings.parallel} on {who} ({self.processes.device.type}), {settings.precision}, batch "
            f"{settings.batch} in {self.order.micros} parts"
        )


def _write(weights: dict[str, Any], folder: Path) -> None:
    partial = folder / f".{WEIGHTS}.partial"
    try:
        torch.save(weights, partial)
        files.sync(partial)
        partial.replace(folder / WEIGHTS)
    except (OSError, RuntimeError) as error:  # torch's writer has no errors of its own kind
        partial.unlink(missing_ok=True)
        raise CheckpointError(
            f"{folder / WEIGHTS} could not be written: {files.reason(error)}; the checkpoints are untouched: put that "
            f"right and start the same command again"
        ) from error
