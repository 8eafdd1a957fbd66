"""Equations between positions are simplified without changing a product's values, by loops over all positions."""

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyattn.algebra import Index, Monomial, TensorFactor
from polyattn.language.conditions import Comparison, comparison
from polyattn.proving import prove
from polyattn.proving.equations import simplified

PLACE, P, Q, U, V = Index(0, "N"), Index(1, "N"), Index(2, "N"), Index(3, "3"), Index(4, "3")
INDICES = (PLACE, P, Q, U, V)


def value(term: Monomial, place: int, length: int) -> Fraction:
    """The sum over all positions of the summed indices, with tensors whose entries tell their places apart."""
    summed = [i for i in dict.fromkeys(i for f in term.factors for i in f.indices) if i != PLACE]
    total = Fraction(0)
    for values in product(*(range(length if i.size == "N" else int(i.size)) for i in summed)):
        at = {PLACE: place, **dict(zip(summed, values, strict=True))}
        one = Fraction(1)
        for factor in term.factors:
            positions = [at[i] for i in factor.indices]
            if factor.tensor == "I":
                one *= positions[0] == positions[1]
            elif factor.tensor[0] == "[":
                one *= comparison(factor.tensor).holds(positions, {"N": length})
            else:
                one *= 10 ** positions[0] + (factor.tensor == "z")
        total += one
    scale = Fraction(1)
    for size, exponent in term.powers:
        scale *= Fraction(length if size == "N" else int(size)) ** exponent
    return total * term.coefficient * scale


@given(st.data())
def test_simplified_products_have_the_same_values(data):
    factors = []
    for _ in range(data.draw(st.integers(1, 3))):
        own = tuple(data.draw(st.lists(st.sampled_from(INDICES), min_size=1, max_size=3, unique=True)))
        slots = tuple(data.draw(st.sampled_from([1, -1, 2])) for _ in own)
        made = Comparison(slots, (), data.draw(st.integers(-2, 2)), "==")
        normal, order, _ = made.normal()
        factors.append(TensorFactor(normal.name, tuple(own[k] for k in order)))
    for name in data.draw(st.lists(st.sampled_from("xz"), max_size=2)):
        factors.append(TensorFactor(name, (data.draw(st.sampled_from(INDICES)),)))
    term = Monomial(Fraction(1), (), tuple(factors))
    found = simplified(term, (PLACE,))
    for length in (1, 2, 3):
        for place in range(length):
            assert value(found, place, length) == value(term, place, length)


EQUAL = {
    "a_product_read_at_one_offset": (
        "x[N]; z[N]; where u : -1..1; y[i] = x[i+u]*z[i+u]*w[u]",
        "x[N]; z[N]; where u : -1..1; h[j] = x[j]*z[j]; y[i] = h[i+u]*w[u]",
    ),
    "a_kernel_read_backwards": (
        "x[N]; w[3]; where u : -1..1; y[i] = x[i+u]*w[u+1]",
        "x[N]; w[3]; where u : -1..1; y[i] = x[i-u]*w[1-u]",
    ),
    "an_offset_fixed_by_a_condition": ("x[N]; where u : -1..1; y[i] = x[i+u]*[u == 1]", "x[N]; y[i] = x[i+1]"),
    "an_offset_without_a_sign": (
        "x[N]; z[N]; where u : -1..1; y[i] = x[i+u]*z[i-u]",
        "x[N]; z[N]; where u : -1..1; y[i] = x[i-u]*z[i+u]",
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_equal_products_at_offsets_are_proved(name: str):
    assert prove(*EQUAL[name]).status == "equal"


def test_a_product_of_maps_at_two_offsets_is_not_one_at_one():
    one, _ = EQUAL["a_product_read_at_one_offset"]
    assert prove(one, one.replace("z[i+u]", "z[i-u]")).status == "different"


WINDOWS = {
    "before": ("x[N]; y[a] = x[e]*[a-e < 3]*[e <= a]", "where u : 0..2; x[N]; y[a] = x[a-u]"),
    "around": ("x[N]; y[a] = x[e]*[a-e <= 2]*[e-a <= 1]", "where u : -1..2; x[N]; y[a] = x[a-u]"),
    "two": (
        "x[N]; y[a] = x[e]*x[f]*[a-e <= 1]*[e-a <= 1]*[a-f <= 1]*[f-a <= 1]",
        "where u, v : -1..1; x[N]; y[a] = x[a+u]*x[a+v]",
    ),
    "attention": (
        "q[N,D]; k[N,D]; v[N,C]; y[a,b] = q[a,r]*k[e,r]*v[e,b]*[a-e < 4]*[e <= a]",
        "where u : 0..3; q[N,D]; k[N,D]; v[N,C]; y[a,b] = q[a,r]*k[a-u,r]*v[a-u,b]",
    ),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_a_window_is_its_bounds(name: str):
    bounds, window = WINDOWS[name]
    assert prove(bounds, window).status == "equal"
    assert prove(bounds.replace("[a-e <", "[a-e+1 <"), window).status == "different"


def test_an_offset_of_two_equations_is_no_window():
    head = "x[N]; z[N]; "
    bounds = "y[a] = x[e]*z[f]*[a-e <= 1]*[e-a <= 1]*[a-f <= 1]*[f-a <= 1]"
    both = "where u : -1..1; " + head + "y[a] = x[a+u]*z[a-u]"
    assert prove(head + bounds, both).status == "different"


def test_offsets_to_earlier_positions_are_proved_under_functions():
    head = "where u : 0..2; q[N,D]; k[N,D]; v[N,C]; "
    plain = "p[a,u] = softmax[u](q[a,r]*k[a-u,r]); y[a,b] = p[a,u]*v[a-u,b]"
    shifted = "p[a,u] = softmax[u](q[a,r]*k[a-u,r] + q[a,d]*q[a,d]); y[a,b] = p[a,u]*v[a-u,b]"
    assert prove(head + plain, head + shifted).status == "equal"
    wrong = head + plain.replace("v[a-u,b]", "v[a+u,b]")
    assert prove(head + plain, wrong).status == "different"
