"""A task of milliseconds with everything that could depend on chance or state: augmentation, dropout, batch norm."""

from __future__ import annotations

import csv
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import polyattn as pa
from polyattn.training import Evaluating, Settings, Task, fit, started

SETTINGS = Settings(epochs=3, batch=12, micro=2, rate=0.1, checkpoint_every=1, log_every=1, ema=0.9)


class Images:
    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int):
        fixed = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(index))
        return fixed + 0.1 * torch.randn(3, 6, 6), index % 3


@dataclass
class Toy(Task):
    """Optionally one process kills itself, with a signal that no handler sees, once."""

    kill_rank: int = -1
    kill_step: int = 0
    marker: Path | None = None

    def __post_init__(self):
        self.samples = Images()
        self.passes = 0

    def network(self):
        attention = nn.Sequential(pa.nn.PolyNL(8, beta=0.5), pa.nn.TESA(8, alpha=0.5))
        first = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), attention, nn.Dropout(0.2))
        return nn.Sequential(first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))

    def sharded(self, model):
        return [model[0]]

    def loss(self, model, batch):
        self.passes += 1
        if self.marker is not None and self.passes == self.kill_step and os.environ["RANK"] == str(self.kill_rank):
            try:
                self.marker.touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        inputs, labels = batch
        return {"cross_entropy": nn.functional.cross_entropy(model(inputs), labels)}

    def evaluate(self, now: Evaluating):
        good = torch.zeros(2)
        for numbers, (inputs, labels) in now.batches(self.samples, 4):
            right = now.model(inputs).argmax(1) == labels
            good += torch.tensor([float(right[: len(numbers)].sum()), len(numbers)])
        now.processes.summed(good)
        return {"top1": float(good[0] / good[1]), "seen": float(good[1])}


def train(settings: Settings, task: Toy | None = None):
    """In each process: the run's resumed step, its last losses and figures, and the weights that it ends with."""
    torch.set_num_threads(1)
    with started("cpu") as processes:
        trained = fit(task or Toy(), settings, processes)
        return trained.resumed, trained.losses, trained.figures


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "weights.pt")


def curve(folder: Path, name: str = "steps.csv") -> list[dict[str, float]]:
    with (folder / name).open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if k != "samples_per_second"} for row in csv.DictReader(file)]
