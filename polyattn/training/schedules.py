"""Learning rates as functions of the progress, so that a resumed training needs no state of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi
from typing import Literal

from polyattn.errors import TrainingError


@dataclass(frozen=True)
class Schedule:
    """The factor of the learning rate, by epoch."""

    decay: Literal["step", "cosine"] = "step"
    """"step": by `gamma` at each milestone; "cosine": half a cosine down to 0 (Loshchilov and Hutter 2017)."""
    milestones: tuple[float, ...] = (30, 60, 80)
    """Epochs after which the rate falls, for "step"."""
    gamma: float = 0.1
    """Factor of the rate at each milestone."""
    warmup_epochs: float = 0.0
    """Number of first epochs with a linearly rising rate."""
    warmup_from: float = 0.001
    """Start of the rise, as a fraction of the rate."""

    def __post_init__(self) -> None:
        if self.decay == "step" and list(self.milestones) != sorted(set(self.milestones)):
            raise TrainingError(f"milestones are epochs in rising order, not {self.milestones}")
        if self.warmup_epochs < 0 or not 0 <= self.warmup_from <= 1:
            raise TrainingError(
                f"a warm-up takes no fewer than 0 epochs from a part between 0 and 1 of the rate, not "
                f"{self.warmup_epochs} epochs from {self.warmup_from}"
            )

    def factor(self, epoch: float, epochs: float) -> float:
        """Return the factor of the rate.

        Args:
            epoch: number of epochs done, such as 1.5 in the middle of the second one.
            epochs: number of epochs in all.

        >>> steps = Schedule(milestones=(30, 60, 80))
        >>> [round(steps.factor(epoch, 90), 6) for epoch in (0, 29.9, 30, 80)]
        [1.0, 1.0, 0.1, 0.001]
        >>> cosine = Schedule("cosine", warmup_epochs=2, warmup_from=0.0)
        >>> [round(cosine.factor(epoch, 50), 6) for epoch in (0, 1, 2, 26, 50)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
        """
        if epoch < self.warmup_epochs:
            return self.warmup_from + (1 - self.warmup_from) * epoch / self.warmup_epochs
        if self.decay == "step":
            return self.gamma ** sum(epoch >= milestone for milestone in self.milestones)
        # The cosine starts after the warm-up, so that the rate is continuous there.
        length = epochs - self.warmup_epochs
        return 0.5 * (1 + cos(pi * min(1.0, (epoch - self.warmup_epochs) / length))) if length > 0 else 1.0
