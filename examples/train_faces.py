"""Train a RetinaNet with attention on WIDER FACE, as in the Poly-NL paper.

    python examples/train_faces.py                               # a tiny set, two steps, an evaluation
    torchrun --nproc-per-node 8 examples/train_faces.py poly_nl --data /data/wider --out runs/faces

The same command goes on where the last one stopped, on any number of processes. `--help` lists every option.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from polyattn.training import Evaluating, Schedule, Settings, Trained
from polyattn.training.data import tiny, wider
from polyattn.training.detectors import face_retinanet
from polyattn.training.recipes import Detection, run
from polyattn.training.wider_precision import wider_precision


@dataclass(frozen=True)
class Config:
    """What to train, on what, and how."""

    data: Path | None = None
    """Folder with WIDER_train/, WIDER_val/, wider_face_split/ and, for the difficulties, eval_tools/ground_truth/;
    without one, a tiny set is made."""
    network: str = "resnet50"
    """The backbone, a ResNet of torchvision."""
    pyramid: int = 256
    """Channels of the feature pyramid."""
    attention: str | None = "poly_nl"
    """A block's name, a catalogue name, or an equation; None for the plain network."""
    places: str | None = None
    """res3, res4, res5 or res345; by default that of the attention's paper."""
    weights: str | None = None
    """Of the backbone, as torchvision names them; the paper has none."""
    patch: int = 640
    """Side of the patches to train on."""
    short_side: int = 1100
    """Images are evaluated with this short side,"""
    long_side: int = 1650
    """unless their long side would be longer than this."""
    training: Settings = field(default_factory=Settings)
    """How to train."""


FALLS = Schedule("step", milestones=(250, 350), gamma=0.1, warmup_epochs=3)
PAPER = Settings(
    epochs=400, batch=64, micro=8, rate=0.001, momentum=0.9, weight_decay=5e-4, schedule=FALLS, evaluate_every=10
)
TINY = Settings(epochs=1, steps=2, batch=2, micro=1, rate=0.001, checkpoint_every=1, log_every=1)
CONFIGS = {
    "tiny": (
        "A tiny set and network, two steps: to see it work.",
        Config(network="resnet18", pyramid=16, patch=64, short_side=64, long_side=96, training=TINY),
    ),
    "poly_nl": ("The Poly-NL paper, section 5.2.", Config(training=PAPER)),
}


class WiderFace(Detection[Config]):
    """Detection of faces."""

    fixed = ("network", "pyramid", "attention", "places", "patch")

    def __init__(self, config: Config, root: Path):
        super().__init__(config, root)
        self.samples = wider.Faces(root, "train", wider.training_transform(config.patch))
        self.held_out = wider.Faces(root, "val", wider.evaluation_transform())
        self.difficulties = wider.difficulties(root, self.held_out.photographs)

    def network(self) -> nn.Module:
        config, sides = self.config, (self.config.patch, self.config.patch)
        return face_retinanet(config.network, config.pyramid, config.attention, config.places, config.weights, sides)

    def evaluate(self, now: Evaluating) -> dict[str, float]:
        resize: Any = now.model.get_submodule("transform")
        resize.min_size, resize.max_size = (self.config.short_side,), self.config.long_side
        try:
            return wider_precision(now, self.held_out, 1, self.difficulties)
        finally:
            resize.min_size, resize.max_size = (self.config.patch,), self.config.patch


def main(argv: Sequence[str] | None = None) -> Trained:
    return run(CONFIGS, WiderFace, tiny.wider, argv)


if __name__ == "__main__":
    main()
