"""Train a ResNet with attention on ImageNet, or on any data in the ImageFolder layout, as in the two papers.

    python examples/train_imagenet.py                            # a tiny set, two steps, an evaluation
    torchrun --nproc-per-node 8 examples/train_imagenet.py bat --data /data/imagenet --out runs/bat
    torchrun --nproc-per-node 8 examples/train_imagenet.py poly_nl --data /data/imagenet --out runs/poly_nl

The same command goes on where the last one stopped, on any number of processes. `--help` lists every option.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

import polyattn as pa
from polyattn.training import Evaluating, Schedule, Settings, Trained
from polyattn.training.accuracy import accuracy
from polyattn.training.data import images, tiny
from polyattn.training.recipes import Classification, run


@dataclass(frozen=True)
class Config:
    """What to train, on what, and how."""

    data: Path | None = None
    """Folder with train/<class>/ and val/<class>/; without one, a tiny set is made."""
    network: str = "resnet50"
    """A builder of polyattn.vision: resnet18, resnet34, resnet50, resnet101, resnet152, resnext50_32x4d, seresnet50."""
    attention: str | None = "bat"
    """A block's name, a catalogue name, or an equation; None for the plain network."""
    places: str | None = None
    """A layout such as bat or res345; by default that of the attention's paper."""
    image_size: int = 224
    """Side of the crops."""
    training: Settings = field(default_factory=Settings)
    """How to train."""


STEPS = Schedule("step", milestones=(30, 60, 80), gamma=0.1)
PAPER = Settings(epochs=90, batch=256, micro=32, rate=0.1, momentum=0.9, weight_decay=1e-4, schedule=STEPS)
TINY = Settings(epochs=1, steps=2, batch=6, micro=3, rate=0.01, checkpoint_every=1, log_every=1, ema=0.9)
CONFIGS = {
    "tiny": (
        "A tiny set and network, two steps: to see it work.",
        Config(network="resnet18", attention="poly_nl", image_size=32, training=TINY),
    ),
    # Its weight decay and momentum are those of He et al. (2016), whose networks these are; the paper gives neither.
    "bat": ("The BAT paper, section 4.1.", Config(attention="bat", training=PAPER)),
    # "Weight decay as in He et al."; the paper does not say when the rate falls: as in the other one.
    "poly_nl": ("The Poly-NL paper, section 5.3.", Config(attention="poly_nl", training=PAPER)),
}


class ImageNet(Classification[Config]):
    """Classification of photographs."""

    fixed = ("network", "attention", "places")

    def __init__(self, config: Config, root: Path):
        super().__init__(config, root)
        self.samples = images.image_folder(root, "train", images.training_transform(config.image_size))
        self.held_out = images.image_folder(root, "val", images.evaluation_transform(config.image_size))
        if self.samples.classes != self.held_out.classes:
            raise pa.TrainingError(f"train/ and val/ in {root} do not have the same classes")

    def network(self) -> nn.Module:
        config, classes = self.config, len(self.samples.classes)
        build = getattr(pa.vision, config.network)
        return build(config.attention, places=config.places, num_classes=classes, image_size=config.image_size)

    def evaluate(self, now: Evaluating) -> dict[str, float]:
        return accuracy(now, self.held_out, len(self.samples.classes), now.settings.micro)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "classes": len(self.samples.classes)}


def main(argv: Sequence[str] | None = None) -> Trained:
    return run(CONFIGS, ImageNet, tiny.image_folder, argv)


if __name__ == "__main__":
    main()
