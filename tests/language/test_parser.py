"""Text to syntax tree: what continues a statement, what ends one, and what the tree remembers."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyattn.errors import SpecError
from polyattn.language.parser import MAX_LENGTH, MAX_SLOTS, parse
from polyattn.language.syntax import (
    Access,
    Bracket,
    Call,
    Definition,
    IndexSize,
    Input,
    Number,
    SizeRef,
    Slot,
    Split,
    Statements,
    Sum,
    Term,
)
from polyattn.language.tokens import MAX_DEPTH
from polyattn.testing import respaced, specification_texts


def access(tensor: str, *slots: str) -> Access:
    return Access(tensor, tuple(Slot(tuple(slot.split())) for slot in slots))


def right(text: str) -> Sum | Call:
    """The right-hand side of the last definition."""
    return parse(text).definitions[-1].body


def products(text: str) -> list[list[str]]:
    """The right-hand side's terms as the texts of their factors."""
    return [[str(factor) for factor in term.factors] for term in right(text).terms]


def test_a_text_becomes_statements_of_four_kinds():
    tree = parse("x[N,C]; where C = G*M; where r : R\ny[a,(g m)] = 0.5*x[a,(g m)]/N - s*w[r]")
    half = Term(False, (Number(Fraction(1, 2)), access("x", "a", "g m"), SizeRef("N")), divides=(False, False, True))
    product = Term(True, (access("s"), access("w", "r")), (False, False))
    assert tree == Statements(
        inputs=(Input("x", ("N", "C")),),
        splits=(Split("C", ("G", "M")),),
        index_sizes=(IndexSize("r", "R"),),
        definitions=(Definition(access("y", "a", "g m"), Sum((half, product))),),
    )


def test_a_function_takes_the_whole_right_hand_side():
    assert right("y[a,e] = softmax[e](x[a,e] - 1)") == Call("softmax", ("e",), right("y = x[a,e] - 1"))
    assert right("y[a] = relu(x[a])") == Call("relu", (), right("y = x[a]"))


def test_brackets_nest():
    (term,) = right("y = w*(a - (b + c)*d)").terms
    inner = Bracket(right("y = a - (b + c)*d"))
    assert term.factors == (access("w"), inner)
    assert inner.body.terms[1].factors[0] == Bracket(right("y = b + c"))


@pytest.mark.parametrize(
    "text",
    [
        "y = u*v\n + w",
        "y = u*v +\n w",
        "y = u\n * v + w",
        "y = u*\n\n v + w",
        "y\n = u*v + w",
        "y =\n u*v + w",
        "y = u*v # products come first\n  + w",
        "y = u*v # a comment; with an end\n\n # and another\n  + w",
        "y = u*v\r\n + w\r\n",
        "\n\n;;y = u*v + w;;\n",
        "y=u*v+w",
        "\ty\f=  u * v\t+ w",
    ],
)
def test_operators_and_comments_continue_a_statement(text):
    assert parse(text) == parse("y = u*v + w")


@pytest.mark.parametrize(
    "text",
    ["y[a,b] = x[a,\nb]", "y[a,b\n] = x[\na,b]", "y[a,b] = (\nx[a,b]\n)", "y[a,b] = (x[a,b] # why not\n)"],
)
def test_an_open_bracket_continues_a_statement(text):
    body = str(right(text)).strip("()")
    assert body == "x[a,b]"


@pytest.mark.parametrize("end", ["\n", ";", "\r\n", " ; ", "\n\n\n", "# comment\n", ";\n", "; # comment\n"])
def test_statements_end_at_line_ends_and_semicolons(end):
    assert parse(f"x[N]{end}y[a] = x[a]{end}z[a] = y[a]") == parse("x[N]\ny[a] = x[a]\nz[a] = y[a]")


def test_a_semicolon_ends_a_statement_whatever_follows():
    with pytest.raises(SpecError, match=r"statement expected .*, but found '\+'"):
        parse("x[N]; y[a] = x[a]; + x[a]")


def test_a_bracket_at_the_start_of_a_line_starts_a_statement():
    with pytest.raises(SpecError, match=r"a statement expected .*, but found '\('"):
        parse("x[N]; y[a] = x[a]\n(x[a])")


