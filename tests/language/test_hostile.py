"""Whatever text comes in: a specification or a `SpecError`, soon, and nothing of it is ever run."""

import ast
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from itertools import count
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

import polyattn.language
from polyattn.errors import SpecError
from polyattn.language import Specification
from polyattn.language.parser import MAX_LENGTH
from polyattn.testing import specification_texts

TOKENS = [
    *"abdexyNCGMR[](),;:=+-*/ \n#",
    *("where", "softmax", "mean", "relu", "I", "1", "0.5", "x[", "y[a,b] =", "x[N,C]\n", "where C = G*M\n", "(g m)"),
    *("lambda", "__class__", "import", "é", "\x00", "²", "\\", "'"),
]


def reads(text: str | bytes) -> Specification | None:
    """The specification, or None for a `SpecError`; any other error goes through."""
    try:
        return Specification(text)
    except SpecError:
        return None


def with_names(tree, old, new):
    """A syntax tree with one name in the place of another."""
    if isinstance(tree, tuple):
        return tuple(with_names(part, old, new) for part in tree)
    if not is_dataclass(tree):
        return new if isinstance(tree, str) and tree == old else tree
    return replace(tree, **{f.name: with_names(getattr(tree, f.name), old, new) for f in fields(tree)})


def accepts(text: str | bytes) -> bool:
    spec = reads(text)
    assert spec is None or Specification(str(spec)) == spec
    return spec is not None


class TestAnyText:
    @given(st.text())
    def test_any_text(self, text):
        accepts(text)

    @given(st.binary())
    def test_any_bytes(self, data):
        accepts(data)

    @given(st.lists(st.sampled_from(TOKENS), max_size=40).map("".join))
    def test_a_soup_of_tokens(self, text):
        accepts(text)

    @given(st.lists(st.sampled_from(TOKENS), max_size=12).map("".join))
    def test_a_soup_of_tokens_for_a_right_hand_side(self, text):
        accepts(f"x[N,C]\ny[a,b] = x[a,b]*{text}")

    @given(st.data())
    def test_a_valid_text_damaged(self, data):
        text = data.draw(specification_texts())
        first, second, third = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 3)))
        accepts(text[:first])
        accepts(text[:first] + text[second:third] + text[first:second] + text[third:])
        accepts(text[:first] + data.draw(st.sampled_from(["", *TOKENS])) + text[min(first + 5, second) :])

    @pytest.mark.parametrize("value", [None, 0, 1.5, ["x[N]"], {"x": "N"}, object, bytearray(b"x[N]")], ids=repr)
    def test_what_is_no_text_is_refused(self, value):
        with pytest.raises(SpecError, match="a specification is text, not"):
            Specification(value)

    def test_the_soup_can_be_a_specification(self):
        assert accepts("x[N,C]\n" + "y[a,b] =" + "x[" + "a" + "," + "b" + "]")


class TestNames:
    @pytest.mark.parametrize("name", ["lambda", "import", "self", "torch", "eval", "exec", "os", "None", "print"])
    def test_words_of_python_are_names_of_tensors(self, name):
        spec = Specification(f"x[N,C]; y[a,b] = x[a,d]*{name}[d,b]")
        assert spec.parameters == {name: ("C", "C")}

    @pytest.mark.parametrize("name", ["lambda", "import", "self", "torch", "eval", "exec", "os", "in", "y"])
    def test_and_of_indices(self, name):
        spec = Specification(f"x[N,C]; y[a,b] = x[a,{name}]*w[{name},b]")
        assert spec.parameters == {"w": ("C", "C")}

    @pytest.mark.parametrize(
        "name", ["__class__", "_", "__import__", "x.__class__", "a-b", "a b", "1a", "λ", "a\x00b", "a\\b"]
    )
    def test_other_words_are_refused(self, name):
        with pytest.raises(SpecError):
            Specification(f"x[N,C]; y[a,b] = x[a,d]*{name}[d,b]")

    @pytest.mark.parametrize(
        "text",
        [
            "__import__('os').system('true')",
            "lambda: x",
            "x[N]; y[a] = eval(x[a])",
            "x[N]; y[a] = x.__class__[a]",
            "x[N]; y[a] = x[a]; import os",
            "{{x}}",
            "%s%n",
            "x[N]; y[a] = f'{x}'",
        ],
    )
    def test_code_is_refused(self, text):
        assert not accepts(text)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("x", "x, q=print()"),
            ("w", "w; z"),
            ("alpha", "Alpha"),
            ("C", "c"),
            ("C", "0"),
            ("C", "N*2"),
            ("d", "D"),
            ("d", "_d"),
            ("e", "where"),
            ("y", ""),
        ],
    )
    def test_trees_are_held_to_the_names_of_the_grammar(self, old, new):
        text = "x[N,C]; y[a,b] = alpha*x[a,d]*w[d,b]*softmaxed[a]"
        tree = Specification(text.replace("; y", "; softmaxed[a] = softmax[a](x[a,e]); y")).statements
        with pytest.raises(SpecError):
            Specification(with_names(tree, old, new))
        assert Specification(with_names(tree, old, old)).statements == tree

    @pytest.mark.parametrize("path", sorted(Path(polyattn.language.__file__).parent.glob("*.py")), ids=lambda p: p.name)
    def test_the_sources_never_evaluate_anything(self, path):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom | ast.Import)
            for alias in node.names
        }
        assert (
            names & {"eval", "exec", "compile", "__import__", "import_module", "getattr", "setattr", "format_map"}
            == set()
        )
        assert len(names) > 3


