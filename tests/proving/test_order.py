"""Causal forms decided at every size: verdicts against loops in plain Python, certificates against the checker."""

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import polyattn as pa
from polyattn.proving.independent import checker
from tests.drawing import share
from tests.ordered import changed, drawn_sum, drawn_tensors, rewritten, text, values

seeds = st.integers(0, 10**6)
X = "x[N,C]; "
BLOCKS = "where N = G*M; y[(h m),b] = x[(g n),b]*"
ATTENTION = "y[a,b] = softmax[e](x[a,r]*x[e,r]{0})*x[e,b]"


def agree(left, right, random, largest=4):
    """Return whether two sums have the same values by their loops at small sizes."""
    for n in range(1, largest + 1):
        tensors = drawn_tensors(random, n)
        if values(left, tensors, n) != values(right, tensors, n):
            return False
    return True


@share(1.0)
@given(seeds)
def test_equal_forms_have_a_certificate(seed):
    random = Random(seed)
    total = drawn_sum(random, most=3)
    other = rewritten(random, total)
    assert agree(total, other, random, 3)
    verdict = pa.prove(text(total), text(other))
    assert verdict.status == "equal", verdict.reason


@share(1.0)
@given(seeds)
def test_no_verdict_contradicts_the_loops(seed):
    random = Random(seed)
    total = drawn_sum(random, most=3, shifts=seed % 2 == 0)
    other = changed(random, rewritten(random, total))
    verdict = pa.prove(text(total), text(other))
    if verdict.status == "equal":
        assert agree(total, other, random)
    elif verdict.status == "different":
        example = verdict.counterexample
        n, tensors = example["sizes"]["N"], {"x": [0] * 9, "u": [0] * 9, "m": [[0] * 9] * 9} | example["tensors"]
        (place,) = example["entry"]
        mine, theirs = (values(side, tensors, n)[place] for side in (total, other))
        assert (str(mine), str(theirs)) == (str(example["left"]), str(example["right"]))
    else:
        assert seed % 2 == 0, verdict.reason  # only conditions with numbers may be left open


EQUAL = [
    ("y[a,b] = x[e,b]*[e <= a]", "y[a,b] = x[e,b]*[e < a] + x[a,b]"),
    ("y[a,b] = 1/N*x[a,b]*[e <= a] + 1/N*x[a,b]*[e > a]", "y[a,b] = x[a,b]"),
    ("y[a,b] = N*x[a,b]", "y[a,b] = x[a,b]*[e < a] + x[a,b] + x[a,b]*[e > a]"),
    ("y[a,b] = x[e,b]*[e <= a]*[a-e < W]", "y[a,b] = x[e,b]*[a-W < e]*[a >= e]"),
    (
        "where N = G*M; y[(h m),b] = x[(g n),b]*[(g n) <= (h m)]",
        "where N = G*M; y[(h m),b] = x[(g n),b]*[g < h]*I[m,m] + x[(g n),b]*[g == h]*[n <= m]",
    ),
    ("where N = G*M; y[(h m),b] = x[(g n),b]*[(g n) < (h m)]", "y[a,b] = x[e,b]*[e < a]"),
    (
        "y[a,b] = softmax[e](x[a,r]*x[e,r] where e <= a)*x[e,b]",
        "y[a,b] = softmax[e](x[a,r]*x[e,r] where a+1 > e)*x[e,b]",
    ),
    ("y[a,b] = sum[e](x[e,b] where e <= a)", "y[a,b] = x[e,b]*[e <= a]"),
]
DIFFERENT = [
    ("y[a,b] = x[e,b]*[e <= a]", "y[a,b] = x[e,b]*[e < a]"),
    ("y[a,b] = x[e,b]*[e <= a]*[a-e < W]", "y[a,b] = x[e,b]*[e <= a]*[a-e <= W]"),
    (
        "where N = G*M; y[(h m),b] = x[(g n),b]*[g <= h]*I[m,m]",
        "where N = G*M; y[(h m),b] = x[(g n),b]*[(g n) <= (h m)]",
    ),
    (ATTENTION.format(" where e <= a"), ATTENTION.format("")),
    ("y[a,b] = x[e,b]*x[f,c]*[e <= f]*[f <= a]", "y[a,b] = x[e,b]*x[f,c]*[e <= a]*[f <= a]"),
]


@pytest.mark.parametrize(("left", "right"), EQUAL)
def test_forms_are_equal_at_every_size(left, right):
    verdict = pa.prove(X + left, X + right)
    assert verdict.status == "equal", verdict.reason


@pytest.mark.parametrize(("left", "right"), DIFFERENT)
def test_forms_differ(left, right):
    assert pa.prove(X + left, X + right).status == "different"


def test_a_mask_may_be_given_as_a_condition():
    assert pa.prove(X + "y[a,b] = m[a,e]*x[e,b]", X + "y[a,b] = x[e,b]*[e <= a]", given="m[a,e] = [e <= a]")


def test_the_checker_refuses_a_certificate_with_another_condition():
    found = pa.prove(X + "y[a,b] = x[e,b]*[e <= a]", X + "y[a,b] = x[e,b]*[e < a] + x[a,b]").certificate
    program = checker()
    program.check(json.dumps(found))
    for old, new in (("<=", "<"), ("[n1<=n]", "[n<=n1]")):
        forged = json.dumps(found).replace(old, new)
        with pytest.raises(program.Refused):
            program.check(forged)


def test_sizes_of_conditions_are_those_of_both_sides():
    window = X + "y[a,b] = x[e,b]*[e <= a]*[a-e < W]"
    assert pa.prove(window + "; where W = S*V", window)
    assert pa.prove(window, window.replace("W", "V"), given="W = V")
    assert pa.prove(window, window.replace("W", "V")).status == "different"
    assert pa.prove(window + "; where W = 2*V", window.replace("W", "2*V"))


def test_forms_that_are_one_without_order_need_no_weak_orders():
    pairs = "y[a,b] = N*x[a,b]*x[e,c]*x[f,c]*x[g,d]*x[h,d]*[e <= a]*[f < e]*[g != h]"
    verdict = pa.prove(X + pairs, X + pairs.replace("[e <= a]*[f < e]", "[e > f]*[a >= e]"))
    assert verdict.status == "equal"
    assert not any("order" in step for step in verdict.certificate["steps"])
