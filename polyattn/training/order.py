"""Which samples make up which batch, and all seeds: pure functions of numbers, so that there is no state to lose.

A step's batch is cut into micro-batches of a fixed size, and those are what processes share between them. So the
forward passes of a step, with their samples and their randomness, do not depend on the number of processes.
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
"""What a seed is for, so that the same numbers do not give the same randomness twice."""


def seed_of(*numbers: int) -> int:
    """One seed from several numbers, by numpy's SeedSequence; different for different numbers.

    >>> seed_of(0, 1) == seed_of(0, 1), seed_of(0, 1) == seed_of(1, 0)
    (True, False)
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Draw(NamedTuple):
    """One sample, as it comes in one epoch."""

    epoch: int
    index: int


class Micro(NamedTuple):
    """The samples of one forward pass: the number-th micro-batch of a step."""

    step: int
    number: int
    draws: tuple[Draw, ...]


@lru_cache(maxsize=2)
def permutation(size: int, seed: int, epoch: int) -> torch.Tensor:
    """The order (size,) of the samples in an epoch."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed_of(seed, ORDER, epoch)))


@dataclass(frozen=True)
class Order:
    """The order of the data: every epoch in a new order, the samples that fill no batch left out.

    Args:
        size: samples in the data.
        batch: samples of a step.
        micro: samples of a forward pass; the last one of a step has what is left.
        seed: of the order.

    Raises:
        TrainingError: the data do not fill one batch.

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
        """Forward passes of one step."""
        return -(-self.batch // self.micro)

    def samples(self, step: int) -> list[int]:
        """The samples of a step's batch, over all processes."""
        epoch, number = divmod(step, self.steps_per_epoch)
        start = number * self.batch
        return permutation(self.size, self.seed, epoch)[start : start + self.batch].tolist()

    def share(self, step: int, rank: int, count: int) -> list[Micro]:
        """The micro-batches of a step that the rank-th of so many processes has; as many for all, give or take one."""
        epoch = step // self.steps_per_epoch
        samples = self.samples(step)
        numbers = range(rank * self.micros // count, (rank + 1) * self.micros // count)
        cuts = [samples[n * self.micro : (n + 1) * self.micro] for n in numbers]
        return [
            Micro(step, n, tuple(Draw(epoch, index) for index in cut)) for n, cut in zip(numbers, cuts, strict=True)
        ]

    def check_processes(self, count: int, *, even: bool = False) -> None:
        """Whether so many processes can share the micro-batches of a step.

        Raises:
            TrainingError: a process would have none, or, where all need as many, one more than another.
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
