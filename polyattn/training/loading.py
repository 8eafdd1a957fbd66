"""Samples and batches: torch's DataLoader over the order of the data, with a random generator for each sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from polyattn.training.order import AUGMENTATION, Draw, Order, Share, seed_of


class Samples(Protocol):
    """Data: a number of samples, loaded on access, with torch's global generator for their randomness."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Seeded(Dataset):
    """Samples whose random augmentation depends on seed, epoch and sample alone."""

    def __init__(self, samples: Samples, seed: int):
        self.samples, self.seed = samples, seed

    def __getitem__(self, draw: Draw) -> Any:
        # The generator of the training is restored: loading in this process must not change dropout.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.seed, AUGMENTATION, draw.epoch, draw.index))
            return self.samples[draw.index]


def training_batches(
    samples: Samples, order: Order, steps: range, rank: int, count: int, collate: Callable, workers: int
) -> Iterator[Any]:
    """Return an iterator over this process's micro-batches of the steps."""
    loader = DataLoader(
        Seeded(samples, order.seed),
        batch_sampler=Share(order, steps, rank, count),
        collate_fn=collate,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(order.seed),  # else the loader would draw from the global one
    )
    return iter(loader)


def evaluation_batches(
    samples: Samples, batch: int, rank: int, count: int, collate: Callable, workers: int
) -> Iterator[tuple[list[int], Any]]:
    """Yield this process's share of the samples, each in one process only.

    All processes yield equally many batches, as networks with sharded parameters require: after the last sample, the
    numbers are [] and the batch is a filler.
    """
    mine = list(range(rank, len(samples), count))
    rounds = -(-len(samples) // (batch * count))
    numbers = [mine[k * batch : (k + 1) * batch] for k in range(rounds)]
    loader = DataLoader(
        Seeded(samples, 0),
        # Sample 0 is the filler.
        batch_sampler=[[Draw(0, index) for index in chosen or [0]] for chosen in numbers],
        collate_fn=collate,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(0),
    )
    yield from zip(numbers, loader, strict=True)


def moved(batch: Any, device: torch.device, channels_last: bool = False) -> Any:
    """Move tensors in lists, tuples and dictionaries to a device; images (B, C, H, W) with channels last."""
    if isinstance(batch, Tensor):
        formats = {4: torch.channels_last, 5: torch.channels_last_3d} if channels_last else {}
        # The copy overlaps with computation if the loader has pinned the batch.
        batch = batch.to(device, non_blocking=True)
        if batch.is_floating_point() and batch.dim() in formats:
            batch = batch.contiguous(memory_format=formats[batch.dim()])
        return batch
    if isinstance(batch, dict):
        return {key: moved(value, device, channels_last) for key, value in batch.items()}
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        found = [moved(value, device, channels_last) for value in batch]
        return tuple(found) if isinstance(batch, tuple) else found
    return batch
