"""A difference with functions is as certain as an equality; the oracle is mpmath with 500 digits."""

import json
from decimal import Decimal
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import polyattn as pa
from polyattn.proving import recheck
from polyattn.proving.evaluation import Point, enclosing, evaluate
from polyattn.proving.interval import Interval, exponential, larger
from proofs import refute

HEAD = "x[N,C]; "
GRAM = "g[d] = x[e,d]*x[e,d]; "
LARGE = ("1", "10000000000000", "1" + "0" * 40)


def equal_pairs(k):
    """Bodies that are equal for a reason that the prover does not know, with a coefficient k > 0."""
    yield f"{GRAM} y[a,b] = softmax[b](x[a,b] + {k}*g[d]*g[d]*g[f])", "y[a,b] = softmax[b](x[a,b])"
    yield f"s[a,b] = softmax[b]({k}*x[a,b]); t[a] = s[a,b]; y[a,b] = t[a]*x[a,b]", "y[a,b] = x[a,b]"
    yield (
        f"s[a,b] = softmax[b](x[a,b]); t[a] = s[a,b]; y[a,b] = {k}*t[a]*x[a,b] - {k}*x[a,b] + x[a,b]",
        "y[a,b] = x[a,b]",
    )
    yield (
        f"s[a,b] = softmax[b](x[a,b]); t[a] = s[a,b]; u[a,b] = {k}*t[a]*x[a,b] - {k}*x[a,b]; y[a,b] = relu(u[a,b])",
        "y[a,b] = 0*x[a,b]",
    )
    yield (
        f"s[a,b] = softmax[b](x[a,b]); t[a] = s[a,b]; u[a,b] = {k}*t[a]*x[a,b] - {k}*x[a,b]; y[a,b] = sigmoid(u[a,b])",
        "y[a,b] = sigmoid(0*x[a,b])",
    )
    yield (
        f"p[a,b] = sigmoid({k}*x[a,b]); q[a,b] = sigmoid(-{k}*x[a,b]); y[a,b] = p[a,b]*x[a,b] + q[a,b]*x[a,b]",
        "y[a,b] = x[a,b]",
    )
    yield (
        f"p[a,b] = sigmoid(x[a,b]); q[a,b] = sigmoid(-x[a,b]); y[a,b] = {k}*p[a,b]*q[a,b]",
        f"p[a,b] = sigmoid(x[a,b]); y[a,b] = {k}*p[a,b] - {k}*p[a,b]*p[a,b]",
    )
    yield f"p[a,b] = relu({k}*x[a,b]); q[a,b] = relu(-{k}*x[a,b]); y[a,b] = p[a,b] - q[a,b]", f"y[a,b] = {k}*x[a,b]"
    yield (
        f"g[a] = {k}*x[a,d]*x[a,d]; m[a] = max[b](x[a,b] + g[a]); y[a,b] = m[a]*x[a,b] - g[a]*x[a,b]",
        "m[a] = max[b](x[a,b]); y[a,b] = m[a]*x[a,b]",
    )
    yield f"s[a,b] = softmax[b]({k}*x[a,b]); y[a,b] = normalize[b](s[a,b])", f"y[a,b] = softmax[b]({k}*x[a,b])"
    yield (
        f"s[a,b] = softmax[b](x[a,b]); y[a,b] = sigmoid({k}*s[a,b])",
        f"{GRAM} s[a,b] = softmax[b](x[a,b] + g[d]*g[f]); y[a,b] = sigmoid({k}*s[a,b])",
    )


@pytest.mark.parametrize("k", LARGE)
def test_equal_functions_are_never_called_different(k):
    for one, other in equal_pairs(k):
        verdict = pa.prove(HEAD + one, HEAD + other, effort=400)
        assert verdict.status != "different", f"{one}\n{other}\n{verdict}"


