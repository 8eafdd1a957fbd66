"""Train one small network with each block: on handwritten digits, and on a task that needs long-range dependencies.

The second task: two marks lie far apart in a noisy image, each of one of four kinds; do they agree? A convolution of
this network sees one mark at most, and what it finds is averaged over the image before a linear layer. Such a sum of
two parts scores (A, A) and (B, B) together exactly as high as (A, B) twice, so no weights of it answer for all kinds:
its best accuracy is two thirds. A block between the convolutions lets one mark know of the other.

`CrissCross` and `Axial` reach the other mark in two steps, each with a factor gamma. The rows with "gamma 0.5" start
there; those without start at 0, as the identity, where no gamma has a derivative by what takes both steps.

By default a few networks with two seeds; `--full` trains all of them with four, in about fourteen minutes of one core.
With `--out` a training goes on where it was interrupted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.stats import t as student
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import polyattn as pa

WIDTH, BATCH, RATE = 16, 32, 1e-2
PLAIN = "no attention"
BLOCKS: dict[str, Callable[[int], nn.Module]] = {
    "NonLocal": pa.nn.NonLocal,
    "NonLocal, dot product": lambda c: pa.nn.NonLocal(c, similarity="dot_product"),
    "PolyNL": pa.nn.PolyNL,
    "EfficientNL": lambda c: pa.nn.EfficientNL(c, heads=2, zero_init=True),
    "TESA": pa.nn.TESA,
    "LatentGNN": lambda c: pa.nn.LatentGNN(c, [16], 2),
    "A2": lambda c: pa.nn.A2(c, 2),
    "GloRe": lambda c: pa.nn.GloRe(c, 1),
    "CGNL": lambda c: pa.nn.CGNL(c, 1, 4),
    "CrissCross": lambda c: pa.nn.CrissCross(c, 2),
    "CrissCross, gamma 0.5": lambda c: pa.nn.CrissCross(c, 2, gamma=0.5),
    "Axial": pa.nn.Axial,
    "Axial, gamma 0.5": lambda c: pa.nn.Axial(c, gamma=0.5),
    "BATBlock": lambda c: pa.nn.BATBlock(c, block_size=4, groups=4),
}
FEW = (PLAIN, "NonLocal", "PolyNL")
TASKS = ("digits", "two marks")


@dataclass(frozen=True)
class Data:
    """Images (samples, 1, H, W) and labels, for training and for the test."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor


def network(name: str, classes: int, width: int = WIDTH) -> nn.Sequential:
    """Two 3x3 convolutions, which see 5 x 5 pixels; the block; a 1x1 convolution; the mean; a linear layer."""

    def convolution(inner: int, outer: int, size: int) -> nn.Sequential:
        layer = nn.Conv2d(inner, outer, size, padding=size // 2, bias=False)
        return nn.Sequential(layer, nn.BatchNorm2d(outer), nn.ReLU())

    block = nn.Identity() if name == PLAIN else BLOCKS[name](width)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, classes))
    return nn.Sequential(
        convolution(1, width, 3), convolution(width, width, 3), block, convolution(width, 2 * width, 1), *head
    )


def digits() -> Data:
    """scikit-learn's 1,797 images of 8 x 8 pixels, on one fixed split."""
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images, labels, test_size=450, random_state=0, stratify=labels)
    x_train, x_test = (torch.as_tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16 for x in split[:2])
    return Data(x_train, torch.as_tensor(split[2]), x_test, torch.as_tensor(split[3]))


