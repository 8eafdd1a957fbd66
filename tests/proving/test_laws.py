"""Functions modulo their laws: equal forms have a certificate, near misses a counterexample, conditions are said."""

import json

import pytest

from polyattn.errors import ProofError
from polyattn.proving import prove, recheck
from proofs import refute
from proofs.check import check
from tests.proofs.test_check import assert_mutants_are_refused

S, X = "s[N,M]; c[N]; ", "x[N,C]; "
EQUAL = {
    "exponential_of_a_sum": (S, "y[a,e] = exp(2*s[a,e] - c[a])", "y[a,e] = exp(s[a,e])*exp(s[a,e])/exp(c[a])"),
    "half_an_exponent": (S, "y[a] = exp(c[a])", "y[a] = exp(1/2*c[a])*exp(1/3*c[a])*exp(1/6*c[a])"),
    "shift": (S, "y[a,e] = softmax[e](s[a,e] + c[a])", "y[a,e] = softmax[e](s[a,e]) + 0*c[a]"),
    "rows": (S, "y[a] = c[a]*sum[e](softmax[e](s[a,e]))", "y[a] = c[a] + 0*s[a,e]"),
    "largest_taken_off": (
        S,
        "m[a] = max[e](s[a,e]); y[a,e] = exp(s[a,e] - m[a])/sum[f](exp(s[a,f] - m[a])) + 0*c[a]",
        "y[a,e] = softmax[e](s[a,e]) + 0*c[a]",
    ),
    "tanh": (S, "y[a] = (exp(c[a]) - exp(-c[a]))/(exp(c[a]) + exp(-c[a])) + 0*s[a,e]", "y[a] = tanh(c[a]) + 0*s[a,e]"),
    "softplus": (S, "y[a] = softplus(c[a]) - softplus(-c[a]) + 0*s[a,e]", "y[a] = c[a] + 0*s[a,e]"),
    "logsumexp": (S, "y[a] = logsumexp[e](s[a,e] + c[a])", "y[a] = logsumexp[e](s[a,e]) + c[a]"),
    "log_softmax": (
        S,
        "y[a,e] = log(softmax[e](s[a,e])) + 0*c[a]",
        "y[a,e] = s[a,e] - log(sum[f](exp(s[a,f]))) + 0*c[a]",
    ),
    "log_of_numbers": (S, "y[a] = log(6*N*exp(c[a])) + 0*s[a,e]", "y[a] = log(2*N) + log(3) + c[a] + 0*s[a,e]"),
    "functions_of_1": (S, "y[a] = log(exp(0*c[a])) + sqrt(exp(0*c[a])) + 0*s[a,e]", "y[a] = 1 + 0*c[a] + 0*s[a,e]"),
    "sigmoid_slope": (X, "y[a,c] = sigmoid(x[a,c])*sigmoid(-x[a,c])", "y[a,c] = sigmoid(x[a,c])*(1 - sigmoid(x[a,c]))"),
    "summed_denominator": (
        "s[N]; t[N]; ",
        "y = sum[a](s[a]/(1 + exp(t[a]))) + sum[a](s[a]*exp(t[a])/(1 + exp(t[a])))",
        "y = sum[a](s[a]) + 0*t[a]",
    ),
    "relu_parts": (X, "y[a,c] = relu(x[a,c]) - relu(-x[a,c])", "y[a,c] = x[a,c]"),
    "relu_of_a_multiple": (S, "y[a] = relu(3*c[a]*exp(c[a]))+0*s[a,e]", "y[a] = 3*exp(c[a])*relu(c[a])+0*s[a,e]"),
    "square_of_abs": (X, "y[a,c] = abs(x[a,c])*abs(x[a,c])", "y[a,c] = x[a,c]*x[a,c]"),
    "maximum": (S, "y[a] = max[e](2*s[a,e] - c[a])", "y[a] = -2*min[e](-s[a,e]) - c[a]"),
    "root_of_a_square": (X, "y[a,c] = sqrt(4*x[a,c]*x[a,c])", "y[a,c] = 2*abs(x[a,c])"),
    "root_of_sizes": (X, "y[a] = sqrt(1/C*x[a,c]*x[a,c])", "y[a] = sqrt(x[a,c]*x[a,c])/sqrt(C)"),
    "root_of_a_binomial_squared": (
        "s[N]; t[N]; ",
        "y[a] = sqrt(s[a]*s[a] - 6*s[a]*t[a] + 9*t[a]*t[a])",
        "y[a] = abs(3*t[a] - s[a])",
    ),
    "root_of_a_positive_square": (
        X,
        "y[a,c] = sqrt(x[a,c]*x[a,c]*(x[a,c]*x[a,c] + 2) + 1)",
        "y[a,c] = x[a,c]*x[a,c] + 1",
    ),
    "relu_of_a_square": (
        "s[N]; t[N]; ",
        "y[a] = relu(s[a]*s[a] + 2*s[a]*t[a] + t[a]*t[a])",
        "y[a] = (s[a]+t[a])*(s[a]+t[a])",
    ),
    "clipped_twice": (X, "y[a,c] = 6 - relu(6 - relu(x[a,c]))", "y[a,c] = relu(x[a,c]) - relu(x[a,c] - 6)"),
    "clipped_thrice": (X, "y[a,c] = relu(6 - relu(6 - relu(x[a,c])))", "y[a,c] = relu(x[a,c]) - relu(x[a,c] - 6)"),
    "clipped_from_above": (X, "y[a,c] = relu(1 - relu(1 - x[a,c]))", "y[a,c] = relu(x[a,c]) - relu(x[a,c] - 1)"),
    "clipped_from_below": (X, "y[a,c] = relu(2*relu(x[a,c]) - 3)", "y[a,c] = relu(2*x[a,c] - 3)"),
    "elu_by_exponentials": (X, "y[a,c] = elu(x[a,c])", "y[a,c] = relu(x[a,c]) - relu(1 - exp(x[a,c]))"),
    "relu_of_tanh": (X, "y[a,c] = relu(tanh(x[a,c]))", "y[a,c] = tanh(relu(x[a,c]))"),
    "even": (X, "y[a,c] = exp(abs(x[a,c])) + exp(-abs(x[a,c]))", "y[a,c] = exp(x[a,c]) + exp(-x[a,c])"),
    "gate_of_a_relu": (X, "y[a,c] = relu(x[a,c])*sigmoid(x[a,c])", "y[a,c] = relu(x[a,c])*sigmoid(relu(x[a,c]))"),
    "maximum_of_sigmoids": (X, "y[a] = max[c](sigmoid(x[a,c]))", "y[a] = sigmoid(max[c](x[a,c]))"),
    "minimum_of_tanh": (X, "y[a] = min[c](tanh(x[a,c]))", "y[a] = tanh(min[c](x[a,c]))"),
    "maximum_over_two": (
        "s[N,M]; t[N,C]; ",
        "y[a] = max[e,c](s[a,e] + 2*t[a,c])",
        "y[a] = max[e](s[a,e]) + 2*max[c](t[a,c])",
    ),
    "tile": (
        "where E = G*M; s[N,E]; v[E,C]; ",
        "l[a,g] = sum[m](exp(s[a,(g m)])); o[a,g,b] = softmax[m](s[a,(g m)])*v[(g m),b]; where g : G; where m : M; "
        "y[a,b] = l[a,g]*o[a,g,b]/sum[h](l[a,h])",
        "y[a,b] = softmax[e](s[a,e])*v[e,b]",
    ),
}
CONDITIONS = {
    "fractions": (
        "s[N]; t[N]; ",
        "y[a] = 1/s[a] + 1/t[a]",
        "y[a] = (s[a] + t[a])/s[a]/t[a]",
        {"s[n] is not 0", "t[n] is not 0"},
    ),
    "logarithm": ("s[N]; ", "y[a] = exp(2*log(s[a]))", "y[a] = s[a]*s[a]", {"s[n] is above 0"}),
    "norm": (
        S,
        "y[a,e] = normalize[e](exp(c[a])*s[a,e])",
        "y[a,e] = normalize[e](s[a,e]) + 0*c[a]",
        {"sum[m](|exp(c[n])*s[n,m]|) is not below 1e-12", "sum[m](|s[n,m]|) is not below 1e-12"},
    ),
    "root": ("s[N]; ", "y[a] = sqrt(s[a])*sqrt(s[a])", "y[a] = s[a]", {"s[n] is not below 0"}),
}
DIFFERENT = {
    "shift_of_places": ("s[N,M]; c[M]; ", "y[a,e] = softmax[e](s[a,e] + c[e])", "y[a,e] = softmax[e](s[a,e]) + 0*c[e]"),
    "columns_are_no_rows": (S, "y[a] = sum[e](softmax[a](s[a,e])) + 0*c[a]", "y[a] = 1 + 0*s[a,e] + 0*c[a]"),
    "negative_multiple": (X, "y[a,c] = relu(-2*x[a,c])", "y[a,c] = -2*relu(x[a,c])"),
    "maximum_of_a_negative_multiple": (S, "y[a] = max[e](-s[a,e]) + 0*c[a]", "y[a] = -max[e](s[a,e]) + 0*c[a]"),
    "root_of_a_square_is_not_it": (X, "y[a,c] = sqrt(x[a,c]*x[a,c])", "y[a,c] = x[a,c]"),
    "clipped_at_a_negative_bound": (
        X, "y[a,c] = relu(-1 - relu(x[a,c]))", "y[a,c] = relu(-1 - x[a,c]) - relu(-x[a,c])"),
    "clipped_from_another_bound": (X, "y[a,c] = relu(relu(x[a,c]) + 1)", "y[a,c] = relu(x[a,c] + 1)"),
    "difference_of_exponentials": (X, "y[a,c] = relu(exp(x[a,c]) - 1)", "y[a,c] = exp(x[a,c]) - 1"),
    "maximum_of_reciprocals": (X, "y[a] = max[c](1/(1 + exp(x[a,c])))", "y[a] = 1/(1 + exp(max[c](x[a,c])))"),
    "maximum_over_one": (
        "s[N,M]; t[N,M]; ", "y[a] = max[e](s[a,e] + t[a,e])", "y[a] = max[e](s[a,e]) + max[e](t[a,e])"),
    "no_binomial_squared": (
        "s[N]; t[N]; ", "y[a] = sqrt(s[a]*s[a] + s[a]*t[a] + t[a]*t[a])", "y[a] = abs(s[a] + t[a])"),
    "sum_of_quotients": ("s[N]; t[N]; ", "y = sum[a](s[a]/exp(t[a]))", "y = sum[a](s[a])/sum[b](exp(t[b]))"),
    "exponential_of_a_product": ("s[N]; t[N]; ", "y[a] = exp(s[a]*t[a])", "y[a] = exp(s[a])*exp(t[a])"),
    "sum_in_an_exponent": (S, "y[a] = exp(sum[e](s[a,e])) + 0*c[a]", "y[a] = sum[e](exp(s[a,e])) + 0*c[a]"),
}  # fmt: skip


