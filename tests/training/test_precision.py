"""Average precision: what is right, what is wrong, what is ignored; against counting by hand and brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyattn.errors import TrainingError
from polyattn.training.coco_precision import results, scores
from polyattn.training.data import coco, tiny, wider
from polyattn.training.wider_precision import _counting, average_precision, matches, stretched


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


def boxes(*corners: tuple[float, ...]) -> np.ndarray:
    return np.array(corners, dtype=float).reshape(len(corners), -1)


TWO = boxes((0, 0, 9, 9), (50, 50, 59, 59))


def test_each_face_is_found_once_and_ignored_ones_are_neither_right_nor_wrong():
    found = boxes((0, 0, 9, 9), (1, 0, 9, 9), (50, 50, 59, 59), (90, 90, 99, 99))
    proposal, right = matches(found, TWO, np.array([True, False]))
    assert proposal.tolist() == [True, True, False, True]
    assert right.tolist() == [True, False, False, False]


def test_precision_by_hand():
    found = np.column_stack([boxes((0, 0, 9, 9), (200, 200, 209, 209), (50, 50, 59, 59)), [0.9, 0.8, 0.7]])
    # At recall 1/2 a precision of 1, at recall 1 of 2/3.
    assert average_precision([found], [TWO], [np.array([True, True])]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision([found[:0]], [TWO], [np.array([True, True])]) == 0
    assert average_precision([found[::-1]], [TWO], [np.array([True, False])]) == pytest.approx(1)


@settings(max_examples=8)
@given(st.integers(0, 999))
def test_precision_is_that_of_counting_at_every_bound(seed):
    """The definition as it stands: at each of 1,000 bounds of the score, in every image anew."""
    rng = np.random.default_rng(seed)
    faces = [rng.integers(0, 30, (int(rng.integers(0, 4)), 2)) for _ in range(3)]
    faces = [np.column_stack([f, f + rng.integers(4, 12, f.shape)]).astype(float) for f in faces]
    counts = [rng.random(len(f)) < 0.7 for f in faces]
    found = []
    for truth in faces:
        near = truth + rng.integers(-1, 2, truth.shape)
        far = np.column_stack([rng.integers(0, 30, (2, 2)), rng.integers(30, 40, (2, 2))])
        both = np.concatenate([near, far])
        found.append(np.column_stack([both, rng.integers(0, 1000, len(both)) / 1000 + 0.0005]))
    if not sum(c.sum() for c in counts):
        assert np.isnan(average_precision(found, faces, counts))
        return
    curve = []
    for k in range(1, 1001):
        proposals = right = 0
        for detections, truth, counting in zip(found, faces, counts, strict=True):
            kept = detections[detections[:, 4] >= 1 - k / 1000]
            kept = kept[np.argsort(-kept[:, 4], kind="stable")]
            is_proposal, is_right = matches(kept[:, :4], truth, counting)
            proposals, right = proposals + is_proposal.sum(), right + is_right.sum()
        curve.append((right / sum(c.sum() for c in counts), right / proposals if proposals else 0.0))
    recalls = sorted({recall for recall, _ in curve if recall > 0})
    area, before = 0.0, 0.0
    for recall in recalls:
        area += (recall - before) * max(p for r, p in curve if r >= recall)
        before = recall
    assert average_precision(found, faces, counts) == pytest.approx(area)


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
    folder = faces / "eval_tools" / "ground_truth"
    for level, least in (("easy", 30), ("medium", 24), ("hard", 0)):
        for photograph, counts in zip(samples.photographs, _counting(folder, level, samples), strict=True):
            heights = (photograph.boxes[:, 3] - photograph.boxes[:, 1]).tolist()
            assert counts.tolist() == [height >= least for height in heights]


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
    path.write_text("a.jpg\n2\n1 2 3 4 0 0 0 0 0 0\n5 6 7 8 0 0 0 1 0 0\nb.jpg\n0\n0 0 0 0 0 0 0 0 0 0 \n")
    first, second = wider.photographs(path)
    assert first.boxes.tolist() == [[1, 2, 4, 6], [5, 6, 12, 14]]
    assert first.valid.tolist() == [True, False]
    assert len(second.boxes) == 0
