"""Integer combinations: their normal form, their text, and the grammar's rule, against evaluation at values."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyattn.errors import SpecError
from polyattn.language.affine import Affine, affine
from polyattn.language.tokens import grammar

NAMES = ("a", "i", "u", "N", "W")
combinations = st.builds(
    Affine.of, st.lists(st.tuples(st.sampled_from(NAMES), st.integers(-4, 4)), max_size=6), st.integers(-9, 9)
)
points = st.fixed_dictionaries({name: st.integers(-9, 9) for name in NAMES})


def read(text: str) -> Affine:
    """Return the combination in a slot of a text."""
    trees = [t for t in grammar().parse(f"y[a] = x[{text}]").iter_subtrees_topdown() if t.data == "slot"]
    return affine(trees[1].children[0], text)


@given(combinations, points)
def test_the_text_is_the_sum_that_it_says(form: Affine, at: dict[str, int]):
    assert eval(str(form), {}, at) == form.value(at)


@given(combinations)
def test_the_text_parses_back(form: Affine):
    assert read(str(form)) == form


@given(combinations, combinations, points, st.integers(-3, 3))
def test_sums_and_multiples_have_the_values_of_their_parts(a: Affine, b: Affine, at: dict[str, int], k: int):
    assert (a + b * k - 2).value(at) == a.value(at) + b.value(at) * k - 2
    assert a - b == a + -b
    assert (a - a) == Affine(())


@given(combinations, combinations, points)
def test_substitution_is_evaluation_at_other_values(form: Affine, value: Affine, at: dict[str, int]):
    put = form.substitute({"a": value, "i": "u", "N": 3})
    assert put.value(at) == form.value({**at, "a": value.value(at), "i": at["u"], "N": 3})


@given(combinations, st.integers(1, 3), st.integers(1, 4))
def test_least_and_greatest_are_taken_and_never_exceeded(form: Affine, n: int, w: int):
    ranges = {name: (Affine((), -1), Affine.of({"N": 1}, 1)) for name in form.indices}
    sizes = {"N": n, "W": w}
    every = [
        form.value({**sizes, **dict(zip(form.indices, chosen, strict=True))})
        for chosen in product(range(-1, n + 2), repeat=len(form.indices))
    ]
    assert form.least(ranges).value(sizes) == min(every)
    assert form.greatest(ranges).value(sizes) == max(every)


def test_one_sum_has_one_normal_form():
    assert read("u-1+2*i") == read("i*2 + u - 1") == read("i+u+i-1") == Affine((("i", 2), ("u", 1)), -1)
    assert str(read("-e+a")) == "a-e"
    assert str(read("0*i+u-u")) == "0"


@pytest.mark.parametrize(
    ("text", "reason"),
    [("i*j", "'j' is multiplied by 'i'"), ("1.5*i", "numbers here are whole"), ("i+1e9", "numbers here are whole")],
)
def test_what_is_no_combination_is_refused_with_the_place(text: str, reason: str):
    with pytest.raises(SpecError, match=reason):
        read(text)
