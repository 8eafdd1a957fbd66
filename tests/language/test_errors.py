"""Every message of the language, word for word, with its caret."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import polyattn.language
from polyattn.errors import PolyattnError, SpecError
from polyattn.language import Specification

TABLE = tomllib.loads((Path(__file__).parent / "bad_specifications.toml").read_text(encoding="utf-8"))
NOT_IN_THE_TABLE = [
    "the text is not UTF-8: invalid start byte at byte 3",
    "a specification is text, not int",
    "the text has 20001 characters; a specification has at most 20000",
]
NESTED = "functions are nested more than 160 deep"


@pytest.mark.parametrize("case", TABLE["bad"], ids=lambda case: case["text"][-40:])
def test_the_message_of_a_bad_text(case):
    with pytest.raises(SpecError) as caught:
        Specification(case["text"])
    assert str(caught.value) == case["message"]


@pytest.mark.parametrize("case", TABLE["bad_einsum"], ids=lambda case: case["equation"])
def test_the_message_of_bad_einsum_text(case):
    with pytest.raises(SpecError) as caught:
        Specification.from_einsum(case["equation"], case["operands"], input=case["input"])
    assert str(caught.value) == case["message"]


@pytest.mark.parametrize("case", TABLE["bad_statements"], ids=lambda case: case["statements"][0])
def test_the_message_of_bad_further_statements(case):
    with pytest.raises(SpecError) as caught:
        Specification("x[N,C]; y[a,b] = x[a,d]*wf[d,b]").with_statements(*case["statements"])
    assert str(caught.value) == case["message"]


@pytest.mark.parametrize(
    ("text", "message"),
    [*zip([b"x[N\xff", 3, " " * 20_001], NOT_IN_THE_TABLE, strict=True)],
    ids=["bytes", "int", "long"],
)
def test_the_message_of_what_is_no_text_or_too_long(text, message):
    with pytest.raises(SpecError) as caught:
        Specification(text)
    assert str(caught.value) == message


def test_the_message_of_functions_that_are_nested_too_deep():
    steps = [f"t{k}[a] = sigmoid(t{k - 1}[a])" for k in range(1, 162)]
    with pytest.raises(SpecError, match=NESTED):
        Specification("; ".join(["x[N]; t0[a] = 2*x[a]", *steps]))


@pytest.mark.parametrize("case", TABLE["bad"], ids=lambda case: case["text"][-40:])
def test_the_caret_stands_under_the_line_and_column_of_the_error(case):
    with pytest.raises(SpecError) as caught:
        Specification(case["text"])
    error = caught.value
    if not error.line:
        assert str(error) == error.reason
        return
    reason, shown, caret = str(error).rsplit("\n", 2)
    assert reason == error.reason
    assert 1 <= error.column <= len(case["text"].split("\n")[error.line - 1]) + 1
    picture = shown.removeprefix(f"  line {error.line}: ")
    offset = len(shown) - len(picture)
    assert caret.strip() == "^"
    under = picture[caret.index("^") - offset :][:1]
    line = case["text"].split("\n")[error.line - 1]
    assert under == line[error.column - 1 : error.column].replace("\xa0", " ")


def test_every_message_of_the_language_is_in_the_table():
    messages = "\n".join([case["message"] for cases in TABLE.values() for case in cases] + [*NOT_IN_THE_TABLE, NESTED])
    folder = Path(polyattn.language.__file__).parent
    pieces = {piece for name in ("parser", "checks", "resolve", "einsum", "spec") for piece in _words(folder, name)}
    assert len(pieces) > 60
    assert [piece for piece in sorted(pieces) if piece not in messages] == []


def _words(folder: Path, module: str) -> Iterator[str]:
    """The pieces of English in a module's strings, docstrings aside."""
    tree = ast.parse((folder / f"{module}.py").read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
        if is_text and re.search(r"[a-z]{2} [a-z]{2}", node.value):
            yield node.value


def test_the_table_has_no_text_twice():
    texts = [case["text"] for case in TABLE["bad"]]
    assert len(set(texts)) == len(texts) >= 60


def test_a_spec_error_is_a_value_error_and_keeps_its_place():
    with pytest.raises(ValueError, match="alone says nothing") as caught:
        Specification("x[N,C]\n  x")
    error = caught.value
    assert isinstance(error, PolyattnError)
    assert (error.line, error.column, error.source) == (2, 3, "x[N,C]\n  x")


def test_a_long_line_is_shown_around_the_caret():
    with pytest.raises(SpecError) as caught:
        Specification("x[N,C]; y[a,b] = " + "x[a,b] + " * 30 + "w[a b]" + " + x[a,b]" * 30)
    shown, caret = str(caught.value).split("\n")[1:]
    assert shown.startswith("  line 1: ...")
    assert len(shown) < 120
    assert shown[caret.index("^")] == "b"


def test_a_tree_without_text_gives_the_reason_alone():
    statements = Specification("x[N,C]\ny[a,b] = x[a,b]").statements
    broken = type(statements)((), (), (), statements.definitions)
    with pytest.raises(SpecError) as caught:
        Specification(broken)
    assert str(caught.value) == "there is no input: declare one, such as 'x[N,C]'"
