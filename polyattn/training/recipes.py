"""What the recipes in `examples/` share: a task made from a configuration, and the program around it."""

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
    """What every recipe's configuration has."""

    @property
    def data(self) -> Path | None:
        """Folder of the data; without one, a tiny set is made."""
        ...

    @property
    def training(self) -> Settings:
        """How to train."""
        ...


Config = TypeVar("Config", bound=Configured)


class Recipe(Task, Generic[Config]):
    """A task made from a configuration and the folder of its data.

    Attributes:
        fixed: fields of the configuration that have to be the same when a training goes on.
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
    """The program: a configuration from the command line, the data, and the training.

    Args:
        configs: what each is for, and its values; see `configured`.
        task: made from the configuration and the folder of its data.
        tiny: writes a tiny set in the data's form into a folder, and says what it wrote.
        argv: the arguments; by default the program's own.
    """
    config = configured(configs, argv)
    with started(config.training.device) as processes, data_at(config.data, tiny, processes) as root:
        return fit(task(config, root), config.training, processes)
