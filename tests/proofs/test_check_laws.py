"""The checker's laws of functions: each condition of a law is looked at, whatever a certificate says."""

import json

import pytest

from proofs import check

INDICES = {"n": "N", "m": "M", "m1": "M"}
SHAPES = {"y": ["N"], "s": ["N", "M"], "c": ["N"], "v": ["M"]}


def refusal(functions: list[str], step: dict, shapes: dict[str, list[str]], left: str = "", **more) -> str:
    """The reason for which a certificate with one step is refused."""
    certificate = {
        "format": "polyattn equality 2",
        "indices": INDICES,
        "shapes": SHAPES | shapes,
        "functions": functions,
        "given": [],
        "left": left or "y[n] = f1[n]",
        "right": "y[n] = c[n]*s[n,m]*v[m1]",
        "steps": [step],
        "results": ["y[n] = c[n]", "y[n] = c[n]"],
        "pairs": [],
        **more,
    }
    with pytest.raises(check.Refused) as found:
        check.check(json.dumps(certificate))
    return str(found.value)


def law(name: str, make: list[str], **more) -> dict:
    return {"law": name, "of": "f1", "make": make, **more}


def content(number: str, factors: list[list[int]], make: list[str], **more) -> dict:
    return law("content", make, number=number, powers={}, factors=factors, **more)


