"""Videos in a list, as Kinetics': each line a path and a class, `videos/abc.mp4 12`.

A path is a video file, read by PyAV, whose wheels include FFmpeg; or a folder of frames (`frames/abc 12`), sorted by
name. Commas may separate the cells as well. A number of frames in the middle (`frames/abc 300 12`) is ignored: frames
are counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from polyattn.errors import TrainingError
from polyattn.optional import need
from polyattn.training.data.images import MEAN, STD, read_image
from polyattn.training.data.places import all_there, existing, text_of

Sampling = Literal["dense", "tsn"]
CLASS = re.compile("[0-9]{1,6}")
"""The number of a class: a longer one is an identifier, and cannot be an index of the network's outputs."""
IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def listed(path: Path) -> list[tuple[str, int]]:
    """Read the paths and classes of a list.

    Raises:
        TrainingError: a line without a path and a class, by its number.
    """
    found = []
    for number, line in enumerate(text_of(path, "a list of clips").splitlines(), 1):
        if not line.strip():
            continue
        cells = (
            # Split from the right: a path may contain spaces.
            [c.strip() for c in line.split(",")] if "," in line else line.rsplit(maxsplit=2 if _counted(line) else 1)
        )
        if len(cells) not in (2, 3) or not CLASS.fullmatch(cells[-1]):
            raise TrainingError(
                f"{path}, line {number}: a path and the number of a class should be here, not {line[:200]!r}"
            )
        found.append((cells[0], int(cells[-1])))
    if not found:
        raise TrainingError(f"{path} lists no clips")
    return found


def _counted(line: str) -> bool:
    """Test if a number of frames is between path and class."""
    cells = line.split()
    return len(cells) > 2 and cells[-2].isdigit()


def dense_frames(total: int, frames: int, stride: int, start: float) -> list[int]:
    """Return the frames of a clip with a stride, by its position: 0 for the first possible clip, 1 for the last.

    A video that is too short starts over from its beginning.

    >>> dense_frames(100, 8, 8, 1.0)
    [43, 51, 59, 67, 75, 83, 91, 99]
    >>> dense_frames(10, 4, 4, 0.5)
    [0, 4, 8, 2]
    """
    first = round(start * max(0, total - (frames - 1) * stride - 1))
    return [(first + k * stride) % total for k in range(frames)]


def segment_frames(total: int, places: Sequence[float]) -> list[int]:
    """Return one frame from each of as many equal segments as there are places (TSN, Wang et al. 2016).

    Args:
        places: position in each segment, from 0 for its start to below 1.

    >>> segment_frames(80, [0.5] * 8)
    [5, 15, 25, 35, 45, 55, 65, 75]
    """
    length = total / len(places)
    # Rounding at the very end could reach one frame beyond.
    return [min(total - 1, int((k + place) * length)) for k, place in enumerate(places)]


class Video:
    """One video: its number of frames, and a selection of them. A context; errors name the file.

    Args:
        path: a file, or a folder of frames.
    """

    def __init__(self, path: Path):
        self.path = existing(path, "it is in the list of clips")
        self.frames = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES) if path.is_dir() else []

    def count(self) -> int:
        """Count the frames, packet by packet if the file's header does not have their number."""
        if self.path.is_dir():
            total = len(self.frames)
        else:
            with self._opened() as (container, stream):
                total = stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
        if total < 1:
            raise TrainingError(f"{self.path} has no frames")
        return total

    def read(self, numbers: Sequence[int]) -> Tensor:
        """Read frames (T, 3, H, W) of bytes, in the order of the numbers; a file is decoded up to the last of them.

        If a file has fewer frames than its header says, its last one replaces the missing ones.
        """
        functional = need("torchvision.transforms.v2.functional", "train")
        if self.path.is_dir():
            frames = [functional.pil_to_tensor(read_image(self.frames[n])) for n in numbers]
            if len({frame.shape for frame in frames}) > 1:
                raise TrainingError(f"{self.path} has frames of different sizes: resize them, or take the clip out")
            return torch.stack(frames)
        wanted, kept, last = set(numbers), {}, None
        with self._opened() as (container, stream):
            # PyAV's default decodes slices in parallel; AUTO does so with whole frames too, which is faster.
            stream.thread_type = "AUTO"
            for number, frame in enumerate(container.decode(video=0)):
                last = frame
                if number in wanted:
                    kept[number] = torch.from_numpy(frame.to_ndarray(format="rgb24"))
                # Later frames need not be decoded.
                if number >= max(wanted):
                    break
        if last is None:
            raise TrainingError(f"{self.path} has no frames")
        end = torch.from_numpy(last.to_ndarray(format="rgb24"))
        return torch.stack([kept.get(n, end) for n in numbers]).permute(0, 3, 1, 2).contiguous()

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """Open the file and its stream of frames; errors of decoding inside name the file."""
        av = need("av", "train")
        try:
            with av.open(str(self.path)) as container:
                if not container.streams.video:
                    raise TrainingError(f"{self.path} is no video that can be read: it has no stream of frames")
                yield container, container.streams.video[0]
        except (av.error.FFmpegError, OSError, ValueError) as error:
            # A `TrainingError` is a ValueError too, and already names the file.
            if isinstance(error, TrainingError):
                raise
            raise TrainingError(
                f"{self.path} is no video that can be read ({error}): restore it, or take it out of the list"
            ) from error


