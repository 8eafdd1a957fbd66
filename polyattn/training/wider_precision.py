"""WIDER FACE's average precision by difficulty, as in its official evaluation, over all processes.

Faces of an image outside a difficulty are ignored with it: to find one is neither right nor wrong. A detection is right
if the face it overlaps most is not found yet, and the overlap (intersection over union, of boxes whose sides count
their last pixel) is at least 0.5. Precision and recall are evaluated at 1,000 bounds of the score, which is first
stretched to [0, 1] over all images; the area is that under precision's envelope. Images without annotated faces are
excluded, whatever is detected in them; their scores contribute to the stretching only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from polyattn.training.data.coco import collate
from polyattn.training.data.wider import Faces
from polyattn.training.task import Evaluating

OVERLAP, BOUNDS = 0.5, 1000


def wider_precision(
    now: Evaluating, samples: Faces, batch: int, difficulties: Mapping[str, Sequence[np.ndarray]]
) -> dict[str, float]:
    """Detect faces in every image, and score them.

    Args:
        now: the network and the processes.
        samples: samples for evaluation.
        batch: images of one forward pass.
        difficulties: for each difficulty and image, (m,) booleans of the counted faces, from
            `polyattn.training.data.wider.difficulties`.

    Returns:
        "AP_all", over all faces not marked as invalid, and "AP_..." of each difficulty.
    """
    mine: dict[int, np.ndarray] = {}
    for numbers, (images, _) in now.batches(samples, batch, collate):
        for number, found in zip(numbers, now.model(images), strict=False):
            mine[number] = np.column_stack(
                [found["boxes"].float().cpu().numpy(), found["scores"].float().cpu().numpy()]
            )
    parts = now.processes.gathered(mine)

    def scores() -> dict[str, float]:
        found = {number: boxes for part in parts for number, boxes in part.items()}
        faces = [p.boxes.numpy().astype(float) for p in samples.photographs]
        counting = {"all": [p.valid.numpy() for p in samples.photographs], **difficulties}
        detections = stretched([found[number] for number in range(len(samples))])
        return {f"AP_{level}": average_precision(detections, faces, counts) for level, counts in counting.items()}

    return now.processes.on_first(scores)


def stretched(detections: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Stretch the scores of detections (n, 5) of each image to [0, 1] over all images."""
    every = np.concatenate([d[:, 4] for d in detections]) if detections else np.zeros(0)
    low, high = (every.min(), every.max()) if every.size else (0.0, 1.0)
    # Equal scores would be divided by zero.
    width = high - low if high > low else 1.0
    return [np.column_stack([d[:, :4], (d[:, 4] - low) / width]) for d in detections]


def average_precision(
    detections: Sequence[np.ndarray], faces: Sequence[np.ndarray], counting: Sequence[np.ndarray]
) -> float:
    """Compute the average precision at an overlap of 0.5.

    Args:
        detections: for each image (n, 5): x1, y1, x2, y2 and the score in [0, 1].
        faces: for each image (m, 4).
        counting: for each image (m,) of booleans: the counted faces; the others are ignored.
    """
    bounds = 1 - np.arange(1, BOUNDS + 1) / BOUNDS
    proposed, right = np.zeros(BOUNDS), np.zeros(BOUNDS)
    for found, boxes, counts in zip(detections, faces, counting, strict=True):
        if not len(found) or not len(boxes):
            continue  # the official evaluation leaves such an image out, so that a detection in it is not wrong
        ordered = found[np.argsort(-found[:, 4], kind="stable")]
        is_proposal, is_right = matches(ordered[:, :4], boxes, counts)
        above = np.searchsorted(-ordered[:, 4], -bounds, side="right")  # detections with at least that score
        proposed += np.concatenate([[0], np.cumsum(is_proposal)])[above]
        right += np.concatenate([[0], np.cumsum(is_right)])[above]
    total = sum(int(c.sum()) for c in counting)
    if not total:
        return float("nan")
    precision = np.concatenate([[0.0], np.divide(right, proposed, out=np.zeros(BOUNDS), where=proposed > 0), [0.0]])
    recall = np.concatenate([[0.0], right / total, [1.0]])
    # The envelope is the best precision at this recall or a larger one.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall) * envelope[1:]).sum())


def matches(found: np.ndarray, boxes: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Match detections (n, 4), the best first, to faces; return masks of the proposals and of the right ones."""
    proposal, right = np.ones(len(found), dtype=bool), np.zeros(len(found), dtype=bool)
    taken = np.zeros(len(boxes), dtype=bool)
    overlaps = _overlaps(found, boxes)
    for number, face in enumerate(overlaps.argmax(1)):
        if overlaps[number, face] < OVERLAP:
            continue
        # An ignored face takes its detection out of the count, instead of making it wrong.
        if not counts[face]:
            proposal[number] = False
        elif not taken[face]:
            taken[face] = right[number] = True
    return proposal, right


def _overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Compute the intersection over union (n, m); a box from 3 to 5 is three pixels wide."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    common = np.clip(high - low + 1, 0, None).prod(-1)
    areas = [(b[:, 2:] - b[:, :2] + 1).prod(-1) for b in (one, other)]
    return common / (areas[0][:, None] + areas[1][None] - common)
