"""Expansion: brackets multiplied out, intermediates put in, sums over what a term lacks, and its budgets."""

from fractions import Fraction

import pytest
from hypothesis import given

from polyattn import BudgetError, Spec, SpecError
from polyattn.testing import specifications

from .arrays import agree, evaluated

COUNTED = {
    "an intermediate's term lacks an index that is summed outside": (
        "z[a,e] = x[a,d]*w[d] + x[e,d]*w[d]; y[a] = z[a,e]",
        "y[a] = N*x[a,d]*w[d] + x[e,d]*w[d]",
    ),
    "an intermediate lacks an index of its own left": (
        "z[a,e] = x[a,d]*w[d]*I[e,e]; y[a,b] = z[a,e]*x[a,b]",
        "y[a,b] = N*x[a,d]*w[d]*x[a,b]",
    ),
    "an intermediate lacks an index of its own left that is declared": (
        "where k : N; z[a,k] = x[a,d]*w[d]; y[a,b] = z[a,k]*x[a,b]",
        "y[a,b] = N*x[a,d]*w[d]*x[a,b]",
    ),
    "all indices of an intermediate are summed and it has none of them": (
        "z[a,c] = v*I[a,a]*I[c,c] + x[a,c]; y = z[e,d]",
        "y = N*C*v + x[a,c]",
    ),
    "a term lacks an index of the left of the output": (
        "y[a,b] = x[a,b] + u[b] + v*N",
        "y[a,b] = x[a,b] + I[a,a]*u[b] + v*N*I[b,b]",
    ),
    "a mean is a sum over 1/size": ("y[a,b] = mean[e](x[e,b]*x[a,b])", "y[a,b] = 1/N * x[e,b]*x[a,b]"),
    "a mean over two indices": ("y[a] = mean[e,c](x[e,c]*u[c]*x[a,c])", "y[a] = 1/N/C * x[e,c]*u[c]*x[a,c]"),
    "a mean of what does not vary is itself": ("y[a] = mean[e](x[a,c] + 2*I[e,e])", "y[a] = x[a,c] + 2"),
    "a mean of a mean": (
        "m[c] = mean[e](x[e,c]); y[a,b] = mean[c](m[c]*x[a,b] + x[a,c])",
        "y[a,b] = 1/N/C*x[e,c]*x[a,b] + 1/C*x[a,c]",
    ),
    "brackets multiply out": (
        "y[a,b] = (x[a,b] + u[b])*(x[a,b] - u[b])",
        "y[a,b] = x[a,b]*x[a,b] - u[b]*u[b]",
    ),
    "a bracket's own index is summed inside": (
        "y[a,b] = (x[a,d]*u[d] + v)*(x[a,c]*u[c] + v)*x[a,b]",
        "y[a,b] = x[a,d]*u[d]*x[a,c]*u[c]*x[a,b] + 2*v*x[a,d]*u[d]*x[a,b] + v*v*x[a,b]",
    ),
    "a shared index of two brackets is summed once": (
        "y[a] = (x[a,d] + u[d])*(x[a,d] - 2*u[d])*v[d]",
        "y[a] = x[a,d]*x[a,d]*v[d] - x[a,d]*u[d]*v[d] - 2*u[d]*u[d]*v[d]",
    ),
    "nested brackets": (
        "y[a,b] = -(x[a,b] - 2*(u[b] - (x[a,b] + v)))",
        "y[a,b] = -x[a,b] + 2*u[b] - 2*x[a,b] - 2*v",
    ),
    "coefficients in brackets": ("y[a,b] = 1/N*(2*x[a,b]/C + N*u[b]/0.5)", "y[a,b] = 2*x[a,b]/N/C + 2*u[b]"),
    "an identity renames": ("y[a,b] = I[a,e]*x[e,c]*I[c,b]", "y[a,b] = x[a,b]"),
    "the trace of an identity is its size": ("y[a,b] = I[e,f]*I[f,e]*x[a,b] + I[e,e]*x[a,b]", "y[a,b] = 2*N*x[a,b]"),
    "an identity in an intermediate": (
        "z[a,e] = I[a,e] - 1/N*I[a,a]*I[e,e]; y[a,b] = z[a,e]*z[e,f]*x[f,b]",
        "y[a,b] = x[a,b] - 1/N*x[e,b]",
    ),
    "an intermediate that is put in twice has indices of its own": (
        "g[c,d] = x[e,c]*x[e,d]; y[a,b] = x[a,c]*g[c,d]*g[d,b]",
        "y[a,b] = x[a,c]*x[e,c]*x[e,d]*x[f,d]*x[f,b]",
    ),
    "an intermediate read on its diagonal": ("z[a,e] = x[a,c]*x[e,c]; y[a] = z[a,a]", "y[a] = x[a,c]*x[a,c]"),
    "a size that is a number": ("where r : 4; y[a,b] = x[a,b]*I[r,r]/8", "y[a,b] = 0.5*x[a,b]"),
}


@pytest.mark.parametrize(("text", "expanded"), COUNTED.values(), ids=COUNTED)
def test_the_text_expands_to(text, expanded):
    spec, by_hand = Spec(f"x[N,C]; where e, f : N; where c, d : C; {text}"), Spec(f"x[N,C]; where d : C; {expanded}")
    assert spec.polynomial() == by_hand.polynomial()
    assert agree(evaluated(spec, {"N": 3, "C": 2}), evaluated(by_hand, {"N": 3, "C": 2}))