@pytest.mark.parametrize("name", EQUAL)
def test_equal_by_laws_with_a_certificate(name: str):
    head, left, right = EQUAL[name]
    verdict = prove(head + left, head + right, effort=0)
    assert verdict.status == "equal", verdict.reason
    assert verdict.where == ()
    check(json.dumps(verdict.certificate))
    assert_mutants_are_refused(verdict.certificate, 0, 25)


@pytest.mark.parametrize("name", CONDITIONS)
def test_what_a_law_needs_is_said(name: str):
    head, left, right, where = CONDITIONS[name]
    verdict = prove(head + left, head + right, effort=0)
    assert verdict.status == "equal", verdict.reason
    assert set(verdict.where) == where
    assert f"wherever {' and '.join(verdict.where)}" in str(verdict)
    assert recheck(verdict.to_json())
    assert not recheck(verdict.to_json().replace('"where": ["', '"where": ["2*'))


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_near_miss_has_a_counterexample(name: str):
    head, left, right = DIFFERENT[name]
    verdict = prove(head + left, head + right)
    assert verdict.status == "different", verdict.reason
    refute.check(verdict.to_json())


def test_a_denominator_that_is_0_by_laws_is_refused():
    with pytest.raises(ProofError, match="denominator is 0 whatever"):
        prove("s[N,M]; y[a] = 1/(1 - sum[e](softmax[e](s[a,e])))", "s[N,M]; y[a] = sum[e](s[a,e])")