def test_operators_bind_as_in_arithmetic():
    assert products("y = a*b/2/N + c - 2*(d - e)") == [["a", "b", "2", "N"], ["c"], ["2", "(d - e)"]]
    first, second, third = right("y = a*b/2/N + c - 2*(d - e)").terms
    assert first.divides == (False, False, True, True)
    assert [first.negative, second.negative, third.negative] == [False, False, True]
    assert right("y = -a").terms[0].negative
    assert right("y = +a") == right("y = a")


@pytest.mark.parametrize(
    ("text", "value"),
    [("2", 2), ("0.5", Fraction(1, 2)), (".25", Fraction(1, 4)), ("007", 7), ("1.50", Fraction(3, 2))],
)
def test_numbers_are_exact(text, value):
    (term,) = right(f"y = {text}*w").terms
    assert term.factors[0] == Number(Fraction(value))


@given(st.fractions().map(lambda f: Fraction(round(abs(f) * 1000), 1000)))
def test_a_decimal_prints_as_it_is(value):
    (term,) = right(f"y = {Number(value)}*w").terms
    assert term.factors[0] == Number(value)


def test_where_declares_several_indices_and_nested_splits():
    tree = parse("where r, s : R; where q : 3; where C = 2*G*M; where M = S*T")
    assert tree.index_sizes == (IndexSize("q", "3"), IndexSize("r", "R"), IndexSize("s", "R"))
    assert tree.splits == (Split("C", ("2", "G", "M")), Split("M", ("S", "T")))


def test_the_order_of_wheres_does_not_matter():
    assert parse("where r : R; where C = G*M; where q : Q") == parse("where q : Q; where r : R; where C = G*M")


def test_where_is_a_word_of_its_own_only_as_a_whole():
    assert parse("where where1 : R").index_sizes == (IndexSize("where1", "R"),)
    assert products("y = wherever*where_") == [["wherever", "where_"]]


@pytest.mark.parametrize(
    "name", ["lambda", "import", "class", "self", "torch", "eval", "def", "None1", "True_", "x__class__"]
)
def test_a_name_is_only_a_name(name):
    lower = name[0].lower() + name[1:]
    text = f"{name}[N,C]; {lower}_out[a,b] = {name}[a,b]*{lower}_w[{lower}]*{lower}_s"
    tree = parse(text)
    assert tree.inputs[0].name == name
    assert products(text) == [[f"{name}[a,b]", f"{lower}_w[{lower}]", f"{lower}_s"]]


def test_bytes_are_utf8_text():
    assert parse("x[N]; y[a] = x[a] # αβγ".encode()) == parse("x[N]; y[a] = x[a]")


def test_places_count_lines_and_columns_from_one():
    tree = parse("x[N,C]\n\n  y[a,b] = x[a,b]\n    * w")
    (definition,) = tree.definitions
    assert (definition.target.at.line, definition.target.at.column) == (3, 3)
    _, w = definition.body.terms[0].factors
    assert (w.at.line, w.at.column) == (4, 7)


def test_places_take_no_part_in_equality():
    assert hash(parse("y = u+v")) == hash(parse("\n\ny   =   u + v"))


@given(st.data())
def test_the_layout_of_a_text_does_not_matter(data):
    text = data.draw(specification_texts())
    assert parse(data.draw(respaced(text))) == parse(text)


def test_the_limits_on_length_depth_and_slots_are_the_largest_that_pass():
    parse("y = " + "(" * MAX_DEPTH + "w" + ")" * MAX_DEPTH)
    parse("x[N] #".ljust(MAX_LENGTH))
    parse(f"y = w[{','.join('a' * MAX_SLOTS)}]*v[({' '.join('a' * MAX_SLOTS)})]")
    for text in (
        "y = " + "(" * (MAX_DEPTH + 1) + "w" + ")" * (MAX_DEPTH + 1),
        "x[N] #".ljust(MAX_LENGTH + 1),
        f"y = w[{','.join('a' * (MAX_SLOTS + 1))}]",
        f"y = w[({' '.join('a' * (MAX_SLOTS + 1))})]",
    ):
        with pytest.raises(SpecError, match=r"at most|more than"):
            parse(text)