class Clips:
    """Samples (clips, class) of one list.

    Args:
        root: the folder of the paths.
        listing: the list, in the folder.
        frames, stride: frames of a clip, and their stride for "dense".
        sampling: "dense" for frames with a stride, "tsn" for one frame of each segment.
        views: number of clips of each video, evenly spread; None for one at random.
        transform: transform of a clip (T, 3, H, W) of bytes.

    Shape:
        A sample's clips are (3, T, H, W) for one clip at random, else (views * crops, 3, T, H, W).
    """

    def __init__(
        self, root: Path, listing: str, frames: int, stride: int, sampling: Sampling, views: int | None, transform: Any
    ):
        self.root, self.clips = root, listed(root / listing)
        all_there(root, (path for path, _ in self.clips), root / listing)
        self.frames, self.stride, self.sampling, self.views = frames, stride, sampling, views
        self.transform = transform

    @property
    def classes(self) -> int:
        return max(label for _, label in self.clips) + 1

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.clips[index]
        video = Video(self.root / path)
        total = video.count()
        if self.views is None:
            return self.transform(video.read(self._at_random(total))).transpose(0, 1), label
        clips = [self._view(total, view) for view in range(self.views)]
        # One pass over the file for all views.
        frames = video.read([n for clip in clips for n in clip]).split(self.frames)
        crops = [crop.transpose(0, 1) for clip in frames for crop in self.transform(clip)]
        return torch.stack(crops), label

    def _at_random(self, total: int) -> list[int]:
        if self.sampling == "tsn":
            return segment_frames(total, torch.rand(self.frames).tolist())
        return dense_frames(total, self.frames, self.stride, float(torch.rand(())))

    def _view(self, total: int, view: int) -> list[int]:
        """Return the frames of a view: the middle for a single one, else evenly from start to end."""
        views = self.views or 1
        if self.sampling == "tsn":
            return segment_frames(total, [(view + 0.5) / views] * self.frames)
        return dense_frames(total, self.frames, self.stride, 0.5 if views == 1 else view / (views - 1))


class MultiScaleCrop:
    """TSN's augmentation: a crop of random scale at a corner or in the middle, resized, and a random flip.

    Width and height are each 1, 0.875, 0.75 or 0.66 of the short side, one step apart at most.

    Args:
        size: side of the result, in pixels.
    """

    SCALES = (1.0, 0.875, 0.75, 0.66)
    PLACES = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))

    def __init__(self, size: int):
        self.size = size
        self.functional = need("torchvision.transforms.v2.functional", "train")

    def __call__(self, clip: Tensor) -> Tensor:
        steps = range(len(self.SCALES))
        pairs = [(self.SCALES[i], self.SCALES[j]) for i in steps for j in steps if abs(i - j) <= 1]
        scales = pairs[int(torch.randint(len(pairs), ()))]
        down, right = self.PLACES[int(torch.randint(len(self.PLACES), ()))]
        height, width = (int(scale * min(clip.shape[-2:])) for scale in scales)
        top, left = int(down * (clip.shape[-2] - height)), int(right * (clip.shape[-1] - width))
        # One crop for all frames: the clip must not jump.
        crop = self.functional.resized_crop(clip, top, left, height, width, [self.size, self.size], antialias=True)
        return normalised(crop.flip(-1) if torch.rand(()) < 0.5 else crop)


class Crops:
    """Square crops along the long side of resized clips: 1 in the middle, or 3 from end to end.

    Args:
        short_side: short side of the resized frames, in pixels.
        size: side of the crops, in pixels.
        count: 1 or 3.
    """

    def __init__(self, short_side: int, size: int, count: int):
        self.short_side, self.size, self.count = short_side, size, count
        self.functional = need("torchvision.transforms.v2.functional", "train")

    def __call__(self, clip: Tensor) -> list[Tensor]:
        clip = normalised(self.functional.resize(clip, [self.short_side], antialias=True))
        spare = [length - self.size for length in clip.shape[-2:]]
        along = [0.5] if self.count == 1 else [k / (self.count - 1) for k in range(self.count)]
        tall = spare[0] > spare[1]
        corners = [(int(p * spare[0]), spare[1] // 2) if tall else (spare[0] // 2, int(p * spare[1])) for p in along]
        return [clip[..., top : top + self.size, left : left + self.size] for top, left in corners]


def normalised(clip: Tensor) -> Tensor:
    """Normalise bytes (T, 3, H, W) to floats with ImageNet's mean and variance."""
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (MEAN, STD))
    return (clip.float() / 255 - mean) / std
