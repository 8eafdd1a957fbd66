"""Functions of symmetric arguments: their slots may change places, and a certificate says so."""

import json
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import polyattn as pa
from proofs import check
from tests.drawing import share
from tests.proofs.mutants import mutant

PAIRWISE = {
    "a product": "x[a,d]*x[e,d]",
    "a sum of a form and its transpose": "x[a,d]*k[d,f]*x[e,f] + x[e,d]*k[d,f]*x[a,f]",
    "functions of its own": "p[a,e]*p[e,a] + p[a,e] + p[e,a]",
    "a symmetric function inside": "relu(x[a,d]*x[e,d])",
    "a difference, squared": "(x[a,d] - x[e,d])*(x[a,d] - x[e,d])",
}
PREFIX = "x[N,C]; p[a,e] = sigmoid(x[a,d]*v[d,f]*x[e,f]); "


def accepted(verdict) -> bool:
    check.check(json.dumps(verdict.certificate))
    return verdict.status == "equal"


@pytest.mark.parametrize("argument", PAIRWISE.values(), ids=PAIRWISE)
@pytest.mark.parametrize("function", ["sigmoid", "relu", "softmax[a,e]"])
def test_a_function_of_a_symmetric_argument_is_symmetric(function, argument):
    inner = "q[a,e] = relu(x[a,d]*x[e,d]); " if argument.startswith("relu") else ""
    argument = "q[a,e]" if inner else argument
    text = f"{PREFIX}{inner}s[a,e] = {function}({argument}); y[a,b] = s[a,e]*x[e,b] + p[a,e]*x[e,b]"
    assert accepted(pa.prove(text, text.replace("= s[a,e]", "= s[e,a]")))


def test_a_maximum_over_something_else_is_symmetric_too():
    text = "x[N,C]; s[a,e] = max[d](x[a,d]*x[e,d]); y[a,b] = s[a,e]*x[e,b]"
    assert accepted(pa.prove(text, text.replace("= s[a,e]", "= s[e,a]")))


def test_reads_in_both_orders_add_up():
    text = "x[N,C]; s[a,e] = sigmoid(x[a,d]*x[e,d]); y[a,b] = "
    assert accepted(pa.prove(text + "s[a,e]*x[e,b] + s[e,a]*x[e,b]", text + "2*s[e,a]*x[e,b]"))


def test_a_given_symmetry_makes_a_function_symmetric():
    text = "x[N,C]; s[a,e] = sigmoid(x[a,d]*m[d,f]*x[e,f]); y[a,b] = s[a,e]*x[e,b]"
    other = text.replace("= s[a,e]", "= s[e,a]")
    assert pa.prove(text, other).status == "different"
    assert accepted(pa.prove(text, other, given="m[d,f] = m[f,d]"))


def test_what_is_symmetric_inside_makes_the_outside_equal():
    text = "x[N,C]; p[a,e] = sigmoid(x[a,d]*x[e,d]); s[a,e] = softmax[e](p[a,e]); y[a,b] = s[a,e]*x[e,b]"
    assert accepted(pa.prove(text, text.replace("(p[a,e])", "(p[e,a])")))


def test_a_softmax_over_one_of_two_slots_is_not_symmetric():
    text = "x[N,C]; s[a,e] = softmax[e](x[a,d]*x[e,d]); y[a,b] = s[a,e]*x[e,b]"
    assert pa.prove(text, text.replace("= s[a,e]", "= s[e,a]")).status == "different"


@share(0.4)
@given(st.permutations("aef"), st.permutations("aef"), st.integers(0, 2**32))
def test_three_slots_are_read_in_any_order_and_mutants_are_refused(one, other, seed):
    assume(one != other)  # or the claim holds for any tensor s
    text = "x[N,C]; s[a,e,f] = relu(x[a,d]*x[e,d]*x[f,d]); y[a,b] = s[%s]*x[e,b]*w[f]"
    verdict = pa.prove(text % ",".join(one), text % ",".join(other))
    assert accepted(verdict)
    claim = [verdict.certificate[name] for name in ("left", "right", "shapes")]
    random = Random(seed)
    for _ in range(20):
        changed = json.loads(json.dumps(mutant(verdict.certificate, random)))
        try:
            check.check(json.dumps(changed))
        except check.Refused:
            continue
        assert [changed[name] for name in ("left", "right", "shapes")] == claim  # another order of independent parts
        assert sorted(changed["functions"]) == sorted(verdict.certificate["functions"])


def test_a_function_is_not_symmetric_because_a_certificate_says_so():
    text = "x[N,C]; s[a,e] = sigmoid(x[a,d]*x[e,d]); y[a,b] = s[a,e]*x[e,b]"
    certificate = pa.prove(text, text.replace("= s[a,e]", "= s[e,a]")).certificate
    text = json.dumps(certificate).replace("x[n1,c]*x[n,c])", "x[n1,c]*u[n,c])")
    wrong = json.loads(text) | {"shapes": certificate["shapes"] | {"u": ["N", "C"]}}
    with pytest.raises(check.Refused, match="is not"):
        check.check(json.dumps(wrong))
