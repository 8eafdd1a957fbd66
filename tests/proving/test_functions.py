"""Proofs about functions as factors: verdicts, and that the independent checkers accept what they rest on."""

import json

import pytest

from polyattn import prove
from proofs.check import check
from proofs.refute import check as refute

HEAD = "q[N,D]; k[N,D]; v[N,C]\n"
EQUAL = [
    ("y[a,b] = exp(q[a,r]*k[e,r])*v[e,b]", "y[a,b] = v[f,b]*exp(k[f,s]*q[a,s])"),
    ("y[a,b] = 1/sqrt(D)*exp(q[a,r]*k[e,r])*v[e,b]", "y[a,b] = v[f,b]*exp(k[f,s]*q[a,s])*sqrt(D)/D"),
    (
        "where phi : function; y[a,b] = phi(v[a,b])*v[a,c]*v[e,c]",
        "where phi : function; y[a,b] = phi(v[a,b])*v[a,d]*v[f,d]",
    ),
    ("y[a,b] = sum[e](v[e,b]*v[a,b])/(2*N)", "y[a,b] = 0.5*mean[e](v[e,b]*v[a,b])"),
    ("y[a,b] = v[a,b]/sqrt(2)/sqrt(2)", "y[a,b] = 0.5*v[a,b]"),
    ("y[a,b] = v[a,b]/(1 + v[a,c]*v[a,c])", "z[a] = v[a,d]*v[a,d] + 1; y[a,b] = v[a,b]/z[a]"),
]
DIFFERENT = [
    ("y[a,b] = exp(q[a,r]*k[e,r])*v[e,b]", "y[a,b] = v[f,b]*exp(2*k[f,s]*q[a,s])"),
    ("y[a,b] = 1/sqrt(D)*exp(q[a,r]*k[e,r])*v[e,b]", "y[a,b] = v[f,b]*exp(k[f,s]*q[a,s])/D"),
    ("y[a,b] = v[a,b]/sqrt(1/C*v[a,c]*v[a,c] + 1e-6)", "y[a,b] = v[a,b]/sqrt(1/C*v[a,c]*v[a,c] + 1e-5)"),
    ("where phi : function; y[a,b] = phi(v[a,b])", "where phi : function; y[a,b] = 2*phi(v[a,b])"),
    ("y[a,b] = tanh(v[a,b])", "y[a,b] = elu(v[a,b])"),
    ("y[a,b] = sin(v[a,b])", "y[a,b] = cos(v[a,b])"),
    ("y[a,b] = logsumexp[e](q[a,r]*k[e,r])*v[a,b]", "y[a,b] = max[e](q[a,r]*k[e,r])*v[a,b]"),
    ("y[a,b] = min[e](q[a,r]*k[e,r])*v[a,b]", "y[a,b] = max[e](q[a,r]*k[e,r])*v[a,b]"),
    ("y[a,b] = log(v[a,b]*v[a,b] + 1)", "y[a,b] = sqrt(v[a,b]*v[a,b])"),
    ("y[a,b] = v[a,b]/(1 + abs(v[a,b]))", "y[a,b] = v[a,b]/(1 + relu(v[a,b]))"),
    ("y[a,b] = softplus(v[a,b])", "y[a,b] = silu(v[a,b])"),
]


@pytest.mark.parametrize(("left", "right"), EQUAL)
def test_equal_forms_have_a_certificate_that_the_checker_accepts(left: str, right: str):
    verdict = prove(HEAD + left, HEAD + right)
    assert verdict.status == "equal", verdict.reason
    check(json.dumps(verdict.certificate))


@pytest.mark.parametrize(("left", "right"), DIFFERENT)
def test_different_forms_have_a_counterexample_that_the_checker_accepts(left: str, right: str):
    verdict = prove(HEAD + left, HEAD + right)
    assert verdict.status == "different", verdict.reason
    refute(verdict.to_json())


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("y[a,b] = relu(v[a,b])*relu(v[a,b] - 1)", "y[a,b] = v[a,b]*relu(v[a,b] - 1)"),
        ("y[a,b] = step(v[a,b])*v[a,b]", "y[a,b] = relu(v[a,b])"),
    ],
)
def test_equal_functions_of_other_forms_are_never_told_apart(left: str, right: str):
    assert prove(HEAD + left, HEAD + right, effort=2000).status == "undecided"


def test_a_difference_says_what_a_function_of_the_users_own_was():
    verdict = prove(HEAD + DIFFERENT[3][0], HEAD + DIFFERENT[3][1])
    assert "phi(s) = s^3 + 2*s^2 + 3*s + 5" in verdict.reason
