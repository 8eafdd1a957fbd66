"""Sizes as products of atomic ones, and the numbers that some of them fix for the others."""

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyattn.errors import SizeError
from polyattn.language import Specification, value_of
from polyattn.testing import size_assignments, specification_texts

NESTED = Specification("x[N,C]; where M = S*T; where C = 2*M; where r : R; y[n] = x[n,c]*w[c,r]").sizes
SQUARE = Specification("x[C]; where C = G*G; y = x[c]").sizes
THREE = Specification("x[C]; where C = G*M*T; y = x[c]").sizes


def test_names_and_atomic_sizes_in_the_order_of_the_text():
    assert NESTED.names == ("N", "C", "M", "S", "T", "R")
    assert NESTED.atomic == ("N", "S", "T", "R")


def test_a_size_is_the_product_of_its_parts_outermost_first():
    assert NESTED.atoms("C") == ("2", "S", "T")
    assert NESTED.atoms("N") == ("N",)
    assert NESTED.atoms("7") == ("7",)
    assert NESTED.parts("C") == ("2", "M")
    assert NESTED.parts("N") is None


def test_atoms_have_the_declared_name_where_there_is_one():
    assert NESTED.name(("2", "S", "T")) == "C"
    assert NESTED.name(("S", "T")) == "M"
    assert NESTED.name(("N", "S")) == "N*S"
    assert NESTED.name(("5",)) == "5"


def test_of_two_names_the_one_that_is_declared_first_is_used():
    sizes = Specification("x[A]; z[B]; where A = G*M; where B = G*M; y[i] = x[i]*z[i]").sizes
    assert sizes.name(("G", "M")) == "A"


@pytest.mark.parametrize(
    ("given_sizes", "all_sizes"),
    [
        ({"S": 3, "T": 5}, {"S": 3, "T": 5, "M": 15, "C": 30}),
        ({"C": 30, "T": 5}, {"C": 30, "T": 5, "M": 15, "S": 3}),
        ({"M": 15, "S": 3}, {"M": 15, "S": 3, "T": 5, "C": 30}),
        ({"C": 30}, {"C": 30, "M": 15}),
        ({"N": 4}, {"N": 4}),
        ({}, {}),
    ],
    ids=str,
)
def test_parts_and_wholes_fix_each_other(given_sizes, all_sizes):
    assert NESTED.solve(given_sizes) == all_sizes


@pytest.mark.parametrize(
    ("sizes", "given_sizes", "message"),
    [
        (NESTED, {"K": 2}, "unknown size 'K'; the sizes are N, C, M, S, T, R"),
        (NESTED, {"N": 0}, "size N must be a positive whole number, not 0"),
        (NESTED, {"N": -3}, "size N must be a positive whole number, not -3"),
        (NESTED, {"N": 2.0}, "size N must be a positive whole number, not 2.0"),
        (NESTED, {"N": "2"}, "size N must be a positive whole number, not '2'"),
        (NESTED, {"N": True}, "size N must be a positive whole number, not True"),
        (NESTED, {"N": None}, "size N must be a positive whole number, not None"),
        (NESTED, {"C": 31}, "C = 31 is not divisible by 2, which C = 2*M needs"),
        (THREE, {"C": 12, "G": 5, "M": 1}, "C = 12 is not divisible by 5, which C = G(5)*M(1)*T needs"),
        (NESTED, {"C": 30, "S": 3, "T": 4}, "M = 15 contradicts M = S(3)*T(4) = 12"),
        (NESTED, {"M": 10, "S": 3, "T": 4}, "M = 10 contradicts M = S(3)*T(4) = 12"),
        (SQUARE, {"C": 8, "G": 3}, "C = 8 contradicts C = G(3)*G(3) = 9"),
    ],
    ids=str,
)
def test_bad_numbers_are_refused_with_the_equation(sizes, given_sizes, message):
    with pytest.raises(SizeError) as caught:
        sizes.solve(given_sizes)
    assert str(caught.value) == message


def test_needed_sizes_that_nothing_fixes_are_listed_once():
    with pytest.raises(SizeError, match=r"^missing sizes: S, N$"):
        NESTED.solve({"T": 5}, needed=("S", "T", "N", "S", "2"))
    with pytest.raises(SizeError, match=r"^missing size: R$"):
        NESTED.solve({"C": 30, "T": 5}, needed=("S", "R"))
    assert NESTED.solve({"C": 30, "T": 5}, needed=("S", "2"))["S"] == 3


def test_a_part_that_occurs_twice_is_not_divided_out():
    assert SQUARE.solve({"C": 9}) == {"C": 9}
    assert SQUARE.solve({"G": 3}) == {"G": 3, "C": 9}


def test_whole_numbers_of_other_types_are_numbers():
    numpy = pytest.importorskip("numpy")
    assert NESTED.solve({"N": numpy.int64(4)}) == {"N": 4}


@pytest.mark.parametrize("order", [1, -1])
def test_a_chain_of_shared_parts_is_solved_from_either_end(order):
    count = 300
    chain = [f"where B{i} = A{i}*A{i + 1}" for i in range(count)]
    text = "x[N]; y[n] = x[n]\n" + "\n".join(chain)
    sizes = Specification(text).sizes
    start = "A0" if order == 1 else f"A{count}"
    known = sizes.solve({start: 2, **{f"B{i}": 6 for i in range(count)}})
    assert [known[f"A{i}"] for i in range(count + 1)][::order] == [2, 3] * (count // 2) + [2]


@pytest.mark.parametrize("names", ["", "C", "CS", "ST", "MS", "NR", "CST"])
def test_which_sizes_are_fixed_does_not_depend_on_their_numbers(names):
    numbers = {"C": 30, "M": 15, "S": 3, "T": 5, "N": 4, "R": 2}
    assert NESTED.fixed_by(names) == set(NESTED.solve({name: numbers[name] for name in names}))
    assert SQUARE.fixed_by("C") == {"C"}


def test_the_value_of_atoms_is_their_product():
    assert value_of(("2", "S", "T"), {"S": 3, "T": 5}) == 30
    assert value_of((), {}) == 1


@given(st.data())
def test_any_numbers_for_the_atomic_sizes_fix_all_sizes(data):
    spec = Specification(data.draw(specification_texts()))
    numbers = data.draw(size_assignments(spec))
    assert set(numbers) == set(spec.sizes.atomic)
    known = spec.sizes.solve(numbers, needed=spec.sizes.names)
    for name in spec.sizes.names:
        assert known[name] == value_of(spec.sizes.atoms(name), numbers)
    for split in spec.sizes.splits:
        assert known[split.size] == prod(int(p) if p.isdigit() else known[p] for p in split.parts)
    assert spec.sizes.solve(known) == known