def test_what_is_left_of_a_difference_is_said():
    verdict = prove("s[N]; y[a] = relu(s[a])*relu(s[a] - 1)", "s[N]; y[a] = s[a]*relu(s[a] - 1)", effort=200)
    assert verdict.status == "undecided"
    assert "by the laws of functions there is left" in verdict.reason


def test_rows_that_leave_out_every_place_do_not_sum_to_one():
    # The first row has no place before it, and softmax is 0 there.
    left, right = "p[a,e] = softmax[e](s[a,e] where e < a); y[a] = sum[e](p[a,e])", "y[a] = 1 + 0*sum[e](s[a,e])"
    assert prove("s[N,N]; " + left, "s[N,N]; " + right, effort=2000).status != "equal"


def test_laws_hold_beside_conditions():
    head = "x[N,C]; "
    left = "y[a,c] = sum[e](exp(x[a,c] + x[e,c])*[e <= a])"
    verdict = prove(head + left, head + "y[a,c] = exp(x[a,c])*sum[e](exp(x[e,c])*[e <= a])", effort=0)
    assert verdict.status == "equal", verdict.reason


def test_parameters_are_renamed_under_laws():
    left = "y[a,b] = softmax[e](x[a,c]*u[c,d]*x[e,d])*x[e,f]*v[f,b]"
    right = "m[a,e] = exp(x[a,c]*w1[c,d]*x[e,d]); y[a,b] = m[a,e]*x[e,f]*w2[f,b]/sum[g](m[a,g])"
    verdict = prove(X + left, X + right, effort=0)
    assert verdict.renaming == {"u": "w1", "v": "w2"}
    assert recheck(verdict.to_json())


def test_the_logarithm_of_a_number_is_no_mask():
    text = "x[N]; y[a] = x[a]*{}"
    assert prove(text.format("relu(log(3))"), text.format("log(6)")).status == "different"
    assert prove(text.format("log(2)"), text.format("log(4)")).status == "different"