F = {"f1": ["N"]}
E = {"e1": ["N", "M"], "f1": ["N"]}
EXP = "e1[n,m] = exp(s[n,m])"
CASES = {
    "relu keeps a negative factor": (["f1[n] = relu(-2*c[n])"], content("-2", [[]], ["g1"]), F, "may be negative"),
    "relu keeps a factor of any sign": (["f1[n] = relu(c[n]*s[n,m]*v[m])"], content("1", [[0]], ["g1"]), F, "negative"),
    "a root keeps a factor of any sign": (
        ["f1[n] = sqrt(c[n]*s[n,m]*v[m])"], content("1", [[0]], ["g1", "g2"], root=["1", {}]), F, "may be negative"),
    "a square leaves no root of any sign": (
        ["f1[n] = sqrt(c[n]*c[n]*s[n,m]*v[m])"], content("1", [[0, 1]], ["g1", "g2"], root=["1", {}]), F, "negative"),
    "the root of the content": (
        ["f1[n] = sqrt(4*s[n,m]*v[m])"], content("4", [[]], ["g1"], root=["4", {}]), F, "root is another"),
    "a root is not negative": (
        ["f1[n] = sqrt(4*s[n,m]*v[m])"], content("4", [[]], ["g1"], root=["-2", {}]), F, "root is another"),
    "a logarithm keeps a factor of any sign": (
        ["f1[n] = log(c[n]*s[n,m]*v[m])"], content("1", [[0]], ["g1", "g2"], primes=[]), F, "may be negative"),
    "the number under a logarithm": (
        ["f1[n] = log(6*s[n,m]*v[m])"], content("6", [[]], ["g1", "g2"], primes=[[2, 1]]), F, "number is another"),
    "content is at free indices": (
        ["f1[n] = reciprocal(s[n,m]*v[m])"], content("1", [[1]], ["g1", "g2"]), F, "of the content is summed"),
    "content is in each term": (
        ["f1[n] = reciprocal(c[n]*s[n,m] + s[n,m]*v[m])"], content("1", [[0], [1]], ["g1", "g2"]), F, "of each term"),
    "a maximum keeps what depends on its index": (
        [EXP, "f1[n] = max[m](e1[n,m]*s[n,m])"], content("1", [[0]], ["g1"]), E, "of the content is summed"),
    "a summand that depends on the index of a maximum": (
        ["f1[n] = max[m](s[n,m] + v[m])"], law("shift", ["g1"], terms=[1]), F, "depends on what the maximum runs over"),
    "separate sums share no index": (
        ["f1[n] = reciprocal(s[n,m]*v[m])"], law("parts", ["g1", "g2"], parts=[[0], [1]]), F, "summed in two parts"),
    "a root of a product of any signs": (
        ["f1[n] = sqrt(s[n,m]*v[m1])"], law("parts", ["g1", "g2"], parts=[[0], [1]]), F, "part may be negative"),
    "the logarithm of a sum of exponentials": (
        [EXP, "f1[n] = log(e1[n,m])"], law("log exp", []), E, "is no exp"),
    "the logarithm of a multiple of an exponential": (
        ["e1[n] = exp(c[n])", "f1[n] = log(2*e1[n])"], law("log exp", []), {"e1": ["N"]} | F, "not of one function"),
    "a power for each term": (["f1[n] = exp(c[n] + s[n,m])"], law("exp", ["g1"], powers=[1]), F, "no power for each"),
    "no power of 0": (["f1[n] = exp(c[n])"], law("exp", ["g1"], powers=[0]), F, "no power"),
    "another function": (["f1[n] = tanh(c[n])"], law("sigmoid", ["g1", "g2"]), F, "is no sigmoid"),
    "relu of an unknown sign": (["f1[n] = relu(c[n]*c[n] - s[n,m])"], law("sign", []), F, "the sign is unknown"),
    "a name that is taken": (["f1[n] = exp(c[n])"], law("exp", ["c"], powers=[1]), F, "c is not new"),
    "no sine of a sum without a power for each term": (
        ["f1[n] = sin(c[n] + s[n,m])"], law("angles", ["g1", "g2"], powers=[1]), F, "no power for each"),
    "no maximum of a reciprocal of any sign": (
        ["e1[n,m] = reciprocal(s[n,m])", "f1[n] = max[m](e1[n,m])"], law("monotone", ["g1", "g2"], sign=1), E,
        "it may be 0"),
    "no maximum of a function that falls and rises": (
        ["e1[n,m] = cos(s[n,m])", "f1[n] = max[m](e1[n,m])"], law("monotone", ["g1", "g2"], sign=1), E,
        "neither increasing nor decreasing"),
    "a maximum over one index has no parts": (
        ["f1[n] = max[m](s[n,m] + v[m])"], law("parts", ["g1", "g2"], parts=[[0], [1]]), F, "summed in two parts"),
    "a maximum keeps each of its terms": (
        ["f1[n] = max[m](s[n,m] + c[n])"], law("parts", ["g1"], parts=[[0]]), F, "no parts of it"),
    "no bound of any sign": (
        ["e1[n] = relu(c[n])", "f1[n] = relu(c[n] - e1[n])"], law("clip", ["g1", "g2"], term=1), {**F, "e1": ["N"]},
        "the bound may be negative"),
    "no bound of the other sign": (
        ["e1[n] = relu(c[n])", "f1[n] = relu(2 + e1[n])"], law("clip", ["g1"], term=1), {**F, "e1": ["N"]},
        "the bound may be negative"),
    "no relu of another function": (
        ["e1[n] = exp(c[n])", "f1[n] = relu(2 - e1[n])"], law("clip", ["g1", "g2"], term=1), {**F, "e1": ["N"]},
        "no relu of a relu"),
    "no difference of multiples of exponentials": (
        ["e1[n] = exp(c[n])", "f1[n] = relu(2*e1[n] - 1)"], law("compare", ["g1", "g2"]), {**F, "e1": ["N"]},
        "no difference of two"),
    "no difference of another function": (
        ["e1[n] = sin(c[n])", "f1[n] = relu(e1[n] - 1)"], law("compare", ["g1", "g2"]), {**F, "e1": ["N"]},
        "no exponential"),
    "no square of another sum": (
        ["f1[n] = sqrt(c[n]*c[n] + c[n] + 1)"],
        law("root", ["g1"], terms=[["1", {}, [[0, 0]]], ["1", {}, []]]), F, "no square"),
    "no square with a sum in it": (
        ["f1[n] = sqrt(s[n,m]*s[n,m])"], law("root", ["g1"], terms=[["1", {}, [[0, 0]]]]), F, "an index is summed"),
    "no case of another exponential": (
        ["e1[n] = relu(c[n])", "f1[n] = exp(-e1[n])"], law("case", ["g1"], term=0, factors=[0, 1], **{"in": "left"}),
        {**F, "e1": ["N"]}, "no exponential of relu"),
    "the sign of an increasing function": (
        [EXP, "f1[n] = max[m](-e1[n,m])"], law("monotone", ["g1", "g2"], sign=1), E, "of a function"),
    "a maximum of a sum is none of a maximum": (
        [EXP, "f1[n] = max[m](e1[n,m])"], law("merge", ["g1"]), E, "no maximum of a maximum"),
    "the absolute value of a negative number": (
        ["f1[n] = abs(-2*c[n])"], law("content", ["g1"], number="-2", powers={}, factors=[[]]), F, "is negative"),
    "half a logarithm in an exponential": (
        ["e1[n] = log(c[n])", "f1[n] = exp(1/3*e1[n])"], law("exp log/2", ["g1"]), {"e1": ["N"]} | F,
        "not of one function"),
    "slots that matter": (["f1[n] = exp(c[n])"], law("constant", ["g1"]), F, "depends on each index"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_a_law_needs_is_looked_at(name: str):
    functions, step, shapes, reason = CASES[name]
    assert reason in refusal(functions, step, shapes)


def test_a_denominator_does_not_cancel_with_what_is_summed_elsewhere():
    functions, left = [EXP, "f1[n] = reciprocal(e1[n,m])"], "y[n] = e1[n,m]*v[m]*f1[n]"
    step = law("cancel", [], lead=0, term=0, factors=[0, 2], **{"in": "left"})
    assert "not its own here" in refusal(functions, step, E, left)


def test_nothing_follows_from_a_denominator_that_is_0():
    step = law("insert", [], term=0, at=[[0, 0]], **{"in": "left"})
    assert "no denominator" in refusal(["f1[n] = reciprocal(0*c[n])"], step, F, "y[n] = c[n]*f1[n]")
    step = law("cancel", [], lead=0, term=0, factors=[0, 1], **{"in": "left"})
    assert "no denominator" in refusal(["f1[n] = reciprocal(0*c[n])"], step, F, "y[n] = c[n]*f1[n]")


def test_indices_of_what_is_inserted_have_the_size_of_the_slot():
    step = law("insert", [], term=0, at=[[1, 0]], **{"in": "left"})
    assert "another size" in refusal(["f1[n] = reciprocal(c[n])"], step, F, "y[n] = c[n]*v[m]*f1[n]")


def test_a_denominator_that_may_be_0_is_in_the_claim():
    step = law("cancel", [], lead=0, term=0, factors=[0, 1], **{"in": "left"})
    functions, left = ["f1[n] = reciprocal(c[n])"], "y[n] = c[n]*f1[n]"
    assert "outside of other domains" in refusal(functions, step, F, left)
    assert "outside of other domains" not in refusal(functions, step, F, left, where=["f1"])


def test_a_logarithm_that_makes_a_factor_positive_is_in_the_claim():
    functions, shapes = ["f1[n] = log(c[n]*s[n,m]*v[m])", "f2[n] = log(c[n])"], F | {"f2": ["N"]}
    step, left = content("1", [[0]], ["g1", "g2"], primes=[]), "y[n] = f1[n] + f2[n]"
    assert "outside of other domains" in refusal(functions, step, shapes, left)
    assert "outside of other domains" in refusal(functions, step, shapes, left, where=["f1"])
    assert "outside of other domains" not in refusal(functions, step, shapes, left, where=["f1", "f2"])


def test_a_norm_that_may_be_below_its_least_is_in_the_claim():
    functions, shapes = ["f1[n,m] = normalize[m](s[n,m])"], {"f1": ["N", "M"]}
    step = law("normalize", ["g1", "g2"])
    assert "outside of other domains" in refusal(functions, step, shapes, "y[n] = f1[n,m]")
    assert "outside of other domains" not in refusal(functions, step, shapes, "y[n] = f1[n,m]", where=["f1"])


CHOSEN = {
    "the table speaks of all places": (
        ["e1[n,m] = log(b1[n,m])", "f1[n] = logsumexp[m](e1[n,m] + s[n,m])"], law("logsumexp", ["g1", "g2"]),
        "that a condition leaves"),
    "minus infinity is moved by no law": (
        ["e1[n,m] = log(b1[n,m])", "f1[n] = exp(e1[n,m]*v[m])"], law("exp", ["g1"], powers=[1]),
        "logarithm is elsewhere"),
    "twice a condition is no condition": (
        ["e1[n,m] = log(2*b1[n,m])", "f1[n] = logsumexp[m](e1[n,m] + s[n,m])"], law("places", ["g1", "g2"]),
        "of more than a condition"),
    "the negative of minus infinity is not left out": (
        ["e1[n,m] = log(b1[n,m])", "f1[n] = max[m](s[n,m] - e1[n,m])"], law("shift", ["g1"], terms=[0]),
        "logarithm is elsewhere"),
    "a condition stays in a maximum": (
        ["e1[n] = log(b2[n])", "f1[n] = max[m](e1[n] + s[n,m])"], law("shift", ["g1"], terms=[0]),
        "a condition's logarithm stays"),
    "all places are not chosen ones": (["f1[n] = logsumexp[m](s[n,m])"], law("places", ["g1", "g2"]), "all places"),
    "an inverse of what may be 0": (["f1[n] = inverse(c[n]*c[n])"], law("defined", ["g1"]), "may be 0"),
    "an inverse of something else": (
        ["e1[n] = reciprocal(c[n]*c[n])", "f1[n] = inverse(c[n])"],
        law("defined", [], letters=[0], terms=[[0, [0]]], **{"as": "e1"}), "not factor by factor"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHOSEN)
def test_laws_over_chosen_places_leave_minus_infinity_where_it_is(name: str):
    functions, step, reason = CHOSEN[name]
    shapes = F | {"b1": ["N", "M"], "b2": ["N"], "e1": ["N"] if "e1[n] " in functions[0] else ["N", "M"]}
    conditions = {"b1": "[{0}-{1}-W+1<=0]", "b2": "[{0}-W+1<=0]"}
    assert reason in refusal(functions, step, shapes, conditions=conditions)


def test_only_a_condition_that_is_there_twice_is_left_out():
    step = {"twice": [0, 1], "in": "left", "term": 0}
    shapes, conditions = {"b1": ["N", "M"]}, {"b1": "[{0}-{1}-W+1<=0]"}
    assert "not a condition twice" in refusal([], step, shapes, "y[n] = c[n]*c[n]*b1[n,m]", conditions=conditions)
    assert "not a condition twice" in refusal([], step, shapes, "y[n] = b1[n,m]*b1[n,m1]", conditions=conditions)
