"""Lists of clips: the frames that are chosen, the videos that are read, the crops."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyattn.errors import TrainingError
from polyattn.training.data import clips, tiny


@given(st.integers(1, 400), st.integers(1, 16), st.integers(1, 8), st.floats(0, 1))
def test_dense_frames_have_their_stride_and_stay_in_the_video(total, frames, stride, start):
    chosen = clips.dense_frames(total, frames, stride, start)
    assert len(chosen) == frames
    assert all(0 <= n < total for n in chosen)
    if (frames - 1) * stride < total:
        assert [b - a for a, b in itertools.pairwise(chosen)] == [stride] * (frames - 1)


@given(st.integers(1, 16), st.integers(1, 8), st.integers(0, 60))
def test_the_first_clip_begins_with_the_first_frame_and_the_last_one_ends_with_the_last(frames, stride, spare):
    total = (frames - 1) * stride + 1 + spare
    assert clips.dense_frames(total, frames, stride, 0.0)[0] == 0
    assert clips.dense_frames(total, frames, stride, 1.0)[-1] == total - 1


def test_a_video_that_is_too_short_is_gone_through_again_from_its_beginning():
    assert clips.dense_frames(5, 8, 2, 1.0) == [0, 2, 4, 1, 3, 0, 2, 4]


def test_views_go_from_the_first_clip_to_the_last_and_one_view_is_in_the_middle(root):
    def views(sampling: str, count: int) -> list[list[int]]:
        samples = clips.Clips(root, "val.txt", 4, 2, sampling, count, None)
        return [samples._view(27, view) for view in range(count)]

    assert views("dense", 3) == [[0, 2, 4, 6], [10, 12, 14, 16], [20, 22, 24, 26]]
    assert views("dense", 1) == [[10, 12, 14, 16]]
    assert views("tsn", 1) == [[3, 10, 16, 23]]  # the middles of four quarters of 6.75 frames


def test_a_frame_s_place_in_its_segment_counts():
    assert clips.segment_frames(40, [0.0, 0.25, 0.5, 0.99]) == [0, 12, 25, 39]


def test_frames_are_normalised_by_imagenets_mean_and_variance():
    white = clips.normalised(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))[0, :, 0, 0]
    assert white.tolist() == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])


@pytest.mark.parametrize("shape", [(10, 30), (30, 10)])
def test_crops_go_along_the_long_side(shape):
    places = torch.arange(max(shape), dtype=torch.uint8)
    clip = (places if shape[1] > shape[0] else places[:, None]).expand(1, 3, *shape)
    tall = shape[0] > shape[1]
    found = clips.Crops(10, 10, 3)(clip)
    lines = [crop[0, 0, :, 0] if tall else crop[0, 0, 0] for crop in found]
    whole = clips.normalised(clip)[0, 0, :, 0] if tall else clips.normalised(clip)[0, 0, 0]
    for line, start in zip(lines, (0, 10, 20), strict=True):
        torch.testing.assert_close(line, whole[start : start + 10])


@given(st.integers(1, 400), st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=16))
def test_each_segment_gives_one_frame(total, places):
    chosen = clips.segment_frames(total, places)
    for k, number in enumerate(chosen):
        assert k * total // len(places) <= number <= (k + 1) * total / len(places)
        assert number < total


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    tiny.clips(folder)
    return folder


def test_videos_and_folders_of_frames_show_the_same(root):
    """The square moves on by (side - 12) / frames a frame, in files as in folders."""
    for path, _ in clips.listed(root / "train.txt"):
        video = clips.Video(root / path)
        assert video.count() == 24
        frames = video.read([20, 0, 3])  # in any order
        assert frames.shape == (3, 3, 48, 64)
        down = "_0_" in path
        bright = [(frame.float().amax(0) > 150).float().mean(1 if down else 0) for frame in frames]
        starts = [int((b > 0.1).nonzero()[0]) for b in bright]
        assert starts == [pytest.approx(n / 24 * 36, abs=2) for n in (20, 0, 3)]


def test_a_file_that_is_shorter_than_it_says_ends_with_its_last_frame(root):
    path, _ = clips.listed(root / "train.txt")[0]
    frames = clips.Video(root / path).read([23, 60])
    assert torch.equal(frames[0], frames[1])


def test_a_video_is_evaluated_in_all_of_its_views_and_crops(root):
    crops = clips.Crops(40, 40, 3)
    samples = clips.Clips(root, "val.txt", 4, 2, "dense", 2, crops)
    views, label = samples[0]
    assert views.shape == (6, 3, 4, 40, 40)
    assert label == 0
    assert samples.classes == 2
    everything = clips.normalised(torch.zeros(4, 3, 48, 64, dtype=torch.uint8))
    assert everything.shape == (4, 3, 48, 64)
    left, middle, right = crops(torch.arange(64, dtype=torch.uint8).expand(1, 3, 48, 64))
    assert left.mean() < middle.mean() < right.mean()


@pytest.mark.parametrize("sampling", ["dense", "tsn"])
def test_a_clip_to_train_on_is_drawn_from_the_global_generator(root, sampling):
    samples = clips.Clips(root, "train.txt", 4, 2, sampling, None, clips.MultiScaleCrop(32))
    torch.manual_seed(3)
    one = samples[0][0]
    torch.manual_seed(3)
    assert torch.equal(samples[0][0], one)
    assert one.shape == (3, 4, 32, 32)
    assert any(not torch.equal(samples[0][0], one) for _ in range(4))


def test_lists_have_spaces_commas_or_counts(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a b.mp4 3\nframes/c 300 4\nd.mp4,5\n\n")
    assert clips.listed(path) == [("a b.mp4", 3), ("frames/c", 4), ("d.mp4", 5)]
    path.write_text("a.mp4 3\nb.mp4\n")
    with pytest.raises(TrainingError, match="line 2"):
        clips.listed(path)


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(TrainingError, match=r"a\.mp4 is no video"):
        clips.Video(tmp_path / "a.mp4").count()
    with pytest.raises(TrainingError, match=r"b\.mp4 is missing"):
        clips.Video(tmp_path / "b.mp4")
