"""What a recipe says about its task: the data, the network, the loss, and how the network is evaluated."""

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
    """How a network is evaluated now.

    Args:
        model: the network, which may be sharded over the processes; call it, not its parts.
        processes, settings: of the training.
    """

    model: nn.Module
    processes: Processes
    settings: Settings

    def batches(self, samples: Samples, batch: int, collate: Any = default_collate) -> Iterator[tuple[list[int], Any]]:
        """This process's samples: their numbers, and a batch on the device. See `evaluation_batches`."""
        place, last = self.processes, self.settings.channels_last
        for numbers, found in evaluation_batches(
            samples, batch, place.rank, place.count, collate, self.settings.workers
        ):
            yield numbers, moved(found, place.device, last)


class Task(ABC):
    """What is trained. All methods are called in all processes."""

    samples: Samples
    """To train on; augmentation draws from torch's global generator."""

    @abstractmethod
    def network(self) -> nn.Module:
        """The network, with its initial weights drawn from torch's global generator, on the CPU."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Losses by name, which are summed; each the mean over the samples of the batch."""

    @abstractmethod
    def evaluate(self, now: Evaluating) -> dict[str, float]:
        """Figures by name, the same in all processes. The network is in evaluation mode, without gradients."""

    def collate(self, samples: Sequence[Any]) -> Any:
        """A batch from samples."""
        return default_collate(list(samples))

    def sharded(self, model: nn.Module) -> list[nn.Module]:
        """The submodules that FSDP2 gathers one at a time, each run by one call; by default a ResNet's stages."""
        named = ((name.rpartition(".")[2], module) for name, module in model.named_modules())
        return [m for name, m in named if isinstance(m, nn.Sequential) and name.rstrip("0123456789") == "layer"]

    def facts(self) -> dict[str, Any]:
        """What has to be the same when a training goes on, for JSON."""
        return {"samples": len(self.samples)}


def seeded_network(task: Task, seed: int) -> nn.Module:
    """The network, with the same initial weights in all processes."""
    torch.manual_seed(seed)
    return task.network()
