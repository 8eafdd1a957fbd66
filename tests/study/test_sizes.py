"""Facts of sweeps: which points a set of sizes stands for, and what is refused."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyattn import SizeError
from polyattn.study.sizes import points


def test_the_points_are_all_combinations_the_last_size_fastest():
    found, varied = points({"N": [4, 9], "C": 8, "B": (1, 2)})
    assert found == (
        {"N": 4, "C": 8, "B": 1},
        {"N": 4, "C": 8, "B": 2},
        {"N": 9, "C": 8, "B": 1},
        {"N": 9, "C": 8, "B": 2},
    )
    assert varied == ("N", "B")


def test_a_product_of_sizes_follows_them_in_whatever_order_they_are_given():
    found, varied = points({"N": "H*W", "R": "C/8", "H": "7:28", "W": "H", "C": "64"})
    assert [p["N"] for p in found] == [49, 196, 784]
    assert {p["R"] for p in found} == {8}
    assert varied == ("H",)


@given(st.integers(1, 10**6), st.integers(0, 10**6))
def test_a_range_doubles_from_its_first_number_and_ends_at_its_last(first: int, more: int):
    found = [p["N"] for p in points({"N": f"{first}:{first + more}"})[0]]
    assert found[0] == first
    assert found[-1] == first + more
    assert all(b == 2 * a for a, b in pairwise(found[:-1]))
    assert len(found) < 3 or found[-2] < found[-1] <= 2 * found[-2] or found[-1] == 2 * found[-2]


def test_a_range_with_steps_has_as_many_in_one_ratio():
    assert [p["N"] for p in points({"N": "1:10000:5"})[0]] == [1, 10, 100, 1000, 10000]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"N": 0}, "positive whole number"),
        ({"N": True}, "positive whole number"),
        ({"N": 2.5}, "must be a whole number, several"),
        ({"N": []}, "empty list"),
        ({"N": "9:4"}, "write the smaller number first"),
        ({"N": "4:9:1"}, "2 to 10,000 steps"),
        ({"N": "H*W", "H": 2}, "made of W, which nothing fixes"),
        ({"N": "M", "M": "N"}, "which nothing fixes"),
        ({"N": "C/3", "C": 64}, "64/3 for C=64: no whole number"),
        ({"N": "C/0", "C": 64}, "by 0"),
        ({"N": "__import__('os')"}, "a text is a number, a range"),
        ({"N": "2**9"}, "a text is a number, a range"),
        ({"N": range(1, 200), "C": range(1, 200)}, "39,601 combinations"),
    ],
)
def test_what_is_no_size_is_refused_by_name(sizes: dict, message: str):
    with pytest.raises(SizeError, match=message):
        points(sizes)
