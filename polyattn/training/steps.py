"""One step of training: a function of the state and of a global batch, independent of the number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from polyattn.training.order import FORWARD, Micro, seed_of
from polyattn.training.processes import Processes
from polyattn.training.settings import Settings
from polyattn.training.task import Task


class Stepper:
    """Steps of stochastic gradient descent.

    The gradient is that of the mean loss over the batch. Batch norms see one micro-batch at a time; each updates the
    running values of before the step, and the mean of these updates is the result. So neither depends on the sharing of
    micro-batches between processes, except for rounding.

    Args:
        task: the task.
        model: the network in DDP or FSDP2.
        optimiser: optimiser of its parameters.
        settings, processes: those of the training.
    """

    def __init__(
        self, task: Task, model: nn.Module, optimiser: torch.optim.Optimizer, settings: Settings, processes: Processes
    ):
        self.task, self.model, self.optimiser = task, model, optimiser
        self.settings, self.processes = settings, processes
        buffers = list(model.buffers())
        self.running = [b for b in buffers if b.is_floating_point()]
        # Batch norms count their batches in integers, which cannot be averaged.
        self.counters = [b for b in buffers if not b.is_floating_point()]
        self.parameters = [p for p in model.parameters() if p.requires_grad]

    def step(self, micros: Sequence[Micro], batches: Iterator[Any], rate: float, all_micros: int) -> dict[str, float]:
        """Train on this process's micro-batches of one step.

        Args:
            micros: the micro-batches.
            batches: their batches, moved to the device.
            rate: the learning rate.
            all_micros: number of micro-batches of the step over all processes.

        Returns:
            Mean losses over the whole batch by name, the same in all processes.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        before = [b.clone() for b in (*self.running, *self.counters)]
        sums = [torch.zeros_like(b) for b in self.running]
        losses: dict[str, Tensor] = {}
        for place, micro in enumerate(micros):
            # Every pass starts from the same running values, or they would depend on its place in this process.
            for buffer, value in zip((*self.running, *self.counters), before, strict=True):
                buffer.copy_(value)
            # The last micro-batch may be smaller.
            share = len(micro.draws) / self.settings.batch
            found = self._backward(micro, next(batches), share, last=place == len(micros) - 1)
            for name, value in found.items():
                losses[name] = losses.get(name, 0) + share * value
            for total, buffer, value in zip(sums, self.running, before, strict=False):
                total += buffer - value
        self._set_running(before, sums, all_micros)
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
        self.optimiser.step()
        return self._means(losses)

    def _backward(self, micro: Micro, batch: Any, share: float, *, last: bool) -> dict[str, Tensor]:
        """Add the micro-batch's part of the gradient; processes exchange gradients with their last one."""
        # Dropout depends on step and micro-batch, not on the process that computes it.
        torch.manual_seed(seed_of(self.settings.seed, FORWARD, micro.step, micro.number))
        with exchanging(self.model, last):
            with autocast(self.settings, self.processes.device):
                losses = self.task.loss(self.model, batch)
                total = torch.stack([value.float() for value in losses.values()]).sum()
            # DDP and FSDP2 give the mean over the processes, and the batch's gradient is the sum.
            (total * (share * self.processes.count)).backward()
        return {name: value.detach().float() for name, value in {"loss": total, **losses}.items()}

    @torch.no_grad()
    def _set_running(self, before: list[Tensor], changes: list[Tensor], all_micros: int) -> None:
        """Set the running values to the mean of their updates; unchanged ones, as of frozen batch norms, keep bits."""
        if not changes:
            return
        # One exchange for all buffers.
        flat = self.processes.summed(torch.cat([c.flatten() for c in changes])) / all_micros
        for buffer, value, change in zip(self.running, before, flat.split([c.numel() for c in changes]), strict=False):
            buffer.copy_(value + change.view_as(buffer))

    def _means(self, losses: dict[str, Tensor]) -> dict[str, float]:
        values = self.processes.summed(torch.stack(list(losses.values())))
        return dict(zip(losses, values.tolist(), strict=True))


@contextmanager
def exchanging(model: nn.Module, exchange: bool) -> Iterator[None]:
    """Select whether backward passes inside sum gradients over the processes, or accumulate them for the next one."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        with nullcontext() if exchange else model.no_sync():
            yield
    else:
        model.set_requires_gradient_sync(exchange)  # pyright: ignore[reportCallIssue]
        yield


def autocast(settings: Settings, device: torch.device) -> torch.autocast:
    """Return the precision of forward passes."""
    return torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16")
