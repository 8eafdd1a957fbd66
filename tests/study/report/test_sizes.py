"""Which sizes a page's sliders move, and that the others follow as the language says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import polyattn as pa
from polyattn import catalog
from polyattn.study.report.sizes import follow, freedom, start

SPLIT = "x[H,W,C]; where C = G*M; where H = S*U; where W = S*V; y[i,j,c] = x[i,j,c]"


@pytest.mark.parametrize("name", catalog.names("third_order"))
def test_every_entry_of_the_catalogue_has_numbers_to_begin_with(name):
    spec = catalog.get(name)
    found = start(spec, {})
    assert found.keys() == {"B", *spec.sizes.names}
    assert spec.sizes.solve({n: v for n, v in found.items() if n != "B"}) == {n: found[n] for n in spec.sizes.names}


def test_of_a_split_the_whole_and_the_outer_part_are_free():
    found = freedom(pa.Spec(SPLIT))
    assert found.free == ("B", "H", "W", "C", "G", "S")
    assert [d.size for d in found.derived] == ["M", "U", "V"]


def test_a_split_whose_parts_are_shared_follows_from_them():
    found = freedom(pa.Spec("x[N,C]; where N = P*Q; where C = P*Q; y[a,b] = x[a,b]"))
    assert found.free == ("B", "P", "Q")


@given(st.tuples(*[st.integers(1, 60)] * 6))
def test_what_follows_is_what_the_language_solves(numbers):
    spec = pa.Spec(SPLIT)
    free = dict(zip(freedom(spec).free, numbers, strict=True))
    found = follow(freedom(spec), free)
    given = {n: v for n, v in free.items() if n != "B"}
    if found is None:
        with pytest.raises(pa.SizeError, match="not divisible"):
            spec.sizes.solve(given)
    else:
        assert {n: v for n, v in found.items() if n != "B"} == spec.sizes.solve(given)


def test_given_sizes_are_kept_and_parts_fit_them():
    found = start(pa.Spec("x[N,C]; where N = A*D; y[(a d),b] = x[(a d),b]"), {"N": 15, "B": 2})
    assert (found["B"], found["N"], found["A"] * found["D"]) == (2, 15, 15)


def test_a_size_b_of_its_own_would_be_taken_for_the_batch():
    with pytest.raises(pa.SizeError, match="another name"):
        start(pa.Spec("x[B,C]; y[a,b] = x[a,b]"), {})


def test_what_does_not_go_together_is_refused():
    with pytest.raises(pa.SizeError, match="contradicts"):
        start(catalog.ba_transform(), {"C": 10, "G": 4, "M": 3})
    with pytest.raises(pa.SizeError, match="batch"):
        start(catalog.nl(), {"B": 0})


@given(st.integers(1, 5000))
def test_a_map_has_as_many_positions_as_layers_over_n(number):
    found = start(catalog.ba_transform(), {"N": number})
    assert found["H"] * found["W"] == number
    assert start(catalog.nl(), {"H": found["H"], "W": found["W"]})["N"] == number
