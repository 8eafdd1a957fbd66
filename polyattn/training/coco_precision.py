"""COCO's average precision of boxes and masks, by pycocotools, over all processes."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from torch import Tensor

from polyattn.optional import need
from polyattn.training.data.coco import CocoInstances, collate
from polyattn.training.task import Evaluating

NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
"""The first six figures of COCOeval."""


def coco_precision(now: Evaluating, samples: CocoInstances, batch: int) -> dict[str, float]:
    """Detect in every image, and score boxes and masks.

    Returns:
        "box_AP", "mask_AP", "box_AP50", ... each between 0 and 1; -1 for sizes without instances in the data.
    """
    mine: list[dict[str, Any]] = []
    for numbers, (images, _) in now.batches(samples, batch, collate):
        for number, found in zip(numbers, now.model(images), strict=False):
            mine += results(samples, samples.ids[number], found)
    everything = [r for part in now.processes.gathered(mine) for r in part]
    return now.processes.on_first(lambda: scores(samples.coco, everything))


def results(samples: CocoInstances, image: int, found: dict[str, Tensor]) -> list[dict[str, Any]]:
    """Convert one image's detections to COCO's format for results."""
    encode = need("pycocotools.mask", "train").encode
    boxes = found["boxes"].float().cpu()
    # COCO's boxes are x, y, width, height.
    boxes[:, 2:] -= boxes[:, :2]
    masks = (found["masks"][:, 0] > 0.5).to("cpu").numpy().astype(np.uint8)
    rows = zip(boxes.tolist(), found["labels"].tolist(), found["scores"].float().tolist(), masks, strict=True)
    return [
        {
            "image_id": image,
            "category_id": samples.categories[label - 1],
            "bbox": box,
            "score": score,
            # pycocotools encodes masks in column order.
            "segmentation": encode(np.asfortranarray(mask)),
        }
        for box, label, score, mask in rows
    ]


def scores(coco: Any, found: list[dict[str, Any]]) -> dict[str, float]:
    """Compute pycocotools' figures of all detections."""
    evaluation = need("pycocotools.cocoeval", "train")
    figures: dict[str, float] = {}
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        if not found:  # pycocotools reads no empty list
            figures |= {f"{name}_{figure}": 0.0 for figure in NAMES}
            continue
        # It completes the results in place, by boxes or by masks.
        given = [{k: v for k, v in r.items() if kind == "segm" or k != "segmentation"} for r in found]
        given = [{k: v for k, v in r.items() if kind == "bbox" or k != "bbox"} for r in given]
        # It prints its tables.
        with contextlib.redirect_stdout(io.StringIO()):
            scored = evaluation.COCOeval(coco, coco.loadRes(given), kind)
            scored.evaluate()
            scored.accumulate()
            scored.summarize()
        figures |= {f"{name}_{figure}": float(value) for figure, value in zip(NAMES, scored.stats, strict=False)}
    return figures
