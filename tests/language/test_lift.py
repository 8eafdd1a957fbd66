"""Which indices an argument sums, and what functions as factors become in the core."""

import pytest

from polyattn.errors import SpecError
from polyattn.language import Specification

HEAD = "q[N,D]; k[M,D]; v[M,C]\n"


def core(text: str) -> list[str]:
    return [str(definition) for definition in Specification(HEAD + text).core]


@pytest.mark.parametrize(
    ("text", "definitions"),
    [
        ("p[a,e] = exp(q[a,r]*k[e,r])", ["p[a,e] = exp(q[a,r]*k[e,r])"]),
        (
            "y[a,b] = exp(q[a,r]*k[e,r])*v[e,b]",
            ["exp1[a,e] = exp(q[a,r]*k[e,r])", "y[a,b] = exp1[a,e]*v[e,b]"],
        ),
        # r is in both arguments, so it is the product's.
        (
            "y[a] = exp(q[a,r]*k[e,r])*relu(k[e,r]*q[a,r])",
            [
                "exp1[a,r,e] = exp(q[a,r]*k[e,r])",
                "relu1[e,r,a] = relu(k[e,r]*q[a,r])",
                "y[a] = exp1[a,r,e]*relu1[e,r,a]",
            ],
        ),
        (
            "y[a] = log(q[a,r]*exp(k[e,r]))*v[e,c]",
            ["exp1[e,r] = exp(k[e,r])", "log1[a,e] = log(q[a,r]*exp1[e,r])", "y[a] = log1[a,e]*v[e,c]"],
        ),
        (
            "y[a] = exp(sum[e](k[e,r]*q[a,r]))",
            ["sum1[a] = sum[e](k[e,r]*q[a,r])", "y[a] = exp(sum1[a])"],
        ),
        (
            "y[a,b] = q[a,r]*k[e,r]*v[e,b]/sqrt(q[a,s]*q[a,s])",
            [
                "sqrt1[a] = sqrt(q[a,s]*q[a,s])",
                "over1[a] = reciprocal(sqrt1[a])",
                "y[a,b] = q[a,r]*k[e,r]*v[e,b]*over1[a]",
            ],
        ),
        # An index of a tensor below is the product's: the sum of quotients.
        ("y[a] = q[a,r]/k[e,r]", ["over1[e,r] = reciprocal(k[e,r])", "y[a] = q[a,r]*over1[e,r]"]),
        ("y[a,r] = 1/sqrt(2/D)*q[a,r]/(3*N)", ["y[a,r] = 1/sqrt(2)*sqrt(D)*q[a,r]/3/N"]),
        ("y[a] = 1/(q[a,r]*q[a,r])", ["y[a] = reciprocal(q[a,r]*q[a,r])"]),
        # Texts older than functions as factors: the whole argument is summed.
        ("y[a] = relu(q[a,r])", ["y[a] = relu(q[a,r])"]),
        ("y[a] = mean[r](q[a,r]*q[a,s])", ["y[a] = mean[r](q[a,r]*q[a,s])"]),
    ],
)
def test_the_core_of_a_text(text: str, definitions: list[str]):
    spec = Specification(HEAD + text)
    assert [str(d) for d in spec.core] == definitions
    assert Specification(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("z[a] = exp(q[a,r])", "exp(sum[r](q[a,r]))", "sum[r](exp(q[a,r]))"),
        ("z[a] = 2*relu(q[a,r])", "relu(sum[r](q[a,r]))", "sum[r](relu(q[a,r]))"),
        ("z[a] = 1/(1 + q[a,r])", "1/sum[r](1 + q[a,r])", "sum[r](1/(1 + q[a,r]))"),
        ("z[a] = exp(relu(q[a,r]))", "relu(sum[r](q[a,r]))", "sum[r](relu(q[a,r]))"),
        (
            "z[a] = logsumexp[e](k[e,r]*w[a,e])",
            "logsumexp[e](sum[r](k[e,r]*w[a,e]))",
            "sum[r](logsumexp[e](k[e,r]*w[a,e]))",
        ),
    ],
)
def test_an_argument_that_could_sum_in_two_ways_is_refused_with_both_spellings(text: str, inside: str, outside: str):
    with pytest.raises(SpecError) as caught:
        Specification(HEAD + "where a : N\n" + text)
    assert f"write '{inside}' or '{outside}'" in caught.value.reason
    for spelling in (inside, outside):
        Specification("q[N,D]; k[M,D]; where a : N\nz[a] = " + spelling)


def test_names_of_new_functions_may_still_name_tensors():
    spec = Specification("x[N,C]; exp[a] = x[a,c]*sum[c]; y[a,b] = exp[a]*x[a,b]*exp(x[a,b])")
    assert set(spec.parameters) == {"sum"}
    assert Specification(str(spec)) == spec


def test_typeset_functions_and_fractions():
    spec = Specification("x[N,C]; z[a] = sum[e](exp(x[a,c]*x[e,c])); y[a,b] = silu(x[a,b])*x[a,b]/z[a]")
    assert r"\sum_{e}\left(\exp\left(\sum_{c} x_{a c} x_{e c}\right)\right)" in spec.latex()
    assert r"\frac{\operatorname{SiLU}\left(x_{a b}\right) x_{a b}}{z_{a}}" in spec.latex()
    assert "<mfrac>" in spec.mathml()
