"""The common parts of the recipes in `examples/`: a task made from a configuration, and the program around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from torch import Tensor, nn

from polyattn.training.commands import configured
from polyattn.training.data.coco import collate
from polyattn.training.data.places import data_at
from polyattn.training.fit import Trained, fit
from polyattn.training.processes import started
from polyattn.training.settings import Settings
from polyattn.training.task import Task


class Configured(Protocol):
    """The fields of every recipe's configuration."""

    @property
    def data(self) -> Path | None:
        """Return the folder of the data, or None for a tiny set."""
        ...

    @property
    def training(self) -> Settings:
        """Return the settings of the training."""
        ...


Config = TypeVar("Config", bound=Configured)


class Recipe(Task, Generic[Config]):
    """A task made from a configuration and the folder of its data.

    Attributes:
        fixed: fields of the configuration that must not change when a training continues.
    """

    fixed: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Config, root: Path):
        self.config, self.root = config, root

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), **{name: getattr(self.config, name) for name in self.fixed}}


class Classification(Recipe[Config]):
    """Batches (inputs, classes), and their cross-entropy."""

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        inputs, labels = batch
        return {"cross_entropy": nn.functional.cross_entropy(model(inputs), labels)}


class Detection(Recipe[Config]):
    """Lists of images and of their targets, and the losses of one of torchvision's detectors."""

    def collate(self, samples: Sequence[Any]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        return collate(list(samples))

    def loss(self, model: nn.Module, batch: tuple[list[Tensor], list[dict[str, Tensor]]]) -> dict[str, Tensor]:
        return model(*batch)


def run(
    configs: Mapping[str, tuple[str, Config]],
    task: Callable[[Config, Path], Task],
    tiny: Callable[[Path], str],
    argv: Sequence[str] | None = None,
) -> Trained:
    """Run the program: a configuration from the command line, the data, and the training.

    Args:
        configs: purpose and values of each; see `configured`.
        task: makes the task from the configuration and the folder of its data.
        tiny: writes a tiny set in the data's form into a folder, and returns its description.
        argv: the arguments; by default the program's own.
    """
    config = configured(configs, argv)
    with started(config.training.device) as processes, data_at(config.data, tiny, processes) as root:
        return fit(task(config, root), config.training, processes)
