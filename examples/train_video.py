"""Train a C2D or I3D ResNet with attention on Kinetics, or on any list of clips, as in the BAT paper.

    python examples/train_video.py                               # a tiny set, two steps, an evaluation
    torchrun --nproc-per-node 8 examples/train_video.py kinetics400 --data /data/kinetics --out runs/k400
    torchrun --nproc-per-node 8 examples/train_video.py kinetics400_tsn --data /data/kinetics --out runs/tsn \\
        --start runs/k400/weights.pt
    torchrun --nproc-per-node 8 examples/train_video.py mini_kinetics200 --data /data/mini --network c2d_resnet50

The same command goes on where the last one stopped, on any number of processes. `--help` lists every option.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from polyattn.errors import TrainingError
from polyattn.training import Evaluating, Schedule, Settings, Trained, files
from polyattn.training.accuracy import accuracy
from polyattn.training.data import clips, tiny
from polyattn.training.recipes import Classification, run
from polyattn.vision import load_backbone
from polyattn.vision.video import build_video, i3d_lengths


@dataclass(frozen=True)
class Config:
    """What to train, on what, and how."""

    data: Path | None = None
    """Folder with train.txt, val.txt and the videos that they list; without one, a tiny set is made."""
    network: str = "i3d_resnet50"
    """c2d_ or i3d_ and a ResNet of torchvision."""
    attention: str | None = "bat"
    """A block's name, a catalogue name, or an equation; None for the plain network."""
    places: str | None = None
    """A layout such as bat or res345; by default that of the attention's paper."""
    backbone: Path | None = None
    """A file with the weights of the 2D network, which are inflated; the paper starts from ImageNet's."""
    weights: str | None = None
    """Of the 2D network, as torchvision names them, such as IMAGENET1K_V1; instead of a file."""
    start: Path | None = None
    """The weights.pt of another run of this network, to go on from; instead of either."""
    frames: int = 8
    """Frames of a clip."""
    stride: int = 8
    """Frames of the video from one of the clip to the next, with dense sampling."""
    sampling: clips.Sampling = "dense"
    """dense: frames with a stride, as the paper trains; tsn: one frame of each of as many segments of the video, as it
    fine-tunes for Table 8."""
    short_side: int = 256
    """Videos are evaluated with this short side."""
    image_size: int = 224
    """Side of the crops to train on, and of a single one in the evaluation; several have the short side."""
    views: int = 10
    """Clips of a video in the evaluation, evenly spread,"""
    crops: int = 3
    """and crops of each; the scores of all are averaged. 1 and 1 is the paper's clip accuracy."""
    training: Settings = field(default_factory=Settings)
    """How to train."""


K400 = Settings(
    epochs=100, batch=64, micro=8, rate=0.01, weight_decay=1e-4, evaluate_every=10,
    schedule=Schedule("step", milestones=(40, 80), gamma=0.1),
)  # fmt: skip
MINI = Settings(
    epochs=50, batch=64, micro=8, rate=0.01, weight_decay=1e-4, evaluate_every=10,
    schedule=Schedule("cosine", warmup_epochs=2),
)  # fmt: skip
TSN = replace(K400, epochs=20, rate=0.001, schedule=Schedule("step", milestones=(10, 15), gamma=0.1))
TINY = Settings(epochs=1, steps=2, batch=2, micro=1, rate=0.001, checkpoint_every=1, log_every=1)
SMALL = {"frames": 4, "stride": 2, "short_side": 40, "image_size": 32, "views": 2, "crops": 3}
CONFIGS = {
    "tiny": (
        "A tiny set and network, two steps: to see it work.",
        Config(network="c2d_resnet18", attention="poly_nl", training=TINY, **SMALL),
    ),
    "kinetics400": ("The BAT paper, section 4.1, Kinetics-400.", Config(weights="IMAGENET1K_V1", training=K400)),
    "kinetics400_tsn": (
        "Fine-tuning of --start on segments of whole videos (TSN), as for Table 8; how long and how fast is not said.",
        Config(sampling="tsn", training=TSN),
    ),
    "mini_kinetics200": ("The same, Mini-Kinetics-200.", Config(weights="IMAGENET1K_V1", training=MINI)),
}


class Kinetics(Classification[Config]):
    """Classification of videos."""

    fixed = ("network", "attention", "places", "frames", "stride", "sampling", "image_size")

    def __init__(self, config: Config, root: Path):
        super().__init__(config, root)
        self.kind, _, self.plain = config.network.partition("_")
        if self.kind not in ("c2d", "i3d"):
            raise TrainingError(f"a video network is c2d_ or i3d_ and a ResNet, not {config.network!r}")
        crop = clips.MultiScaleCrop(config.image_size)
        how = (config.frames, config.stride, config.sampling)
        self.samples = clips.Clips(root, "train.txt", *how, None, crop)
        # Several crops have the whole short side, so that together they see all of the frame.
        side = config.short_side if config.crops > 1 else config.image_size
        crops = clips.Crops(config.short_side, side, config.crops)
        self.held_out = clips.Clips(root, "val.txt", *how, config.views, crops)
        if self.held_out.classes > self.samples.classes:
            raise TrainingError(
                f"{root / 'val.txt'} has class {self.held_out.classes - 1}, and {root / 'train.txt'} classes up to "
                f"{self.samples.classes - 1}: number the classes of both lists alike"
            )

    def network(self) -> nn.Module:
        config = self.config
        lengths = i3d_lengths(self.plain) if self.kind == "i3d" else {}
        model = build_video(
            self.plain, config.attention, temporal=lengths, places=config.places, weights=config.weights,
            num_classes=self.samples.classes, frames=config.frames, image_size=config.image_size,
        )  # fmt: skip
        if config.start is not None:
            try:
                model.load_state_dict(files.weights(config.start))
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:300]
                raise TrainingError(
                    f"{config.start} does not fit {config.network} with {config.attention} ({reason}): give the same "
                    f"network, attention and classes as in the run that wrote it"
                ) from error
        elif config.backbone is not None:
            load_backbone(model, files.weights(config.backbone), skip="fc")
        return model

    def evaluate(self, now: Evaluating) -> dict[str, float]:
        def scores(inputs: Tensor) -> Tensor:
            """The mean of the probabilities of a video's clips and crops: (1, V, 3, T, H, W) to (1, classes)."""
            return torch.stack([now.model(view).softmax(-1) for view in inputs[0].split(self.config.crops)]).mean(
                (0, 1)
            )[None]

        return accuracy(now, self.held_out, self.samples.classes, 1, scores)


def main(argv: Sequence[str] | None = None) -> Trained:
    return run(CONFIGS, Kinetics, tiny.clips, argv)


if __name__ == "__main__":
    main()