def many(piece: Callable[[int], str], between: str, room: int, before: str = "", after: str = "") -> str:
    """`before`, as many pieces as fit into `room` characters, `after`."""
    text, parts = len(before) + len(after), []
    for number in count():
        part = piece(number)
        text += len(part) + len(between)
        if text > room:
            return before + between.join(parts) + after
        parts.append(part)
    raise AssertionError


def chain_backwards(room: int) -> str:
    """A sum of products, each of which learns its size from the one after it."""
    links = range(room // 27)
    terms = (f"x[a]*p{i}[i{i}]*p{i + 1}[i{i}]" for i in reversed(links))
    return f"x[N];y[a]={'+'.join(terms)}+x[a]*x[z]*p0[z]"


def definitions_backwards(room: int) -> str:
    """Each definition learns its size from the next one."""
    last = ";z=x[a]*w0[a]"
    return many(lambda i: f"t{i + 1}[r]=t{i}[r]*w{i + 1}[r]", ";", room, "x[N];t0[r]=w0[r];", last)


def nested_brackets(room: int) -> str:
    return many(lambda i: f"x[i{i}]", "*", room, "x[N];y[a]=x[a]*" + "(" * 39, ")" * 39)


GROWING: dict[str, Callable[[int], str]] = {
    "terms": lambda n: many(lambda _: "x[a]", "+", n, "x[N];y[a]="),
    "factors": lambda n: many(lambda _: "x[a]", "*", n, "x[N];y[a]="),
    "numbers": lambda n: many(lambda _: "1.5", "*", n, "x[N];y[a]=x[a]*"),
    "indices": lambda n: many(lambda i: f"x[i{i}]", "*", n, "x[N];y[a]=x[a]*"),
    "brackets": lambda n: many(lambda i: f"(x[i{i}])", "*", n, "x[N];y[a]=x[a]*"),
    "brackets with an index in common": lambda n: many(lambda _: "(x[b]+x[b])", "*", n, "x[N];y[a]=x[a]*"),
    "nested brackets": nested_brackets,
    "a chain of parameters, backwards": chain_backwards,
    "identities": lambda n: many(lambda i: f"I[i{i + 1},i{i}]", "*", n, "x[N];y[a]=x[a]*x[i0]*"),
    "definitions": lambda n: many(lambda i: f"t{i + 1}[a]=t{i}[a]", ";", n, "x[N];t0[a]=x[a];"),
    "definitions that nothing uses": lambda n: many(lambda i: f"t{i}[a]=x[a]", ";", n, "x[N];"),
    "definitions of unknown sizes": definitions_backwards,
    "inputs": lambda n: many(lambda i: f"x{i}[N]", ";", n, after=";y[a]=x0[a]"),
    "long composite slots": lambda n: many(lambda i: f"w{i}[(a a a a a a a a)]", "*", n, "x[N];y[a]=x[a]*"),
    "splits": lambda n: many(lambda i: f"where A{i}=B*D", ";", n, "x[N];y[a]=x[a];"),
    "splits that share parts": lambda n: many(lambda i: f"where A{i}=B{i}*B{i + 1}", ";", n, "x[N];y[a]=x[a];"),
    "one long split": lambda n: many(lambda i: f"B{i}", "*", n, "x[N];y[a]=x[a];where N="),
    "a chain of splits": lambda n: many(lambda i: f"where A{i}=2*A{i + 1}", ";", n, "x[A0];y[a]=x[a];"),
    "a chain of splits, backwards": lambda n: many(lambda i: f"where A{i + 1}=2*A{i}", ";", n, "x[A0];y[a]=x[a];"),
    "exponential splits": lambda n: many(lambda i: f"where A{i}=A{i + 1}*A{i + 1}", ";", n, "x[A0];y[a]=x[a];"),
    "wheres": lambda n: many(lambda i: f"b{i}", ",", n, "x[N];y[a]=x[a];where ", ":B"),
    "unknown names of sizes": lambda n: many(lambda i: f"x{i}[N{i}]", ";", n, after=";y[a]=x0[a]/Q"),
    "comments": lambda n: many(lambda _: "#", "\n", n),
    "semicolons": lambda n: many(lambda _: ";", "", n),
    "open brackets": lambda n: many(lambda _: "y=(", "", n),
    "a mistake at the end": lambda n: many(lambda _: "x[a]", "+", n, "x[N];y[a]=", "+"),
    "a long name": lambda n: many(lambda _: "y", "", n, "x[N];y[a]=x[a]*"),
    "a long number": lambda n: many(lambda _: "1", "", n, "x[N];y[a]=x[a]*"),
}
REFUSED_AT_ONCE = {
    "slots": lambda n: many(lambda _: "a", ",", n, "x[N];y[a]=x[a]*w[", "]"),
    "indices in one slot": lambda n: many(lambda _: "a", " ", n, "x[N];y[a]=x[a]*w[(", ")]"),
    "indices of a function": lambda n: many(lambda _: "a", ",", n, "x[N];y[a]=softmax[", "](x[a])"),
    "deep brackets": lambda n: "x[N];y=" + "(" * (n // 2 - 10) + "x[a]" + ")" * (n // 2 - 10),
    "doubled slots": lambda n: many(lambda i: f"t{i + 1}[(a b)]=t{i}[a]*t{i}[b]", ";", n, "x[N];t0[(a b)]=x[a]*x[b];"),
}


@contextmanager
def watchdog(seconds: int) -> Iterator[None]:
    """Interrupts what takes far too long, where the system can."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def bark(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, bark)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def steps(text: str) -> int:
    """How many lines of Python are run to read a text; the same on every machine."""
    found = 0

    def trace(_frame, event, _):
        nonlocal found
        found += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        reads(text)
    finally:
        sys.settrace(before)
    return found


class TestTime:
    @pytest.mark.parametrize("name", GROWING)
    def test_the_longest_texts_take_seconds_at_most(self, name, record_property):
        text = GROWING[name](MAX_LENGTH)
        assert MAX_LENGTH * 0.9 < len(text) <= MAX_LENGTH
        with watchdog(10):
            start = perf_counter()
            reads(text)
            record_property("seconds", perf_counter() - start)

    @pytest.mark.parametrize("name", GROWING)
    def test_work_grows_as_the_text_does(self, name):
        short, long = GROWING[name](1000), GROWING[name](2000)
        reads(short)  # builds the parser, if this is the first text
        with watchdog(60):
            assert steps(long) < 3 * steps(short)

    @pytest.mark.parametrize("name", REFUSED_AT_ONCE)
    def test_what_could_explode_is_refused(self, name):
        with watchdog(10), pytest.raises(SpecError, match=r"at most|more than"):
            Specification(REFUSED_AT_ONCE[name](MAX_LENGTH))

    def test_sizes_that_share_parts_are_solved_in_one_pass(self):
        def work(splits: int) -> int:
            # In the order of the text each split would wait for the next one.
            wheres = [f"where B{i:04} = A{i:04}*A{i + 1:04}" for i in range(splits)]
            sizes = Specification("x[N]; y[a] = x[a]\n" + "\n".join(wheres)).sizes
            numbers = {f"A{splits:04}": 2, **{f"B{i:04}": 4 for i in range(splits)}}
            calls = 0

            def profile(_frame, event, _):
                nonlocal calls
                calls += event == "call"

            before = sys.getprofile()
            sys.setprofile(profile)
            try:
                assert sizes.solve(numbers)["A0000"] == 2
            finally:
                sys.setprofile(before)
            return calls

        assert work(200) < 3 * work(100)