def two_marks(samples: int, generator: torch.Generator, side: int = 12) -> tuple[Tensor, Tensor]:
    """Images with one 3 x 3 mark in their left quarter and one in their right; whether the two are of one kind."""
    kinds = torch.tensor(
        [
            [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
            [[0, 0, 1], [0, 1, 0], [1, 0, 0]],
            [[0, 1, 0], [0, 1, 0], [0, 1, 0]],
            [[0, 0, 0], [1, 1, 1], [0, 0, 0]],
        ]
    )
    agree = torch.randint(2, (samples,), generator=generator)
    first = torch.randint(4, (samples,), generator=generator)
    second = torch.where(agree == 1, first, (first + torch.randint(1, 4, (samples,), generator=generator)) % 4)
    images = 0.1 * torch.randn(samples, 1, side, side, generator=generator)
    rows = torch.randint(side - 2, (2, samples), generator=generator)
    columns = torch.randint(side // 4 - 1, (2, samples), generator=generator)
    columns[1] += side - side // 4 - 1
    for kind, row, column in zip((first, second), rows, columns, strict=True):
        for n in range(samples):
            images[n, 0, row[n] : row[n] + 3, column[n] : column[n] + 3] += kinds[kind[n]]
    return images, agree


def marks() -> Data:
    """1,536 images to train on and 1,000 for the test, the same for every network and seed."""
    generator = torch.Generator().manual_seed(0)
    return Data(*two_marks(1536, generator), *two_marks(1000, generator))


def train(name: str, data: Data, seed: int, epochs: int) -> Iterator[float | None]:
    """Train one network; yields None after each epoch and at last the accuracy on the test images."""
    torch.manual_seed(seed)
    model = network(name, int(data.y_train.max()) + 1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-4, fused=True)
    steps = epochs * -(-len(data.x_train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    shuffling = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(data.x_train), generator=shuffling).split(BATCH):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(data.x_train[rows]), data.y_train[rows]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        yield None
    model.eval()
    with torch.no_grad():
        yield (model(data.x_test).argmax(1) == data.y_test).float().mean().item()


def interval(values: list[float]) -> tuple[float, float]:
    """The mean, and half the width of its 95 % confidence interval (Student's t over the seeds)."""
    if len(values) < 2:
        return mean(values), float("nan")
    half = student.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return mean(values), float(half)


def table(task: str, runs: list[dict], names: list[str]) -> Table:
    """Accuracies, and what each block gains over the network without it, seed by seed."""
    of = {name: [100 * r["accuracy"] for r in runs if r["task"] == task and r["network"] == name] for name in names}
    shown = Table("network", "parameters", "test accuracy, %", "gain, points", title=f"{task}: mean ± 95 % confidence")
    for name in names:
        count = sum(p.numel() for p in network(name, 10 if task == "digits" else 2).parameters())
        gain = [a - b for a, b in zip(of[name], of.get(PLAIN, []), strict=True)] if PLAIN in of else []
        texts = ["{:.2f} ± {:.2f}".format(*interval(v)) if v else "" for v in (of[name], gain)]
        shown.add_row(name, f"{count:,}", texts[0], "" if name == PLAIN else texts[1])
    return shown


def recorded(out: Path | None, settings: dict) -> dict[tuple[str, str, int], dict]:
    """The runs that a file has already, by task, network and seed."""
    if out is None or not out.exists():
        return {}
    try:
        found = json.loads(out.read_text())
        other = any(found.get(name) != value for name, value in settings.items())
        runs = {(run["task"], run["network"], run["seed"]): run for run in found["runs"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise typer.BadParameter(f"{out} does not hold runs of this script ({error!r}): choose another file") from None
    if other:
        raise typer.BadParameter(f"the runs in {out} were trained with other settings: choose another file")
    return runs


def in_order(runs: list[dict]) -> list[dict]:
    """By seed, task and network, whenever they were trained."""
    names = [PLAIN, *BLOCKS]
    return sorted(runs, key=lambda run: (run["seed"], TASKS.index(run["task"]), names.index(run["network"])))


def main(
    full: bool = typer.Option(False, help="all blocks, four seeds"),
    seeds: int = typer.Option(0, help="how many; 0 for 2, or 4 with --full"),
    only: list[str] = typer.Option([], help="train these networks only, by name"),
    out: Path | None = typer.Option(None, help="write every run to this JSON file, and keep those it has"),
) -> None:
    """Train the networks, and print what each block gains."""
    console = Console()
    names = only or [PLAIN, *BLOCKS] if full or only else list(FEW)
    unknown = [name for name in names if name not in (PLAIN, *BLOCKS)]
    if unknown:
        raise typer.BadParameter(f"no network {unknown[0]!r}; there are {', '.join([PLAIN, *BLOCKS])}")
    seeds = seeds or (4 if full else 2)
    epochs = {"digits": 5, "two marks": 8} if full else {"digits": 2, "two marks": 5}
    data = {"digits": digits(), "two marks": marks()}
    settings = {"epochs": epochs, "width": WIDTH, "batch": BATCH, "rate": RATE}
    kept = recorded(out, settings)
    runs = list(kept.values())
    with Progress(console=console, transient=True) as progress:
        job = progress.add_task("training", total=seeds * len(names) * sum(epochs.values()))
        for seed, task, name in ((s, t, n) for s in range(seeds) for t in TASKS for n in names):
            if (task, name, seed) in kept:
                progress.update(job, advance=epochs[task])
                continue
            start, accuracy = time.perf_counter(), None
            for accuracy in train(name, data[task], seed, epochs[task]):
                progress.update(job, advance=accuracy is None, description=f"{task}, {name}, seed {seed}")
            seconds = round(time.perf_counter() - start, 2)
            runs.append({"task": task, "network": name, "seed": seed, "accuracy": accuracy, "seconds": seconds})
            if out is not None:  # after each run, so that an interrupted training keeps what it has
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_text(json.dumps({**settings, "runs": in_order(runs)}, indent=1) + "\n")
    for task in TASKS:
        console.print(table(task, runs, names))
    console.print(f"{seeds} seeds; epochs: {epochs}; width {WIDTH}; the interval is Student's t over the seeds")


if __name__ == "__main__":
    typer.run(main)
