"""Costs as data for a page: the same numbers as sympy's, whatever the sizes."""

import xml.etree.ElementTree as ET

import sympy
from hypothesis import given
from hypothesis import strategies as st

from polyattn.study.report.formulas import Formula

SIZES = sympy.symbols("B C N", positive=True, integer=True)
monomials = st.tuples(st.integers(-9, 9), *[st.integers(0, 4)] * 3)


def expression(terms):
    return sympy.expand(sum(c * sympy.prod(s**e for s, e in zip(SIZES, powers, strict=True)) for c, *powers in terms))


def value(data, sizes):
    total = 0
    for coefficient, powers in data:
        product = int(coefficient)
        for size, power in powers.items():
            product *= sizes[size] ** power
        total += product
    return total


@given(st.lists(monomials, max_size=6), st.tuples(*[st.integers(1, 10**6)] * 3))
def test_the_data_evaluate_to_what_the_expression_does(terms, numbers):
    made = sympy.sympify(expression(terms))
    data = Formula.of(made).data()
    known = dict(zip("BCN", numbers, strict=True))
    assert value(data, known) == made.subs(dict(zip(SIZES, numbers, strict=True)))


def test_coefficients_are_texts_for_browsers_round_large_numbers():
    assert Formula.of(2**60 * SIZES[0]).data() == [[str(2**60), {"B": 1}]]


def test_the_mathml_has_the_highest_degree_first():
    b, c, n = SIZES
    root = ET.fromstring(Formula.of(2 * b * n + b * c**3 - c).mathml())
    assert "".join(root.itertext()) == "BC3+2BN−C"
    assert [e.tag for e in root.iter("msup")] == ["msup"]


def test_nothing_to_multiply_is_zero():
    assert "".join(ET.fromstring(Formula.of(sympy.Integer(0)).mathml()).itertext()) == "0"