def test_factors_and_monomials_stay_in_the_order_of_the_text():
    spec = Spec("x[N,C]; z[a,b] = u[b]*x[a,b]; y[a,b] = w[b,c]*z[a,c]*x[a,b] - v*x[a,b]")
    terms = spec.expansion().terms
    assert [[f.tensor for f in t.factors] for t in terms] == [["w", "u", "x", "x"], ["v", "x"]]
    assert [t.coefficient for t in terms] == [1, -1]


def test_the_output_has_the_first_numbers_one_for_each_atomic_slot():
    expansion = Spec("x[N,C]; where C = G*M; y[a,(g m)] = x[a,c]*w[c,(g m)]").expansion()
    assert [(i.id, i.size) for i in expansion.output] == [(0, "N"), (1, "G"), (2, "M")]
    (term,) = expansion.terms
    assert {i.id for i in term.indices()} == {0, 1, 2, 3, 4}


def test_numbers_are_exact():
    (term,) = Spec("x[N,C]; y[a,b] = 0.1*x[a,b]/3*N/C/C").polynomial().terms
    assert term.coefficient == Fraction(1, 30)
    assert term.powers == (("C", -2), ("N", 1))


@given(specifications())
def test_every_index_of_an_expansion_is_numbered_without_a_gap(spec):
    expansion = spec.expansion()
    for term in expansion.terms:
        ids = {i.id for i in (*expansion.output, *term.all_indices())}
        assert ids == set(range(len(ids)))


def chain(body: str, length: int) -> Spec:
    lines = [f"z{k}[a,b] = {body.replace('z', f'z{k - 1}')}" for k in range(1, length)]
    return Spec("\n".join(["x[N,C]", "z0[a,b] = x[a,b]", *lines, f"y[a,b] = z{length - 1}[a,b]"]))


def brackets(count: int) -> str:
    return "*".join(f"(u{k} + v{k})" for k in range(count))


EXPLODING = {
    "a product of brackets": lambda: Spec(f"x[N,C]; y[a,b] = x[a,b]*{brackets(40)}"),
    "brackets in brackets": lambda: Spec(f"x[N,C]; y[a,b] = x[a,b]*({' + '.join([brackets(11)] * 80)})"),
    "a sum of products of brackets": lambda: Spec(f"x[N,C]; y[a,b] = {' + '.join(['x[a,b]*' + brackets(11)] * 80)}"),
    "a doubling chain of products": lambda: chain("z[a,b]*z[a,b]", 40),
    "a doubling chain of sums": lambda: chain("z[a,b] + z[a,b]", 40),
    "a doubling chain of functions": lambda: chain("relu(z[a,b]*z[a,b])", 40),
    "a doubling chain of functions of sums": lambda: chain("sigmoid(z[a,b] + z[a,b])", 40),
    "a chain of matrix squares": lambda: chain("z[a,d]*w[d,e]*z[a,e]*w[e,b]", 40),
}


@pytest.mark.parametrize("make", EXPLODING.values(), ids=EXPLODING)
def test_an_exploding_text_is_refused_at_once(make):
    spec = make()
    with pytest.raises(BudgetError, match="more than"):
        spec.polynomial()


@pytest.mark.parametrize("name", ["a product of brackets", "brackets in brackets", "a sum of products of brackets"])
def test_the_reference_evaluation_refuses_exploding_brackets_too(name):
    spec = EXPLODING[name]()
    with pytest.raises(BudgetError, match="more than 4096"):
        evaluated(spec, {"N": 1, "C": 1})


def test_the_budget_is_for_what_there_is_and_not_for_depth():
    deep = chain("relu(z[a,b])", 60)
    assert deep.polynomial().degree == 1
    wide = Spec(f"x[N,C]; y[a,b] = x[a,b]*{brackets(9)}")
    assert len(wide.polynomial().terms) == 512


@pytest.mark.parametrize(
    "denominator",
    ["x[a,c]*x[a,c] - x[a,d]*x[a,d]", "x[a,b] - x[a,b]", "exp(x[a,b]) - exp(x[a,b])", "(x[a,b] + 1)*2 - 2*x[a,b] - 2"],
)
def test_a_denominator_whose_terms_cancel_is_refused_with_its_place(denominator: str):
    text = f"x[N,C]; y[a,b] = x[a,b]/({denominator})"
    with pytest.raises(SpecError, match="this denominator is 0") as caught:
        Spec(text)
    assert caught.value.column == text.index("/(") + 2
    assert Spec(f"x[N,C]; y[a,b] = x[a,b]/({denominator} + x[a,b])").degree


def test_a_function_that_occurs_twice_is_written_once():
    text = "x[N,C]; q[a,d] = elu(x[a,c]*wq[c,d]) + 1; k[e,d] = elu(x[e,c]*wk[c,d]) + 1; z[a] = q[a,d]*k[e,d]"
    spec = Spec(f"{text}; y[a,b] = q[a,d]*k[e,d]*x[e,b] / z[a]; where d : D")
    assert str(spec.expanded()).count("= 1/(") == 1
    assert Spec(str(spec.expanded())).polynomial() == spec.polynomial()
