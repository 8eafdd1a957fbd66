"""Conditions between positions in the algebra, against loops in plain Python."""

from fractions import Fraction
from itertools import product
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import polyattn as pa
from polyattn.errors import NotPolynomialError
from tests.ordered import changed, drawn_sum, drawn_tensors, rewritten, text, values

seeds = st.integers(0, 10**6)


@given(seeds)
def test_a_sum_with_conditions_has_the_value_of_its_loops(seed):
    random = Random(seed)
    total, n = drawn_sum(random, most=3, shifts=True), random.randint(1, 5)
    tensors = drawn_tensors(random, n)
    found = pa.Spec(text(total)).evaluate({k: np.array(v) for k, v in tensors.items()})
    assert found == pytest.approx([float(v) for v in values(total, tensors, n)])


@given(seeds)
def test_equal_sums_compare_equal_and_have_one_hash(seed):
    random = Random(seed)
    total = drawn_sum(random, most=3)
    other = rewritten(random, total)
    mine, theirs = pa.Spec(text(total)).polynomial(), pa.Spec(text(other)).polynomial()
    assert mine == theirs
    assert hash(mine) == hash(theirs)
    assert not mine - theirs


@given(seeds)
def test_sums_compare_equal_only_if_their_loops_agree(seed):
    random = Random(seed)
    total = drawn_sum(random, most=3, shifts=True)
    other = changed(random, rewritten(random, total))
    if pa.Spec(text(total)).polynomial() == pa.Spec(text(other)).polynomial():
        for n in (1, 2, 3, 4):
            tensors = drawn_tensors(random, n)
            assert values(total, tensors, n) == values(other, tensors, n)


@given(seeds)
def test_a_canonical_form_with_conditions_is_a_text_of_the_same_polynomial(seed):
    polynomial = pa.Spec(text(drawn_sum(Random(seed), most=3, shifts=True))).polynomial()
    if polynomial.terms:
        assert pa.Spec.of(polynomial).polynomial() == polynomial


def test_a_derivative_keeps_its_conditions():
    found = pa.Spec("x[N]; u[N]; y[a] = x[e]*u[a]*[e <= a]").derivative("x").polynomial()
    assert found == pa.Spec("x[N]; u[N]; dy[N]; dx[e] = dy[a]*u[a]*[a >= e]").polynomial()


def test_a_composite_is_ordered_outer_part_first():
    whole = pa.Spec("x[N]; where N = G*M; y[(h m)] = x[(g n)]*[(g n) <= (h m)]").polynomial()
    parts = "x[N]; where N = G*M; y[(h m)] = x[(g n)]*[g < h]*I[m,m] + x[(g n)]*[g == h]*[n <= m]"
    assert whole == pa.Spec(parts).polynomial()
    assert whole == pa.Spec("x[N]; y[a] = x[e]*[e <= a]").polynomial()
    x, sizes = np.arange(1.0, 7.0), {"G": 2, "M": 3}
    assert list(pa.Spec(parts).evaluate({"x": x}, sizes)) == list(np.cumsum(x))


def test_windows_in_other_words_are_one_condition():
    window = pa.Spec("x[N]; y[a] = x[e]*[e <= a]*[a-e < W]").polynomial()
    assert window == pa.Spec("x[N]; y[a] = x[e]*[a-W < e]*[a >= e]").polynomial()
    assert window == pa.Spec("x[N]; y[a] = x[e]*[e <= a] - x[e]*[e <= a]*[e+W <= a]").polynomial()
    assert window != pa.Spec("x[N]; y[a] = x[e]*[e <= a]*[a-e <= W]").polynomial()
    assert "W" in pa.Spec("x[N]; y[a] = x[e]*[e <= a]*[a-e < W]").sizes.names


def test_an_interaction_tensor_has_the_conditions_of_its_layer():
    spec, sizes = pa.Spec("x[N,C]; y[a,b] = x[e,b]*x[f,c]*w[c]*[e <= f]*[a-e < 2]"), {"N": 3, "C": 2}
    w = [2.0, -1.0]
    tensor = spec.interaction_tensor(sizes, {"w": np.array(w)})
    for a, b, e, c, f, d in product(range(3), range(2), range(3), range(2), range(3), range(2)):
        wanted = w[d] if b == c and e <= f and a - e < 2 else 0
        assert tensor[a, b, e, c, f, d] == wanted
    entries = spec.interaction_tensor(sizes)
    assert set(entries) == {place for place in np.ndindex(tensor.shape) if tensor[place]}
    with pytest.raises(NotPolynomialError, match="condition"):
        spec.channel_core(2, {"w": np.array(w)})


def test_places_that_only_conditions_hold_are_counted():
    found = pa.Spec("x[N]; y[a] = x[a]*[e <= a]").evaluate({"x": np.ones(4)})
    assert list(found) == [1, 2, 3, 4]
    assert (
        pa.Spec("x[N]; y[a] = x[a]*[e <= a] + x[a]*[e > a]").polynomial() == pa.Spec("x[N]; y[a] = N*x[a]").polynomial()
    )
    assert (
        Fraction(1) * pa.Spec("x[N]; y[a] = 1/N*x[a]*[e <= a] + 1/N*x[a]*[e > a]").polynomial()
        == pa.Spec("x[N]; y[a] = x[a]").polynomial()
    )
