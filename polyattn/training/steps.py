"""One step of training: a function of the state and of a global batch, however many processes share the batch."""

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
    """Takes steps of stochastic gradient descent.

    The gradient is that of the mean loss over the batch. Batch norms see one micro-batch at a time; their running
    values after the step are the mean over its micro-batches of what each makes of the values before it. So neither
    depends on how micro-batches are shared between processes, except for rounding.

    Args:
        task: what is trained.
        model: in DDP or FSDP2.
        optimiser: of its parameters.
        settings, processes: of the training.
    """

    def __init__(
        self, task: Task, model: nn.Module, optimiser: torch.optim.Optimizer, settings: Settings, processes: Processes
    ):
        self.task, self.model, self.optimiser = task, model, optimiser
        self.settings, self.processes = settings, processes
        buffers = list(model.buffers())
        self.running = [b for b in buffers if b.is_floating_point()]
        self.counters = [b for b in buffers if not b.is_floating_point()]
        self.parameters = [p for p in model.parameters() if p.requires_grad]

    def step(self, micros: Sequence[Micro], batches: Iterator[Any], rate: float, all_micros: int) -> dict[str, float]:
        """Train on this process's micro-batches of one step.

        Args:
            micros: which these are.
            batches: the next of them, moved to the device.
            rate: the learning rate.
            all_micros: how many the step has over all processes.

        Returns:
            Losses by name, the means over the whole batch, the same in all processes.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        before = [b.clone() for b in (*self.running, *self.counters)]
        sums = [torch.zeros_like(b) for b in self.running]
        losses: dict[str, Tensor] = {}
        for place, micro in enumerate(micros):
            for buffer, value in zip((*self.running, *self.counters), before, strict=True):
                buffer.copy_(value)
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
        """Values that no pass changes, as those of frozen batch norms, stay as they are to the bit."""
        if not changes:
            return
        flat = self.processes.summed(torch.cat([c.flatten() for c in changes])) / all_micros
        for buffer, value, change in zip(self.running, before, flat.split([c.numel() for c in changes]), strict=False):
            buffer.copy_(value + change.view_as(buffer))

    def _means(self, losses: dict[str, Tensor]) -> dict[str, float]:
        values = self.processes.summed(torch.stack(list(losses.values())))
        return dict(zip(losses, values.tolist(), strict=True))


@contextmanager
def exchanging(model: nn.Module, exchange: bool) -> Iterator[None]:
    """Whether the backward passes inside sum the gradients over the processes, or keep them for the next one."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        with nullcontext() if exchange else model.no_sync():
            yield
    else:
        model.set_requires_gradient_sync(exchange)  # pyright: ignore[reportCallIssue]
        yield


def autocast(settings: Settings, device: torch.device) -> torch.autocast:
    """The precision of forward passes."""
    return torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16")