def test_two_shares_are_sigmoids_of_a_difference():
    verdict = pa.prove("x[N,2]; y[a,b] = softmax[b](9*x[a,b])", "x[N,2]; y[a,b] = sigmoid(18*x[a,b] - 9*x[a,e])")
    assert verdict.status != "different"


def test_the_floor_of_normalize_is_said():
    verdict = pa.prove(
        "x[N,C]; y[a,b] = normalize[b](x[a,b]/1000000000000000)", "x[N,C]; y[a,b] = normalize[b](x[a,b])"
    )
    assert verdict.status == "equal"
    assert all("is not below 1e-12" in said for said in verdict.where)
    assert len(verdict.where) == 2


def forged(one, other, **changes):
    """A counterexample to equal texts, as floats would have it."""
    honest = json.loads(pa.prove(one, other.replace("softmax[b](", "softmax[b](2*")).to_json())
    honest["right"] = str(pa.Spec(other))
    honest["counterexample"] |= changes
    return json.dumps(honest)


def test_a_difference_of_roundings_is_refused_by_both_checkers():
    text = forged(
        f"x[N,C]; {GRAM} y[a,b] = softmax[b](x[a,b] + g[d]*g[d]*g[f])",
        "x[N,C]; y[a,b] = softmax[b](x[a,b])",
        sizes={"N": 1, "C": 2},
        tensors={"x": [[0, 4227]]},
        entry=[0, 0],
        left=0.5,
        right=0,
        values="approximate",
    )
    answer = recheck(text)
    assert not answer
    assert "agree there" in answer.reason
    with pytest.raises(refute.Refused, match=r"the value is|agree"):
        refute.check(text)


def sigmoid(x):
    return 1 / (1 + mpmath.exp(-x))


def softmax(values):
    powers = [mpmath.exp(v) for v in values]
    return [p / mpmath.fsum(powers) for p in powers]


Q = 10**13
F, SUM = "f[a] = softmax[a](5*x[a]); ", "s = f[e]; "
DIFFERENT = [
    ("y[a] = sigmoid(x[a])", "y[a] = sigmoid(2*x[a])", sigmoid, lambda v: sigmoid(2 * v)),
    (f"f[a] = sigmoid(x[a]); y[a] = {Q}*f[a]", f"f[a] = sigmoid(x[a]); y[a] = {Q + 1}*f[a]",
     lambda v: Q * sigmoid(v), lambda v: (Q + 1) * sigmoid(v)),
    ("y[a] = sigmoid(20*x[a])", "y[a] = sigmoid(21*x[a])",
     lambda v: sigmoid(20 * v), lambda v: sigmoid(21 * v)),
    (f"f[a] = sigmoid(x[a]); g[a] = sigmoid(-x[a]); y[a] = {Q}*f[a] + {Q}*g[a] + f[a]",
     f"f[a] = sigmoid(x[a]); g[a] = sigmoid(-x[a]); y[a] = {Q}*f[a] + {Q}*g[a] + g[a]",
     lambda v: Q + sigmoid(v), lambda v: Q + sigmoid(-v)),
]  # fmt: skip
DIFFERENT_SHARES = [
    (f"{F}{SUM}y[a] = {Q}*f[a]*s - {Q}*f[a] + f[a]", "y[a] = softmax[a](4*x[a])",
     lambda x: softmax([5 * v for v in x]), lambda x: softmax([4 * v for v in x])),
    (f"{F}z[a] = sigmoid({Q}*f[a]); y[a] = z[a]*f[a]", f"{F}y[a] = 1/2*f[a]",
     lambda x: [sigmoid(Q * s) * s for s in softmax([5 * v for v in x])],
     lambda x: [s / 2 for s in softmax([5 * v for v in x])]),
    ("y[a] = softmax[a](x[a])", "y[a] = normalize[a](x[a])", softmax,
     lambda x: [v / max(mpmath.fsum(map(abs, x)), mpmath.mpf(10) ** -12) for v in x]),
]  # fmt: skip
DIFFERENT_SHARES += [
    (one, other, lambda x, f=f: [f(v) for v in x], lambda x, g=g: [g(v) for v in x]) for one, other, f, g in DIFFERENT
]


