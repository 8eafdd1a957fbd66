"""The printed mathematics: explicit sums that stand where the language means them."""

import re

import pytest
from hypothesis import given

from polyattn.language import Specification
from polyattn.testing import specification_texts


def right(text: str) -> str:
    """The last right-hand side of a specification of x[N,C], as LaTeX."""
    latex = Specification(f"x[N,C]; {text}").latex()
    return latex.removesuffix(r" \end{aligned}").rpartition("&= ")[2]


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("y[a,b] = x[a,b]", "x_{a b}"),
        ("y[a,b] = x[a,d]*w[d,b]", r"\sum_{d} x_{a d} w_{d b}"),
        ("y = x[a,d]*x[e,d]", r"\sum_{a,d,e} x_{a d} x_{e d}"),
        ("y[a,b] = 1/N*x[a,b]", r"\frac{1}{N} x_{a b}"),
        ("y[a,b] = 2*x[a,b]*C/N/3", r"\frac{2 \cdot C}{N \cdot 3} x_{a b}"),
        ("y[a,b] = 1*x[a,b]", "x_{a b}"),
        ("y[a,b] = x[a,b] + 1", "x_{a b} + 1"),
        ("y[a,b] = -x[a,b] - 0.5*s", "- x_{a b} - 0.5 s"),
        ("y[a,b] = relu(x[a,b])", r"\operatorname{ReLU}\left(x_{a b}\right)"),
        ("y[a,b] = sigmoid(x[a,b])", r"\sigma\left(x_{a b}\right)"),
        ("y[a,b] = softmax[b](x[a,b])", r"\operatorname{softmax}_{b}\left(x_{a b}\right)"),
        ("y[a] = max[b](x[a,b]*x[a,d])", r"\operatorname{max}_{b}\left(\sum_{d} x_{a b} x_{a d}\right)"),
        ("where C = G*M; y[a,(g m)] = x[a,(g m)]", r"x_{a (g\,m)}"),
    ],
)
def test_products_and_functions(text, latex):
    assert right(text) == latex


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("y[a] = (x[a,d] + s)*x[a,e]", r"\sum_{e} \left(\sum_{d} x_{a d} + s\right) x_{a e}"),
        ("y[a] = (x[a,d] + v[d])*u[d]", r"\sum_{d} \left(x_{a d} + v_{d}\right) u_{d}"),
        (
            "y[a] = (x[a,d] + v[d])*(x[a,d] - v[d])",
            r"\sum_{d} \left(x_{a d} + v_{d}\right) \left(x_{a d} - v_{d}\right)",
        ),
    ],
    ids=["of one bracket", "of a bracket and a factor", "of two brackets"],
)
def test_an_index_is_summed_before_all_that_share_it(text, latex):
    assert right(text) == latex


@pytest.mark.parametrize(
    ("name", "latex"),
    [
        ("w", "w"),
        ("w1", "w^{(1)}"),
        ("wq", r"w^{\mathrm{q}}"),
        ("wq2", r"w^{\mathrm{q2}}"),
        ("alpha", r"\alpha"),
        ("beta3", r"\beta^{(3)}"),
        ("context", r"\mathrm{context}"),
        ("my_name", r"\mathrm{my\_name}"),
        ("adj_", r"\mathrm{adj}"),
    ],
)
def test_names_of_tensors(name, latex):
    assert right(f"y[a,b] = x[a,b]*{name}") == f"x_{{a b}} {latex}"


@pytest.mark.parametrize(
    ("name", "latex"),
    [
        ("i", "i"),
        ("i1", "i_{1}"),
        ("a_", "a'"),
        ("row", r"\mathrm{row}"),
        ("alpha", r"\alpha"),
        ("a_b", r"\mathrm{a\_b}"),
    ],
)
def test_names_of_indices(name, latex):
    assert right(f"y[{name},b] = x[{name},b]") == f"x_{{{latex} b}}"


def test_several_definitions_are_rows_of_one_block():
    spec = Specification("x[N,C]; t[a] = x[a,d]; y[a,b] = x[a,b]*t[a]")
    assert spec.latex() == r"\begin{aligned} t_{a} &= \sum_{d} x_{a d} \\ y_{a b} &= x_{a b} t_{a} \end{aligned}"
    assert spec._repr_latex_() == rf"$\displaystyle {spec.latex()}$"


@given(specification_texts())
def test_braces_and_brackets_pair_up(text):
    spec = Specification(text)
    latex = spec.latex()
    depth = 0
    for brace in re.findall(r"[{}]", latex):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    assert latex.count(r"\left(") == latex.count(r"\right)")
    assert latex.count("&=") == len(spec.statements.definitions)
    assert "_{}" not in latex
    assert re.search(r"(?<!\\)_[^{]", latex) is None
