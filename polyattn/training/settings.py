"""The settings of a training: all but the network, the data and the loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from polyattn.errors import TrainingError
from polyattn.training.schedules import Schedule


@dataclass(frozen=True)
class Settings:
    """Settings of a training; `batch`, `micro`, `seed` and the schedule fix the computation, on whatever processes."""

    out: Path | None = None
    """Folder of checkpoints and logs, the same on all machines; a training in it is continued.
    Default: nothing is written."""
    epochs: int = 90
    """Number of passes over the data."""
    steps: int | None = None
    """Number of steps at which to stop, if that is earlier."""
    batch: int = 256
    """Samples of one step, over all processes together."""
    micro: int = 32
    """Samples of one forward pass. A step has batch / micro passes, shared by the processes."""
    rate: float = 0.1
    """Learning rate of stochastic gradient descent, before the schedule."""
    momentum: float = 0.9
    """Momentum."""
    nesterov: bool = False
    """Nesterov's momentum."""
    weight_decay: float = 1e-4
    """Weight decay, of all parameters."""
    clip_norm: float | None = None
    """Bound on the norm of the gradient of all parameters together."""
    schedule: Schedule = field(default_factory=Schedule)
    """Factor of the rate by epoch."""
    ema: float | None = None
    """Decay by step of a moving average of the parameters, which is then evaluated; such as 0.9999."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the forward pass, by autocast; parameters and their gradients stay in float32."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Parameters whole in each process (DDP), or sharded over them (FSDP2)."""
    channels_last: bool = True
    """Images have their channels last in memory, and so do kernels, except those sharded by FSDP2."""
    seed: int = 0
    """Seed of the initial weights, the order of the data, augmentation and dropout."""
    deterministic: bool = False
    """Use only algorithms with reproducible bits: on a GPU they are slower."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the training."""
    workers: int = 0
    """Processes that load data, for each process that trains; 0: it loads them itself."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints; the end of an epoch and of the training always has one."""
    keep: int = 3
    """Number of checkpoints to keep."""
    evaluate_every: int = 1
    """Epochs between two evaluations; the end of the training always has one."""
    log_every: int = 10
    """Steps between two lines of the log."""

    def __post_init__(self) -> None:
        least = {"epochs": 1, "batch": 1, "micro": 1, "workers": 0, "checkpoint_every": 1, "keep": 1}
        least |= {"evaluate_every": 1, "log_every": 1, "seed": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise TrainingError(f"{name} is at least {bound}, not {getattr(self, name)}")
        if self.steps is not None and self.steps < 1:
            raise TrainingError(f"steps is at least 1, not {self.steps}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise TrainingError(f"ema is a decay between 0 and 1, not {self.ema}")
