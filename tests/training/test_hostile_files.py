"""Files from elsewhere: nothing in them runs, and an error names the file before a step is taken."""

import io
import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader

from examples import train_video
from polyattn.errors import CheckpointError, TrainingError
from polyattn.training import Checkpoints, files, started
from polyattn.training.data import clips, coco, images, tiny, wider
from polyattn.training.logs import Log
from polyattn.training.reading import layout


@pytest.fixture(scope="module")
def alone():
    with started("cpu", environ={}) as processes:
        yield processes


class Touching:
    """Makes a folder where it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def sealed(folder: Path, target: Path) -> None:
    """Give changed files a manifest that is right."""
    (folder / files.MANIFEST).unlink(missing_ok=True)
    names = sorted(p.name for p in folder.iterdir())
    files.seal(folder, target, {name: files.digest(folder / name) for name in names}, {"step": 3})


def state(value: float) -> dict:
    return {"model": {"w": torch.full((4, 5), value)}, "optimiser": {"lr": value, "names": ["w"], "none": None}}


@pytest.fixture
def saved(alone, tmp_path):
    checkpoints = Checkpoints(tmp_path / "run", 3, alone, print)
    checkpoints.prepare(1)
    checkpoints.save(3, state(3.0), {})
    return checkpoints


def changed(checkpoints: Checkpoints, change) -> None:
    """Change the files of the checkpoint, and seal it again."""
    folder = checkpoints.path(3)
    draft = folder.with_name(".draft")
    folder.rename(draft)
    change(draft)
    sealed(draft, folder)
    assert files.damage(folder) is None
    assert checkpoints.latest() == 3


def test_a_layout_that_would_run_code_is_refused_and_runs_nothing(saved, tmp_path):
    made = tmp_path / "made"
    changed(saved, lambda folder: (folder / ".metadata").write_bytes(pickle.dumps(Touching(made))))
    with pytest.raises(CheckpointError, match=r"step-000000003/\.metadata is not .* names posix\.mkdir, .*: remove"):
        saved.load(3, state(0.0))
    assert not made.exists()
    with pytest.raises(AttributeError):
        FileSystemReader(saved.path(3)).read_metadata()  # torch's own reader runs it
    assert made.exists()


def test_a_plain_value_that_would_run_code_is_refused_and_runs_nothing(saved, tmp_path):
    made = tmp_path / "made"

    def change(folder: Path) -> None:
        [data] = folder.glob("*.distcp")
        metadata = FileSystemReader(folder).read_metadata()
        content = bytearray(data.read_bytes())
        for index, info in metadata.storage_data.items():
            if index.fqn == "optimiser.lr":
                pickled = io.BytesIO()
                torch.save(Touching(made), pickled)
                info.offset, info.length = len(content), len(pickled.getvalue())
                content += pickled.getvalue()
        data.write_bytes(content)
        (folder / ".metadata").write_bytes(pickle.dumps(metadata))

    changed(saved, change)
    with pytest.raises(CheckpointError, match="step-000000003 cannot be read into this network"):
        saved.load(3, state(0.0))
    assert not made.exists()


def damaged_layouts(good: bytes) -> dict[str, bytes]:
    metadata = pickle.loads(good)

    def other(**changes) -> bytes:
        copy = pickle.loads(good)
        for name, value in changes.items():
            setattr(copy, name, value)
        return pickle.dumps(copy)

    [(index, info), *_] = metadata.storage_data.items()
    elsewhere, negative, transformed = (type(info)(*fields) for fields in (
        ("../../outside", 0, 9), (info.relative_path, -1, 9), (info.relative_path, 0, 9, ["zstd"]),
    ))  # fmt: skip
    return {
        "empty": b"",
        "cut": good[:-9],
        "a number": pickle.dumps(3),
        "brackets": b"\x80\x04" + b"]" * 30_000 + b"a" * 29_999 + b".",
        "no data": other(storage_data=None),
        "no tensors": other(state_dict_metadata=[1]),
        "other entries": other(state_dict_metadata={"model.w": index}),
        "another file": other(storage_data={index: elsewhere}),
        "a negative offset": other(storage_data={index: negative}),
        "an extension": other(storage_data={index: transformed}),
        "state for a class": b"\x80\x02ctorch.distributed.checkpoint.metadata\nMetadata\n}X\x01\x00\x00\x00aK\x01sb.",
    }


LAYOUTS = (
    "empty", "cut", "a number", "brackets", "no data", "no tensors", "other entries", "another file",
    "a negative offset", "an extension", "state for a class",
)  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_that_torch_does_not_write_is_a_named_error(saved, name):
    good = (saved.path(3) / ".metadata").read_bytes()
    changed(saved, lambda folder: (folder / ".metadata").write_bytes(damaged_layouts(good)[name]))
    with pytest.raises(CheckpointError, match=r"step-000000003/\.metadata is not the layout of a checkpoint \(.+\)"):
        saved.load(3, state(0.0))


def test_a_layout_that_the_manifest_does_not_have_is_not_read(saved):
    with pytest.raises(CheckpointError, match="the manifest does not have it"):
        layout(saved.path(3), ["__0_0.distcp"])


def test_tensors_and_plain_values_are_read_as_they_were_written(saved):
    read = state(0.0) | {"optimiser": {"lr": 0.0, "names": [], "none": 1}}
    saved.load(3, read)
    assert torch.equal(read["model"]["w"], torch.full((4, 5), 3.0))
    assert read["optimiser"] == {"lr": 3.0, "names": ["w"], "none": None}


def test_folders_of_other_names_are_no_checkpoints(saved):
    for name in ("step-²", "step-4", "step-٥", "step-", "step-none"):
        (saved.folder / name).mkdir()
    assert saved.steps() == [3]
    assert saved.latest() == 3


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "[]", "3", "", '{"files": 3, "sha256": "a"}'])
def test_a_manifest_of_anything_is_damage(saved, text):
    saved.save(4, state(4.0), {})
    (saved.path(4) / files.MANIFEST).write_text(text)
    assert saved.latest() == 3


def test_weights_that_would_run_code_are_refused_and_run_nothing(tmp_path):
    made, path = tmp_path / "made", tmp_path / "weights.pt"
    torch.save({"w": Touching(made)}, path)
    with pytest.raises(TrainingError, match=r"weights\.pt is not a file of weights \(UnpicklingError.*\): give"):
        files.weights(path)
    assert not made.exists()
    for content in (b"", b"text", bytes(range(256)) * 9):
        path.write_bytes(content)
        with pytest.raises(TrainingError, match=r"weights\.pt is not a file of weights"):
            files.weights(path)
    for other in ([torch.ones(1)], {"w": 3}):
        torch.save(other, path)
        with pytest.raises(TrainingError, match="is not a tensor by name"):
            files.weights(path)
    with pytest.raises(TrainingError, match="No such file"):
        files.weights(tmp_path / "other.pt")
    torch.save({"w": torch.ones(2)}, path)
    assert files.weights(path)["w"].tolist() == [1, 1]


LOGS = {
    "random bytes": bytes(range(256)),
    "another table": b"a,b\n1,2\n",
    "steps of text": b"step,loss\nfirst,2\n",
    "a field without end": b'step,loss\n1,"' + b"a" * 200_000 + b'"\n',
    "a zero byte": b"step,loss\n1\x00,2\n",
}


@pytest.mark.parametrize("content", LOGS.values(), ids=LOGS)
@pytest.mark.parametrize("name", ["steps.csv", "evaluations.csv"])
def test_a_log_of_anything_is_named_and_left_as_it_is(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TrainingError, match=rf"{name} is not a log of this training \(.+\): move it elsewhere"):
        Log(tmp_path, True, 0, 3)
    assert (tmp_path / name).read_bytes() == content


def test_images_that_cannot_be_read_are_named(tmp_path):
    tiny.image_folder(tmp_path, classes=1, train=3, val=1)
    samples = images.image_folder(tmp_path, "train", None)
    cut, noise, gone = (Path(path) for path, _ in samples.samples)
    cut.write_bytes(cut.read_bytes()[:300])
    noise.write_bytes(bytes(range(256)))
    gone.unlink()
    for index, path in enumerate((cut, noise, gone)):
        with pytest.raises(TrainingError, match=rf"{path.name} cannot be read as an image \(.+\): restore it"):
            samples[index]
    with pytest.raises(TrainingError, match="test is missing"):
        images.image_folder(tmp_path, "test", None)
    (tmp_path / "train" / "empty").mkdir()
    with pytest.raises(TrainingError, match="an ImageFolder has train/<class>/"):
        images.image_folder(tmp_path, "train", None)


@pytest.fixture(scope="module")
def instances(tmp_path_factory):
    root = tmp_path_factory.mktemp("coco")
    tiny.coco(root)
    return root


def annotations(root: Path, change) -> Path:
    """The root with its annotations changed: by a function of the data, or to a text."""
    path = root / "annotations" / "instances_val2017.json"
    data = json.loads(path.read_text())
    path.write_text(change if isinstance(change, str) else (change(data), json.dumps(data))[1])
    return root


UNCOUNTED = "annotation 1 needs an iscrowd of 0 or 1 and a bbox"
COCO = {
    "deep": ("[" * 200_000, "RecursionError"),
    "cut": ('{"images": [', "JSONDecodeError"),
    "a list": ("[]", "AssertionError"),
    "no categories": (lambda d: d.pop("categories"), "KeyError"),
    "images without a name": (lambda d: d["images"][0].pop("file_name"), "KeyError"),
    "a negative height": (lambda d: d["images"][0].update(height=-1), "image 1 needs a file_name"),
    "an endless box": (lambda d: d["annotations"][0].update(bbox=[0, 0, float("inf"), 1]), UNCOUNTED),
    "a box of text": (lambda d: d["annotations"][0].update(bbox="abcd"), UNCOUNTED),
    "an unknown image": (lambda d: d["annotations"][0].update(image_id=99), "of image 99, which is not listed"),
    "an unknown category": (lambda d: d["annotations"][0].update(category_id=5), "unknown category 5"),
    "half a point": (lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "neither polygons"),
    "no polygon": (lambda d: d["annotations"][0].update(segmentation=[]), "neither polygons"),
    "runs of another size": (
        lambda d: d["annotations"][0].update(segmentation={"counts": [9], "size": [3, 3]}), "neither polygons"
    ),
    "a missing file": (lambda d: d["images"][0].update(file_name="none.jpg"), r"none\.jpg is missing, which .*val2017"),
}  # fmt: skip


@pytest.mark.parametrize("name", COCO)
def test_annotations_that_are_not_coco_s_are_named_before_training(instances, tmp_path, name):
    change, message = COCO[name]
    shutil.copytree(instances, tmp_path, dirs_exist_ok=True)
    annotations(tmp_path, change)
    with pytest.raises(TrainingError, match=rf"(?s)instances_val2017\.json.*{message}|{message}"):
        coco.CocoInstances(tmp_path, "val2017", None, with_instances=False)


def test_an_image_of_another_size_than_its_annotations_is_named(instances, tmp_path):
    shutil.copytree(instances, tmp_path, dirs_exist_ok=True)
    annotations(tmp_path, lambda d: [d["images"][1].update(height=70), d["annotations"].pop()])
    samples = coco.CocoInstances(tmp_path, "val2017", None, with_instances=False)
    with pytest.raises(TrainingError, match=r"000000000002\.jpg has 64 x 80 pixels, .* of 70 x 80"):
        samples[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "cannot be read as text"),
        (b"", "lists no images"),
        (b"a.jpg\n1\n1 2 nan 4 0 0 0 0 0 0\n", "line 2, a.jpg: a number is not finite"),
        (b"a.jpg\n1\n1 2 3 4 0 0 0 0 0 0\n", r"a\.jpg is missing, which .*wider_face_val_bbx_gt\.txt lists \(1 such"),
    ],
)
def test_lists_of_faces_that_do_not_fit_are_named(tmp_path, content, message):
    path = tmp_path / "wider_face_split" / "wider_face_val_bbx_gt.txt"
    path.parent.mkdir()
    (tmp_path / "WIDER_val" / "images").mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=message):
        wider.Faces(tmp_path, "val", None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "cannot be read as text"),
        ("a.mp4 \u00b2\n".encode(), "line 1: a path and the number of a class"),
        (b"a.mp4 " + b"9" * 5000 + b"\n", "line 1: a path and the number of a class"),
        (b"a.mp4 3\nb.mp4 1\n", r"b\.mp4 is missing, which .*val\.txt lists \(1 such"),
    ],
)
def test_lists_of_clips_that_do_not_fit_are_named(tmp_path, content, message):
    (tmp_path / "val.txt").write_bytes(content)
    (tmp_path / "a.mp4").touch()
    with pytest.raises(TrainingError, match=message):
        clips.Clips(tmp_path, "val.txt", 4, 2, "dense", 2, None)


def test_a_class_that_only_the_evaluation_has_is_named_before_training(tmp_path):
    tiny.clips(tmp_path)
    path = tmp_path / "val.txt"
    path.write_text(path.read_text().replace(" 1\n", " 7\n"))
    config = train_video.CONFIGS["tiny"][1]
    with pytest.raises(TrainingError, match=r"val\.txt has class 7, and .*train\.txt classes up to 1: number"):
        train_video.Kinetics(config, tmp_path)


def test_videos_that_end_in_the_middle_or_have_no_frames_are_named(tmp_path):
    tiny.clips(tmp_path)
    path = next(tmp_path / p for p, _ in clips.listed(tmp_path / "train.txt") if (tmp_path / p).is_file())
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], bytes(range(256)) * 9):
        path.write_bytes(content)
        with pytest.raises(TrainingError, match=path.name):
            clips.Video(path).read([clips.Video(path).count() - 1])
