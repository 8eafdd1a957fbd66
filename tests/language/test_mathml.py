"""The equations as browsers typeset them: well-formed MathML that says what the LaTeX says."""

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given

from polyattn.language import Specification
from polyattn.testing import specification_texts

CHILDREN = {"mfrac": 2, "msub": 2, "msup": 2, "munder": 2, "msubsup": 3}
GREEK = {"alpha": "α", "beta": "β", "psi": "ψ", "omega": "ω"}


def tree(text: str) -> ET.Element:
    return ET.fromstring(Specification(text).mathml())


def right(text: str) -> str:
    """The text content of the last right-hand side, of a specification of x[N,C]."""
    last = tree(f"x[N,C]; {text}").findall(".//mtr")[-1].findall("mtd")[2]
    return "".join(last.itertext())


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("y[a,b] = x[a,b]", "xab"),
        ("y[a,b] = x[a,d]*w[d,b]", "∑dxadwdb"),
        ("y[a,b] = 1/N*x[a,b]", "1Nxab"),
        ("y[a,b] = 2*x[a,b]*C/N/3", "2·CN·3xab"),
        ("y[a,b] = 1*x[a,b]", "xab"),
        ("y[a,b] = -x[a,b] - 0.5*s", "−xab−0.5s"),
        ("y[a,b] = relu(x[a,b])", "ReLU(xab)"),
        ("y[a,b] = softmax[b](x[a,b])", "softmaxb(xab)"),
        ("y[a] = max[b](x[a,b]*x[a,d])", "maxb(∑dxabxad)"),
        ("where C = G*M; y[a,(g m)] = x[a,(g m)]", "xa(gm)"),
        ("y[a] = (x[a,d] + s)*x[a,e]", "∑e(∑dxad+s)xae"),
        ("y[a,b] = x[a,b]*beta3", "xabβ(3)"),
        ("y[a_,b] = x[a_,b]*wq2", "xa′bwq2"),
    ],
)
def test_products_sums_and_functions(text, content):
    assert right(text) == content


def test_a_matrix_with_a_mark_has_it_above_and_its_indices_below():
    (both,) = tree("x[N,C]; y[a,b] = x[a,d]*w1[d,b]").findall(".//msubsup")
    base, below, above = both
    assert [base.text, "".join(below.itertext()), "".join(above.itertext())] == ["w", "db", "(1)"]


@pytest.mark.parametrize(("name", "letter"), GREEK.items())
def test_greek_names_are_greek_letters(name, letter):
    assert right(f"y[a,b] = x[a,b]*{name}") == f"xab{letter}"


def test_the_alternative_text_is_the_latex():
    spec = Specification("x[N,C]; y[a,b] = x[a,d]*w[d,b]")
    assert ET.fromstring(spec.mathml()).get("alttext") == spec.latex()


@given(specification_texts())
def test_every_element_has_as_many_children_as_it_needs(text):
    spec = Specification(text)
    root = ET.fromstring(spec.mathml())
    for element in root.iter():
        assert len(element) == CHILDREN.get(element.tag, len(element)), element.tag
    assert len(root.findall(".//mtr")) == len(spec.statements.definitions)


@given(specification_texts())
def test_it_sums_what_the_latex_sums(text):
    spec = Specification(text)
    sums = ET.fromstring(spec.mathml()).findall(".//munder")
    assert len(sums) == len(re.findall(r"\\sum_", spec.latex()))
