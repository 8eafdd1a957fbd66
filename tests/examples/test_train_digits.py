"""The example's claims: what its networks see, and that no sum of local parts solves the task of two marks."""

import itertools

import pytest
import torch

from examples import train_digits as example


@pytest.fixture(scope="module")
def samples():
    return example.two_marks(200, torch.Generator().manual_seed(3))


def columns_of(images):
    """The columns that the marks of each image touch: the noise is 0.1 wide, a mark 1 high."""
    return [(image[0] > 0.6).any(0).nonzero().flatten() for image in images]


def test_the_marks_lie_further_apart_than_a_plain_network_sees(samples):
    images, _ = samples
    gaps = [int(columns.diff().max()) for columns in columns_of(images)]
    network = example.network(example.PLAIN, 2).eval()
    x = torch.randn(1, 1, 12, 12, requires_grad=True)
    network[:4](x)[0, :, 6, 6].sum().backward()
    seen = (x.grad[0, 0] != 0).any(0).sum()
    assert seen == 5
    assert min(gaps) >= 5


def test_a_label_says_whether_both_marks_are_of_one_kind(samples):
    images, agree = samples
    for image, label in zip(images[:, 0] > 0.6, agree, strict=True):
        columns = image.any(0).nonzero().flatten()
        split = int(columns.diff().argmax()) + 1
        shapes = []
        for part in (columns[:split], columns[split:]):
            rows, cols = image[:, part[0] : part[-1] + 1].nonzero().T
            shapes.append(sorted(zip((rows - rows.min()).tolist(), (cols - cols.min()).tolist(), strict=True)))
        assert (shapes[0] == shapes[1]) == bool(label)
    assert 70 < int(agree.sum()) < 130


def test_no_sum_of_local_parts_is_right_more_than_two_times_out_of_three():
    best = 0.0
    for scores in itertools.product((-3, -2, -1, 1, 2, 3), repeat=4):  # every order of four scores and the threshold
        agreeing = sum(2 * score > 0 for score in scores) / 4
        differing = sum(a + b <= 0 for a, b in itertools.combinations(scores, 2)) / 6
        best = max(best, (agreeing + differing) / 2)
    assert best == pytest.approx(2 / 3)


def test_every_block_of_the_library_is_in_the_example():
    import polyattn.nn

    blocks = {name for name in polyattn.nn.__all__ if name[0].isupper()} - {
        "Attention",
        "BATransform",
        "Chunked",
        "Layer",
    }
    assert blocks <= {name.split(",")[0] for name in example.BLOCKS}
    for name in example.BLOCKS:
        x = torch.randn(2, 1, 12, 12)
        assert example.network(name, 2)(x).shape == (2, 2)


def test_the_interval_is_student_s():
    middle, half = example.interval([1.0, 2.0, 3.0])
    assert middle == 2.0
    assert half == pytest.approx(4.302653 / 3**0.5, rel=1e-6)  # the 97.5 % quantile for two degrees of freedom
