"""A tiny list of videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from polyattn.optional import need
from polyattn.training.data.tiny.folders import noise, save


def clips(root: Path, classes: int = 2, train: int = 3, val: int = 1, frames: int = 24, side: int = 48) -> str:
    """Write videos of a bright square moving to the right or down, as mp4; the last one of each class as a folder."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        lines = []
        for label in range(classes):
            for number in range(count):
                moving = [_frame(rng, side, label, k / frames) for k in range(frames)]
                name = f"{split}_{label}_{number}"
                # Readers meet every form: mp4 files, and one folder of frames for each class.
                if split == "train" and number == count - 1:
                    for k, frame in enumerate(moving, 1):
                        save(frame, root / "frames" / name / f"img_{k:05d}.jpg")
                    lines.append(f"frames/{name} {frames} {label}")
                else:
                    _encode(moving, root / "videos" / f"{name}.mp4")
                    lines.append(f"videos/{name}.mp4 {label}")
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return f"{classes * train} + {classes * val} videos of {frames} frames, mp4 and folders of frames, in lists"


def _frame(rng: np.random.Generator, side: int, label: int, place: float) -> np.ndarray:
    image = noise(rng, side, side + 16)
    start = int(place * (side - 12))
    top, left = (8, start) if label % 2 else (start, 8)
    image[top : top + 12, left : left + 12, label % 3] = 255
    return image


def _encode(frames: list[np.ndarray], path: Path) -> None:
    av = need("av", "train")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        # An empty call flushes the encoder's delayed frames.
        container.mux(stream.encode())
