"""Enclosures tell values apart only where they certainly differ; the values here are equal by arithmetic alone."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from polyattn.proving.enclosure import first_difference
from polyattn.proving.interval import Interval, gap

FRACTIONS = st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=997)


def computed(x, y, digits):
    """The difference of two squares as a product: equal to `x*x - y*y`, with rounding."""
    a, b = Interval.around(x, digits), Interval.around(y, digits)
    return (a + b) * (a - b)


@given(FRACTIONS, FRACTIONS, st.integers(10, 60))
def test_equal_values_are_not_told_apart_by_their_rounding(x, y, digits):
    value = x * x - y * y
    for mine, theirs in ((computed(x, y, digits), value), (computed(x, y, digits), -computed(y, x, digits))):
        assert gap(mine, theirs) is None
        sides = [np.array([side], dtype=object) for side in (mine, theirs)]
        assert first_difference(lambda _, sides=sides: sides) is None


@given(FRACTIONS, FRACTIONS, st.fractions(min_value=Fraction(1, 1000), max_value=1))
def test_values_that_differ_are_told_apart_by_enough_digits(x, y, more):
    value = x * x - y * y + more
    sides = [np.array([side], dtype=object) for side in (computed(x, y, 60), value)]
    found = first_difference(lambda _: sides)
    assert found is not None
    assert found.place == (0,)
    least = gap(found.left, found.right)
    assert least is not None
    assert 0 < Fraction(least) <= more
