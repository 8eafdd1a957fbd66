"""The reader's own check notices a wrong equation."""

import pytest

import polyattn as pa
from polyattn.reading.operations import OPERATIONS
from tests.reading.oracle import draw, value_of


def test_a_wrong_meaning_of_an_operation_is_noticed(monkeypatch):
    monkeypatch.setitem(OPERATIONS, "sin", OPERATIONS["cos"])
    with pytest.raises(pa.ReadingError, match="does not agree with the code"):
        pa.read(lambda x: x.sin(), (draw(2, 5, 6),))


def test_a_sum_along_a_broadcast_axis_counts_its_entries():
    x = draw(2, 5, 6)

    def code(x):
        return x.mean(1, keepdim=True).expand_as(x).sum(1) + 1

    reading = pa.read(code, (x,))
    assert (value_of(reading, None, x) - code(x)).abs().max() < 1e-12