def number(said):
    """A number of a counterexample, and what it may be off."""
    if isinstance(said, int) or "/" in said:
        return mpmath.mpf(Fraction(said).numerator) / Fraction(said).denominator, mpmath.mpf(0)
    return mpmath.mpf(said), mpmath.mpf(10) ** Decimal(said).as_tuple().exponent


@pytest.mark.parametrize(("one", "other", "left", "right"), DIFFERENT_SHARES)
def test_values_are_right_to_their_last_digit_and_all_checkers_accept(one, other, left, right):
    verdict = pa.prove(f"x[N]; {one}", f"x[N]; {other}")
    found = verdict.counterexample
    with mpmath.workdps(500):
        x = [mpmath.mpf(v) for v in found["tensors"]["x"]]
        for side, function in (("left", left), ("right", right)):
            value, off = number(found[side])
            assert abs(function(x)[found["entry"][0]] - value) <= max(off, mpmath.mpf(10) ** -480)
        assert left(x)[found["entry"][0]] != right(x)[found["entry"][0]]
    assert recheck(verdict.to_json())
    refute.check(verdict.to_json())


@pytest.mark.parametrize(
    ("body", "left", "right"),
    [
        ("sigmoid({}*x[a])", 1000, 1001),
        ("sigmoid({}*x[a])", 30000, 30003),
        ("sigmoid({}*x[a])", 1, Fraction(10**20 + 1, 10**20)),
    ],
)
def test_functions_that_floats_cannot_tell_apart_differ_at_enclosed_values(body: str, left: int, right: int | Fraction):
    """sigmoid(1000 x) and sigmoid(1001 x) are 0, 1/2 or 1 in float64 at every whole number."""
    verdict = pa.prove(*(f"x[N]; y[a] = {body.format(k)}" for k in (left, right)))
    assert verdict.status == "different"
    found = verdict.counterexample
    x = Fraction(found["tensors"]["x"][found["entry"][0]])
    with mpmath.workdps(500):
        for side, factor in (("left", left), ("right", right)):
            value, off = number(found[side])
            power = Fraction(factor) * x
            exact = 1 / (1 + mpmath.exp(-mpmath.mpf(power.numerator) / power.denominator))
            assert abs(exact - value) <= off
    assert recheck(verdict.to_json())
    refute.check(verdict.to_json())


def test_what_no_exponential_has_touched_stays_exact():
    verdict = pa.prove("x[N,C]; y[a,b] = softmax[b](0*x[a,b])", "x[N,C]; y[a,b] = softmax[a](0*x[a,b])")
    assert verdict.counterexample["values"] == "exact"
    assert {verdict.counterexample["left"], verdict.counterexample["right"]} == {1, "1/2"}


def test_tensors_that_a_function_defines_are_enclosed_too():
    verdict = pa.prove("x[N]; y[a] = w[a]*x[a]", "x[N]; y[a] = 2*w[a]*x[a]", given="w[a] = sigmoid(x[a])")
    assert recheck(verdict.to_json())
    refute.check(verdict.to_json())
    wrong = json.loads(verdict.to_json())
    wrong["counterexample"]["tensors"]["w"] = ["0.9"]
    assert not recheck(json.dumps(wrong))
    with pytest.raises(refute.Refused, match="not as it is given"):
        refute.check(json.dumps(wrong))


def test_counterexamples_of_earlier_versions_are_accepted():
    verdict = json.loads(pa.prove("x[N]; y[a] = sigmoid(x[a])", "x[N]; y[a] = sigmoid(2*x[a])").to_json())
    verdict["counterexample"] |= {"left": 0.731058579, "right": 0.880797078, "values": "approximate"}
    assert recheck(json.dumps(verdict))
    refute.check(json.dumps(verdict))
    verdict["counterexample"]["left"] = 0.73106
    assert not recheck(json.dumps(verdict))
    with pytest.raises(refute.Refused, match="the value is"):
        refute.check(json.dumps(verdict))


