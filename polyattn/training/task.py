"""A recipe's task: the data, the network, the loss, and the evaluation of the network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from polyattn.training.loading import Samples, evaluation_batches, moved
from polyattn.training.processes import Processes
from polyattn.training.settings import Settings


@dataclass(frozen=True)
class Evaluating:
    """The context of an evaluation.

    Args:
        model: the network, possibly sharded over the processes; call it, not its parts.
        processes, settings: those of the training.
    """

    model: nn.Module
    processes: Processes
    settings: Settings

    def batches(self, samples: Samples, batch: int, collate: Any = default_collate) -> Iterator[tuple[list[int], Any]]:
        """Return this process's samples: their numbers, and a batch on the device. See `evaluation_batches`."""
        place, last = self.processes, self.settings.channels_last
        for numbers, found in evaluation_batches(
            samples, batch, place.rank, place.count, collate, self.settings.workers
        ):
            yield numbers, moved(found, place.device, last)


class Task(ABC):
    """The object of a training. All methods are called in all processes."""

    samples: Samples
    """Training data; augmentation draws from torch's global generator."""

    @abstractmethod
    def network(self) -> nn.Module:
        """Build the network, with its initial weights drawn from torch's global generator, on the CPU."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Compute the losses by name, to be summed; each the mean over the samples of the batch."""

    @abstractmethod
    def evaluate(self, now: Evaluating) -> dict[str, float]:
        """Evaluate figures by name, the same in all processes. The network is in evaluation mode, without gradients."""

    def collate(self, samples: Sequence[Any]) -> Any:
        """Collate samples into a batch."""
        return default_collate(list(samples))

    def sharded(self, model: nn.Module) -> list[nn.Module]:
        """List the submodules that FSDP2 gathers one at a time, each run by one call; by default a ResNet's stages."""
        named = ((name.rpartition(".")[2], module) for name, module in model.named_modules())
        return [m for name, m in named if isinstance(m, nn.Sequential) and name.rstrip("0123456789") == "layer"]

    def facts(self) -> dict[str, Any]:
        """Return the facts, for JSON, that must not change when a training continues."""
        return {"samples": len(self.samples)}


def seeded_network(task: Task, seed: int) -> nn.Module:
    """Build the network, with the same initial weights in all processes."""
    torch.manual_seed(seed)
    return task.network()
