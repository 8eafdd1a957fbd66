"""Train Mask R-CNN with attention on COCO, or on any data with COCO annotations, as in the Poly-NL paper.

    python examples/train_detection.py                           # a tiny set, two steps, an evaluation
    torchrun --nproc-per-node 8 examples/train_detection.py poly_nl --data /data/coco --out runs/coco

The same command goes on where the last one stopped, on any number of processes. `--help` lists every option.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from polyattn.errors import TrainingError
from polyattn.training import Evaluating, Schedule, Settings, Trained
from polyattn.training.coco_precision import coco_precision
from polyattn.training.data import coco, tiny
from polyattn.training.detectors import mask_rcnn
from polyattn.training.recipes import Detection, run


@dataclass(frozen=True)
class Config:
    """What to train, on what, and how."""

    data: Path | None = None
    """Folder with train2017/, val2017/ and annotations/; without one, a tiny set is made."""
    network: str = "resnet50"
    """The backbone, a ResNet of torchvision."""
    pyramid: int = 256
    """Channels of the feature pyramid."""
    attention: str | None = "poly_nl"
    """A block's name, a catalogue name, or an equation; None for the plain network."""
    places: str | None = None
    """res3, res4, res5 or res345; by default that of the attention's paper."""
    weights: str | None = None
    """Of the backbone, as torchvision names them, such as IMAGENET1K_V1."""
    short_side: int = 800
    """Images are resized to this short side,"""
    long_side: int = 1333
    """unless their long side would be longer than this."""
    training: Settings = field(default_factory=Settings)
    """How to train."""


PAPER = Settings(
    epochs=26, batch=16, micro=2, rate=0.02, momentum=0.9, weight_decay=1e-4, schedule=Schedule(milestones=(16, 22))
)
TINY = Settings(epochs=1, steps=2, batch=2, micro=1, rate=0.001, checkpoint_every=1, log_every=1)
CONFIGS = {
    "tiny": (
        "A tiny set and network, two steps: to see it work.",
        Config(network="resnet18", pyramid=16, short_side=64, long_side=96, training=TINY),
    ),
    "poly_nl": ("The Poly-NL paper, section 5.1.", Config(weights="IMAGENET1K_V1", training=PAPER)),
}


class Coco(Detection[Config]):
    """Detection and segmentation of instances."""

    fixed = ("network", "pyramid", "attention", "places", "short_side", "long_side")

    def __init__(self, config: Config, root: Path):
        super().__init__(config, root)
        self.samples = coco.CocoInstances(root, "train2017", coco.transform(training=True), with_instances=True)
        self.held_out = coco.CocoInstances(root, "val2017", coco.transform(training=False), with_instances=False)
        if self.samples.categories != self.held_out.categories:
            raise TrainingError(f"the annotations of train2017 and val2017 in {root} do not have the same categories")

    def network(self) -> nn.Module:
        config, classes = self.config, len(self.samples.categories) + 1
        sides = (config.short_side, config.long_side)
        return mask_rcnn(
            config.network, config.pyramid, config.attention, config.places, classes, config.weights, sides
        )

    def evaluate(self, now: Evaluating) -> dict[str, float]:
        return coco_precision(now, self.held_out, now.settings.micro)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "categories": len(self.samples.categories)}


def main(argv: Sequence[str] | None = None) -> Trained:
    return run(CONFIGS, Coco, tiny.coco, argv)


if __name__ == "__main__":
    main()
