"""The order of samples in batches, and all seeds: pure functions of numbers, hence without state.

A step's batch is cut into micro-batches of a fixed size, and the processes share these. So the forward passes of a
step, with their samples and their randomness, do not depend on the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from polyattn.errors import TrainingError

ORDER, AUGMENTATION, FORWARD = range(3)
"""Purposes of seeds, so that equal numbers do not give the same randomness twice."""


def seed_of(*numbers: int) -> int:
    """Derive one seed from several numbers, by numpy's SeedSequence; different numbers give different seeds.

    >>> seed_of(0, 1) == seed_of(0, 1), seed_of(0, 1) == seed_of(1, 0)
    (True, False)
    """
    # torch takes seeds as signed 64-bit numbers, hence one bit less.
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Draw(NamedTuple):
    """One sample of one epoch."""

    epoch: int
    index: int


class Micro(NamedTuple):
    """The samples of one forward pass: the number-th micro-batch of a step."""

    step: int
    number: int
    draws: tuple[Draw, ...]


# Two entries: a step at the end of an epoch and its successor.
@lru_cache(maxsize=2)
def permutation(size: int, seed: int, epoch: int) -> torch.Tensor:
    """Return the order (size,) of the samples in an epoch."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed_of(seed, ORDER, epoch)))


@dataclass(frozen=True)
class Order:
    """The order of the data: new in every epoch; samples beyond the last whole batch are dropped.

    Args:
        size: samples in the data.
        batch: samples of a step.
        micro: samples of a forward pass; the last one of a step has the rest.
        seed: seed of the order.

    Raises:
        TrainingError: the data are smaller than one batch.

    >>> order = Order(size=10, batch=4, micro=2, seed=0)
    >>> order.steps_per_epoch, order.micros
    (2, 2)
    >>> parts = [order.share(3, rank, 2) for rank in (0, 1)]
    >>> [draw.index for part in parts for micro in part for draw in micro.draws] == order.samples(3)
    True
    """

    size: int
    batch: int
    micro: int
    seed: int

    def __post_init__(self) -> None:
        if self.size < self.batch:
            raise TrainingError(f"there are {self.size} samples, which do not fill a batch of {self.batch}")

    @property
    def steps_per_epoch(self) -> int:
        return self.size // self.batch

    @property
    def micros(self) -> int:
        """Count the forward passes of one step."""
        return -(-self.batch // self.micro)

    def samples(self, step: int) -> list[int]:
        """Return the samples of a step's batch, over all processes."""
        # The position follows from the step alone, so a resumed training needs no other record of it.
        epoch, number = divmod(step, self.steps_per_epoch)
        start = number * self.batch
        return permutation(self.size, self.seed, epoch)[start : start + self.batch].tolist()

    def share(self, step: int, rank: int, count: int) -> list[Micro]:
        """Return the micro-batches of a step for the process `rank` of `count`; shares differ by one at most."""
        epoch = step // self.steps_per_epoch
        samples = self.samples(step)
        # Consecutive micro-batches, so that the processes' shares in order are the batch in order.
        numbers = range(rank * self.micros // count, (rank + 1) * self.micros // count)
        cuts = [samples[n * self.micro : (n + 1) * self.micro] for n in numbers]
        return [
            Micro(step, n, tuple(Draw(epoch, index) for index in cut)) for n, cut in zip(numbers, cuts, strict=True)
        ]

    def check_processes(self, count: int, *, even: bool = False) -> None:
        """Check that `count` processes can share the micro-batches of a step.

        Raises:
            TrainingError: a process would have none, or, if `even`, fewer than another.
        """
        if self.micros < count or (even and self.micros % count):
            need = f"a multiple of {count}" if even else f"{count} or more"
            raise TrainingError(
                f"a batch of {self.batch} in parts of {self.micro} is {self.micros} forward passes, but {count} "
                f"processes need {need}: choose another micro"
            )


class Share:
    """The micro-batches of one process from a step on, as a sampler of batches for torch's DataLoader."""

    def __init__(self, order: Order, steps: range, rank: int, count: int):
        self.order, self.steps, self.rank, self.count = order, steps, rank, count

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in self.steps:
            for micro in self.order.share(step, self.rank, self.count):
                yield list(micro.draws)

    def __len__(self) -> int:
        return len(self.steps) * len(self.order.share(0, self.rank, self.count))
