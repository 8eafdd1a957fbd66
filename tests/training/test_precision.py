"""Average precision: what is right, what is wrong, what is ignored; against counting by hand and brute force."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import loadmat, savemat

from polyattn.errors import TrainingError
from polyattn.training.coco_precision import results, scores
from polyattn.training.data import coco, tiny, wider
from polyattn.training.wider_precision import _overlaps, average_precision, matches, stretched
from tests.drawing import share


@pytest.fixture(scope="module")
def instances(tmp_path_factory) -> coco.CocoInstances:
    root = tmp_path_factory.mktemp("coco")
    tiny.coco(root)
    return coco.CocoInstances(root, "val2017", coco.transform(training=False), with_instances=False)


def as_found(target: dict, shift: float = 0.0) -> dict:
    """The truth as a detector would give it."""
    masks = target["masks"][:, None].float()
    return {
        "boxes": target["boxes"].as_subclass(torch.Tensor).clone() + shift,
        "labels": target["labels"],
        "scores": torch.linspace(0.9, 0.5, len(target["labels"])),
        "masks": masks.roll(round(shift), -1),
    }


def test_the_truth_has_a_precision_of_one_in_boxes_and_masks(instances):
    assert instances.categories == [3, 7]
    found = [r for k in range(2) for r in results(instances, instances.ids[k], as_found(instances[k][1]))]
    figures = scores(instances.coco, found)
    assert [figures[name] for name in ("box_AP", "mask_AP", "mask_AP50")] == pytest.approx([1, 1, 1])
    moved = [r for k in range(2) for r in results(instances, instances.ids[k], as_found(instances[k][1], 3.0))]
    worse = scores(instances.coco, moved)
    assert worse["box_AP"] < worse["box_AP50"] <= 1
    assert worse["mask_AP"] < 1


def test_no_detections_at_all_are_a_precision_of_zero(instances):
    assert set(scores(instances.coco, []).values()) == {0.0}


def test_the_crowd_is_no_instance_and_images_without_instances_are_not_trained_on(instances):
    assert all(len(instances[k][1]["labels"]) <= 3 for k in range(2))
    annotation = instances.coco.loadAnns(instances.coco.getAnnIds(imgIds=[1], iscrowd=True))
    assert len(annotation) == 1


def test_boxes_without_area_are_no_instances(tmp_path):
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.parent.mkdir()
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017" / "a.jpg").touch()
    sizes = [(3, 4), (0, 4), (3, 0)]
    triangle = [0, 0, 1, 0, 1, 1]
    found = [
        {
            "id": k,
            "image_id": 1,
            "category_id": 1,
            "bbox": [0, 0, *size],
            "iscrowd": 0,
            "area": 1,
            "segmentation": [triangle],
        }
        for k, size in enumerate(sizes, 1)
    ]
    image = {"id": 1, "file_name": "a.jpg", "height": 8, "width": 8}
    path.write_text(json.dumps({"images": [image], "categories": [{"id": 1, "name": "a"}], "annotations": found}))
    data = coco.CocoInstances(tmp_path, "val2017", None, with_instances=True)
    assert [a["bbox"] for a in data._instances(1)] == [[0, 0, 3, 4]]


def boxes(*corners: tuple[float, ...]) -> np.ndarray:
    return np.array(corners, dtype=float).reshape(len(corners), -1)


TWO = boxes((0, 0, 9, 9), (50, 50, 59, 59))


def test_each_face_is_found_once_and_ignored_ones_are_neither_right_nor_wrong():
    found = boxes((0, 0, 9, 9), (1, 0, 9, 9), (50, 50, 59, 59), (90, 90, 99, 99))
    proposal, right = matches(found, TWO, np.array([True, False]))
    assert proposal.tolist() == [True, True, False, True]
    assert right.tolist() == [True, False, False, False]


def test_overlaps_count_the_last_pixel():
    """A box from 0 to 3 is four pixels wide, so boxes are sets of pixels, whose overlap is counted one by one."""

    def pixels(box: np.ndarray) -> set[tuple[int, int]]:
        x1, y1, x2, y2 = box.astype(int)
        return {(x, y) for x in range(x1, x2 + 1) for y in range(y1, y2 + 1)}

    face = boxes((0, 0, 3, 3))
    found = boxes((0, 0, 3, 1), (0, 0, 3, 0), (0, 2, 3, 5), (1, 1, 3, 3), (2, 2, 5, 5), (3, 3, 6, 6), (0, 0, 4, 5))
    for box in found:
        one, other = pixels(box), pixels(face[0])
        overlap = len(one & other) / len(one | other)
        _, right = matches(box[None], face, np.array([True]))
        assert right.tolist() == [overlap >= 0.5]
        assert _overlaps(box[None], face)[0, 0] == pytest.approx(overlap)


def test_precision_falls_and_rises_under_its_envelope():
    """Right, wrong, right, right: recalls 1/3, 2/3, 1 at precisions 1, 2/3, 3/4, of which the later largest counts."""
    truth = boxes((0, 0, 9, 9), (50, 50, 59, 59), (90, 90, 99, 99))
    places = boxes((0, 0, 9, 9), (200, 200, 209, 209), (50, 50, 59, 59), (90, 90, 99, 99))
    found = np.column_stack([places, [0.9, 0.8, 0.7, 0.6]])
    precision = average_precision([found], [truth], [np.ones(3, dtype=bool)])
    assert precision == pytest.approx((1 + 3 / 4 + 3 / 4) / 3)


def test_precision_by_hand():
    found = np.column_stack([boxes((0, 0, 9, 9), (200, 200, 209, 209), (50, 50, 59, 59)), [0.9, 0.8, 0.7]])
    # At recall 1/2 a precision of 1, at recall 1 of 2/3.
    assert average_precision([found], [TWO], [np.array([True, True])]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision([found[:0]], [TWO], [np.array([True, True])]) == 0
    assert average_precision([found[::-1]], [TWO], [np.array([True, False])]) == pytest.approx(1)


def test_an_image_without_faces_is_left_out_whatever_is_detected_in_it():
    ghost, true = boxes((0, 0, 9, 9, 0.95)), boxes((0, 0, 9, 9, 0.9))
    counts = [np.zeros(0, dtype=bool), np.array([True])]
    assert average_precision([ghost, true], [TWO[:0], TWO[:1]], counts) == pytest.approx(1)
    # A face that does not count at this difficulty keeps its image in the evaluation.
    ghost = boxes((70, 70, 79, 79, 0.95))
    counts = [np.array([False]), np.array([True])]
    assert average_precision([ghost, true], [TWO[:1], TWO[:1]], counts) == pytest.approx(0.5)


def area(x1: float, y1: float, x2: float, y2: float) -> float:
    """Pixels of a box that counts its last row and column; 0 where it ends before it begins."""
    return max(x2 - x1 + 1, 0) * max(y2 - y1 + 1, 0)


def official(detections: list, faces: list, counting: list) -> float:
    """WIDER FACE's evaluation step by step, from its description: at each of 1,000 bounds, image by image.

    Detections of an image are gone through by score; one that overlaps its nearest face by half or more finds that
    face, or is struck out if the face is ignored. Images without faces or without detections are passed over, though
    the faces of the latter count as missed.
    """
    total = sum(sum(c) for c in counting)
    proposals, hits = [0] * 1000, [0] * 1000
    for found, truth, counts in zip(detections, faces, counting, strict=True):
        if not truth or not found:
            continue
        ordered, states, after = sorted(found, key=lambda d: -d[4]), ["free"] * len(truth), []
        struck = 0
        for place, (*box, score) in enumerate(ordered, 1):
            best, nearest = -1.0, -1
            for number, face in enumerate(truth):
                x1, y1, x2, y2 = (pick(p, q) for pick, p, q in zip((max, max, min, min), box, face, strict=True))
                common = area(x1, y1, x2, y2)
                overlap = common / (area(*box) + area(*face) - common)
                if overlap > best:
                    best, nearest = overlap, number
            if best >= 0.5 and not counts[nearest]:
                states[nearest], struck = "ignored", struck + 1
            elif best >= 0.5 and states[nearest] == "free":
                states[nearest] = "found"
            after.append((score, place - struck, states.count("found")))
        for k in range(1000):
            reached = [entry for entry in after if entry[0] >= 1 - (k + 1) / 1000]
            if reached:
                proposals[k] += reached[-1][1]
                hits[k] += reached[-1][2]
    points = [(h / total, h / p if p else 0.0) for h, p in zip(hits, proposals, strict=True)]
    under, before = 0.0, 0.0
    for recall, _ in points:
        if recall > before:
            under += (recall - before) * max(precision for r, precision in points if r >= recall)
            before = recall
    return under


@share(0.4)
@given(st.integers(0, 999))
def test_precision_is_that_of_the_official_evaluation(seed):
    rng = np.random.default_rng(seed)
    faces = [rng.integers(0, 30, (int(rng.integers(0, 4)), 2)) for _ in range(4)]
    faces = [np.column_stack([f, f + rng.integers(4, 12, f.shape)]).astype(float) for f in faces]
    counts = [rng.random(len(f)) < 0.7 for f in faces]
    found = []
    for truth in faces:
        near = truth + rng.integers(-1, 2, truth.shape)
        far = np.column_stack([rng.integers(0, 30, (2, 2)), rng.integers(30, 40, (2, 2))])
        both = np.concatenate([near, far])[: int(rng.integers(0, 6))]
        found.append(np.column_stack([both, rng.integers(0, 1000, len(both)) / 1000 + 0.0005]))
    if not sum(c.sum() for c in counts):
        assert np.isnan(average_precision(found, faces, counts))
        return
    expected = official(*([rows.tolist() for rows in images] for images in (found, faces, counts)))
    assert average_precision(found, faces, counts) == pytest.approx(expected)


def test_scores_are_stretched_over_all_images():
    one, other = np.array([[0, 0, 1, 1, 0.2]]), np.array([[0, 0, 1, 1, 0.6], [0, 0, 1, 1, 0.4]])
    found = stretched([one, other, np.zeros((0, 5))])
    assert [d[:, 4].tolist() for d in found] == [[0.0], [1.0, pytest.approx(0.5)], []]


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    root = tmp_path_factory.mktemp("wider")
    tiny.wider(root)
    return root


def test_difficulties_are_read_from_the_official_files(faces):
    samples = wider.Faces(faces, "val", wider.evaluation_transform())
    found = wider.difficulties(faces, samples.photographs)
    for level, least in (("easy", 30), ("medium", 24), ("hard", 0)):
        for photograph, counts in zip(samples.photographs, found[level], strict=True):
            heights = (photograph.boxes[:, 3] - photograph.boxes[:, 1]).tolist()
            assert counts.tolist() == [height >= least for height in heights]


def test_without_the_official_folder_there_are_no_difficulties(tmp_path):
    assert wider.difficulties(tmp_path, []) == {}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("missing", r"wider_medium_val\.mat is missing"),
        ("cut", r"wider_medium_val\.mat cannot be read as the official"),
        ("noise", r"wider_medium_val\.mat cannot be read as the official"),
        ("other images", r"wider_easy_val\.mat does not list the image"),
        ("beyond", r"wider_medium_val\.mat chooses face 99 of .*, which has \d faces"),
    ],
)
def test_official_files_that_do_not_fit_are_named_before_training(faces, tmp_path, wrong, message):
    shutil.copytree(faces, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "eval_tools" / "ground_truth" / "wider_medium_val.mat"
    photographs = wider.photographs(tmp_path / "wider_face_split" / "wider_face_val_bbx_gt.txt")
    if wrong == "missing":
        file.unlink()
    elif wrong == "cut":
        file.write_bytes(file.read_bytes()[:300])
    elif wrong == "noise":
        file.write_bytes(np.random.default_rng(0).bytes(4000))
    elif wrong == "other images":
        photographs = [replace(photographs[0], name="0--Other/other.jpg")]
    else:
        table = loadmat(str(file))
        table["gt_list"][0, 0][0, 0] = np.array([[99]])
        savemat(str(file), {k: v for k, v in table.items() if not k.startswith("__")})
    with pytest.raises(TrainingError, match=message):
        wider.difficulties(tmp_path, photographs)


def test_patches_have_the_centre_of_a_face_and_their_boxes_in_them(faces):
    samples = wider.Faces(faces, "train", wider.training_transform(40))
    for index, photograph in enumerate(samples.photographs):
        torch.manual_seed(index)
        image, target = samples[index]
        assert image.shape == (3, 40, 40)
        assert len(target["boxes"]) == len(target["labels"])
        assert bool(len(target["boxes"])) == bool(photograph.valid.any())
        assert ((target["boxes"] >= 0) & (target["boxes"] <= 40)).all()


@pytest.mark.parametrize(
    ("text", "place"),
    [("a.jpg\n2\n1 2 3 4 0 0 0 0 0 0\n", "line 2"), ("a.jpg\nx\n", "line 2"), ("a.jpg\n1\n1 2 3\n", "line 2")],
)
def test_a_wrong_line_of_annotations_is_named(tmp_path, text, place):
    path = tmp_path / "gt.txt"
    path.write_text(text)
    with pytest.raises(TrainingError, match=place):
        wider.photographs(path)


def test_invalid_faces_and_images_without_faces_are_read_as_such(tmp_path):
    path = tmp_path / "gt.txt"
    path.write_text(
        "a.jpg\n3\n1 2 3 4 0 0 0 0 0 0\n5 6 7 8 0 0 0 1 0 0\n5 6 7 0 0 0 0 0 0 0\nb.jpg\n0\n0 0 0 0 0 0 0 0 0 0 \n"
    )
    first, second = wider.photographs(path)
    assert first.boxes.tolist() == [[1, 2, 4, 6], [5, 6, 12, 14], [5, 6, 12, 6]]
    assert first.valid.tolist() == [True, False, False]
    assert len(second.boxes) == 0
