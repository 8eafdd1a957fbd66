"""What values show in notebooks: tables and pictures, what the user wrote escaped, nothing heavy before."""

import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

import polyattn as pa
from polyattn import display

VOID = {"br", "hr", "img"}


class Nesting(HTMLParser):
    """Tags that are opened, in order; fails where one is closed that is not the last one opened."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag, attrs) -> None:
        self.open.append(tag)
        self.seen.add(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.text += data


def parsed(html: str) -> Nesting:
    found = Nesting()
    found.feed(html)
    found.close()
    assert not found.open
    assert found.seen <= {"p", "strong", "pre", "table", "thead", "tbody", "tr", "th", "td", "details", "summary"}
    return found


SPEC = pa.catalog.poly_nl()
SIZES = {"N": 9, "C": 4}


def test_a_specification_shows_its_equations_its_text_and_its_parameters():
    found = parsed(SPEC._repr_html_())
    assert str(SPEC) in found.text
    assert SPEC.latex() in found.text
    assert "w1[C, C]" in found.text
    assert parsed(SPEC.polynomial()._repr_html_()).text.endswith(str(SPEC.polynomial()))


def test_a_plan_shows_every_step_and_its_backward_pass_folded():
    plan = pa.plan(SPEC, SIZES, "training")
    found = parsed(plan._repr_html_())
    for step in (*plan.steps, *plan.backward_steps):
        assert step.equation in found.text
    assert "details" in found.seen
    assert f"{plan.macs:,} MACs" in found.text


def test_a_verdict_shows_its_proof_and_a_counterexample_its_numbers():
    other = pa.Spec(str(SPEC).replace("w2[f,d]", "w2[d,f]"))
    for verdict in (pa.prove(SPEC, SPEC), pa.prove(SPEC, other)):
        found = parsed(verdict._repr_html_())
        assert str(verdict).replace("\n", "") in found.text.replace("\n", "")


def test_a_study_shows_its_table():
    study = pa.study.complexity("poly_nl", N=[9, 18], C=4)
    found = parsed(study._repr_html_())
    assert all(f"{case.macs:,}" in found.text for case in study.cases)


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a & b < c"])
def test_text_is_only_text(text: str):
    pieces = display.heading(text) + display.note(text) + display.block(text) + display.folded(text, "")
    found = parsed(pieces + display.table([text], [[text]]))
    assert found.text.count(text) == 6
    hostile = pa.study.complexity({text: SPEC}, N=[4, 8], C=2)
    assert text in parsed(hostile._repr_html_()).text
    verdict = pa.Verdict("undecided", text, text, (text,), text)
    assert text in parsed(verdict._repr_html_()).text


def test_pictures_are_svg():
    study = pa.study.complexity("poly_nl", N=[9, 18], C=4)
    for value in (SPEC, pa.plan(SPEC, SIZES), study):
        picture = value._repr_svg_()
        assert picture is not None
        assert ElementTree.fromstring(picture).tag.endswith("svg")


def test_what_cannot_be_drawn_has_no_picture_and_no_error():
    assert pa.study.complexity("poly_nl", **SIZES)._repr_svg_() is None  # no size varies
    factors = "*".join(f"(x[a,b] + {name}[b])" for name in "pqrstu")
    assert pa.Spec(f"x[N,C]; y[a,b] = {factors}")._repr_svg_() is None


def test_without_matplotlib_a_value_has_no_picture_and_a_plot_names_the_extra(monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    assert SPEC._repr_svg_() is None
    with pytest.raises(pa.MissingPackageError, match=r"pip install .*\[study\]"):
        pa.study.pictures.tensor_network(SPEC)


def test_nothing_heavy_is_imported_before_a_picture_is_asked_for():
    code = (
        "import sys, polyattn as pa; s = pa.catalog.nl(); s._repr_html_(); pa.plan(s, {'N': 4, 'C': 2})._repr_html_();"
        "pa.study.complexity(s, N=[4, 8], C=2)._repr_html_(); print({'matplotlib', 'pandas'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
