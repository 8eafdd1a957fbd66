"""Code that no equation stands for is refused by name, with its line; the module is left as it was."""

import copy

import pytest
import torch
from torch import nn

import polyattn as pa
from tests.reading.oracle import draw

X = draw(2, 5, 6)


def branching(x):
    if x.sum() > 0:
        return x
    return -x


def mutating(x):
    x.mul_(2)
    return x + 1


def complex_numbers(x):
    return torch.fft.fft(x, dim=1).real


@pytest.mark.parametrize(
    ("code", "args", "says"),
    [
        (nn.Dropout(0.5), (X,), "random"),
        (lambda x: x + torch.randn_like(x), (X,), "random"),
        (nn.BatchNorm1d(5), (X,), "training"),
        (branching, (X,), "control flow depends on the values"),
        (mutating, (X,), "in place"),
        (complex_numbers, (X,), "complex"),
        (lambda x: x, (X.to(torch.complex64),), "complex"),
        (lambda x: (x, x), (X,), "2 results"),
        (lambda x: x, (), "no tensor"),
        (3, (X,), "expected a module or a function"),
    ],
)
def test_code_without_an_equation_is_refused(code, args, says):
    with pytest.raises(pa.ReadingError, match=says) as raised:
        pa.read(code, args)
    if says in ("random", "complex", "in place", "control flow depends on the values") and code in (
        branching,
        mutating,
    ):
        assert "test_refusals.py:" in str(raised.value)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("B N", "2 letters"),
        ("b N C", "starts with a capital"),
        ({"z": "B N C"}, "the inputs are x"),
        ({1.5: "N"}, "a number that the code fixes"),
        (7, "expected a text"),
        ("N B C", "marks axis 1 as the batch"),
    ],
)
def test_names_that_do_not_fit_are_refused(names, says):
    with pytest.raises(pa.ReadingError, match=says):
        pa.read(lambda x: x.softmax(1), (X,), names=names)


def test_names_choose_the_letters():
    reading = pa.read(nn.Linear(6, 4).eval(), (X,), names={"input": "B T C", 4: "K"})
    assert reading.spec.inputs == {"input": ("T", "C")}
    assert reading.spec.output_shape == ("T", "K")
    assert reading.sizes == {"T": 5, "C": 6, "K": 4}
    assert reading.parameters == {"weight": "weight", "bias": "bias"}


def test_a_batch_that_the_code_mixes_is_an_axis_like_others():
    reading = pa.read(lambda x: x - x.mean(0), (X,))
    assert len(reading.spec.inputs["x"]) == 3
    assert reading.batch == {}


def test_a_cut_result_over_batch_and_positions_keeps_the_batch():
    reading = pa.read(lambda x: x + torch.cumsum(x.flatten(0, 1), 0).view_as(x), (X,))
    assert [c.operation for c in reading.cuts] == ["cumsum"]
    assert reading.batch == {}
    assert len(reading.spec.inputs["x"]) == 3


def test_a_batch_of_one_is_read_as_a_batch():
    reading = pa.read(lambda x: x @ x.mT, (X[:1],))
    assert reading.spec.inputs == {"x": ("N", "C")}


def test_reading_leaves_the_module_as_it_was():
    layer = nn.Sequential(nn.Linear(6, 6), nn.ReLU()).eval()
    before, parameters = copy.deepcopy(layer.state_dict()), list(layer.parameters())
    pa.read(layer, (X,))
    assert all(a is b for a, b in zip(layer.parameters(), parameters, strict=True))
    assert all(torch.equal(layer.state_dict()[n], t) for n, t in before.items())
    assert vars(layer[0])["_parameters"].keys() == {"weight", "bias"}
    assert layer[0].weight.dtype == torch.float32


def test_an_output_is_chosen_by_its_number():
    assert str(pa.read(lambda x: (x, 2 * x), (X,), output=1).spec).endswith("2*x[a,c]")
