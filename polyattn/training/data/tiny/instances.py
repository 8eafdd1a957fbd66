"""Tiny sets of images with boxes: COCO's and WIDER FACE's form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from polyattn.optional import need
from polyattn.training.data.tiny.folders import noise, save


def drawn(
    rng: np.random.Generator, side: int, least: int = 1
) -> tuple[np.ndarray, list[tuple[int, int, int, int, int]]]:
    """Draw an image with one to three bright rectangles; return it with (x, y, width, height, kind) of each."""
    image, found = noise(rng, side, side + 16), []
    for _ in range(int(rng.integers(least, 4))):
        width, height = (int(n) for n in rng.integers(side // 5, side // 2, 2))
        x, y = int(rng.integers(0, side + 16 - width)), int(rng.integers(0, side - height))
        kind = int(rng.integers(0, 2))
        image[y : y + height, x : x + width, kind] = 255
        found.append((x, y, width, height, kind))
    return image, found


def coco(root: Path, train: int = 4, val: int = 2, side: int = 64) -> str:
    """Write instances of two categories with boxes and polygons, and one crowd; the ids are not consecutive."""
    rng = np.random.default_rng(0)
    categories = [{"id": 3, "name": "red", "supercategory": "box"}, {"id": 7, "name": "green", "supercategory": "box"}]
    for split, count in (("train2017", train), ("val2017", val)):
        images, annotations = [], []
        for number in range(1, count + 1):
            image, found = drawn(rng, side)
            name = f"{number:012d}.jpg"
            save(image, root / split / name)
            images.append({"id": number, "file_name": name, "height": image.shape[0], "width": image.shape[1]})
            for x, y, w, h, kind in found:
                polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
                annotations.append(
                    {
                        "id": len(annotations) + 1, "image_id": number, "category_id": (3, 7)[kind], "iscrowd": 0,
                        "bbox": [x, y, w, h], "area": w * h, "segmentation": [polygon],
                    }
                )  # fmt: skip
        # Annotations of crowds have runs instead of polygons, so readers meet both forms.
        crowd = {"counts": [0, side * (side + 16)], "size": [side, side + 16]}
        annotations.append(
            {
                "id": len(annotations) + 1, "image_id": 1, "category_id": 3, "iscrowd": 1,
                "bbox": [0, 0, side + 16, side], "area": side * (side + 16), "segmentation": crowd,
            }
        )  # fmt: skip
        everything = {
            "info": {},
            "licenses": [],
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
        target = root / "annotations" / f"instances_{split}.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(everything))
    return f"{train} + {val} images with boxes and masks (COCO)"


def wider(root: Path, train: int = 4, val: int = 3, side: int = 96) -> str:
    """Write faces in the text form of the data set, and the official evaluation's lists by difficulty."""
    rng = np.random.default_rng(0)
    events: dict[str, list[tuple[str, list[tuple[int, int, int, int, int]]]]] = {}
    for split, count in (("train", train), ("val", val)):
        lines = []
        for number in range(count):
            event = f"{number % 2}--Event{number % 2}"
            image, found = drawn(rng, side, least=0 if number == 1 else 1)
            name = f"{number % 2}_Event{number % 2}_{number}"
            save(image, root / f"WIDER_{split}" / "images" / event / f"{name}.jpg")
            lines += [f"{event}/{name}.jpg", str(len(found))]
            # The data set has a line of zeros for an image without faces.
            lines += [f"{x} {y} {w} {h} 0 0 0 0 0 0" for x, y, w, h, _ in found] or ["0 0 0 0 0 0 0 0 0 0"]
            if split == "val":
                events.setdefault(event, []).append((name, found))
        target = root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
        target.parent.mkdir(exist_ok=True)
        target.write_text("\n".join(lines) + "\n")
    _difficulties(root / "eval_tools" / "ground_truth", events)
    return f"{train} + {val} images with faces (WIDER FACE)"


def _difficulties(folder: Path, events: dict[str, list[tuple[str, list[tuple[int, int, int, int, int]]]]]) -> None:
    """Write MATLAB files of nested cells, as the official evaluation's: names, boxes, and numbers of counted boxes."""
    savemat = need("scipy.io", "train").savemat
    folder.mkdir(parents=True)

    def cells(values: list) -> np.ndarray:
        # numpy would turn a list of equally long arrays into one array: cells have to be filled one by one.
        column = np.empty((len(values), 1), dtype=object)
        for place, value in enumerate(values):
            column[place, 0] = value
        return column

    names = {"event_list": cells(list(events)), "file_list": cells([cells([n for n, _ in e]) for e in events.values()])}
    boxes = [cells([np.array([b[:4] for b in found]).reshape(-1, 4) for _, found in e]) for e in events.values()]
    for level, least in (("easy", 30), ("medium", 24), ("hard", 0)):
        chosen = [
            cells([np.array([[k] for k, b in enumerate(f, 1) if b[3] >= least]).reshape(-1, 1) for _, f in e])
            for e in events.values()
        ]
        everything = {**names, "face_bbx_list": cells(boxes), "gt_list": cells(chosen)}
        savemat(str(folder / f"wider_{level}_val.mat"), everything)