numbers = st.fractions(-50, 50, max_denominator=9) | st.sampled_from(
    [Fraction(10**30), Fraction(-(10**30), 7), Fraction(0)]
)


@given(st.data(), st.sampled_from([5, 30]))
def test_an_interval_encloses_the_value_in_500_digits(data, digits):
    with mpmath.workdps(500):
        start = data.draw(numbers)
        found, value = start, mpmath.mpf(start.numerator) / start.denominator
        for step in data.draw(st.lists(st.sampled_from(["+", "*", "-", "/", "exp", "max", "abs"]), max_size=8)):
            other = data.draw(numbers)
            exact = mpmath.mpf(other.numerator) / other.denominator
            if step == "exp":
                if abs(value) < 10**6:
                    found, value = exponential(found, digits), mpmath.exp(value)
            elif step == "/":
                if other:
                    found, value = found / other, value / exact
            elif step == "abs":
                found, value = abs(found), abs(value)
            elif step == "max":
                found, value = larger(found, other), max(value, exact)
            else:
                operation = {"+": lambda a, b: a + b, "-": lambda a, b: b - a, "*": lambda a, b: a * b}[step]
                found, value = operation(found, other), operation(value, exact)
        low, high = (found.low, found.high) if isinstance(found, Interval) else (found, found)
        bounds = [
            mpmath.mpf(b.numerator) / b.denominator if isinstance(b, Fraction) else mpmath.mpf(str(b))
            for b in (low, high)
        ]
        slack = abs(value) * mpmath.mpf(10) ** -400 + mpmath.mpf(10) ** -400
        assert bounds[0] - slack <= value <= bounds[1] + slack


@given(st.lists(st.integers(-(10**4), 10**4), min_size=1, max_size=4), st.sampled_from(["softmax[a]", "sigmoid"]))
def test_functions_enclose_their_values_in_500_digits(x, function):
    expansion = pa.Spec(f"x[N]; y[a] = {function}(x[a]/7)").expansion()
    point = Point({"N": len(x)}, {"x": np.array(x, dtype=object)})
    enclosed = evaluate(expansion.terms, expansion.output, point, enclosing(20))
    with mpmath.workdps(500):
        seventh = [mpmath.mpf(v) / 7 for v in x]
        values = softmax(seventh) if "softmax" in function else [sigmoid(v) for v in seventh]
        for value, interval in zip(values, enclosed, strict=True):
            low, high = (
                mpmath.mpf(str(b)) for b in (Interval.around(interval, 40).low, Interval.around(interval, 40).high)
            )
            assert low <= value <= high


SERIES = {
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "normal_cdf": mpmath.ncdf,
    "normal_pdf": mpmath.npdf,
    "sqrt": mpmath.sqrt,
    "log": mpmath.log,
}


@given(
    st.fractions(Fraction(1, 1000), 9, max_denominator=1000),
    st.sampled_from(sorted(SERIES)),
    st.sampled_from([10, 30, 100]),
)
def test_series_enclose_their_values_at_any_number_of_digits(x, function, digits):
    expansion = pa.Spec(f"x[N]; y[a] = {function}(x[a])").expansion()
    point = Point({"N": 1}, {"x": np.array([x], dtype=object)})
    (found,) = evaluate(expansion.terms, expansion.output, point, enclosing(digits))
    interval = Interval.around(found, 400)
    with mpmath.workdps(500):
        value = SERIES[function](mpmath.mpf(x.numerator) / x.denominator)
        assert mpmath.mpf(str(interval.low)) <= value <= mpmath.mpf(str(interval.high))
