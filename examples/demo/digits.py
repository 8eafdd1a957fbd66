"""Part four of the demo: a small ResNet trained on scikit-learn's handwritten digits, with each layer and without."""

from __future__ import annotations

import time
from statistics import mean, stdev
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.optim import Optimizer
from torchvision.models.resnet import BasicBlock

from polyattn.algebra import Spec
from polyattn.vision import insert

WIDTH = 16
SIZES = {"R": 8, "V": 8, "G": 4, "K": 4}
BATCH = 64
RATE = 3e-3


class DigitResNet(nn.Sequential):
    """Two residual blocks (torchvision's), on 8 x 8 images of one channel, ten classes."""

    def __init__(self, width: int = WIDTH):
        shortcut = nn.Sequential(nn.Conv2d(width, 2 * width, 1, 2, bias=False), nn.BatchNorm2d(2 * width))
        super().__init__(
            nn.Sequential(nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            BasicBlock(width, width),
            BasicBlock(width, 2 * width, stride=2, downsample=shortcut),
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            nn.Linear(2 * width, 10),
        )


def train_all(specs: dict[str, Spec], console: Console, *, seeds: int, epochs: int) -> list[dict[str, Any]]:
    """Train every network with every seed on one fixed split; print and return accuracies and times per epoch."""
    images, labels = load_digits(return_X_y=True)
    # A fixed split: the seeds vary the networks, not the data.
    split = train_test_split(images, labels, test_size=450, random_state=0, stratify=labels)
    # The pixels go from 0 to 16.
    x_train, x_test = (torch.as_tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16 for x in split[:2])
    y_train, y_test = (torch.as_tensor(y) for y in split[2:])
    names = ["no attention", *specs]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("training", total=seeds * len(names) * epochs)
        for seed in range(seeds):
            # Networks alternate within a seed, so that a busy machine slows all of them.
            for name in names:
                model = _network(specs.get(name), seed, x_train[:1])
                optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-2)
                seconds = []
                for epoch in range(epochs):
                    seconds.append(_epoch(model, optimiser, x_train, y_train, seed, epoch, epochs))
                    progress.advance(task)
                runs[name].append(
                    {"seed": seed, "accuracy": _accuracy(model, x_test, y_test), "epoch_seconds": mean(seconds)}
                )
    table = Table("network", f"test accuracy, {seeds} seed(s)", "lowest to highest", "time per epoch")
    rows = []
    for name in names:
        accuracies = [100 * r["accuracy"] for r in runs[name]]
        times = [r["epoch_seconds"] for r in runs[name]]
        spread = stdev(accuracies) if seeds > 1 else 0.0
        table.add_row(
            name, f"{mean(accuracies):.2f} ± {spread:.2f} %", f"{min(accuracies):.2f} to {max(accuracies):.2f} %",
            f"{mean(times):.2f} s ({min(times):.2f} to {max(times):.2f})",
        )  # fmt: skip
        rows.append({"network": name, "epochs": epochs, "runs": runs[name]})
    console.print(table)
    console.print("± is the standard deviation over seeds")
    console.print(f"the test set has {len(y_test)} images, so one of them is {100 / len(y_test):.2f} %")
    return rows


def _network(spec: Spec | None, seed: int, example: Tensor) -> nn.Module:
    # All networks start from the same weights outside the inserted layer.
    torch.manual_seed(seed)
    model = DigitResNet()
    if spec is not None:
        sizes = {s: v for s, v in SIZES.items() if s in spec.sizes.names}
        insert(model, {"1": spec}, example_input=example, sizes=sizes)
    return model


def _epoch(
    model: nn.Module, optimiser: Optimizer, images: Tensor, labels: Tensor, seed: int, epoch: int, epochs: int
) -> float:
    """Run one pass over the training images in a shuffled order; return its seconds."""
    model.train()
    # Independent of the global generator, so that every network sees the same order.
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1000 * seed + epoch))
    start = time.perf_counter()
    for position, rows in enumerate(order.split(BATCH)):
        # The rate falls linearly to zero.
        progress = (epoch + position * BATCH / len(images)) / epochs
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - progress)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return time.perf_counter() - start


@torch.no_grad()
def _accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    return (model(images).argmax(1) == labels).float().mean().item()
